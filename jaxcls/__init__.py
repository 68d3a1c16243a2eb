"""jaxcls: a functional training framework for classification in JAX and Flax.

The rooms are imported by name, each when it is needed: ``from jaxcls import losses``. `compile`, `batch` and `describe`
stand here too.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcls.compilation import batch, compile
    from jaxcls.description import describe

__version__ = "0.1.0"
__all__ = ["batch", "compile", "describe"]

_ROOMS = {"batch": "compilation", "compile": "compilation", "describe": "description"}


def __getattr__(name: str) -> Any:
    # Not at the top: the command lines answer --help without jax.
    if name in _ROOMS:
        return getattr(importlib.import_module(f"jaxcls.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
