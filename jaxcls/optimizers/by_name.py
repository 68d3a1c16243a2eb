"""Optimizers by name, and the learning rate to begin with."""

from collections.abc import Callable
from typing import Any

import optax

from jaxcls._utils.errors import unknown_name
from jaxcls.optimizers.chain import Rate
from jaxcls.optimizers.transforms import adagrad, adam, adamw, lion, muon, nadam, rmsprop, schedule_free, sgd

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
    "muon": muon,
    "nadam": nadam,
    "rmsprop": rmsprop,
    "schedule_free": schedule_free,
    "sgd": sgd,
}


def get(name: str, *, learning_rate: Rate, **settings: Any) -> optax.GradientTransformation:
    """The optimizer of this name with these settings, its own and the `Common` ones.

    Errors: InputError for a name or a setting that is not known, and for a value out of its range.

    >>> transform = get("sgd", learning_rate=0.1, momentum=0.9, global_clipnorm=1.0)
    >>> get("sgd", learning_rate=0.1, clipnrom=1.0)
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: sgd takes no setting 'clipnrom'. Did you mean 'clipnorm'? It takes: ...
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](learning_rate, **settings)


# Keras's defaults. Lion's is a tenth of Adam's (arXiv 2302.06675); the others' are those of their sources.
_DEFAULT_LEARNING_RATES = {
    "adagrad": 1e-3,
    "adam": 1e-3,
    "adamw": 1e-3,
    "lion": 1e-4,
    "muon": 1e-3,
    "nadam": 1e-3,
    "rmsprop": 1e-3,
    "schedule_free": 2.5e-3,
    "sgd": 1e-2,
}


def default_learning_rate(name: str) -> float:
    """A rate to begin with, where none is given for the optimizer of this name.

    >>> default_learning_rate("sgd")
    0.01
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return _DEFAULT_LEARNING_RATES[name]
