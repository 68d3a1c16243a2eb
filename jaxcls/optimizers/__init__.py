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

from jaxcls.optimizers.averages import evaluation_params
from jaxcls.optimizers.by_name import OPTIMIZERS, default_learning_rate, get
from jaxcls.optimizers.chain import Options
from jaxcls.optimizers.schedules import SCHEDULES, schedule
from jaxcls.optimizers.transforms import adagrad, adam, adamw, lion, muon, nadam, rmsprop, schedule_free, sgd

__all__ = [
    "OPTIMIZERS", "SCHEDULES", "Options", "adagrad", "adam", "adamw", "default_learning_rate", "evaluation_params",
    "get", "lion", "muon", "nadam", "rmsprop", "schedule", "schedule_free", "sgd",
]  # fmt: skip
