"""Toxic comments (Kaggle 2018, Jigsaw): six labels of 160,000 comments on Wikipedia's talk pages.

    python -m jaxcls.train --task toxic_comment
    python -m jaxcls.train --task toxic_comment --data-dir FOLDER    # with Kaggle's four CSV files, unpacked

Pitfalls: over half of the test rows are not scored; their labels are -1, and they are left out. test.csv and
test_labels.csv are joined by id, not by row. An id such as 0000e12345678901 is not a number. TFDS has other names for
three labels. The columns of a submission are in the order of LABELS. The labels are rare (threat 0.3%), and the score
is the unweighted mean of their ROC AUC; accuracy says nothing.
"""

import dataclasses
import functools

from jaxcls.data.datasets import kaggle_tables
from jaxcls.models import text
from jaxcls.tasks import texts
from jaxcls.tasks.task import Preset, Task

# The learning rate is large because texts are vectors of length 1 and the loss is the mean of six labels.
DEFAULT = dataclasses.replace(
    texts.SETTINGS,
    epochs=16,
    batch_size=128,
    learning_rate=80.0,
    max_length=256,
    vocabulary_size=8000,
    validation_fraction=0.05,
)

TASK = Task(
    name="toxic_comment",
    summary="six kinds of toxic comments, of which one comment may be several",
    problem="multilabel",
    load=lambda settings: kaggle_tables.load_toxic_comment(settings.source, settings.data_dir),
    read=lambda path, *_: kaggle_tables.read_unlabeled_toxic_comment(path),
    fit_preprocessor=texts.fit_preprocessor,
    models=texts.MODELS | {"ngrams": functools.partial(text.NGramClassifier, orders=2)},
    pretrained="texts",
    presets={"default": Preset(DEFAULT)},
    metrics=["roc_auc", "average_precision"],
    specialize=texts.specialize,
)
