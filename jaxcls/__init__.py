"""jaxcls: a functional training framework for classification in JAX and Flax.

The packages and functions below are imported on first use, so that the command line prints its help without JAX.
"""

from typing import TYPE_CHECKING

from jaxcls._utils.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from jaxcls import checkpoints, data, losses, metrics, models, optimizers, tasks
    from jaxcls.models.activations import describe
    from jaxcls.reports.callbacks import Callback
    from jaxcls.tasks.estimator import JaxClassifier as JaxClassifier
    from jaxcls.tasks.predictor import Predictor, load
    from jaxcls.training.compile import batch, compile
    from jaxcls.training.experiment import Experiment

__version__ = "0.2.0"
__all__ = [
    "Callback", "Experiment", "Predictor", "batch", "checkpoints", "compile", "data", "describe", "load", "losses",
    "metrics", "models", "optimizers", "tasks",
]  # fmt: skip
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "models.activations": ["describe"],
        "reports.callbacks": ["Callback"],
        # Not in __all__, since it needs the extra sklearn.
        "tasks.estimator": ["JaxClassifier"],
        "tasks.predictor": ["Predictor", "load"],
        "training.compile": ["batch", "compile"],
        "training.experiment": ["Experiment"],
    },
    ["checkpoints", "data", "losses", "metrics", "models", "optimizers", "tasks"],
)
