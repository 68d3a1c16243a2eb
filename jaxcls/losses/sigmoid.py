"""Losses of binary and multi-label problems.

For a hard label each is a function of the margin z, which is the logit of a positive label, and minus the logit of a
negative one.
"""

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcls._utils.labels import squeeze_hint
from jaxcls.losses import shared
from jaxcls.losses.shared import SigmoidOptions, Terms, require


def sigmoid_cross_entropy(logits: ArrayLike, labels: ArrayLike, **options: Unpack[SigmoidOptions]) -> jax.Array:
    """Binary cross-entropy of each label, log(1 + exp(-z)).

    Args:
      logits, labels: of one shape, (N,) or (..., L); labels are 0 and 1, or soft in [0, 1].
      options: see `SigmoidOptions`.

    Returns:
      (N,) or (...), float32 or higher; for logits of two or more axes the mean over the labels that count. A scalar if
      a normalizer is set.

    Raises:
      InputError: the shapes differ, the logits are not floats, or an option is out of range.

    >>> print(sigmoid_cross_entropy(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [0.6931 2.1269]
    """
    return _sigmoid_loss(_cross_entropy, logits, labels, options)


def hinge(logits: ArrayLike, labels: ArrayLike, **options: Unpack[SigmoidOptions]) -> jax.Array:
    """Hinge loss of each label, max(0, 1 - z).

    Arguments, shapes and errors are those of `sigmoid_cross_entropy`. Labels are 0 and 1 here too; -1 is out of range
    and gives NaN.

    >>> print(hinge(jnp.array([0.5, 0.5]), jnp.array([1, 0])))
    [0.5 1.5]
    """
    return _sigmoid_loss(_hinge, logits, labels, options)


def squared_hinge(logits: ArrayLike, labels: ArrayLike, **options: Unpack[SigmoidOptions]) -> jax.Array:
    """Squared hinge loss of each label, max(0, 1 - z)²; otherwise as `hinge`.

    >>> print(squared_hinge(jnp.array([0.5, 0.5]), jnp.array([1, 0])))
    [0.25 2.25]
    """
    return _sigmoid_loss(lambda z: jnp.square(_hinge(z)), logits, labels, options)


def sigmoid_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    **options: Unpack[SigmoidOptions],
) -> jax.Array:
    """Focal loss of each label, -(1 - p)^gamma log p, where p = sigmoid(z) is the probability of the true side.

    Shapes, other options and errors are those of `sigmoid_cross_entropy`.

    Args:
      gamma: at least 0; at 0 the loss is cross-entropy.
      alpha: in [0, 1], the weight of positive labels; negative ones have 1 - alpha. By default neither is weighted.
        RetinaNet sets gamma=2, alpha=0.25 and normalizer="positives".

    Source: Lin et al. 2017, arXiv:1708.02002.

    >>> print(sigmoid_focal(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [0.1733 1.6501]
    """
    require(gamma >= 0, f"gamma is {gamma}; it must be at least 0.")
    if alpha is not None:
        require(0 <= alpha <= 1, f"alpha is {alpha}; it must lie in [0, 1].")
    return _sigmoid_loss(lambda z: _focal(z, gamma), logits, labels, options, alpha=alpha)


def asymmetric(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    **options: Unpack[SigmoidOptions],
) -> jax.Array:
    """Asymmetric loss for multi-label problems: focal with a gamma per side, and easy negatives dropped.

    A positive label has -(1 - p)^gamma_positive log p with p = sigmoid(x), a negative one
    -q^gamma_negative log(1 - q) with q = max(p - clip, 0). The gradient flows through the focusing factor, as in the
    paper (the authors' code stops it by default), and labels are averaged (there they are summed).
    Shapes, other options and errors are those of `sigmoid_cross_entropy`.

    Args:
      gamma_negative, gamma_positive: at least 0.
      clip: in [0, 1).

    Source: Ridnik et al. 2021, arXiv:2009.14119.

    >>> print(asymmetric(jnp.array([[-4.0, 2.0]]), jnp.array([[0, 1]])).round(4))
    [0.0076]
    """
    require(gamma_negative >= 0, f"gamma_negative is {gamma_negative}; it must be at least 0.")
    require(gamma_positive >= 0, f"gamma_positive is {gamma_positive}; it must be at least 0.")
    require(0 <= clip < 1, f"clip is {clip}; it must lie in [0, 1).")

    def negative(z: jax.Array) -> jax.Array:
        # At clip 0 the shifted form would take the logarithm of a probability that underflows.
        return _shifted_focal(z, gamma_negative, clip) if clip else _focal(z, gamma_negative)

    return _sigmoid_loss(lambda z: _focal(z, gamma_positive), logits, labels, options, negative=negative)


def sigmoid_poly(
    logits: ArrayLike, labels: ArrayLike, *, epsilon: float = 1.0, **options: Unpack[SigmoidOptions]
) -> jax.Array:
    """Poly-1 loss of each label, -log p + epsilon (1 - p), where p = sigmoid(z) is the probability of the true side.

    Shapes, other options and errors are those of `sigmoid_cross_entropy`.

    Source: Leng et al. 2022, arXiv:2204.12511.

    >>> print(sigmoid_poly(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [1.1931 3.0077]
    """
    return _sigmoid_loss(lambda z: _cross_entropy(z) + epsilon * jax.nn.sigmoid(-z), logits, labels, options)


def _cross_entropy(z: jax.Array) -> jax.Array:
    return jax.nn.softplus(-z)


def _hinge(z: jax.Array) -> jax.Array:
    return jax.nn.relu(1 - z)


def _focal(z: jax.Array, gamma: float) -> jax.Array:
    # The power is taken in log space: (1 - p)**gamma has an infinite slope where 1 - p underflows and gamma < 1.
    return jnp.exp(gamma * jax.nn.log_sigmoid(-z)) * jax.nn.softplus(-z)


def _shifted_focal(z: jax.Array, gamma: float, clip: float) -> jax.Array:
    shifted = jax.nn.sigmoid(-z) - clip
    counted = shifted > 0
    # 1 in place of what is dropped: the branch that the last `where` does not take must have a finite gradient too.
    focus = jnp.exp(gamma * jnp.log(jnp.where(counted, shifted, 1)))
    # sigmoid(z) + clip is 1 - shifted, as a sum of its small terms and so never 0.
    return jnp.where(counted, -focus * jnp.log(jax.nn.sigmoid(z) + clip), 0)


def _sigmoid_loss(
    positive: Callable[[jax.Array], jax.Array],
    logits: ArrayLike,
    labels: ArrayLike,
    options: SigmoidOptions,
    *,
    negative: Callable[[jax.Array], jax.Array] | None = None,
    alpha: float | None = None,
) -> jax.Array:
    """w1 y positive(x) + w0 (1 - y) negative(-x), each side a function of its margin; by default they are the same."""
    label_smoothing = shared.smoothing(options, SigmoidOptions)
    x = shared.as_logits(logits)
    y = jnp.asarray(labels, x.dtype)
    hint = squeeze_hint("labels", y.shape, x.shape) + squeeze_hint("logits", x.shape, y.shape)
    require(y.shape == x.shape, f"logits {x.shape} and labels {y.shape} differ in shape.{hint}")
    multilabel = x.ndim >= 2

    counted = shared.counted_elements(options, y, *([x.shape, x.shape[:-1]] if multilabel else [x.shape]))
    x = jnp.where(counted, x, 0)
    y = shared.nan_outside_unit(jnp.where(counted, y, 0))
    target = y * (1 - label_smoothing) + label_smoothing / 2
    weight0, weight1 = _side_weights(options, x, alpha)
    on, off = target * weight1, (1 - target) * weight0

    elements = counted.astype(x.dtype)
    terms = Terms(
        loss=elements * (on * positive(x) + off * (negative or positive)(-x)),
        weight=elements * (on + off),
        elements=elements,
        positives=y,
    )
    if multilabel:
        sums = Terms(*(jnp.sum(term, axis=-1) for term in terms))
        labels_counted = jnp.maximum(sums.elements, 1)
        terms = sums._replace(loss=sums.loss / labels_counted, weight=sums.weight / labels_counted)
    return shared.reduce(terms, options)


def _side_weights(
    options: SigmoidOptions, x: jax.Array, alpha: float | None
) -> tuple[jax.Array | float, jax.Array | float]:
    """The weights of labels 0 and 1, each a scalar or of the shape of x."""
    negative: jax.Array | float = 1.0
    positive: jax.Array | float = 1.0
    shapes = [(), x.shape[-1:]] if x.ndim >= 2 else [()]
    if options.get("class_weight") is not None:
        meaning = ": the weights of the labels 0 and 1" + (", shared or per label" if x.ndim >= 2 else "")
        pairs = [(*shape, 2) for shape in shapes]
        weight = shared.as_weight("class_weight", options["class_weight"], x, *pairs, meaning=meaning)
        negative, positive = (jnp.broadcast_to(weight[..., label], x.shape) for label in (0, 1))
    if options.get("pos_weight") is not None:
        pos_weight = shared.as_weight("pos_weight", options["pos_weight"], x, *shapes)
        positive = positive * jnp.broadcast_to(pos_weight, x.shape)
    if alpha is not None:
        negative, positive = negative * (1 - alpha), positive * alpha
    return negative, positive
