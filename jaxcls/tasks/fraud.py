"""Credit card fraud (Kaggle's creditcard.csv, Dal Pozzolo et al. 2015): 284,807 payments, of which 0.17 % are fraud.

    python -m jaxcls.train --task fraud
    python -m jaxcls.train --task fraud --data-dir FOLDER    # with Kaggle's creditcard.csv

Pitfalls: fraud and payments change with time, so the last payments are for testing and the last of the others for
validation; with a random split, a model would learn from the future. Duplicate rows are dropped before the split, or a
row could be both in training and in the test. Nothing is resampled, so validation and test keep their class
frequencies: the loss weights the positives instead. Scales come from the training rows, the threshold from the
validation rows. Accuracy says nothing where 99.8 % is reached without ever predicting fraud: the measure is average
precision.
"""

from jaxcls.data import splits
from jaxcls.data.datasets import kaggle_tables
from jaxcls.data.preprocessing import tables
from jaxcls.models import tabular
from jaxcls.tasks.task import Preset, Task, required
from jaxcls.training.settings import Settings

DEFAULT = Settings(
    model="mlp",
    epochs=20,
    batch_size=512,
    dropout=0.3,
    # On generated data it ranks better than plain cross-entropy and focal loss: experiments/imbalance.md.
    loss="weighted_crossentropy",
    pos_weight=10.0,
    learning_rate=4e-3,
    test_fraction=0.2,
    validation_fraction=0.2,
    tune_threshold="f1",
)

TASK = Task(
    name="fraud",
    summary="fraudulent credit card payments, one in 600, in a table of anonymous columns",
    problem="binary",
    load=lambda settings: kaggle_tables.load_fraud(
        settings.source, settings.data_dir, test_fraction=required(settings, "test_fraction")
    ),
    read=lambda path, *_: kaggle_tables.read_unlabeled_fraud(path),
    fit_preprocessor=lambda inputs, settings: tables.fit(inputs),
    models={"mlp": tabular.TabularMLP, "linear": tabular.TabularLinear},
    presets={"default": Preset(DEFAULT)},
    metrics=["average_precision", "recall_at_precision", "roc_auc"],
    split=splits.chronological,
)
