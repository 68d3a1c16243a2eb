"""Losses by name. Where a name stands for a form in each family, the sigmoid form is first."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jax

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls._utils.labels import AnyProblemName
from jaxcls.losses.sigmoid import asymmetric, hinge, sigmoid_cross_entropy, sigmoid_focal, sigmoid_poly, squared_hinge
from jaxcls.losses.softmax import (
    categorical_hinge,
    logit_adjusted_cross_entropy,
    softmax_cross_entropy,
    softmax_focal,
    softmax_poly,
)
from jaxcls.losses.weighting import SigmoidWeighting, Weighting, require, unknown_setting

Loss = Callable[..., jax.Array]
ProblemName = AnyProblemName

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
    softmax_focal,
    categorical_hinge,
    softmax_poly,
    logit_adjusted_cross_entropy,
)
ALIASES: dict[str, tuple[Loss, ...]] = {
    "binary_crossentropy": (sigmoid_cross_entropy,),
    "sparse_categorical_crossentropy": (softmax_cross_entropy,),
    "categorical_crossentropy": (softmax_cross_entropy,),
    "binary_focal_crossentropy": (sigmoid_focal,),
    "categorical_focal_crossentropy": (softmax_focal,),
    "focal_loss": (sigmoid_focal, softmax_focal),
    "weighted_crossentropy": (sigmoid_cross_entropy, softmax_cross_entropy),
}
_BY_NAME = {loss.__name__: (loss,) for loss in (*SIGMOID_FAMILY, *SOFTMAX_FAMILY)} | ALIASES


def names(problem: ProblemName | None = None) -> tuple[str, ...]:
    """The names that ``get`` knows, in order; with a problem, those that fit it.

    Raises:
      InputError: the problem is unknown.

    >>> names("multiclass")[:2]
    ('categorical_crossentropy', 'categorical_focal_crossentropy')
    """
    family = _family(problem)
    return tuple(sorted(name for name, forms in _BY_NAME.items() if any(form in family for form in forms)))


def find(name: str, problem: ProblemName | None = None) -> Loss:
    """The function that a name stands for; see ``get``, which also binds settings to it.

    Raises:
      InputError: the name is unknown, or the loss does not fit the problem.

    >>> find("focal_loss", "multiclass").__name__
    'softmax_focal'
    """
    if name not in _BY_NAME:
        raise unknown_name("loss", name, _BY_NAME)
    family = _family(problem)
    forms = [form for form in _BY_NAME[name] if form in family]
    if not forms:
        raise InputError(f"loss {name!r} does not fit a {problem} problem; these do: {', '.join(names(problem))}.")
    return forms[0]


def get(name: str, problem: ProblemName | None = None, **settings: Any) -> Loss:
    """The loss of that name, with its settings bound.

    Names are those of the functions here, Keras's (``binary_crossentropy``, ``binary_focal_crossentropy``,
    ...; ``sparse_categorical_crossentropy`` and ``categorical_crossentropy`` are one function, which takes
    indices, one-hot and soft labels alike), and ``focal_loss`` and ``weighted_crossentropy``, which have a
    form for each family: ``problem`` chooses it, and without one it is the sigmoid form.
    ``weighted_crossentropy`` needs ``class_weight`` or ``pos_weight``.

    Raises:
      InputError: the name or a setting is unknown, a needed setting is missing, or the loss does not fit the
      problem.

    >>> import jax.numpy as jnp
    >>> loss = get("focal_loss", "multiclass", gamma=0.0)
    >>> print(loss(jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0])).round(4))
    [0.2395]
    """
    loss = find(name, problem)
    own = {
        option.name: option.default
        for option in inspect.signature(loss).parameters.values()
        if option.kind is option.KEYWORD_ONLY
    }
    shared = SigmoidWeighting if loss in SIGMOID_FAMILY else Weighting
    for setting in settings:
        if setting not in own and setting not in shared.__annotations__:
            raise unknown_setting(name, setting, [*own, *shared.__annotations__])
    for option, default in own.items():
        given = option in settings or default is not inspect.Parameter.empty
        require(given, f"loss {name!r} needs the setting {option}.")
    if name == "weighted_crossentropy":
        weighted = any(settings.get(weight) is not None for weight in ("class_weight", "pos_weight"))
        require(weighted, f"loss {name!r} needs class_weight or, if binary or multi-label, pos_weight.")
    return functools.partial(loss, **settings)


def _family(problem: ProblemName | None) -> tuple[Loss, ...]:
    match problem:
        case None:
            return SIGMOID_FAMILY + SOFTMAX_FAMILY
        case "binary" | "multilabel" | "detection":
            return SIGMOID_FAMILY
        case "multiclass" | "multioutput":
            return SOFTMAX_FAMILY
        case _:
            raise unknown_name("problem", problem, get_args(ProblemName))
