"""The options of all optimizers, and the chain that they make: clipping, core, weight decay, average, accumulation."""

import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import jax
import jax.numpy as jnp
import optax

from jaxcls._utils import ranges
from jaxcls._utils.errors import InputError, check_names

PyTree = Any
Rate: TypeAlias = float | optax.Schedule


class Options(TypedDict, total=False):
    """The options of every optimizer. An option that is left out, or None, has no effect.

    Attributes:
      clipnorm: scales the gradient of each variable down to this L2 norm. At most one of the three clips may be set.
      global_clipnorm: scales all gradients together down to this L2 norm.
      clipvalue: limits each element of a gradient to [-clipvalue, clipvalue].
      weight_decay: decoupled: `learning_rate * weight_decay * parameter` is subtracted, outside of every moment.
        Default: 0, except for `adamw` and `lion`.
      decay_mask: the leaves that decay: a tree of booleans, or a function from the parameters to one that depends on
        paths and shapes only. Default: leaves of rank 2 or more, which excludes biases and normalization scales; with
        Keras semantics all leaves, as in Keras.
      learning_rate_scale: factors of the learning rate by leaf, and so of its decay: a tree of numbers or of schedules
        (count of updates -> number), or a function from the parameters to one. Lower rates for the first layers of a
        pretrained network are due to Howard and Ruder 2018 (arXiv 1801.06146).
      gradient_accumulation_steps: an update is of this many times `batch_size` examples, computed in as many
        micro-batches, and equals that of the whole batch, whose gradient is clipped. Schedules and moments count
        updates (in Keras, schedules count micro-batches). Without jaxcls's training step, `update` applies the mean
        gradient of this many calls at the last of them; the others change no parameter.
      ema_decay: between 0 and 1, adds an exponential moving average of the parameters for `evaluation_params`, and of
        the model state (the running statistics of batch normalization) for the evaluation in training.
      semantics: 'optax', the default, or 'keras' for the exact update of Keras 3 where it differs.
    """

    clipnorm: float | None
    global_clipnorm: float | None
    clipvalue: float | None
    weight_decay: float | None
    decay_mask: PyTree | Callable[[PyTree], PyTree] | None
    learning_rate_scale: PyTree | Callable[[PyTree], PyTree] | None
    gradient_accumulation_steps: int | None
    ema_decay: float | None
    semantics: Literal["optax", "keras"] | None


def validate(
    optimizer: Callable[..., Any], learning_rate: Rate, options: Options, *, in_keras: bool = True, **settings: object
) -> None:
    """Raises InputError for unknown or invalid options and settings of an optimizer.

    Args:
      optimizer: its keyword-only parameters are its settings.
      in_keras: whether Keras has it, so that semantics='keras' is allowed.
    """
    name = optimizer.__name__
    known = ["learning_rate", *inspect.getfullargspec(optimizer).kwonlyargs, *Options.__annotations__]
    check_names(name, options, known)
    present = {key: value for key, value in options.items() if value is not None}
    rate = {} if callable(learning_rate) else {"learning_rate": learning_rate}
    ranges.check({**rate, **settings, **present}, lambda setting: f"{name}: {setting}")
    clips = [key for key in ("clipnorm", "global_clipnorm", "clipvalue") if key in present]
    if len(clips) > 1:
        raise InputError(f"{name}: only one of clipnorm, global_clipnorm and clipvalue; got {', '.join(clips)}.")
    if has_keras_semantics(options) and not in_keras:
        raise InputError(f"{name}: Keras has no such optimizer; leave out semantics='keras'.")


def has_keras_semantics(options: Options) -> bool:
    return options.get("semantics") == "keras"


def chain(
    core: optax.GradientTransformation,
    learning_rate: Rate,
    options: Options,
    *,
    default_decay: float = 0.0,
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda base: base,
) -> optax.GradientTransformation:
    """The optimizer with this core, which includes the learning rate, and these options.

    Args:
      wrap: is applied to core and weight decay, inside of clipping, average and accumulation.
    """
    decay = options.get("weight_decay")
    decay = default_decay if decay is None else decay
    # One that JAX traces is no number, and may be any.
    if not isinstance(decay, Real) or decay:
        # After the core, whose momentum may include the learning rate: only there is the decay decoupled.
        core = optax.chain(core, _decay(learning_rate, decay, options))
    scale = options.get("learning_rate_scale")
    if scale is not None:
        core = optax.chain(core, _scaled(scale))
    transform = _in_float32(optax.chain(_clip(options), wrap(core)))
    ema_decay = options.get("ema_decay")
    if ema_decay is not None:
        transform = _with_ema(transform, ema_decay, debiased=not has_keras_semantics(options))
    steps = int(options.get("gradient_accumulation_steps") or 1)
    if steps == 1:
        return transform
    # Outermost, so that no inner state changes, the average included, until an update is applied.
    accumulated = Accumulated(*_in_float32(optax.MultiSteps(transform, steps).gradient_transformation()))
    accumulated.inner, accumulated.steps = transform, steps
    return accumulated


class Accumulated(optax.GradientTransformation):
    """A transformation that applies the mean gradient of several updates, for loops that know nothing of it.

    Attributes:
      inner: the transformation of the mean gradient.
      steps: the number of updates.
    """

    inner: optax.GradientTransformation
    steps: int


def per_update(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation of the accumulated gradient, for a training step that accumulates gradients itself."""
    return optimizer.inner if isinstance(optimizer, Accumulated) else optimizer


def accumulation_steps(optimizer: optax.GradientTransformation) -> int:
    """The number of micro-batches of an update.

    >>> from jaxcls.optimizers import sgd
    >>> accumulation_steps(sgd(0.1, gradient_accumulation_steps=4)), accumulation_steps(optax.sgd(0.1))
    (4, 1)
    """
    return optimizer.steps if isinstance(optimizer, Accumulated) else 1


def evaluation_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate with: the moving or schedule-free average in `opt_state`, or else `params`.

    The moving average is debiased: after step t it is the mean of the parameters after steps 1 to t, with weights that
    fall by a factor of `ema_decay` per step back; before the first step it is the parameters themselves. With Keras
    semantics it begins with the parameters after step 1, whose weight stays high for many steps. Shapes and dtypes are
    those of `params`. Works under `jit`.

    >>> from jaxcls.optimizers import sgd
    >>> transform = sgd(1.0, ema_decay=0.5)
    >>> params = jnp.zeros(1)
    >>> state = transform.init(params)
    >>> for _ in range(2):
    ...     updates, state = transform.update(jnp.ones(1), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> print(params, evaluation_params(state, params))  # (1/2 * -1 + 1 * -2) / (1/2 + 1)
    [-2.] [-1.66666...]
    """
    averages = EmaState | optax.contrib.ScheduleFreeState
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, averages)):
        if isinstance(node, EmaState):
            return optax.tree.cast_like(node.ema, params)
        if isinstance(node, optax.contrib.ScheduleFreeState):
            return optax.tree.cast_like(optax.contrib.schedule_free_eval_params(node, params), params)
    return params


class EmaState(NamedTuple):
    """An average over updates.

    Attributes:
      step: the number of updates.
      weight: of the newest values in the average.
      ema: the average of the parameters.
      model_state: that of the model state; None before :func:`average_model_state`.
      inner_state: of the wrapped transformation.
    """

    step: jax.Array
    weight: jax.Array
    ema: PyTree
    model_state: PyTree
    inner_state: PyTree

    def moved(self, average: PyTree, newest: PyTree) -> PyTree:
        """The average with the newest values in it; of leaves that are no floating-point numbers, the newest."""

        def move(mean: jax.Array, value: jax.Array) -> jax.Array:
            return mean + self.weight * (value - mean) if jnp.issubdtype(mean.dtype, jnp.floating) else value

        return jax.tree.map(move, average, newest)


def average_model_state(opt_state: PyTree, model_state: PyTree) -> PyTree:
    """The state of an optimizer after `init` or `update`, with the model state in its moving average, if it has one.

    Averaged parameters are evaluated with the average of the running statistics that belong to them.
    """

    def average(node: PyTree) -> PyTree:
        if not isinstance(node, EmaState):
            return node
        if node.model_state is None:
            return node._replace(model_state=_copied(model_state))
        return node._replace(model_state=node.moved(node.model_state, model_state))

    return jax.tree.map(average, opt_state, is_leaf=lambda node: isinstance(node, EmaState))


def evaluation_model_state(opt_state: PyTree, model_state: PyTree) -> PyTree:
    """The model state to evaluate with: the moving average in `opt_state`, or else `model_state`."""
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, EmaState)):
        if isinstance(node, EmaState) and node.model_state is not None:
            return jax.tree.map(lambda mean, like: mean.astype(like.dtype), node.model_state, model_state)
    return model_state


def _with_ema(inner: optax.GradientTransformation, decay: float, *, debiased: bool) -> optax.GradientTransformation:
    """The same updates, with a moving average of the parameters that they lead to: debiased, or else Keras's."""

    def init(params: PyTree) -> EmaState:
        return EmaState(jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32), _copied(params), None, inner.init(params))

    def update(grads: PyTree, state: EmaState, params: PyTree = None) -> tuple[PyTree, EmaState]:
        updates, inner_state = inner.update(grads, state.inner_state, params)
        step = optax.safe_increment(state.step)
        # (1 - decay) / (1 - decay**step) updates the debiased average directly. expm1, since 1 - decay**step loses
        # digits if decay is near 1.
        weight = (1 - decay) / -jnp.expm1(step * math.log(decay)) if debiased else jnp.where(step == 1, 1, 1 - decay)
        state = state._replace(step=step, weight=jnp.float32(weight), inner_state=inner_state)
        return updates, state._replace(ema=state.moved(state.ema, optax.apply_updates(params, updates)))

    return optax.GradientTransformation(init, update)


def _copied(tree: PyTree) -> PyTree:
    # A copy, since parameters and optimizer state are donated together; float32, so that small steps count.
    def copy(leaf: jax.Array) -> jax.Array:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32)) if floating else jnp.copy(leaf)

    return jax.tree.map(copy, tree)


def _clip(options: Options) -> optax.GradientTransformation:
    limit, global_limit, value = options.get("clipnorm"), options.get("global_clipnorm"), options.get("clipvalue")
    if limit is not None:
        return optax.stateless_with_tree_map(
            lambda grad, _: grad * (limit / jnp.maximum(jnp.linalg.norm(grad.ravel()), limit))
        )
    if global_limit is not None:
        return optax.clip_by_global_norm(global_limit)
    return optax.identity() if value is None else optax.clip(value)


def _decay(learning_rate: Rate, weight_decay: float, options: Options) -> optax.GradientTransformation:
    def matrices_or_all(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: has_keras_semantics(options) or leaf.ndim >= 2, params)

    mask = options.get("decay_mask")
    mask = matrices_or_all if mask is None else mask
    if callable(learning_rate):
        return optax.add_decayed_weights(lambda step: -weight_decay * learning_rate(step), mask)
    return optax.add_decayed_weights(-weight_decay * learning_rate, mask)


def _scaled(scale: PyTree | Callable[[PyTree], PyTree]) -> optax.GradientTransformation:
    """Multiplies each leaf of the updates by its factor."""

    def update(updates: PyTree, state: optax.ScaleByScheduleState, params: PyTree = None) -> tuple[PyTree, Any]:
        factors = scale(params) if callable(scale) else scale
        updates = jax.tree.map(
            lambda leaf, factor: leaf * (factor(state.count) if callable(factor) else factor), updates, factors
        )
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update)


def widened(tree: PyTree) -> PyTree:
    """The leaves in float32 or higher."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` applied to gradients and parameters in float32 or higher.

    In bfloat16 a second moment would not change: 1 - b2 is below the resolution of that type.
    """

    def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return inner.update(widened(grads), state, widened(params))

    return optax.GradientTransformation(lambda params: inner.init(widened(params)), update)
