"""What the losses of both families share: the check at the door, the mask, the weights, the reduction."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypedDict, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import holds

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


class Terms(NamedTuple):
    """What each example brings, in arrays of the per-example shape that are 0 where it is masked."""

    loss: jax.Array
    weight: jax.Array
    elements: jax.Array  # how many elements its loss is the mean of
    positives: jax.Array  # the sum of its labels


def check_options(weighting: Mapping[str, object], allowed: type, label_smoothing: float) -> None:
    """That every option is one of those allowed, and in its range."""
    known = allowed.__annotations__.keys()
    for name in weighting.keys() - known:
        raise unknown_setting("this loss", name, [*known, "label_smoothing"])
    require(0 <= label_smoothing < 1, f"label_smoothing is {label_smoothing}; it must lie in [0, 1).")
    normalizer = weighting.get("normalizer")
    if normalizer is not None and normalizer not in get_args(Normalizer):
        raise unknown_name("normalizer", str(normalizer), get_args(Normalizer))


def unknown_setting(loss: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a setting that the loss does not take."""
    if name == "pos_weight":
        return InputError("pos_weight is for binary and multi-label losses; weigh classes with class_weight.")
    return unknown_name(f"setting of {loss}", name, known)


def as_logits(logits: ArrayLike) -> jax.Array:
    """The logits in float32 at least."""
    x = jnp.asarray(logits)
    require(
        jnp.issubdtype(x.dtype, jnp.floating),
        f"logits are {x.dtype}; they must be floats, the scores before a sigmoid or softmax.",
    )
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def counted_places(weighting: Weighting, y: jax.Array, mask_shapes: list[tuple[int, ...]]) -> jax.Array:
    """Which elements count, of the first of the shapes that a mask may have."""
    shape = mask_shapes[0]
    counted = jnp.ones(shape, bool)
    if weighting.get("mask") is not None:
        mask = jnp.asarray(weighting["mask"])
        require(mask.dtype == bool, f"mask is {mask.dtype}; it must be bool. Fractions go into sample_weight.")
        require(mask.shape in mask_shapes, f"mask {mask.shape} must have shape {' or '.join(map(str, mask_shapes))}.")
        counted = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)
    ignore_label = weighting.get("ignore_label")
    if ignore_label is not None:
        counted &= ~holds(y, ignore_label)
    return counted


def as_weight(name: str, value: ArrayLike | None, x: jax.Array) -> jax.Array:
    """A weight as an array of the type of x."""
    if isinstance(value, str | Mapping):
        raise InputError(
            f"{name} is {value!r}; a loss takes an array. Compute it once from the training labels: "
            "losses.resolve_class_weight(class_weight, problem, num_classes, labels=training_labels)."
        )
    return jnp.asarray(value, x.dtype)


def nan_outside_unit(y: jax.Array) -> jax.Array:
    """The labels, NaN in place of those outside [0, 1]."""
    # The slack is for soft labels that were mixed in a half type and sum to a little more than 1.
    return jnp.where(jnp.abs(y - 0.5) <= 0.51, y, jnp.nan)


def reduce(terms: Terms, weighting: Weighting) -> jax.Array:
    """What a loss returns: the weighted terms, under the normalizer."""
    loss, weight = terms.loss, terms.weight
    if weighting.get("sample_weight") is not None:
        sample_weight = jnp.asarray(weighting["sample_weight"], loss.dtype)
        require(
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


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message unless the condition holds."""
    if not condition:
        raise InputError(message)
