"""Why a model answers as it does: how much each input contributes to an output.

- Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365): of arrays, such as pixels; the contributions add up
  to the difference of the output from that of a baseline.
- Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): where in an image the last convolution saw what counts.
- Shapley values (Lundberg and Lee 2017, arXiv 1705.07874): of a few features, such as the columns of a table; they add
  up to the difference from the mean output of other examples.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.activations import capture_activations, changed_outputs
from jaxcls.models.text import NGramClassifier

PyTree = Any
_STEPS, _MOST_STEPS = 32, 512
# Coalitions of this many features are all computed.
_MOST_EXACT = 6


def integrated_gradients(
    function: Callable[[jax.Array], jax.Array], inputs: jax.Array, baseline: jax.Array, *, tolerance: float = 0.01
) -> np.ndarray:
    """Returns the contribution of each value of the inputs to the outputs.

    Gradients are averaged over the straight line from the baseline, at 32 points or as many more, up to 512, as it
    takes until the contributions add up to the difference of the outputs.

    Args:
      function: (N, ...) -> (N,).
      inputs: floats, (N, ...).
      baseline: what counts as no information, of the same shape.
      tolerance: how far the sum may be from the difference, as a share of it.

    Returns:
      float32, of the same shape.

    >>> x = jnp.array([[1.0, 2.0, 3.0]])
    >>> integrated_gradients(lambda x: (x[:, :2] ** 2).sum(axis=1), x, jnp.zeros_like(x)).round(3).tolist()
    [[1.0, 4.0, 0.0]]
    """
    difference = inputs - baseline

    @jax.jit
    def summed_gradients(first: jax.Array, step: jax.Array) -> jax.Array:
        def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            point = baseline + (first + number * step) * difference
            return total + jax.grad(lambda x: function(x).sum())(point), None

        return jax.lax.scan(add, jnp.zeros_like(inputs), jnp.arange(_STEPS, dtype=jnp.float32))[0]

    expected = np.asarray(jax.jit(function)(inputs) - jax.jit(function)(baseline))
    axes = tuple(range(1, inputs.ndim))
    steps = _STEPS
    while True:
        step = 1 / steps
        # The midpoint rule, _STEPS points at a time.
        parts = [summed_gradients((start + 0.5) * step, step) for start in range(0, steps, _STEPS)]
        contributions: np.ndarray = np.asarray(difference) * np.sum([np.asarray(part) for part in parts], axis=0) * step
        error = np.abs(contributions.sum(axis=axes) - expected)
        if steps == _MOST_STEPS or (error <= tolerance * np.abs(expected)).all():
            return contributions
        steps *= 2


def grad_cam(function: Callable[[PyTree], jax.Array], inputs: PyTree) -> np.ndarray:
    """Returns where in each image what increases the output is, float32 (N, height, width) from 0 to 1.

    Height and width are those of the last feature map of the model.

    Args:
      function: applies Flax modules to a batch of inputs; returns (N,).
      inputs: a batch of images.

    Raises:
      InputError: the model has no feature map of more than one pixel.
    """
    with capture_activations() as calls:
        jax.eval_shape(function, inputs)
    maps = [call for call in calls if getattr(call.outputs, "ndim", 0) == 4 and min(call.outputs.shape[1:3]) > 1]
    if not maps:
        raise InputError("the model has no feature map that Grad-CAM could show; use integrated gradients.")
    last = max(maps, key=lambda call: call.order)

    def with_offset(offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = []

        def change(order: int, module: nnx.Module, arguments: tuple[Any, ...], outputs: PyTree) -> PyTree:
            if order != last.order:
                return outputs
            features.append(outputs)
            return outputs + offset

        with changed_outputs(change):
            output = function(inputs).sum()
        return output, features[0]

    offset = jnp.zeros(last.outputs.shape, last.outputs.dtype)
    gradient, features = jax.jit(jax.grad(with_offset, has_aux=True))(offset)
    weight = gradient.mean(axis=(1, 2), keepdims=True)
    seen = np.maximum(np.asarray((features * weight).sum(axis=3), np.float32), 0)
    return seen / np.maximum(seen.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def of_tokens(
    function: Callable[[jax.Array], jax.Array], tokens: jax.Array, targets: np.ndarray, padding: int = 0
) -> np.ndarray:
    """Returns the contribution of each token to a logit of its text, float32 (N, width).

    They add up to the difference from the logit without any token. Those of an
    :class:`jaxcls.models.text.NGramClassifier` are exact. In other models, they are integrated gradients of the token
    embeddings, from embeddings of zero.

    Args:
      function: applies Flax modules to a batch of tokens; returns logits, (N, K); of a binary problem, (N, 2), those of
        the negative and the positive class, which are opposite.
      tokens: int32 (N, width).
      targets: the logit of each text, int (N,).
      padding: the token of padding, which contributes nothing.

    Raises:
      InputError: the model embeds no tokens.
    """

    def exact(tokens: jax.Array) -> list[jax.Array]:
        shares = []

        def change(order: int, module: nnx.Module, arguments: tuple[Any, ...], outputs: PyTree) -> PyTree:
            if isinstance(module, NGramClassifier):
                each = module.contributions(*arguments)
                each = jnp.concatenate([-each, each], axis=2) if each.shape[2] == 1 else each
                shares.append(each[jnp.arange(len(tokens)), :, targets])
            return outputs

        with changed_outputs(change):
            function(tokens)
        return shares

    if shares := jax.jit(exact)(tokens):
        return np.mean(shares, axis=0)

    def of_scaled(scale: jax.Array) -> jax.Array:
        is_scaled = False

        def change(order: int, module: nnx.Module, arguments: tuple[Any, ...], outputs: PyTree) -> PyTree:
            nonlocal is_scaled
            if isinstance(module, nnx.Embed) and outputs.shape[:-1] == tokens.shape:
                is_scaled = True
                return outputs * scale[..., None].astype(outputs.dtype)
            return outputs

        with changed_outputs(change):
            logits = function(tokens)
        if not is_scaled:
            raise InputError("the model does not embed tokens, so that nothing can be said of each of them.")
        return logits[jnp.arange(len(tokens)), targets]

    present = (tokens != padding).astype(jnp.float32)
    return integrated_gradients(of_scaled, present, jnp.zeros_like(present))


class Shapley(NamedTuple):
    """Shapley values.

    Attributes:
      values: (features, outputs); they add up to the outputs of the example minus ``base``.
      base: the mean outputs of the background, (outputs,).
    """

    values: np.ndarray
    base: np.ndarray


def shapley(
    outputs: Callable[[np.ndarray, np.ndarray], np.ndarray],
    num_features: int,
    num_background: int,
    *,
    permutations: int = 32,
    seed: int = 0,
) -> Shapley:
    """Returns the contribution of each feature of one example to the outputs.

    What a set of features contributes is the change of the mean output when they are replaced in examples of a
    background; a feature has the mean of what it adds to all sets of others. Up to six features, this is computed for
    all sets; else for the sets of random orders of the features, each with its reverse.

    Args:
      outputs: a mask of the features that are from the example, bool (M, features), and the background example that the
        others are from, int (M,) -> outputs (M, K).
      num_features: of an example.
      num_background: of examples to replace features by.
      permutations: number of orders, if there are more than six features; an even number.
      seed: of the orders.

    >>> example, background = np.array([3.0, 5.0]), np.array([[1.0, 1.0], [1.0, 3.0]])
    >>> def product(mask, row):
    ...     return np.where(mask, example, background[row]).prod(axis=1, keepdims=True)
    >>> shapley(product, 2, 2)
    Shapley(values=array([[7.],
           [6.]]), base=array([2.]))
    """
    if num_features <= _MOST_EXACT:
        return _exact(outputs, num_features, num_background)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(num_features) for _ in range(permutations // 2)]
    orders = [order for pair in zip(orders, [order[::-1] for order in orders], strict=True) for order in pair]
    # Each order starts from another example, so that the sum over the features is exact for those that were used.
    rows = np.resize(rng.permutation(num_background), len(orders))
    masks = np.zeros((len(orders), num_features + 1, num_features), bool)
    for mask, order in zip(masks, orders, strict=True):
        for count in range(1, num_features + 1):
            mask[count, order[:count]] = True
    values = outputs(masks.reshape(-1, num_features), np.repeat(rows, num_features + 1))
    values = values.reshape(len(orders), num_features + 1, -1)
    total = np.zeros((num_features, values.shape[-1]))
    for order, gains in zip(orders, np.diff(values, axis=1), strict=True):
        total[order] += gains
    return Shapley(total / len(orders), values[:, 0].mean(axis=0))


def _exact(outputs: Callable[..., np.ndarray], num_features: int, num_background: int) -> Shapley:
    masks = np.array([*itertools.product([False, True], repeat=num_features)]).reshape(-1, num_features)
    rows = np.tile(np.arange(num_background), len(masks))
    means = outputs(np.repeat(masks, num_background, axis=0), rows).reshape(len(masks), num_background, -1).mean(axis=1)
    sizes, number = masks.sum(axis=1), masks @ (1 << np.arange(num_features)[::-1])
    by_number = means[np.argsort(number)]
    values = np.zeros((num_features, means.shape[1]))
    for feature in range(num_features):
        without = ~masks[:, feature]
        count = sizes[without]
        weight = np.array([math.factorial(n) * math.factorial(num_features - n - 1) for n in count])
        gains = by_number[number[without] + (1 << (num_features - 1 - feature))] - by_number[number[without]]
        values[feature] = (weight[:, None] * gains).sum(axis=0) / math.factorial(num_features)
    return Shapley(values, by_number[0])
