"""A name and its settings become one optax chain; a name and its settings become one learning-rate schedule.

    rate = schedule("cosine", learning_rate=1e-3, total_steps=1000)
    transform = get("adamw", learning_rate=rate, clipnorm=1.0)
    opt_state = transform.init(params)
    updates, opt_state = transform.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    evaluation_params(opt_state, params)

The options of one optimizer are named as in Optax (`b1`, `eps`, `momentum`), the settings that all of them
take (`Common`) as in Keras (`clipnorm`, `weight_decay`). The parameters are given to `update` always.
"""

from jaxcls.optimizers.averages import EmaState, evaluation_params
from jaxcls.optimizers.by_name import OPTIMIZERS, default_learning_rate, get
from jaxcls.optimizers.chain import Common, Rate
from jaxcls.optimizers.schedules import SCHEDULES, schedule
from jaxcls.optimizers.transforms import adagrad, adam, adamw, lion, muon, nadam, rmsprop, schedule_free, sgd

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Common",
    "EmaState",
    "Rate",
    "adagrad",
    "adam",
    "adamw",
    "default_learning_rate",
    "evaluation_params",
    "get",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedule",
    "schedule_free",
    "sgd",
]
