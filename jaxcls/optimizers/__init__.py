"""Optimizers and learning-rate schedules by name, each a single Optax transformation or schedule.

    rate = schedule("cosine", learning_rate=1e-3, total_steps=1000)
    transform = get("adamw", learning_rate=rate, clipnorm=1.0)
    opt_state = transform.init(params)
    updates, opt_state = transform.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    evaluation_params(opt_state, params)

Options of one optimizer have Optax's names (`b1`, `eps`, `momentum`), and those of all optimizers (`Options`) have
Keras's (`clipnorm`, `weight_decay`). `update` always needs the parameters.
"""

from collections.abc import Callable
from typing import Any

import optax

from jaxcls._utils.errors import unknown_name
from jaxcls.optimizers.chain import Options, Rate, evaluation_params
from jaxcls.optimizers.schedules import SCHEDULES, schedule
from jaxcls.optimizers.transforms import adagrad, adam, adamw, lion, muon, nadam, rmsprop, schedule_free, sgd

__all__ = [
    "OPTIMIZERS", "SCHEDULES", "Options", "adagrad", "adam", "adamw", "default_learning_rate", "evaluation_params",
    "get", "lion", "muon", "nadam", "rmsprop", "schedule", "schedule_free", "sgd",
]  # fmt: skip

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    optimizer.__name__: optimizer
    for optimizer in (adagrad, adam, adamw, lion, muon, nadam, rmsprop, schedule_free, sgd)
}
# Keras's rates; lion's is a tenth of Adam's (arXiv 2302.06675), and schedule_free's is Optax's. 1e-3 for all others.
_DEFAULT_RATES = {"lion": 1e-4, "schedule_free": 2.5e-3, "sgd": 1e-2}


def get(name: str, *, learning_rate: Rate | None = None, **settings: Any) -> optax.GradientTransformation:
    """The optimizer of that name with its settings.

    Args:
      name: one of `OPTIMIZERS`.
      learning_rate: a number or a schedule. Default: `default_learning_rate(name)`.
      settings: options of the optimizer, and `Options`.

    Raises:
      InputError: the name or a setting is unknown, or a value is out of range.

    >>> transform = get("sgd", learning_rate=0.1, momentum=0.9, global_clipnorm=1.0)
    >>> get("sgd", learning_rate=0.1, clipnrom=1.0)
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: sgd takes no setting 'clipnrom'. Did you mean 'clipnorm'? It takes: ...
    """
    default = default_learning_rate(name)
    return OPTIMIZERS[name](default if learning_rate is None else learning_rate, **settings)


def default_learning_rate(name: str) -> float:
    """A learning rate to start with, for the optimizer of that name.

    >>> default_learning_rate("sgd")
    0.01
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return _DEFAULT_RATES.get(name, 1e-3)
