"""What all losses share: their options, validation, masks, weights and the reduction."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import holds

Normalizer = Literal["none", "batch", "weights", "positives"]


class Options(TypedDict, total=False):
    """The options of every loss. An option that is left out, or None, has no effect.

    Attributes:
      label_smoothing: s in [0, 1) turns a label y into y (1 - s) + s / 2, or y (1 - s) + s / K in the softmax family.
      class_weight: softmax: (K,); a soft label has its expected weight, before smoothing. Sigmoid: (2,), the weights of
        the labels 0 and 1, or (L, 2), those of each label.
      sample_weight: one weight per example. A weight of 0 is a factor, not a mask: 0 times NaN is NaN.
      mask: bool, one per example, or per element in the sigmoid family. Where it is False, nothing counts.
      ignore_label: elements with this label (an integer, or NaN for float labels) do not count.
      normalizer: "none", the default, returns weighted values per example, 0 where masked. All others return a scalar,
        which is 0 if nothing counts. "batch" divides the sum of the values by the number of examples that count;
        "weights" divides it by the sum of all weights applied; "positives" divides the sum over all elements by the sum
        of the labels, at least 1 (Lin et al. 2017, arXiv:1708.02002), which in the softmax family, with one positive
        per example, is "batch".
      as_ratio: returns a :class:`Ratio`, the values before they are summed and divided; without a normalizer, "batch".
    """

    label_smoothing: float | None
    class_weight: ArrayLike | None
    sample_weight: ArrayLike | None
    mask: ArrayLike | None
    ignore_label: float | None
    normalizer: Normalizer | None
    as_ratio: bool | None


class SigmoidOptions(Options, total=False):
    """The options of binary and multi-label losses.

    Attributes:
      pos_weight: the weight of positive labels, a scalar or one per label (L,); it multiplies class_weight.
    """

    pos_weight: ArrayLike | None


class Terms(NamedTuple):
    """The contributions of each example, all 0 where it is masked.

    Attributes:
      loss: the weighted loss.
      weight: the sum of the weights applied.
      elements: the number of elements over which the loss is a mean.
      positives: the sum of the labels.
    """

    loss: jax.Array
    weight: jax.Array
    elements: jax.Array
    positives: jax.Array


class Ratio(NamedTuple):
    """A loss before its division: that of a set of examples is the sum of its numerators over that of its denominators.

    Attributes:
      numerator, denominator: of each example.
      at_least_one: whether a sum of denominators below 1, and not only one of 0, is taken as 1.
      weight: the factor of this loss in the sum over the outputs of a model.
    """

    numerator: jax.Array
    denominator: jax.Array
    at_least_one: bool = True
    weight: float = 1.0

    def divisor(self) -> jax.Array:
        """The sum of the denominators, by which :meth:`value` divides."""
        total = jnp.sum(self.denominator)
        return jnp.maximum(total, 1) if self.at_least_one else jnp.where(total == 0, 1, total)

    def value(self, divisor: jax.Array | None = None) -> jax.Array:
        """The loss of these examples, or their share in the loss of all examples with this divisor."""
        value = jnp.sum(self.numerator) / (self.divisor() if divisor is None else divisor)
        return value if self.weight == 1 else self.weight * value


def smoothing(options: Options, allowed: type) -> float:
    """Validates the options that are no arrays, and returns label_smoothing."""
    for name in options.keys() - allowed.__annotations__:
        raise unknown_setting("this loss", name, allowed.__annotations__)
    normalizer = options.get("normalizer")
    if normalizer is not None and normalizer not in get_args(Normalizer):
        raise unknown_name("normalizer", str(normalizer), get_args(Normalizer))
    label_smoothing = options.get("label_smoothing")
    if label_smoothing is None:
        return 0.0
    in_range = not is_known(label_smoothing) or 0 <= label_smoothing < 1
    require(in_range, f"label_smoothing is {label_smoothing}; it must lie in [0, 1).")
    return label_smoothing


def unknown_setting(loss: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a setting that the loss does not take."""
    if name == "pos_weight":
        return InputError("pos_weight is for binary and multi-label losses; weight classes with class_weight.")
    return unknown_name(f"setting of {loss}", name, known)


def as_logits(logits: ArrayLike) -> jax.Array:
    """The logits in float32 or higher."""
    x = jnp.asarray(logits)
    require(
        jnp.issubdtype(x.dtype, jnp.floating),
        f"logits are {x.dtype}; they must be floats, the scores before a sigmoid or softmax.",
    )
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def counted_elements(options: Options, y: jax.Array, *mask_shapes: tuple[int, ...]) -> jax.Array:
    """Whether each element counts, of the first of the shapes that a mask may have."""
    shape = mask_shapes[0]
    counted = jnp.ones(shape, bool)
    if options.get("mask") is not None:
        mask = jnp.asarray(options["mask"])
        require(mask.dtype == bool, f"mask is {mask.dtype}; it must be bool. Fractions go into sample_weight.")
        check_shape("mask", mask, *mask_shapes)
        counted = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)
    ignore_label = options.get("ignore_label")
    if ignore_label is not None:
        counted &= ~holds(y, ignore_label)
    return counted


def as_weight(
    name: str, value: ArrayLike | None, x: jax.Array, *shapes: tuple[int, ...], meaning: str = ""
) -> jax.Array:
    """A weight as an array of the dtype of x and one of the shapes."""
    if isinstance(value, str | Mapping):
        raise InputError(
            f"{name} is {value!r}; a loss takes an array. Compute it once from the training labels: "
            "losses.resolve_class_weight(class_weight, problem, num_classes, labels=training_labels)."
        )
    weight = jnp.asarray(value, x.dtype)
    check_shape(name, weight, *shapes, meaning=meaning)
    return weight


def nan_outside_unit(y: jax.Array) -> jax.Array:
    """The labels, with NaN in place of those outside [0, 1]."""
    # Tolerates soft labels that were mixed in half precision and sum to slightly more than 1.
    return jnp.where(jnp.abs(y - 0.5) <= 0.51, y, jnp.nan)


def reduce(terms: Terms, options: Options) -> Any:
    """Applies sample_weight and the normalizer."""
    loss, weight = terms.loss, terms.weight
    if options.get("sample_weight") is not None:
        sample_weight = jnp.asarray(options["sample_weight"], loss.dtype)
        check_shape("sample_weight", sample_weight, loss.shape, meaning=": one per example")
        sample_weight = jnp.where(terms.elements > 0, sample_weight, 0)
        loss, weight = loss * sample_weight, weight * sample_weight
    normalizer = options.get("normalizer") or "none"
    match normalizer:
        case "weights":
            ratio = Ratio(loss, weight, at_least_one=False)
        case "positives":
            ratio = Ratio(loss * terms.elements, terms.positives)
        case _:
            ratio = Ratio(loss, terms.elements > 0)
    if options.get("as_ratio"):
        return ratio
    return loss if normalizer == "none" else ratio.value()


def check_shape(name: str, array: jax.Array, *shapes: tuple[int, ...], meaning: str = "") -> None:
    """Raises InputError unless the array has one of the shapes."""
    require(array.shape in shapes, f"{name} {array.shape} must have shape {' or '.join(map(str, shapes))}{meaning}.")


def where_counted(weight: jax.Array, value: jax.Array) -> jax.Array:
    """The value, or 0 where its weight is 0: it may be infinite there, and 0 times infinity is NaN."""
    return jnp.where(weight == 0, 0, value)


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message unless the condition holds."""
    if not condition:
        raise InputError(message)


def is_known(value: ArrayLike) -> bool:
    """Whether a setting can be checked: while it is traced, as in a schedule of gamma, it cannot."""
    return not isinstance(value, jax.core.Tracer)


def require_at_least_zero(**settings: Any) -> None:
    """Raises InputError unless each setting is at least 0."""
    for name, value in settings.items():
        require(not is_known(value) or bool(value >= 0), f"{name} is {value}; it must be at least 0.")
