"""The module calls of a model: their outputs in order, a summary made of them, and changes to them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

from jaxcls._utils.text_table import text_table
from jaxcls.kernels import native
from jaxcls.models.model import Model, functional

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

    def wrapper(original: Callable[..., Any], self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
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

    with _patched_calls(wrapper):
        yield calls


@contextlib.contextmanager
def changed_outputs(change: Callable[[int, nnx.Module, tuple[Any, ...], PyTree], PyTree]) -> Iterator[None]:
    """Replaces the outputs of every call of a Flax module inside the context.

    Args:
      change: takes the order of the call, as in :class:`ModuleCall`, the module, its arguments and its outputs, and
        returns the outputs that the caller gets.

    >>> import numpy as np
    >>> with changed_outputs(lambda order, module, arguments, outputs: 2 * outputs):
    ...     doubled = nnx.Linear(2, 3, rngs=nnx.Rngs(0))(np.ones((1, 2)))
    >>> bool((doubled == 2 * nnx.Linear(2, 3, rngs=nnx.Rngs(0))(np.ones((1, 2)))).all())
    True
    """
    returned = 0

    def wrapper(original: Callable[..., Any], self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal returned
        outputs = original(self, *args, **kwargs)
        order, returned = returned, returned + 1
        return change(order, self, args, outputs)

    with _patched_calls(wrapper):
        yield


@contextlib.contextmanager
def _patched_calls(wrapper: Callable[..., Any]) -> Iterator[None]:
    def patched(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args, **kwargs: wrapper(original, self, *args, **kwargs)

    originals = {cls: cls.__dict__["__call__"] for cls in _subclasses(nnx.Module) if "__call__" in cls.__dict__}
    try:
        for cls, original in originals.items():
            cls.__call__ = patched(original)
        yield
    finally:
        for cls, original in originals.items():
            cls.__call__ = original


def _subclasses(base: Any) -> Iterator[Any]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def describe(model: Model | nnx.Module, inputs: PyTree) -> str:
    """Describes the layers of a model as a text table, in the order in which they are called.

    Nothing is computed: the model is traced in evaluation mode.

    Args:
      model: a :class:`jaxcls.models.Model`, or a Flax NNX module.
      inputs: a batch, or :class:`jax.ShapeDtypeStruct` instead, or a tree of either.

    Returns:
      One line per layer with its path, class, output shape and number of parameters, sublayers included. The last line
      has the number of parameters of the model, and the floating-point operations of a forward pass of the batch as
      counted by XLA before optimization, on platforms where it counts them.

    >>> from jaxcls.models import functional
    >>> model = functional(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> print(describe(model, jax.ShapeDtypeStruct((2, 4), "float32")))
    layer  class   output        parameters
    .      Linear  float32[2,3]          15
    <BLANKLINE>
    15 parameters (60 bytes), 54 FLOPs per batch
    """
    if isinstance(model, nnx.Module):
        module = model
        model = functional(lambda rngs: nnx.clone(module))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), inputs)
    weights = jax.eval_shape(model.init, jax.random.key(0))
    # XLA counts no operations of native kernels.
    with native.portable(), capture_activations() as calls:
        lowered = jax.jit(lambda weights, inputs: model.apply(*weights, inputs)[0]).lower(weights, shapes)
    rows = [("layer", "class", "output", "parameters"), *map(_row, calls)]
    leaves = jax.tree.leaves(weights[0])
    size, memory = sum(leaf.size for leaf in leaves), sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    total = f"{size:,} parameters ({memory:,} bytes)"
    flops = (lowered.cost_analysis() or {}).get("flops")
    return f"{text_table(rows, left=3)}\n\n{total}" + ("" if flops is None else f", {flops:,.0f} FLOPs per batch")


def _row(call: ModuleCall) -> tuple[str, str, str, str]:
    outputs = ", ".join(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(call.outputs))
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(call.module, nnx.Param)))
    return call.path, call.class_name, outputs, f"{size:,}"
