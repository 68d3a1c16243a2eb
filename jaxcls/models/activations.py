"""The calls of Flax NNX modules while a model runs or is traced, in order."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from flax import nnx

PyTree = Any


@dataclasses.dataclass
class Call:
    """One call of a module.

    Attributes:
      path: of the module within the outermost one; '.' of that itself.
      module: the module.
      outputs: what it gave, arrays or tracers.
      done: how many calls were done before.
    """

    path: str
    module: nnx.Module
    outputs: PyTree = None
    done: int = -1

    @property
    def kind(self) -> str:
        return type(self.module).__name__


@contextlib.contextmanager
def recorded() -> Iterator[list[Call]]:
    """A list that grows by every call of a Flax module inside, in the order in which they begin.

    Flax has no hook for it; its own `nnx.tabulate` wraps the classes for a while as well.

    >>> import numpy as np
    >>> with recorded() as calls:
    ...     outputs = nnx.Linear(2, 3, rngs=nnx.Rngs(0))(np.ones((1, 2)))
    >>> calls[0].kind, calls[0].outputs.shape
    ('Linear', (1, 3))
    """
    calls: list[Call] = []
    paths: dict[int, str] = {}
    done = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def recording(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            nonlocal done
            outermost = not paths
            if outermost:
                paths.update({id(node): ".".join(map(str, path)) for path, node in nnx.iter_graph(self)})
            made = Call(paths.get(id(self)) or ".", self)
            calls.append(made)
            made.outputs = call(self, *args, **kwargs)
            made.done, done = done, done + 1
            if outermost:
                paths.clear()
            return made.outputs

        return recording

    own = {kind: kind.__dict__["__call__"] for kind in _kinds(nnx.Module) if "__call__" in kind.__dict__}
    try:
        for kind, call in own.items():
            kind.__call__ = wrapped(call)
        yield calls
    finally:
        for kind, call in own.items():
            kind.__call__ = call


def _kinds(base: Any) -> Iterator[Any]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)
