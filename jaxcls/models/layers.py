"""Layers that the networks share: those of Flax NNX, with the same variables, on the operations of jaxcls.kernels."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcls import kernels
from jaxcls.models.model import Model

# He et al. 2015, arXiv 1502.01852, for layers followed by a ReLU.
he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

# The logits of fewer classes are small.
_MANY_CLASSES = 4_096


class Linear(nnx.Linear):
    """``flax.nnx.Linear`` by :func:`jaxcls.kernels.linear`, with the same variables and results.

    >>> Linear(3, 2, rngs=nnx.Rngs(0))(jnp.ones((4, 3))).shape
    (4, 2)
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        bias = None if self.bias is None else self.bias[...]
        return kernels.linear(x, self.kernel[...], bias, dtype=self.dtype)


class Product(NamedTuple):
    """Logits as the factors of ``features @ kernel + bias``, of which a loss computes some rows at a time.

    >>> Product(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(4)).dense().shape
    (2, 4)
    """

    features: jax.Array
    kernel: jax.Array
    bias: jax.Array

    def dense(self) -> jax.Array:
        """Returns the logits."""
        return kernels.linear(self.features, self.kernel, self.bias)


def dense(outputs: Any) -> Any:
    """Returns the outputs of a model with logits in place of each :class:`Product`."""
    is_product = lambda node: isinstance(node, Product)  # noqa: E731
    return jax.tree.map(lambda node: node.dense() if is_product(node) else node, outputs, is_leaf=is_product)


class Classifier(Linear):
    """A last layer for very many classes: in training mode it returns its logits as a :class:`Product`.

    The logits of a batch, and what the gradient of a loss saves of them, would take more memory than the rest of a
    model: 1.6 GB of 1,024 examples and 100,000 classes.

    >>> layer = Classifier(3, 100_000, rngs=nnx.Rngs(0))
    >>> layer.eval(), layer(jnp.ones((2, 3))).shape
    (None, (2, 100000))
    """

    deterministic = False

    def __call__(self, x: jax.Array) -> Any:  # type: ignore[override]
        if self.deterministic:
            return super().__call__(x)
        assert self.bias is not None
        return Product(x.astype(self.dtype or x.dtype), self.kernel[...], self.bias[...])


def head(features: int, num_classes: int, *, rngs: nnx.Rngs, layer: Callable[..., nnx.Module] = Linear) -> Any:
    """Returns the last layer of a network: of very many classes a :class:`Classifier`."""
    return (Classifier if num_classes > _MANY_CLASSES else layer)(features, num_classes, rngs=rngs)


class Conv(nnx.Conv):
    """``flax.nnx.Conv`` of images (N, H, W, C), with the same variables and results.

    ``padding`` is "SAME" or, as in PyTorch, the number of pixels on each side.

    >>> layer = Conv(3, 8, strides=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 9, 9, 3))).shape
    (2, 5, 5, 8)
    """

    def __init__(
        self, in_features: int, out_features: int, *, kernel_size: Sequence[int] = (3, 3), strides: int = 1,
        padding: int | str = "SAME", groups: int = 1, use_bias: bool = True, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        super().__init__(
            in_features, out_features, kernel_size, strides, padding=padding, feature_group_count=groups,
            use_bias=use_bias, kernel_init=he_normal, conv_general_dilated=kernels.conv, dtype=dtype, rngs=rngs,
        )  # fmt: skip

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        y = self._convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        # Flax adds the bias by broadcasting. The gradient of the broadcast is a sum that takes as long as a convolution
        # in XLA's CPU backend.
        return y if self.bias is None else kernels.add_bias(y, self.bias[...].astype(self.dtype))

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        assert isinstance(self.strides, int)
        assert isinstance(self.padding, (int, str))
        padding = self.padding if isinstance(self.padding, str) else [(self.padding, self.padding)] * 2
        return kernels.conv(
            x, kernel, (self.strides, self.strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.feature_group_count,
        )  # fmt: skip


class PooledConv(Conv):
    """A padded 3 x 3 convolution and 2 x 2 max pooling, by :func:`jaxcls.kernels.pooled_convolution`.

    The bias is added after pooling. Apply a ReLU to the result: neither changes the value, since both are monotonic,
    and both have a quarter of the elements to process.

    >>> layer = PooledConv(1, 4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 8, 8, 1))).shape
    (2, 4, 4, 4)
    """

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return kernels.pooled_convolution(x, kernel)


class BatchNorm(nnx.BatchNorm):
    """``flax.nnx.BatchNorm`` of images (N, H, W, C) by :func:`jaxcls.kernels.batch_norm`: same variables, same results.

    The default momentum lets the running statistics settle within a few hundred steps, so that short runs evaluate
    well.

    >>> layer = BatchNorm(3, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 4, 4, 3))).shape
    (2, 4, 4, 3)
    """

    def __init__(
        self, features: int, *, momentum: float = 0.9, epsilon: float = 1e-5, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        super().__init__(features, momentum=momentum, epsilon=epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.use_running_average:
            return super().__call__(x)
        assert self.scale is not None
        assert self.bias is not None
        y, mean, variance = kernels.batch_norm(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance
        return y


class Dropout(nnx.Dropout):
    """``flax.nnx.Dropout`` by :func:`jaxcls.kernels.dropout`, which draws fewer random bits.

    >>> Dropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 3))).shape
    (2, 3)
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        return x if self.deterministic or not self.rate else kernels.dropout(self.rngs(), x, self.rate)


class DropoutRate(nnx.Variable[Any]):
    """The rate of a dropout layer, as part of the model state."""


def with_variable_rates(build: Callable[[nnx.Rngs], nnx.Module]) -> Callable[[nnx.Rngs], nnx.Module]:
    """Builds the same module with the rates of its dropout layers in its state, so that one program serves all rates.

    >>> build = with_variable_rates(lambda rngs: nnx.Sequential(nnx.Dropout(0.5, rngs=rngs)))
    >>> float(build(nnx.Rngs(0)).layers[0].dropout_rate[...])
    0.5
    """

    def build_with_rates(rngs: nnx.Rngs) -> nnx.Module:
        module = build(rngs)
        for _, layer in [*nnx.iter_graph(module)]:
            if isinstance(layer, nnx.Dropout) and layer.rate:
                rate: Any = layer
                # A constant for :func:`jaxcls.training.steps.initial_constants`.
                rate.dropout_rate = DropoutRate(np.asarray(layer.rate, np.float32))
                rate.__class__ = _variable_rate_class(type(layer))
        return module

    return build_with_rates


def are_rates(model: Model) -> list[bool]:
    """Returns which leaves of a model's initial variables are the rates of :func:`with_variable_rates`."""
    leaves = jax.tree.leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))
    return [path[-1] == jax.tree_util.DictKey("dropout_rate") for path, _ in leaves]


# Cached, since equal modules must have equal graphs.
@functools.cache
def _variable_rate_class(cls: type[Any]) -> type[Any]:
    def call(self: Any, x: jax.Array) -> jax.Array:
        if self.deterministic:
            return x
        rate = self.dropout_rate[...]
        if issubclass(cls, Dropout):
            return kernels.dropout(self.rngs(), x, rate)
        keep = 1 - rate
        return jnp.where(jax.random.bernoulli(self.rngs(), keep, x.shape), x / keep.astype(x.dtype), 0)

    return type(cls.__name__, (cls,), {"__call__": call})


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415).

    By erf, as in PyTorch, which takes less time on a CPU than erfc in ``jax.nn.gelu``.

    >>> round(float(gelu(jnp.ones(()))), 4)
    0.8413
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))
