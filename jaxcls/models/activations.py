"""Activation capture: the module calls of a Flax NNX model and their outputs, in order."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx

PyTree = Any


@dataclasses.dataclass
class ModuleCall:
    """One call of a module.

    Attributes:
      path: path of the module within the outermost one, which itself has the path ".".
      module: the module.
      outputs: arrays or tracers; None until the call returns.
      order: number of calls that returned before this one.
    """

    path: str
    module: nnx.Module
    outputs: PyTree = None
    order: int = -1

    @property
    def class_name(self) -> str:
        return type(self.module).__name__


@contextlib.contextmanager
def capture_activations() -> Iterator[list[ModuleCall]]:
    """Yields a list to which every call of a Flax module inside the context is appended when it starts.

    Flax has no hook for this, so the classes are patched for a while, as in ``nnx.tabulate``.

    >>> import numpy as np
    >>> with capture_activations() as calls:
    ...     outputs = nnx.Linear(2, 3, rngs=nnx.Rngs(0))(np.ones((1, 2)))
    >>> calls[0].class_name, calls[0].outputs.shape
    ('Linear', (1, 3))
    """
    calls: list[ModuleCall] = []
    paths: dict[int, str] = {}
    returned = 0

    def patched(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            nonlocal returned
            is_outermost = not paths
            if is_outermost:
                paths.update({id(node): ".".join(map(str, path)) for path, node in nnx.iter_graph(self)})
            call = ModuleCall(paths.get(id(self)) or ".", self)
            calls.append(call)
            call.outputs = original(self, *args, **kwargs)
            call.order, returned = returned, returned + 1
            if is_outermost:
                paths.clear()
            return call.outputs

        return wrapper

    originals = {cls: cls.__dict__["__call__"] for cls in _subclasses(nnx.Module) if "__call__" in cls.__dict__}
    try:
        for cls, original in originals.items():
            cls.__call__ = patched(original)
        yield calls
    finally:
        for cls, original in originals.items():
            cls.__call__ = original


def _subclasses(base: Any) -> Iterator[Any]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)
