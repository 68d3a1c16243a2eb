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

    Shapes, other options and errors are those of `sigmoid_cross_entropy`. A soft or smoothed label y has, as in Keras
    and Optax, its cross-entropy times (1 - p)^gamma with p = y sigmoid(x) + (1 - y) sigmoid(-x).

    Args:
      gamma: at least 0; at 0 the loss is cross-entropy.
      alpha: in [0, 1], the weight of positive labels; negative ones have 1 - alpha, a soft label y has
        y alpha + (1 - y) (1 - alpha). By default none is weighted. RetinaNet sets gamma=2, alpha=0.25 and
        normalizer="positives".

    Source: Lin et al. 2017, arXiv:1708.02002.

    >>> print(sigmoid_focal(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [0.1733 1.6501]
    """
    shared.require_at_least_zero(gamma=gamma)
    if alpha is not None and shared.is_known(alpha):
        require(0 <= alpha <= 1, f"alpha is {alpha}; it must lie in [0, 1].")

    def focus(x: jax.Array, y: jax.Array) -> jax.Array:
        # The power is taken in log space: (1 - p)**gamma has an infinite slope where 1 - p underflows and gamma < 1.
        x, y = _finite(x), jnp.clip(y, 0, 1)
        log_not_p = jnp.logaddexp(jnp.log(y) + jax.nn.log_sigmoid(-x), jnp.log1p(-y) + jax.nn.log_sigmoid(x))
        return jnp.exp(gamma * log_not_p)

    return _sigmoid_loss(_cross_entropy, logits, labels, options, focus=focus, alpha=alpha)


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
    shared.require_at_least_zero(gamma_negative=gamma_negative, gamma_positive=gamma_positive)
    require(not shared.is_known(clip) or 0 <= clip < 1, f"clip is {clip}; it must lie in [0, 1).")

    def negative(z: jax.Array) -> jax.Array:
        # At clip 0 the shifted form would take the logarithm of a probability that underflows.
        shifted = _shifted_focal(z, gamma_negative, jnp.where(clip == 0, 0.5, clip))
        return jnp.where(clip == 0, _focal(z, gamma_negative), shifted)

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


def _focal(z: jax.Array, gamma: ArrayLike) -> jax.Array:
    return jnp.exp(gamma * jax.nn.log_sigmoid(-_finite(z))) * jax.nn.softplus(-z)


def _finite(logits: jax.Array) -> jax.Array:
    """Beyond 1e4 a focusing factor is 0 or 1, but its derivative at infinity would be NaN."""
    return jnp.clip(logits, -1e4, 1e4)


def _shifted_focal(z: jax.Array, gamma: ArrayLike, clip: ArrayLike) -> jax.Array:
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
    focus: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    alpha: ArrayLike | None = None,
) -> jax.Array:
    """focus(x, y) (w1 y positive(x) + w0 (1 - y) negative(-x)), each side a function of its margin.

    By default both sides are the same function, and nothing is focused.
    """
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
    weight0, weight1 = _side_weights(options, x)
    on, off = target * weight1, (1 - target) * weight0
    if alpha is not None:
        balance = target * alpha + (1 - target) * (1 - alpha)
        on, off = on * balance, off * balance

    elements = counted.astype(x.dtype)
    on_x, off_x = (shared.where_counted(weight, x) for weight in (on, off))
    loss = on * positive(on_x) + off * (negative or positive)(-off_x)
    terms = Terms(
        loss=elements * (loss if focus is None else focus(x, target) * loss),
        weight=elements * (on + off),
        elements=elements,
        positives=y,
    )
    if multilabel:
        sums = Terms(*(jnp.sum(term, axis=-1) for term in terms))
        labels_counted = jnp.maximum(sums.elements, 1)
        terms = sums._replace(loss=sums.loss / labels_counted, weight=sums.weight / labels_counted)
    return shared.reduce(terms, options)


def _side_weights(options: SigmoidOptions, x: jax.Array) -> tuple[jax.Array | float, jax.Array | float]:
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
    return negative, positive
