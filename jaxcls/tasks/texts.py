"""What the tasks on texts share: networks, settings, the tokenizer, and the optimizer of each network."""

import functools

import numpy as np

from jaxcls.data.preprocessing import texts
from jaxcls.models import text
from jaxcls.tasks.task import Models, Task, required
from jaxcls.training.settings import Settings

MODELS: Models = {
    "ngrams": functools.partial(text.NGramClassifier, orders=3),
    "cnn": text.TextCNN,
    "transformer": text.Transformer,
}

# For n-grams, whose loss is convex. Steps are proportional to the gradients: Adam's steps, equally long for rare and
# common n-grams, overfit the rare ones.
SETTINGS = Settings(model="ngrams", optimizer="sgd", momentum=0.9)
# The tokens of a small vocabulary are parts of words: n-grams of them are words and their stems, of which few texts
# share more than of pairs of words.
_SMALL, _LARGE = 1200, 8000
_LARGE_CHARACTERS = 1 << 20


def fit_preprocessor(inputs: np.ndarray, settings: Settings) -> texts.TextPreprocessor:
    """Trains a tokenizer on the training texts."""
    size = settings.vocabulary_size
    if size is None:
        is_large = texts.num_characters(inputs, _LARGE_CHARACTERS) >= _LARGE_CHARACTERS
        size = _LARGE if settings.model != "ngrams" or is_large else _SMALL
    return texts.fit(inputs, vocabulary_size=size, max_length=required(settings, "max_length"))


def specialize(task: Task, settings: Settings) -> Task:
    """Returns the task with the optimizer of the chosen model: Adam for networks other than n-grams.

    >>> from jaxcls.tasks import toxic_comment
    >>> task = specialize(toxic_comment.TASK, Settings(model="cnn"))
    >>> task.presets["default"].settings.optimizer
    'adam'
    """
    if settings.model not in task.models or settings.model == "ngrams":
        return task
    epochs = max(10, task.recipe("default").epochs)
    return task.with_settings(optimizer="adam", learning_rate=1e-3, momentum=None, dropout=0.3, epochs=epochs)
