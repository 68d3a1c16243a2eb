"""Leaf Classification (Kaggle 2016): 99 species, from 192 numbers of the margin, shape and texture of ten leaves each.

    python -m jaxcls.train --task leaf
    python -m jaxcls.train --task leaf --data-dir FOLDER    # with Kaggle's train.csv

Without FOLDER, the task trains on 1,907 other real leaves: 32 species of Flavia, 49 measurements of a photograph each.

Pitfalls: Kaggle's test.csv has no labels, so test leaves are split from train.csv, two of ten per species; a random
split would miss some species. The shape features are a hundred times smaller than the others, and have no effect unless
they are standardized, by statistics of the training leaves. The score is the log loss, which punishes overconfidence:
Kaggle normalizes each row and clips probabilities, and so does `metrics.log_loss`. The columns of a submission are the
species in sorted order.
"""

import functools

from jaxcls.data.datasets import kaggle_tables
from jaxcls.data.preprocessing import tables
from jaxcls.models import tabular
from jaxcls.tasks.task import Preset, Task, required
from jaxcls.training.settings import Settings

DEFAULT = Settings(
    model="mlp",
    epochs=60,
    batch_size=64,
    dropout=0.3,
    loss="categorical_crossentropy",
    learning_rate=3e-3,
    test_fraction=0.2,
    validation_fraction=0.125,
)

TASK = Task(
    name="leaf",
    summary="species of plants from measurements of a leaf, Kaggle's 99 with ten leaves each",
    problem="multiclass",
    load=lambda settings: kaggle_tables.load_leaf(
        settings.source, settings.data_dir, test_fraction=required(settings, "test_fraction")
    ),
    read=lambda path, _, fitted: kaggle_tables.read_unlabeled_leaf(path, [column.name for column in fitted.numeric]),
    fit_preprocessor=lambda inputs, settings: tables.fit(inputs),
    # With many species of few leaves each, a wide layer separates more of them than a narrow one.
    models={"mlp": functools.partial(tabular.TabularMLP, hidden=(512,)), "linear": tabular.TabularLinear},
    presets={"default": Preset(DEFAULT)},
    metrics=["log_loss", "accuracy"],
)
