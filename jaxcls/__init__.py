"""jaxcls: a functional training framework for classification in JAX and Flax.

The rooms are imported by name, each when it is needed: ``from jaxcls import losses``. `describe` stands here too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcls.description import describe

__version__ = "0.1.0"
__all__ = ["describe"]


def __getattr__(name: str) -> Any:
    # Not at the top: the command lines answer --help without jax.
    if name == "describe":
        from jaxcls.description import describe

        return describe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
