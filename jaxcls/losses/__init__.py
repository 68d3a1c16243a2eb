"""Classification losses: pure functions of logits that return one value per example and share their options.

Every loss is called `loss(logits, labels, *, its own options, **options)` with logits, never probabilities. There are
two families.

- *Sigmoid* (binary and multi-label): `logits` and `labels` have one shape, `(N,)` or `(..., L)`. Labels are 0 and 1, or
  soft in [0, 1]; hinge losses convert them to ±1 themselves. One-dimensional logits give one value per element; with
  more axes, the value of an example is the mean over its last axis, over the labels that count.
- *Softmax* (multiclass): `logits` are `(..., K)`; `labels` are integer class indices `(...)`, or distributions
  `(..., K)`, one-hot or soft. One value per example, `(...)`.

Half-precision logits are computed, and values returned, in float32. Values and gradients are finite and accurate for
logits up to ±1e4. Masked elements are replaced *before* the operation, so a NaN there reaches neither value nor
gradient. A label that is out of range gives NaN rather than a plausible loss; :func:`jaxcls._utils.labels.validate`
finds it on the host.

`detection_loss` is the loss of a detector: a sigmoid loss of the classes at its anchors, and a loss of its boxes. `get`
finds a loss by its name, jaxcls's or Keras's. `class_weights` and `resolve_class_weight` compute weights from training
labels.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jax

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import AnyProblemName, class_weights, resolve_class_weight
from jaxcls.losses.detection import detection_loss
from jaxcls.losses.shared import Options, Ratio, SigmoidOptions, require, unknown_setting
from jaxcls.losses.sigmoid import asymmetric, hinge, sigmoid_cross_entropy, sigmoid_focal, sigmoid_poly, squared_hinge
from jaxcls.losses.softmax import (
    categorical_hinge,
    logit_adjusted_cross_entropy,
    softmax_cross_entropy,
    softmax_focal,
    softmax_poly,
)

__all__ = [
    "Options", "Ratio", "SigmoidOptions", "asymmetric", "categorical_hinge", "class_weights", "detection_loss", "find",
    "get", "hinge", "logit_adjusted_cross_entropy", "names", "resolve_class_weight", "sigmoid_cross_entropy",
    "sigmoid_focal", "sigmoid_poly", "softmax_cross_entropy", "softmax_focal", "softmax_poly", "squared_hinge",
]  # fmt: skip

Loss = Callable[..., jax.Array]

SIGMOID_FAMILY: tuple[Loss, ...] = (
    sigmoid_cross_entropy, hinge, squared_hinge, sigmoid_focal, asymmetric, sigmoid_poly,
)  # fmt: skip
SOFTMAX_FAMILY: tuple[Loss, ...] = (
    softmax_cross_entropy, softmax_focal, categorical_hinge, softmax_poly, logit_adjusted_cross_entropy,
)  # fmt: skip
_BY_NAME: dict[str, tuple[Loss, ...]] = {
    **{loss.__name__: (loss,) for loss in (*SIGMOID_FAMILY, *SOFTMAX_FAMILY)},
    "binary_crossentropy": (sigmoid_cross_entropy,),
    "sparse_categorical_crossentropy": (softmax_cross_entropy,),
    "categorical_crossentropy": (softmax_cross_entropy,),
    "binary_focal_crossentropy": (sigmoid_focal,),
    "categorical_focal_crossentropy": (softmax_focal,),
    "focal_loss": (sigmoid_focal, softmax_focal),
    "weighted_crossentropy": (sigmoid_cross_entropy, softmax_cross_entropy),
}


def names(problem: AnyProblemName | None = None) -> tuple[str, ...]:
    """The names that `get` takes, sorted; with a problem, those that fit it.

    Raises:
      InputError: the problem is unknown.

    >>> names("multiclass")[:2]
    ('categorical_crossentropy', 'categorical_focal_crossentropy')
    """
    family = _family(problem)
    return tuple(sorted(name for name, losses in _BY_NAME.items() if any(loss in family for loss in losses)))


def find(name: str, problem: AnyProblemName | None = None) -> Loss:
    """The function that a name stands for; see `get`, which also binds settings to it.

    Raises:
      InputError: the name is unknown, does not fit the problem, or needs a problem.

    >>> find("focal_loss", "multiclass").__name__
    'softmax_focal'
    """
    family = _family(problem)
    if name not in _BY_NAME:
        raise unknown_name("loss", name, [other for other in _BY_NAME if {*_BY_NAME[other]} & {*family}])
    losses = [loss for loss in _BY_NAME[name] if loss in family]
    if not losses:
        raise InputError(f"loss {name!r} does not fit a {problem} problem; these do: {', '.join(names(problem))}.")
    if len(losses) > 1:
        raise InputError(
            f"loss {name!r} differs between problems; call losses.get({name!r}, 'binary'), or with 'multilabel' or "
            "'multiclass'."
        )
    return losses[0]


def get(name: str, problem: AnyProblemName | None = None, **settings: Any) -> Loss:
    """The loss of that name with its settings bound.

    Args:
      name: of a function here or of Keras's (`binary_crossentropy`, `binary_focal_crossentropy`, ...; both
        `sparse_categorical_crossentropy` and `categorical_crossentropy` take indices, one-hot and soft labels), or
        `focal_loss` or `weighted_crossentropy`, whose function depends on the problem.
      problem: the loss must fit it. `focal_loss` and `weighted_crossentropy` need it.
      settings: options of the loss. `weighted_crossentropy` needs `class_weight` or `pos_weight`.

    Raises:
      InputError: the name or a setting is unknown, a setting or the problem is missing, or the loss does not fit the
      problem.

    >>> import jax.numpy as jnp
    >>> loss = get("focal_loss", "multiclass", gamma=0.0)
    >>> print(loss(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.2395]
    """
    loss = find(name, problem)
    is_sigmoid = loss in SIGMOID_FAMILY
    call = f"losses.get({name!r}, {problem or ('binary' if is_sigmoid else 'multiclass')!r}"
    signature = inspect.getfullargspec(loss)
    known = [*signature.kwonlyargs, *(SigmoidOptions if is_sigmoid else Options).__annotations__]
    for setting in settings:
        if setting not in known:
            raise unknown_setting(name, setting, known)
    for setting in signature.kwonlyargs:
        has_value = setting in settings or setting in (signature.kwonlydefaults or {})
        require(has_value, f"loss {name!r} needs the setting {setting}: {call}, {setting}=...).")
    if name == "weighted_crossentropy":
        weighted = any(settings.get(weight) is not None for weight in ("class_weight", "pos_weight"))
        or_pos_weight = ", or with pos_weight=..." if is_sigmoid else ""
        require(weighted, f"loss {name!r} needs a weight: {call}, class_weight=...){or_pos_weight}.")
    return functools.partial(loss, **settings)


def _family(problem: AnyProblemName | None) -> tuple[Loss, ...]:
    if problem is None:
        return SIGMOID_FAMILY + SOFTMAX_FAMILY
    if problem not in get_args(AnyProblemName):
        raise unknown_name("problem", problem, get_args(AnyProblemName))
    return SOFTMAX_FAMILY if problem == "multiclass" else SIGMOID_FAMILY
