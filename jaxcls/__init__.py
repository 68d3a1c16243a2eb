"""jaxcls: a functional training framework for classification in JAX and Flax.

``jaxcls.losses``, ``jaxcls.metrics``, ``jaxcls.optimizers``, ``jaxcls.models``, ``jaxcls.data``, ``jaxcls.tasks`` and
``jaxcls.checkpoints`` are imported when they are first used, and so are :func:`jaxcls.compile`, :func:`jaxcls.load`,
:func:`jaxcls.batch` and :func:`jaxcls.describe`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcls import checkpoints, data, losses, metrics, models, optimizers, tasks
    from jaxcls.models.describe import describe
    from jaxcls.tasks.predictor import load
    from jaxcls.training.compile import batch, compile

__version__ = "0.2.0"
__all__ = [
    "batch", "checkpoints", "compile", "data", "describe", "load", "losses", "metrics", "models", "optimizers", "tasks",
]  # fmt: skip

_FUNCTIONS = {
    "batch": "jaxcls.training.compile",
    "compile": "jaxcls.training.compile",
    "load": "jaxcls.tasks.predictor",
    "describe": "jaxcls.models.describe",
}


def __getattr__(name: str) -> Any:
    # Lazy, because the command line answers --help without importing jax.
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"jaxcls.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
