"""The losses of binary and multi-label problems.

For a hard label each is a function of the margin z, the logit signed by its label.
"""

import functools
from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcls._utils.labels import squeeze_hint
from jaxcls.losses.weighting import (
    SigmoidWeighting,
    Terms,
    as_logits,
    as_weight,
    check_options,
    counted_places,
    nan_outside_unit,
    reduce,
    require,
)


def sigmoid_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    **weighting: Unpack[SigmoidWeighting],
) -> jax.Array:
    """Binary cross-entropy of each label, softplus(-z).

    Takes the shapes of the sigmoid family and ``SigmoidWeighting``. Smoothing s turns a label y into y(1-s)
    + s/2.

    Raises:
      InputError: the shapes differ, the logits are not floats, or an option is out of range.

    >>> print(sigmoid_cross_entropy(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [0.6931 2.1269]
    """
    return _sigmoid_loss(_cross_entropy, _cross_entropy, logits, labels, label_smoothing, weighting)


def hinge(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    **weighting: Unpack[SigmoidWeighting],
) -> jax.Array:
    """Hinge loss of each label, max(0, 1 - z).

    Labels are 0 and 1, as everywhere here; those of the ±1 convention are out of range and give NaN. Takes
    the shapes of the sigmoid family and ``SigmoidWeighting``.

    Raises:
      InputError: the shapes differ, the logits are not floats, or an option is out of range.

    >>> print(hinge(jnp.array([0.5, 0.5]), jnp.array([1, 0])))
    [0.5 1.5]
    """
    return _sigmoid_loss(_hinge, _hinge, logits, labels, label_smoothing, weighting)


def squared_hinge(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    **weighting: Unpack[SigmoidWeighting],
) -> jax.Array:
    """Squared hinge loss of each label, max(0, 1 - z)²; all else as in ``hinge``.

    Raises:
      InputError: the shapes differ, the logits are not floats, or an option is out of range.

    >>> print(squared_hinge(jnp.array([0.5, 0.5]), jnp.array([1, 0])))
    [0.25 2.25]
    """
    return _sigmoid_loss(_squared_hinge, _squared_hinge, logits, labels, label_smoothing, weighting)


def sigmoid_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    label_smoothing: float = 0.0,
    **weighting: Unpack[SigmoidWeighting],
) -> jax.Array:
    """Focal loss of each label, (1 - p)^gamma times cross-entropy, p the probability of the right side.

    ``alpha`` weighs the positive side and 1 - alpha the negative one. It has no default, so gamma 0 is
    cross-entropy; RetinaNet's settings are gamma 2, alpha 0.25, normalizer "positives".
    Takes the shapes of the sigmoid family and ``SigmoidWeighting``.

    Raises:
      InputError: as ``sigmoid_cross_entropy``, or gamma is negative, or alpha is outside [0, 1].

    Source: Lin et al. 2017, arXiv:1708.02002.

    >>> print(sigmoid_focal(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [0.1733 1.6501]
    """
    require(gamma >= 0, f"gamma is {gamma}; it must be at least 0.")
    if alpha is not None:
        require(0 <= alpha <= 1, f"alpha is {alpha}; it must lie in [0, 1].")
    focal = functools.partial(_focal, gamma=gamma)
    return _sigmoid_loss(focal, focal, logits, labels, label_smoothing, weighting, alpha)


def asymmetric(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    label_smoothing: float = 0.0,
    **weighting: Unpack[SigmoidWeighting],
) -> jax.Array:
    """Asymmetric loss for multi-label: focal, with a gamma for each side, and easy negatives dropped.

    The probability p of a negative label is first lowered to max(p - clip, 0). The gradient flows through the
    focusing factor, as in the paper (the authors' code stops it by default), and an example's labels are
    averaged as in all of the sigmoid family (there they are summed). Takes its shapes and
    ``SigmoidWeighting``.

    Raises:
      InputError: as ``sigmoid_cross_entropy``, or a gamma is negative, or clip is outside [0, 1).

    Source: Ridnik et al. 2021, arXiv:2009.14119.

    >>> print(asymmetric(jnp.array([[-4.0, 2.0]]), jnp.array([[0, 1]])).round(4))
    [0.0076]
    """
    require(gamma_negative >= 0, f"gamma_negative is {gamma_negative}; it must be at least 0.")
    require(gamma_positive >= 0, f"gamma_positive is {gamma_positive}; it must be at least 0.")
    require(0 <= clip < 1, f"clip is {clip}; it must lie in [0, 1).")
    positive = functools.partial(_focal, gamma=gamma_positive)
    if clip == 0:  # The shifted form below would take the logarithm of an underflowed probability.
        negative = functools.partial(_focal, gamma=gamma_negative)
    else:
        negative = functools.partial(_shifted_focal, gamma=gamma_negative, clip=clip)
    return _sigmoid_loss(positive, negative, logits, labels, label_smoothing, weighting)


def sigmoid_poly(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: float = 1.0,
    label_smoothing: float = 0.0,
    **weighting: Unpack[SigmoidWeighting],
) -> jax.Array:
    """Poly-1 loss of each label: cross-entropy + epsilon (1 - p), p the probability of the right side.

    Takes the shapes of the sigmoid family and ``SigmoidWeighting``.

    Raises:
      InputError: as ``sigmoid_cross_entropy``.

    Source: Leng et al. 2022, arXiv:2204.12511.

    >>> print(sigmoid_poly(jnp.array([0.0, 2.0]), jnp.array([1, 0])).round(4))
    [1.1931 3.0077]
    """
    poly = functools.partial(_poly, epsilon=epsilon)
    return _sigmoid_loss(poly, poly, logits, labels, label_smoothing, weighting)


def _cross_entropy(z: jax.Array) -> jax.Array:
    return jax.nn.softplus(-z)


def _hinge(z: jax.Array) -> jax.Array:
    return jax.nn.relu(1 - z)


def _squared_hinge(z: jax.Array) -> jax.Array:
    return jnp.square(_hinge(z))


def _focal(z: jax.Array, gamma: float) -> jax.Array:
    # The power is taken in log space: (1 - p)**gamma has an infinite slope where 1 - p underflows and gamma < 1.
    return jnp.exp(gamma * jax.nn.log_sigmoid(-z)) * jax.nn.softplus(-z)


def _shifted_focal(z: jax.Array, gamma: float, clip: float) -> jax.Array:
    shifted = jax.nn.sigmoid(-z) - clip
    kept = shifted > 0
    # 1 in place of what is dropped: the untaken branch of the last `where` must have a finite gradient too.
    focus = jnp.exp(gamma * jnp.log(jnp.where(kept, shifted, 1)))
    # 1 - shifted, summed from its small parts and therefore never 0.
    return jnp.where(kept, -focus * jnp.log(jax.nn.sigmoid(z) + clip), 0)


def _poly(z: jax.Array, epsilon: float) -> jax.Array:
    return jax.nn.softplus(-z) + epsilon * jax.nn.sigmoid(-z)


def _sigmoid_loss(
    positive: Callable[[jax.Array], jax.Array],
    negative: Callable[[jax.Array], jax.Array],
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: float,
    weighting: SigmoidWeighting,
    alpha: float | None = None,
) -> jax.Array:
    """y w1 positive(x) + (1 - y) w0 negative(-x), each a function of the margin on its side."""
    check_options(weighting, SigmoidWeighting, label_smoothing)
    x = as_logits(logits)
    y = jnp.asarray(labels, x.dtype)
    hint = squeeze_hint("labels", y.shape, x.shape) + squeeze_hint("logits", x.shape, y.shape)
    require(y.shape == x.shape, f"logits {x.shape} and labels {y.shape} differ in shape.{hint}")
    multilabel = x.ndim >= 2

    counted = counted_places(weighting, y, [x.shape, x.shape[:-1]] if multilabel else [x.shape])
    x = jnp.where(counted, x, 0)
    y = nan_outside_unit(jnp.where(counted, y, 0))
    target = y * (1 - label_smoothing) + label_smoothing / 2
    weight0, weight1 = _side_weights(weighting, x, alpha)
    on, off = target * weight1, (1 - target) * weight0

    elements = counted.astype(x.dtype)
    terms = Terms(
        loss=elements * (on * positive(x) + off * negative(-x)),
        weight=elements * (on + off),
        elements=elements,
        positives=y,
    )
    if multilabel:
        sums = Terms(*(jnp.sum(term, axis=-1) for term in terms))
        labels_counted = jnp.maximum(sums.elements, 1)
        terms = sums._replace(loss=sums.loss / labels_counted, weight=sums.weight / labels_counted)
    return reduce(terms, weighting)


def _side_weights(
    weighting: SigmoidWeighting, x: jax.Array, alpha: float | None
) -> tuple[jax.Array | float, jax.Array | float]:
    """The weights of the negative and of the positive side, each a scalar or of the shape of x."""
    negative: jax.Array | float = 1.0
    positive: jax.Array | float = 1.0
    per_label = x.shape[-1:] if x.ndim >= 2 else None
    if weighting.get("class_weight") is not None:
        weight = as_weight("class_weight", weighting["class_weight"], x)
        shapes = [(2,)] if per_label is None else [(2,), (*per_label, 2)]
        require(
            weight.shape in shapes,
            f"class_weight {weight.shape} must have shape {' or '.join(map(str, shapes))}: the weights of 0 and of 1"
            + (", shared or for each label." if per_label else "."),
        )
        negative, positive = (jnp.broadcast_to(weight[..., side], x.shape) for side in (0, 1))
    if weighting.get("pos_weight") is not None:
        weight = as_weight("pos_weight", weighting["pos_weight"], x)
        allowed = [()] if per_label is None else [(), per_label]
        require(weight.shape in allowed, f"pos_weight {weight.shape} must have shape {' or '.join(map(str, allowed))}.")
        positive = positive * jnp.broadcast_to(weight, x.shape)
    if alpha is not None:
        negative, positive = negative * (1 - alpha), positive * alpha
    return negative, positive
