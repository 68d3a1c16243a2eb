"""What every optimizer takes beside its own settings, and the chain that it becomes: clipping, core, decay, average."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypedDict, cast

import jax
import jax.numpy as jnp
import optax

from jaxcls._utils.errors import InputError
from jaxcls.optimizers.averages import with_ema
from jaxcls.optimizers.checks import check, check_names, keywords

PyTree = Any
Rate: TypeAlias = float | optax.Schedule


class Common(TypedDict, total=False):
    """The settings that every optimizer takes, beside its own.

    Attributes:
      clipnorm: each variable's gradient is scaled down to this L2 norm; only one of the three clips is given.
      global_clipnorm: all gradients together are scaled down to this L2 norm.
      clipvalue: each element of a gradient is limited to [-clipvalue, clipvalue].
      weight_decay: decoupled: `learning_rate * weight_decay * parameter` is taken off, outside of every moment.
          Default 0, except for `adamw` and `lion`.
      decay_mask: which leaves decay: a tree of booleans, or a function from the parameters to one that looks at
          paths and shapes only. Default: the leaves of rank 2 and more, which spares biases and normalisation
          scales; with Keras semantics every leaf, as in Keras.
      gradient_accumulation_steps: the mean gradient of so many successive updates is applied at the last of
          them; the others change no parameter. Schedules and moments count applied updates (in Keras, schedules
          count the others as well). Clipping is of the mean.
      ema_decay: keeps an exponential moving average of the parameters for `evaluation_params`.
      semantics: 'optax', or 'keras' for the exact update of Keras 3 where that one differs.
    """

    clipnorm: float | None
    global_clipnorm: float | None
    clipvalue: float | None
    weight_decay: float | None
    decay_mask: PyTree | Callable[[PyTree], PyTree] | None
    gradient_accumulation_steps: int | None
    ema_decay: float | None
    semantics: Literal["optax", "keras"]


_DEFAULTS: Common = {
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "weight_decay": None,
    "decay_mask": None,
    "gradient_accumulation_steps": None,
    "ema_decay": None,
    "semantics": "optax",
}


def settled(optimizer: Callable[..., Any], learning_rate: Rate, common: Common, /, **own: object) -> Common:
    """The common settings, checked and complete, after a check of the optimizer's own."""
    name = optimizer.__name__
    check_names(name, common, keywords(optimizer) + sorted(_DEFAULTS))
    if not callable(learning_rate):
        check(name, learning_rate=learning_rate)
    check(name, **own)
    given = {key: value for key, value in common.items() if value is not None}
    check(name, **given)
    clips = [key for key in ("clipnorm", "global_clipnorm", "clipvalue") if key in given]
    if len(clips) > 1:
        raise InputError(f"{name}: only one of clipnorm, global_clipnorm and clipvalue; got {', '.join(clips)}.")
    return cast(Common, {**_DEFAULTS, **given})


def refuse_keras_semantics(name: str, settings: Common) -> None:
    """For the optimizers that Keras does not have."""
    if settings["semantics"] == "keras":
        raise InputError(f"{name}: there is no semantics='keras' for it; leave semantics out.")


def assembled(
    core: optax.GradientTransformation,
    learning_rate: Rate,
    settings: Common,
    *,
    weight_decay: dict[str, float] | None = None,
    around: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda base: base,
) -> optax.GradientTransformation:
    """Clipping, then `core`, which holds the learning rate, then decay; average and accumulation around.

    `weight_decay` is the default for each semantics; `around` wraps what lies between clipping and average.
    """
    semantics, decay = settings["semantics"], settings["weight_decay"]
    if decay is None:
        decay = weight_decay[semantics] if weight_decay else 0.0
    mask = settings["decay_mask"]
    if mask is None:
        mask = _is_matrix if semantics == "optax" else _is_any
    # Behind the core, whose momentum may hold the learning rate: only there is the decay decoupled.
    base = around(optax.chain(core, _decay(learning_rate, decay, mask)) if decay else core)
    transform = _in_float32(optax.chain(_clip(settings), base))
    if settings["ema_decay"] is not None:
        transform = with_ema(transform, settings["ema_decay"])
    steps = settings["gradient_accumulation_steps"] or 1
    # Outermost: it withholds the whole inner state, the average's too, until an update is applied.
    return optax.MultiSteps(transform, int(steps)).gradient_transformation() if steps > 1 else transform


def _clip(settings: Common) -> optax.GradientTransformation:
    if settings["clipnorm"] is not None:
        return _clip_each_by_norm(settings["clipnorm"])
    if settings["global_clipnorm"] is not None:
        return optax.clip_by_global_norm(settings["global_clipnorm"])
    if settings["clipvalue"] is not None:
        return optax.clip(settings["clipvalue"])
    return optax.identity()


def _clip_each_by_norm(limit: float) -> optax.GradientTransformation:
    return optax.stateless_with_tree_map(
        lambda grad, _: grad * (limit / jnp.maximum(jnp.linalg.norm(grad.ravel()), limit))
    )


def _decay(learning_rate: Rate, weight_decay: float, mask: PyTree) -> optax.GradientTransformation:
    if callable(learning_rate):
        return optax.add_decayed_weights(lambda step: -weight_decay * learning_rate(step), mask)
    return optax.add_decayed_weights(-weight_decay * learning_rate, mask)


def _is_matrix(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _is_any(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: True, params)


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` on gradients and parameters widened to float32 at least.

    A second moment in bfloat16 would stand still: 1 - b2 lies below the resolution of that type.
    """

    def widened(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

    def init(params: PyTree) -> PyTree:
        return inner.init(widened(params))

    def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return inner.update(widened(grads), state, widened(params))

    return optax.GradientTransformation(init, update)
