"""Sentiment of film reviews: IMDB's 50,000 reviews (Maas et al. 2011), or a sample of sentences of reviews.

    python -m jaxcls.train --task sentiment
    python -m jaxcls.train --task sentiment --data-dir FOLDER    # aclImdb, or with Kaggle's "IMDB Dataset.csv"

Pitfalls: the folder train/unsup holds reviews without a label (TFDS gives them -1), which are not used. Files are
sorted by class on disk, so they must be shuffled; every split and every epoch does. Reviews contain raw HTML line
breaks, which the tokenizer reads as spaces. Kaggle's file has no test split: one is split off, the same for every seed.
The memory of a transformer grows with the square of the length: use --max-length 256 or so.
"""

import dataclasses
import functools

from jaxcls.data.datasets import sentiment
from jaxcls.models import text
from jaxcls.tasks import texts
from jaxcls.tasks.task import Preset, Task, required

DEFAULT = dataclasses.replace(
    texts.SETTINGS,
    epochs=5,
    batch_size=128,
    learning_rate=60.0,
    max_length=1024,
    test_fraction=0.2,
    validation_fraction=0.05,
    # A few short texts are soon learned by heart.
    monitor="loss",
    restore_best=True,
)

TASK = Task(
    name="sentiment",
    summary="film reviews, negative or positive",
    problem="binary",
    load=lambda settings: sentiment.load(
        settings.source, settings.data_dir, test_fraction=required(settings, "test_fraction")
    ),
    read=lambda path, *_: sentiment.read_unlabeled(path),
    fit_preprocessor=texts.fit_preprocessor,
    models=texts.MODELS | {"ngrams": functools.partial(text.NGramClassifier, orders=3, buckets=1 << 20)},
    pretrained="texts",
    presets={"default": Preset(DEFAULT)},
    metrics=["accuracy", "roc_auc"],
    data_settings=("data_dir", "vocabulary_size"),
    specialize=texts.specialize,
)
