"""Losses of classification: pure functions of logits, one value per example, the weighting the same for all.

Every loss is called ``loss(logits, labels, *, own options, **weighting)`` and takes logits, never
probabilities. There are two families.

- *Sigmoid* (binary and multi-label): ``logits`` and ``labels`` have the same shape, ``(N,)`` or ``(..., L)``.
  Labels are 0 and 1, or soft in [0, 1]; hinge losses turn them into ±1 themselves. One value per element of
  1-D logits; from two dimensions on, an example's value is the mean over its last axis, over the labels that
  count.
- *Softmax* (multiclass): ``logits`` is ``(..., K)``; ``labels`` holds integer indices ``(...)``, or a
  distribution over the classes ``(..., K)``: one-hot or soft. One value for each example, of shape ``(...)``.

Half-precision logits are computed on, and values returned, in float32. Values and gradients are finite and
right for |logit| up to 1e4. Masked places are replaced *before* the operation, so a NaN there reaches
neither value nor gradient. A label that is out of range gives NaN, not a number that looks like a loss;
``validate_labels`` finds it on the host and says where it is.

``get`` finds a loss by its name here or in Keras. ``class_weights`` and ``resolve_class_weight`` compute
weights from the training labels.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from jaxcls.errors import InputError, unknown_name

Loss = Callable[..., jax.Array]
Problem = Literal["binary", "multilabel", "detection", "multiclass"]
Normalizer = Literal["none", "batch", "weights", "positives"]


class Weighting(TypedDict, total=False):
    """What every loss takes beside its own options. Whatever is left out, or None, does nothing.

    - ``class_weight``: softmax ``(K,)``, where a soft label takes its expected weight, before smoothing;
      sigmoid ``(2,)``, the weights of 0 and of 1 for every label, or ``(L, 2)``, those of each label.
    - ``sample_weight``: one weight per example. A weight of 0 is a product, not a mask: 0 times NaN is NaN.
    - ``mask``: bool, one per example (sigmoid: or one per element); False leaves the place out.
    - ``ignore_label``: leaves out the places that hold this label (an integer, or NaN for float labels).
    - ``normalizer``: ``"none"``, the default, gives weighted values per example, 0 where masked; all others
      give a scalar, which is 0 if nothing is left to count. ``"batch"`` divides the sum by the number of
      examples that count; ``"weights"`` by the sum of all weights applied; ``"positives"`` divides the sum
      over all elements by the sum of the labels, at least 1 (Lin et al. 2017, arXiv:1708.02002), which for
      the softmax family, with one positive an example, is ``"batch"``.
    """

    class_weight: ArrayLike | None
    sample_weight: ArrayLike | None
    mask: ArrayLike | None
    ignore_label: float | None
    normalizer: Normalizer


class SigmoidWeighting(Weighting, total=False):
    """The ``Weighting`` of binary and multi-label losses.

    - ``pos_weight``: the weight of the positive side, a scalar or one per label ``(L,)``; it multiplies
      ``class_weight``.
    """

    pos_weight: ArrayLike | None


# The sigmoid family: for a hard label each loss is a function of the margin z, the logit signed by its label.


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
    _require(gamma >= 0, f"gamma is {gamma}; it must be at least 0.")
    if alpha is not None:
        _require(0 <= alpha <= 1, f"alpha is {alpha}; it must lie in [0, 1].")
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
    _require(gamma_negative >= 0, f"gamma_negative is {gamma_negative}; it must be at least 0.")
    _require(gamma_positive >= 0, f"gamma_positive is {gamma_positive}; it must be at least 0.")
    _require(0 <= clip < 1, f"clip is {clip}; it must lie in [0, 1).")
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
    # The power is taken in log space: (1 - p)**gamma has an infinite slope where 1 - p underflows and gamma
    # < 1.
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


# The softmax family.


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0, **weighting: Unpack[Weighting]
) -> jax.Array:
    """Cross-entropy with integer, one-hot or soft labels, -Σ y log p.

    Takes the shapes of the softmax family and ``Weighting``. Smoothing s turns a label y into y(1-s) + s/K.

    Raises:
      InputError: the shapes do not fit, indices are not integers, the logits are not floats or hold fewer
      than two
        classes, or an option is out of range.

    >>> logits = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> print(softmax_cross_entropy(logits, jnp.array([0, 2])).round(4))
    [0.2395 1.5514]
    >>> float(softmax_cross_entropy(logits, jnp.array([0, 9]), ignore_label=9, normalizer="batch"))
    0.239...
    """
    return _softmax_loss(_categorical_cross_entropy, logits, labels, label_smoothing, weighting)


def sparse_categorical_crossentropy(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0, **weighting: Unpack[Weighting]
) -> jax.Array:
    """``softmax_cross_entropy`` with integer labels only, under Keras's name.

    Raises:
      InputError: as ``softmax_cross_entropy``, or the labels are one-hot or soft.

    >>> print(sparse_categorical_crossentropy(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.2395]
    """
    _require(
        np.ndim(labels) < np.ndim(logits),
        f"sparse_categorical_crossentropy takes one integer label an example, not shape {np.shape(labels)}. "
        "For one-hot or soft labels use categorical_crossentropy.",
    )
    return softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing, **weighting)


def categorical_crossentropy(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0, **weighting: Unpack[Weighting]
) -> jax.Array:
    """``softmax_cross_entropy`` with one-hot or soft labels only, under Keras's name.

    Raises:
      InputError: as ``softmax_cross_entropy``, or the labels are indices.

    >>> print(categorical_crossentropy(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([[1, 0, 0]])).round(4))
    [0.2395]
    """
    _require(
        np.ndim(labels) >= np.ndim(logits),
        f"categorical_crossentropy takes one-hot or soft labels {np.shape(logits)}, not {np.shape(labels)}; "
        "integers take sparse_categorical_crossentropy.",
    )
    return softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing, **weighting)


def softmax_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    **weighting: Unpack[Weighting],
) -> jax.Array:
    """Multiclass focal loss, -Σ alpha y (1 - p)^gamma log p.

    ``alpha`` is a scalar or one weight per class ``(K,)``. It has no default (Keras's is 0.25), so gamma 0 is
    cross-entropy. Takes the shapes of the softmax family and ``Weighting``.

    Raises:
      InputError: as ``softmax_cross_entropy``, or gamma is negative, or alpha is outside [0, 1] or of
      another shape.

    Source: Lin et al. 2017, arXiv:1708.02002; the multiclass form is Keras's CategoricalFocalCrossentropy.

    >>> print(softmax_focal(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.0109]
    """
    _require(gamma >= 0, f"gamma is {gamma}; it must be at least 0.")
    if _is_concrete(alpha):
        _require(
            bool(np.all((np.asarray(alpha) >= 0) & (np.asarray(alpha) <= 1))),
            f"alpha is {alpha}; it must lie in [0, 1]. Weights of any size go into class_weight.",
        )

    def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
        log_p, log_rest = _log_p_and_rest(logits)
        return -jnp.sum(targets * jnp.exp(gamma * log_rest) * log_p, axis=-1)

    return _softmax_loss(loss, logits, labels, label_smoothing, weighting, alpha)


def categorical_hinge(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0, **weighting: Unpack[Weighting]
) -> jax.Array:
    """Keras's categorical hinge of scores s, max(0, 1 + max((1 - y) s) - Σ y s).

    The true class takes part in the inner maximum with 0, so the best competitor never scores below 0. The
    loss of Crammer and Singer, max(0, 1 + max over the wrong s - s_y), has no such floor: the two differ
    when all wrong scores are negative. Takes the shapes of the softmax family and ``Weighting``.

    Raises:
      InputError: as ``softmax_cross_entropy``.

    >>> print(categorical_hinge(jnp.array([[0.5, -1.0], [0.5, 1.0]]), jnp.array([0, 0])))
    [0.5 1.5]
    """

    def loss(scores: jax.Array, targets: jax.Array) -> jax.Array:
        competitor = jnp.max((1 - targets) * scores, axis=-1)
        return jax.nn.relu(1 + competitor - jnp.sum(targets * scores, axis=-1))

    return _softmax_loss(loss, logits, labels, label_smoothing, weighting)


def softmax_poly(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: float = 1.0,
    label_smoothing: float = 0.0,
    **weighting: Unpack[Weighting],
) -> jax.Array:
    """Multiclass Poly-1 loss, Σ y (-log p + epsilon (1 - p)).

    Takes the shapes of the softmax family and ``Weighting``.

    Raises:
      InputError: as ``softmax_cross_entropy``.

    Source: Leng et al. 2022, arXiv:2204.12511.

    >>> print(softmax_poly(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.4526]
    """

    def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
        log_p, log_rest = _log_p_and_rest(logits)
        return jnp.sum(targets * (-log_p + epsilon * jnp.exp(log_rest)), axis=-1)

    return _softmax_loss(loss, logits, labels, label_smoothing, weighting)


def logit_adjusted_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    prior: ArrayLike,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
    **weighting: Unpack[Weighting],
) -> jax.Array:
    """Cross-entropy of logits + tau log(prior), for long-tailed classes.

    ``prior`` holds the frequencies or counts ``(K,)`` of the classes among the training labels, all
    positive. Train with it and predict with the plain logits. Takes the shapes of the softmax family and
    ``Weighting``.

    Raises:
      InputError: as ``softmax_cross_entropy``, or prior has another shape or is not positive, or tau is
      negative.

    Source: Menon et al. 2021, arXiv:2007.07314.

    >>> prior = jnp.array([0.9, 0.1])
    >>> print(logit_adjusted_cross_entropy(jnp.zeros((2, 2)), jnp.array([0, 1]), prior=prior).round(4))
    [0.1054 2.3026]
    """
    _require(tau >= 0, f"tau is {tau}; it must be at least 0.")
    scores = _as_logits(logits)
    frequencies = _per_class("prior", prior, scores)
    if _is_concrete(prior):
        bad = np.flatnonzero(~(np.asarray(prior) > 0))
        _require(bad.size == 0, f"prior of class {bad[:1]} is not positive: drop the class, or smooth the counts.")
    # Next to a logit of 1e4 the adjustment would round away; the loss does not change when all logits shift.
    centred = scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    adjusted = centred + tau * jnp.log(frequencies)
    return softmax_cross_entropy(adjusted, labels, label_smoothing=label_smoothing, **weighting)


def _categorical_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def _log_p_and_rest(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p and log(1 - p) of every class, stable at any logits, in time linear in the number of classes."""
    log_p = jax.nn.log_softmax(logits)
    # 1 - p cancels where p is near 1: there the others are summed. Only one class can be so likely (p > 0.6);
    # for all the rest log1p(-p) is exact.
    likely = log_p > -0.5
    others = jax.nn.logsumexp(log_p, axis=-1, keepdims=True, where=~likely)
    return log_p, jnp.where(likely, others, jnp.log1p(-jnp.exp(jnp.where(likely, -1, log_p))))


# What the families share: the check at the door, the mask, the weights, the reduction.


class _Terms(NamedTuple):
    """What each example brings, in arrays of the per-example shape that are 0 where it is masked."""

    loss: jax.Array
    weight: jax.Array
    elements: jax.Array  # how many elements its loss is the mean of
    positives: jax.Array  # the sum of its labels


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
    _check_options(weighting, SigmoidWeighting, label_smoothing)
    x = _as_logits(logits)
    y = jnp.asarray(labels, x.dtype)
    hint = _squeeze_hint("labels", y.shape, x.shape) + _squeeze_hint("logits", x.shape, y.shape)
    _require(y.shape == x.shape, f"logits {x.shape} and labels {y.shape} differ in shape.{hint}")
    multilabel = x.ndim >= 2

    counted = _counted(weighting, y, [x.shape, x.shape[:-1]] if multilabel else [x.shape])
    x = jnp.where(counted, x, 0)
    y = _nan_outside_unit(jnp.where(counted, y, 0))
    target = y * (1 - label_smoothing) + label_smoothing / 2
    weight0, weight1 = _side_weights(weighting, x, alpha)
    on, off = target * weight1, (1 - target) * weight0

    elements = counted.astype(x.dtype)
    terms = _Terms(
        loss=elements * (on * positive(x) + off * negative(-x)),
        weight=elements * (on + off),
        elements=elements,
        positives=y,
    )
    if multilabel:
        sums = _Terms(*(jnp.sum(term, axis=-1) for term in terms))
        labels_counted = jnp.maximum(sums.elements, 1)
        terms = sums._replace(loss=sums.loss / labels_counted, weight=sums.weight / labels_counted)
    return _reduce(terms, weighting)


def _softmax_loss(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: float,
    weighting: Weighting,
    alpha: ArrayLike | None = None,
) -> jax.Array:
    """loss(logits, targets) of each example, the targets being the distribution that its label means."""
    _check_options(weighting, Weighting, label_smoothing)
    x, y = _as_logits(logits), jnp.asarray(labels)
    _check_classes(x, y)
    indices = y.ndim < x.ndim
    if not indices and weighting.get("ignore_label") is not None:
        raise InputError("ignore_label needs integer labels; leave out rows of one-hot or soft labels with mask.")

    # A narrow type would wrap: as uint8, the ignored label -1 is 255.
    y = y.astype(int) if indices else y.astype(x.dtype)
    counted = _counted(weighting, y, [x.shape[:-1]])
    row = counted[..., None]
    x = jnp.where(row, x, 0)
    if indices:
        y = _one_hot(jnp.where(counted, y, 0), x)
    else:
        y = _nan_outside_unit(jnp.where(row, y, 0))
    target = y * (1 - label_smoothing) + label_smoothing / x.shape[-1]
    elements = counted.astype(x.dtype)
    weight = elements
    # Sums of products, not matrix products: those run in lower precision on a TPU.
    if weighting.get("class_weight") is not None:
        weight = weight * jnp.sum(y * _per_class("class_weight", weighting["class_weight"], x), axis=-1)
    applied = weight
    if alpha is not None:
        target = target * (jnp.full_like(x, alpha) if np.ndim(alpha) == 0 else _per_class("alpha", alpha, x))
        applied = weight * jnp.sum(target, axis=-1)
    return _reduce(_Terms(weight * loss(x, target), applied, elements, positives=elements), weighting)


def _check_options(weighting: Mapping[str, object], allowed: type, label_smoothing: float) -> None:
    known = allowed.__annotations__.keys()
    for name in weighting.keys() - known:
        raise _unknown_setting("this loss", name, [*known, "label_smoothing"])
    _require(0 <= label_smoothing < 1, f"label_smoothing is {label_smoothing}; it must lie in [0, 1).")
    normalizer = weighting.get("normalizer")
    if normalizer is not None and normalizer not in get_args(Normalizer):
        raise unknown_name("normalizer", str(normalizer), get_args(Normalizer))


def _unknown_setting(loss: str, name: str, known: Iterable[str]) -> InputError:
    if name == "pos_weight":
        return InputError("pos_weight is for binary and multi-label losses; weigh classes with class_weight.")
    return unknown_name(f"setting of {loss}", name, known)


def _as_logits(logits: ArrayLike) -> jax.Array:
    x = jnp.asarray(logits)
    _require(
        jnp.issubdtype(x.dtype, jnp.floating),
        f"logits are {x.dtype}; they must be floats, the scores before a sigmoid or softmax.",
    )
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_classes(x: jax.Array, y: jax.Array) -> None:
    """That softmax logits and their labels fit each other."""
    _require(
        x.ndim > 0 and x.shape[-1] >= 2,
        f"logits {x.shape} hold fewer than two classes on their last axis; for one score use a sigmoid loss.",
    )
    if y.shape == x.shape:
        return
    _require(
        y.shape == x.shape[:-1],
        f"logits {x.shape} need labels of shape {x.shape[:-1]} (integer indices) or {x.shape} "
        f"(one-hot or soft), not {y.shape}.{_squeeze_hint('labels', y.shape, x.shape[:-1])}",
    )
    _require(
        jnp.issubdtype(y.dtype, jnp.integer),
        f"labels of shape {y.shape} are indices and must be integers, not {y.dtype}: labels.astype('int32').",
    )


def _squeeze_hint(name: str, shape: tuple[int, ...], right: tuple[int, ...]) -> str:
    return f" Squeeze the {name}: {name}[..., 0]." if shape == (*right, 1) else ""


def _counted(weighting: Weighting, y: jax.Array, mask_shapes: list[tuple[int, ...]]) -> jax.Array:
    """Which elements count, of the first of the shapes that a mask may have."""
    shape = mask_shapes[0]
    counted = jnp.ones(shape, bool)
    if weighting.get("mask") is not None:
        mask = jnp.asarray(weighting["mask"])
        _require(mask.dtype == bool, f"mask is {mask.dtype}; it must be bool. Fractions go into sample_weight.")
        _require(mask.shape in mask_shapes, f"mask {mask.shape} must have shape {_either(mask_shapes)}.")
        counted = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)
    ignore_label = weighting.get("ignore_label")
    if ignore_label is not None:
        counted &= ~_holds(y, ignore_label)
    return counted


def _side_weights(
    weighting: SigmoidWeighting, x: jax.Array, alpha: float | None
) -> tuple[jax.Array | float, jax.Array | float]:
    """The weights of the negative and of the positive side, each a scalar or of the shape of x."""
    negative: jax.Array | float = 1.0
    positive: jax.Array | float = 1.0
    per_label = x.shape[-1:] if x.ndim >= 2 else None
    if weighting.get("class_weight") is not None:
        weight = _as_weight("class_weight", weighting["class_weight"], x)
        shapes = [(2,)] if per_label is None else [(2,), (*per_label, 2)]
        _require(
            weight.shape in shapes,
            f"class_weight {weight.shape} must have shape {_either(shapes)}: the weights of 0 and of 1"
            + (", shared or for each label." if per_label else "."),
        )
        negative, positive = (jnp.broadcast_to(weight[..., side], x.shape) for side in (0, 1))
    if weighting.get("pos_weight") is not None:
        weight = _as_weight("pos_weight", weighting["pos_weight"], x)
        allowed = [()] if per_label is None else [(), per_label]
        _require(weight.shape in allowed, f"pos_weight {weight.shape} must have shape {_either(allowed)}.")
        positive = positive * jnp.broadcast_to(weight, x.shape)
    if alpha is not None:
        negative, positive = negative * (1 - alpha), positive * alpha
    return negative, positive


def _per_class(name: str, value: ArrayLike | None, x: jax.Array) -> jax.Array:
    weight = _as_weight(name, value, x)
    _require(
        weight.shape == x.shape[-1:],
        f"{name} {weight.shape} must have shape {x.shape[-1:]}: one for each class of logits {x.shape}.",
    )
    return jnp.broadcast_to(weight, x.shape)


def _as_weight(name: str, value: ArrayLike | None, x: jax.Array) -> jax.Array:
    if isinstance(value, str | Mapping):
        raise InputError(
            f"{name} is {value!r}; a loss takes an array. Compute it once from the training labels: "
            "resolve_class_weight(class_weight, problem, num_classes, labels=training_labels)."
        )
    return jnp.asarray(value, x.dtype)


def _one_hot(indices: jax.Array, x: jax.Array) -> jax.Array:
    classes = x.shape[-1]
    in_range = (indices >= 0) & (indices < classes)
    return jnp.where(in_range[..., None], jax.nn.one_hot(indices, classes, dtype=x.dtype), jnp.nan)


def _nan_outside_unit(y: jax.Array) -> jax.Array:
    # The slack is for soft labels that were mixed in a half type and sum to a little more than 1.
    return jnp.where(jnp.abs(y - 0.5) <= 0.51, y, jnp.nan)


def _reduce(terms: _Terms, weighting: Weighting) -> jax.Array:
    loss, weight = terms.loss, terms.weight
    if weighting.get("sample_weight") is not None:
        sample_weight = jnp.asarray(weighting["sample_weight"], loss.dtype)
        _require(
            sample_weight.shape == loss.shape,
            f"sample_weight {sample_weight.shape} must have shape {loss.shape}: one for each example.",
        )
        sample_weight = jnp.where(terms.elements > 0, sample_weight, 0)
        loss, weight = loss * sample_weight, weight * sample_weight
    match weighting.get("normalizer"):
        case "batch":
            return jnp.sum(loss) / jnp.maximum(jnp.sum(terms.elements > 0), 1)
        case "weights":
            total = jnp.sum(weight)
            return jnp.sum(loss) / jnp.where(total == 0, 1, total)
        case "positives":
            return jnp.sum(loss * terms.elements) / jnp.maximum(jnp.sum(terms.positives), 1)
        case _:
            return loss


# Labels and weights on the host, in NumPy.

# The problems whose labels stand in one array; those of detection do not.
LABELLED = ("binary", "multiclass", "multilabel")


def validate_labels(
    labels: npt.ArrayLike, problem: Problem, num_classes: int, *, ignore_label: float | None = None
) -> None:
    """Checks a whole set of labels on the host, where a bad one can be named.

    Call it before training: compiled code cannot raise. ``binary`` labels are ``(N,)`` and ``multilabel``
    ones ``(N, num_classes)``, 0 and 1 or soft in [0, 1]; ``multiclass`` ones are integers ``(N,)`` below
    num_classes, or distributions ``(N, num_classes)`` that sum to 1. Places that hold ``ignore_label`` pass
    (not in distributions).

    Raises:
      InputError: a label is out of range or NaN (the first such row is named), or the shape or type is wrong.

    >>> validate_labels([0, 1, 3], "multiclass", 3)
    Traceback (most recent call last):
    ...
    jaxcls.errors.InputError: labels: row 2 holds 3; multiclass indices lie in 0 to 2.
    """
    if problem not in LABELLED:
        raise unknown_name("problem", problem, LABELLED)
    array = _as_numbers(labels)
    shapes = {
        "binary": [array.shape[:1]],
        "multilabel": [(*array.shape[:1], num_classes)],
        "multiclass": [array.shape[:1], (*array.shape[:1], num_classes)],
    }[problem]
    _require(
        array.ndim > 0 and array.shape in shapes,
        f"{problem} labels {array.shape} must have shape {_either(shapes)} for num_classes={num_classes}."
        + _squeeze_hint("labels", array.shape, array.shape[:1]),
    )
    indices = problem == "multiclass" and array.ndim == 1
    _require(
        not indices or array.dtype.kind in "iu",
        f"multiclass indices must be integers, not {array.dtype}: labels.astype('int32').",
    )
    distributions = problem == "multiclass" and not indices
    kept = np.ones(array.shape, bool)
    if ignore_label is not None and not distributions:
        kept = ~_holds(array, ignore_label)
    if indices:
        good = (array >= 0) & (array < num_classes)
        _reject_first(kept & ~good, array, f"multiclass indices lie in 0 to {num_classes - 1}.")
        return
    good = (array >= 0) & (array <= 1)
    _reject_first(kept & ~good, array, f"{problem} labels are 0 and 1, or soft in [0, 1].")
    if distributions:
        sums = np.asarray(array.sum(axis=1, dtype=np.float64))
        _reject_first(np.abs(sums - 1) > 1e-3, sums, "that is the sum of a distribution, which must be 1.")


def class_weights(
    labels: npt.ArrayLike,
    num_classes: int,
    *,
    kind: str = "balanced",
    beta: float = 0.999,
    ignore_label: float | None = None,
) -> npt.NDArray[np.float64]:
    """Class weights from the hard labels of the training set, the rarer the heavier.

    ``balanced`` is n / (K count), as in scikit-learn. ``effective`` is (1 - beta) / (1 - beta^count), scaled
    to sum to K (Cui et al. 2019, arXiv:1901.05555). Labels ``(N,)`` give weights ``(num_classes,)``;
    multi-label ones ``(N, num_classes)`` give ``(num_classes, 2)``, the weights of 0 and of 1 for each label.

    Raises:
      InputError: a class has no row, a label is not an integer in range, the shape does not fit, or beta is
      outside [0, 1).

    >>> print(class_weights([0, 0, 0, 1], 2))
    [0.66666667 2.        ]
    """
    array = _as_numbers(labels)
    multilabel = array.ndim == 2
    _require(
        array.ndim == 1 or (multilabel and array.shape[1] == num_classes),
        f"labels {array.shape} must have shape (N,), or (N, {num_classes}) for multi-label.",
    )
    classes = 2 if multilabel else num_classes
    kept = np.ones(array.shape, bool) if ignore_label is None else ~_holds(array, ignore_label)
    good = (array == np.floor(array)) & (array >= 0) & (array < classes)
    _reject_first(kept & ~good, array, f"class weights count hard labels, integers in 0 to {classes - 1}.")

    columns, kept = (array, kept) if multilabel else (array[:, None], kept[:, None])
    counts = np.stack(
        [
            np.bincount(column[keep].astype(int), minlength=classes)
            for column, keep in zip(columns.T, kept.T, strict=True)
        ]
    )
    for label, empty in np.argwhere(counts == 0):
        where = f" of label {label}" if multilabel else ""
        raise InputError(
            f"class {empty}{where} has no row in the labels, so it has no weight; drop it or give weights."
        )
    match kind:
        case "balanced":
            weights = counts.sum(axis=1, keepdims=True) / (classes * counts)
        case "effective":
            _require(0 <= beta < 1, f"beta is {beta}; it must lie in [0, 1).")
            weights = (1 - beta) / (1 - beta**counts)
            weights *= classes / weights.sum(axis=1, keepdims=True)
        case _:
            raise unknown_name("kind of class weights", kind, ["balanced", "effective"])
    return weights if multilabel else weights[0]


def resolve_class_weight(
    class_weight: str | Mapping[int, float] | npt.ArrayLike,
    problem: Problem,
    num_classes: int,
    *,
    labels: npt.ArrayLike | None = None,
    ignore_label: float | None = None,
) -> npt.NDArray[np.float64]:
    """The array for a loss's ``class_weight`` from whatever a person gives for it.

    That is an array, a dict {class: weight} that names every class, or 'balanced' or 'effective', which are
    computed from the training ``labels`` by ``class_weights``. The classes of a binary or multi-label
    problem are 0 and 1; its weights are ``(2,)``, and for multi-label also ``(num_classes, 2)``.

    Raises:
      InputError: the name, the classes, the shape or the values are wrong, or the labels are missing.

    >>> print(resolve_class_weight({0: 1, 1: 5}, "binary", 2))
    [1. 5.]
    >>> print(resolve_class_weight("balanced", "multiclass", 2, labels=[0, 0, 0, 1]))
    [0.66666667 2.        ]
    """
    if problem not in LABELLED:
        raise unknown_name("problem", problem, LABELLED)
    multilabel = problem == "multilabel"
    classes = num_classes if problem == "multiclass" else 2
    if isinstance(class_weight, str):
        if labels is None:
            raise InputError(f"class_weight {class_weight!r} is computed from the training labels: pass labels=.")
        _require(
            np.ndim(labels) == (2 if multilabel else 1),
            f"class_weight {class_weight!r} needs {problem} labels of shape "
            f"{'(N, L)' if multilabel else '(N,)'}, not {np.shape(labels)}.",
        )
        size = num_classes if multilabel else classes
        return class_weights(labels, size, kind=class_weight, ignore_label=ignore_label)
    if isinstance(class_weight, Mapping):
        _require(
            set(class_weight) == set(range(classes)),
            f"class_weight names the classes {list(class_weight)}; it must name each of 0 to {classes - 1}.",
        )
        class_weight = [class_weight[index] for index in range(classes)]
    weights = np.asarray(class_weight, np.float64)
    shapes = [(2,), (num_classes, 2)] if multilabel else [(classes,)]
    _require(
        weights.shape in shapes,
        f"class_weight {weights.shape} must have shape {_either(shapes)} for {problem}.",
    )
    good = np.isfinite(weights) & (weights >= 0)
    _require(bool(np.all(good)), f"class_weight holds {weights[~good][:1]}; weights are finite and not negative.")
    return weights


def _as_numbers(labels: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(labels)
    _require(
        array.dtype.kind in "biuf",
        f"labels are of type {array.dtype}; they must be numbers. Map names to the integers 0 to K-1 first.",
    )
    return array


def _reject_first(bad: npt.NDArray[np.bool_], array: npt.NDArray[Any], right: str) -> None:
    for position in np.argwhere(bad)[:1]:
        place = f"row {position[0]}" + (f", column {position[1]}" if len(position) > 1 else "")
        raise InputError(f"labels: {place} holds {array[tuple(position)]}; {right}")


# Losses by name. Where a name stands for a form in each family, the sigmoid form is first.

SIGMOID_FAMILY: tuple[Loss, ...] = (
    sigmoid_cross_entropy,
    hinge,
    squared_hinge,
    sigmoid_focal,
    asymmetric,
    sigmoid_poly,
)
SOFTMAX_FAMILY: tuple[Loss, ...] = (
    softmax_cross_entropy,
    sparse_categorical_crossentropy,
    categorical_crossentropy,
    softmax_focal,
    categorical_hinge,
    softmax_poly,
    logit_adjusted_cross_entropy,
)
ALIASES: dict[str, tuple[Loss, ...]] = {
    "binary_crossentropy": (sigmoid_cross_entropy,),
    "binary_focal_crossentropy": (sigmoid_focal,),
    "categorical_focal_crossentropy": (softmax_focal,),
    "focal_loss": (sigmoid_focal, softmax_focal),
    "weighted_crossentropy": (sigmoid_cross_entropy, softmax_cross_entropy),
}
_BY_NAME = {loss.__name__: (loss,) for loss in (*SIGMOID_FAMILY, *SOFTMAX_FAMILY)} | ALIASES


def names(problem: Problem | None = None) -> tuple[str, ...]:
    """The names that ``get`` knows, in order; with a problem, those that fit it.

    Raises:
      InputError: the problem is unknown.

    >>> names("multiclass")[:2]
    ('categorical_crossentropy', 'categorical_focal_crossentropy')
    """
    family = _family(problem)
    return tuple(sorted(name for name, forms in _BY_NAME.items() if any(form in family for form in forms)))


def get(name: str, problem: Problem | None = None, **settings: Any) -> Loss:
    """The loss of that name, with its settings bound.

    Names are those of the functions here, Keras's (``binary_crossentropy``,
    ``sparse_categorical_crossentropy``, ``binary_focal_crossentropy``, ...), and ``focal_loss`` and
    ``weighted_crossentropy``, which have a form for each family: ``problem`` chooses it, and without one it
    is the sigmoid form. ``weighted_crossentropy`` needs ``class_weight`` or ``pos_weight``.

    Raises:
      InputError: the name or a setting is unknown, a needed setting is missing, or the loss does not fit the
      problem.

    >>> loss = get("focal_loss", "multiclass", gamma=0.0)
    >>> print(loss(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.2395]
    """
    if name not in _BY_NAME:
        raise unknown_name("loss", name, _BY_NAME)
    family = _family(problem)
    forms = [form for form in _BY_NAME[name] if form in family]
    if not forms:
        raise InputError(f"loss {name!r} does not fit a {problem} problem; these do: {', '.join(names(problem))}.")
    loss = forms[0]

    own = {
        option.name: option.default
        for option in inspect.signature(loss).parameters.values()
        if option.kind is option.KEYWORD_ONLY
    }
    shared = SigmoidWeighting if loss in SIGMOID_FAMILY else Weighting
    for setting in settings:
        if setting not in own and setting not in shared.__annotations__:
            raise _unknown_setting(name, setting, [*own, *shared.__annotations__])
    for option, default in own.items():
        given = option in settings or default is not inspect.Parameter.empty
        _require(given, f"loss {name!r} needs the setting {option}.")
    if name == "weighted_crossentropy":
        weighted = any(settings.get(weight) is not None for weight in ("class_weight", "pos_weight"))
        _require(weighted, f"loss {name!r} needs class_weight or, if binary or multi-label, pos_weight.")
    return functools.partial(loss, **settings)


def _family(problem: Problem | None) -> tuple[Loss, ...]:
    match problem:
        case None:
            return SIGMOID_FAMILY + SOFTMAX_FAMILY
        case "binary" | "multilabel" | "detection":
            return SIGMOID_FAMILY
        case "multiclass":
            return SOFTMAX_FAMILY
        case _:
            raise unknown_name("problem", problem, get_args(Problem))


# Small helpers.


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _either(shapes: Sequence[tuple[int, ...]]) -> str:
    return " or ".join(str(shape) for shape in shapes)


def _holds(labels: Any, label: float) -> Any:
    """Where an array, of NumPy or JAX, holds that label; NaN is a label like any other."""
    return labels != labels if math.isnan(label) else labels == label


def _is_concrete(value: ArrayLike | None) -> bool:
    """Whether the values can be looked at, or are only known when the compiled code runs."""
    return value is not None and not isinstance(value, jax.core.Tracer)
