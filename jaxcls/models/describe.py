"""A model as text: its layers, their shapes and parameters, and what a forward pass costs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from jaxcls.kernels import native
from jaxcls.models.activations import Call, recorded
from jaxcls.models.functional import Model

PyTree = Any


def describe(model: Model | nnx.Module, inputs: PyTree) -> str:
    """The layers of a model in the order in which they are called, as a table.

    Nothing is computed: the model is traced, as in evaluation.

    Args:
      model: a :class:`jaxcls.models.functional.Model`, or a Flax NNX module.
      inputs: a batch, or :class:`jax.ShapeDtypeStruct` in its place, or a tree of either.

    Returns:
      A line for each layer: its path, its class, the shape of what it gives, and how many parameters are its own or
      those of layers within. Below stand all parameters, and the floating-point operations of a forward pass of the
      batch as XLA counts them, before it optimises; a part of the table that it cannot count is left out.

    >>> from jaxcls.models.functional import functional
    >>> model = functional(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> print(describe(model, jax.ShapeDtypeStruct((2, 4), "float32")))
    layer  kind    output        parameters
    .      Linear  float32[2,3]          15
    <BLANKLINE>
    15 parameters (60 bytes), 54 FLOPs a batch
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), inputs)
    weights, apply = _pure(model)
    # XLA counts no operations of a kernel that it does not know.
    with native.portable(), recorded() as calls:
        lowered = jax.jit(apply).lower(weights, shapes)
    rows = [("layer", "kind", "output", "parameters")]
    rows += [_row(call) for call in calls]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False)), row[3].rjust(widths[3])])
        for row in rows
    ]
    leaves = jax.tree.leaves(weights[0])
    size, memory = sum(leaf.size for leaf in leaves), sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    total = f"{size:,} parameters ({memory:,} bytes)"
    # Some platforms count nothing.
    flops = (lowered.cost_analysis() or {}).get("flops")
    return "\n".join([*lines, "", total if flops is None else f"{total}, {flops:,.0f} FLOPs a batch"])


def _pure(model: Model | nnx.Module) -> tuple[Sequence[PyTree], Callable[[Any, PyTree], PyTree]]:
    """The shapes of the weights, parameters first, and the forward pass as a function of them and of inputs."""
    if isinstance(model, Model):
        weights = jax.eval_shape(model.init, jax.random.key(0))
        return weights, lambda weights, inputs: model.apply(*weights, inputs)[0]
    graph, *weights = nnx.split(nnx.clone(model), nnx.Param, ...)

    def apply(weights: Any, inputs: PyTree) -> PyTree:
        module: Any = nnx.merge(graph, *weights)
        module.eval()
        return module(inputs)

    return weights, apply


def _row(call: Call) -> tuple[str, str, str, str]:
    shown = ", ".join(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(call.outputs))
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(call.module, nnx.Param)))
    return call.path, call.kind, shown, f"{size:,}"
