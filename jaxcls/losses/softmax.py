"""Losses of multiclass problems: functions of the logits and of the distribution over classes given by a label."""

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import squeeze_hint
from jaxcls.losses import shared
from jaxcls.losses.shared import Options, Terms, require


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> jax.Array:
    """Cross-entropy, -Σ y log p, where p is the softmax of the logits.

    Args:
      logits: (..., K).
      labels: class indices (...), or distributions (..., K), one-hot or soft.
      options: see `Options`.

    Returns:
      (...), float32 or higher; a scalar if a normalizer is set.

    Raises:
      InputError: the shapes do not match, indices are not integers, the logits are not floats or have fewer than two
      classes, or an option is out of range.

    >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> print(softmax_cross_entropy(logits, jnp.array([0, 2])).round(4))
    [0.2395 1.5514]
    >>> float(softmax_cross_entropy(logits, jnp.array([0, 9]), ignore_label=9, normalizer="batch"))
    0.239...
    """
    return _softmax_loss(lambda x, y: -_expected(y, jax.nn.log_softmax(x)), logits, labels, options)


def softmax_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: ArrayLike | None = None,
    **options: Unpack[Options],
) -> jax.Array:
    """Multiclass focal loss, -Σ alpha y (1 - p)^gamma log p.

    Shapes, other options and errors are those of `softmax_cross_entropy`.

    Args:
      gamma: at least 0; at 0 the loss is cross-entropy.
      alpha: in [0, 1], a scalar or one weight per class (K,). Default: none (Keras's is 0.25).

    Source: Lin et al. 2017, arXiv:1708.02002; the multiclass form is Keras's CategoricalFocalCrossentropy.

    >>> print(softmax_focal(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.0109]
    """
    shared.require_at_least_zero(gamma=gamma)
    if alpha is not None and shared.is_known(alpha):
        require(
            bool(np.all((np.asarray(alpha) >= 0) & (np.asarray(alpha) <= 1))),
            f"alpha is {alpha}; it must lie in [0, 1]. Weights of any size go into class_weight.",
        )

    def focal(x: jax.Array, y: jax.Array) -> jax.Array:
        log_p, log_not_p = _log_probabilities(x)
        return -_expected(y * jnp.exp(gamma * log_not_p), log_p)

    return _softmax_loss(focal, logits, labels, options, alpha)


def categorical_hinge(logits: ArrayLike, labels: ArrayLike, **options: Unpack[Options]) -> jax.Array:
    """Keras's categorical hinge of scores s, max(0, 1 + max((1 - y) s) - Σ y s).

    The inner maximum includes the true class with 0, so the best competitor never scores below 0. The loss of Crammer
    and Singer, max(0, 1 + max over wrong s - s_y), lacks that bound: the two differ where all wrong scores are
    negative.
    Shapes, options and errors are those of `softmax_cross_entropy`.

    >>> print(categorical_hinge(jnp.array([[0.5, -1.0], [0.5, 1.0]]), jnp.array([0, 0])))
    [0.5 1.5]
    """

    def hinge(scores: jax.Array, y: jax.Array) -> jax.Array:
        competitor = jnp.max((1 - y) * shared.where_counted(1 - y, scores), axis=-1)
        return jax.nn.relu(1 + competitor - _expected(y, scores))

    return _softmax_loss(hinge, logits, labels, options)


def softmax_poly(
    logits: ArrayLike, labels: ArrayLike, *, epsilon: float = 1.0, **options: Unpack[Options]
) -> jax.Array:
    """Multiclass Poly-1 loss, Σ y (-log p + epsilon (1 - p)).

    Shapes, other options and errors are those of `softmax_cross_entropy`.

    Source: Leng et al. 2022, arXiv:2204.12511.

    >>> print(softmax_poly(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.4526]
    """

    def poly(x: jax.Array, y: jax.Array) -> jax.Array:
        log_p, log_not_p = _log_probabilities(x)
        return _expected(y, -log_p + epsilon * jnp.exp(log_not_p))

    return _softmax_loss(poly, logits, labels, options)


def logit_adjusted_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, prior: ArrayLike, tau: float = 1.0, **options: Unpack[Options]
) -> jax.Array:
    """Cross-entropy of logits + tau log(prior), for long-tailed classes.

    Train with it, and predict with the plain logits. Shapes, other options and errors are those of
    `softmax_cross_entropy`.

    Args:
      prior: (K,), the frequencies or counts of the classes in the training labels, all positive.
      tau: at least 0.

    Source: Menon et al. 2021, arXiv:2007.07314.

    >>> prior = jnp.array([0.9, 0.1])
    >>> print(logit_adjusted_cross_entropy(jnp.zeros((2, 2)), jnp.array([0, 1]), prior=prior).round(4))
    [0.1054 2.3026]
    """
    shared.require_at_least_zero(tau=tau)
    scores = shared.as_logits(logits)
    frequencies = _per_class("prior", prior, scores)
    if shared.is_known(prior):
        bad = np.flatnonzero(~(np.asarray(prior) > 0))
        require(bad.size == 0, f"prior of class {bad[:1]} is not positive: drop the class, or smooth the counts.")
    # Centered, since next to a logit of 1e4 the adjustment would round away; a shift of all logits has no effect.
    centered = scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    return softmax_cross_entropy(centered + tau * jnp.log(frequencies), labels, **options)


def _expected(weights: jax.Array, values: jax.Array) -> jax.Array:
    """The weighted sum over the classes. The logits of impossible classes may be -inf."""
    return jnp.sum(weights * shared.where_counted(weights, values), axis=-1)


def _log_probabilities(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p and log(1 - p) of every class, stable at any logits, in time linear in the number of classes."""
    log_p = jax.nn.log_softmax(logits)
    # 1 - p cancels where p is near 1: there the others are summed. Only one class can be that likely (p > 0.6);
    # log1p(-p) is exact for the rest.
    likely = log_p > -0.5
    others = jax.nn.logsumexp(log_p, axis=-1, keepdims=True, where=~likely)
    return log_p, jnp.where(likely, others, jnp.log1p(-jnp.exp(jnp.where(likely, -1, log_p))))


def _softmax_loss(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    logits: ArrayLike,
    labels: ArrayLike,
    options: Options,
    alpha: ArrayLike | None = None,
) -> jax.Array:
    """loss(logits, targets) of each example, where the targets are the distribution of its label."""
    label_smoothing = shared.smoothing(options, Options)
    x, y = shared.as_logits(logits), jnp.asarray(labels)
    _check_classes(x, y)
    indices = y.ndim < x.ndim
    if not indices and options.get("ignore_label") is not None:
        raise InputError("ignore_label needs integer labels; exclude rows of one-hot or soft labels with mask.")

    # A narrow type would wrap: as uint8, the ignored label -1 is 255.
    y = y.astype(int) if indices else y.astype(x.dtype)
    counted = shared.counted_elements(options, y, x.shape[:-1])
    row = counted[..., None]
    x = jnp.where(row, x, 0)
    y = _one_hot(jnp.where(counted, y, 0), x) if indices else shared.nan_outside_unit(jnp.where(row, y, 0))
    target = y * (1 - label_smoothing) + label_smoothing / x.shape[-1]
    elements = counted.astype(x.dtype)
    weight = elements
    # Sums of products, not matrix products, which have a lower precision on a TPU.
    if options.get("class_weight") is not None:
        weight = weight * jnp.sum(y * _per_class("class_weight", options["class_weight"], x), axis=-1)
    applied = weight
    if alpha is not None:
        target = target * (jnp.full_like(x, alpha) if np.ndim(alpha) == 0 else _per_class("alpha", alpha, x))
        applied = weight * jnp.sum(target, axis=-1)
    return shared.reduce(Terms(weight * loss(x, target), applied, elements, positives=elements), options)


def _check_classes(x: jax.Array, y: jax.Array) -> None:
    require(
        x.ndim > 0 and x.shape[-1] >= 2,
        f"logits {x.shape} have fewer than two classes on their last axis; for one score use a sigmoid loss.",
    )
    if y.shape == x.shape:
        return
    require(
        y.shape == x.shape[:-1],
        f"logits {x.shape} need labels of shape {x.shape[:-1]} (integer indices) or {x.shape} "
        f"(one-hot or soft), not {y.shape}.{squeeze_hint('labels', y.shape, x.shape[:-1])}",
    )
    require(
        jnp.issubdtype(y.dtype, jnp.integer),
        f"labels of shape {y.shape} are indices and must be integers, not {y.dtype}: labels.astype('int32').",
    )


def _per_class(name: str, value: ArrayLike | None, x: jax.Array) -> jax.Array:
    weight = shared.as_weight(name, value, x, x.shape[-1:], meaning=f": one per class of logits {x.shape}")
    return jnp.broadcast_to(weight, x.shape)


def _one_hot(indices: jax.Array, x: jax.Array) -> jax.Array:
    classes = x.shape[-1]
    in_range = (indices >= 0) & (indices < classes)
    return jnp.where(in_range[..., None], jax.nn.one_hot(indices, classes, dtype=x.dtype), jnp.nan)
