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

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, cast

import jax
import jax.numpy as jnp
import optax

from jaxcls.errors import InputError, did_you_mean, unknown_name

PyTree = Any
Rate: TypeAlias = float | optax.Schedule


class Common(TypedDict, total=False):
    """The settings that every optimizer takes, beside its own.

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


def sgd(
    learning_rate: Rate, *, momentum: float = 0.0, nesterov: bool = False, **common: Unpack[Common]
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with momentum (Polyak) or Nesterov's momentum.

    With Keras semantics the velocity holds the learning rate, so that a change of the rate reaches the old
    gradients' share of the velocity later than with Optax's. Errors: InputError. Source: `optax.sgd`,
    `keras.optimizers.SGD`.

    >>> transform = sgd(0.1, momentum=0.9)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.1 -0.1]
    """
    settings = _settled(sgd, learning_rate, common, momentum=momentum, nesterov=nesterov)
    if nesterov and not momentum:
        raise InputError("sgd: nesterov=True needs a momentum above 0, for example momentum=0.9.")
    rate = optax.scale_by_learning_rate(learning_rate)
    velocity = _momentum(momentum, nesterov=nesterov)
    steps = (rate, velocity) if settings["semantics"] == "keras" else (velocity, rate)
    return _assembled(optax.chain(*steps), learning_rate, settings)


def rmsprop(
    learning_rate: Rate,
    *,
    decay: float = 0.9,
    eps: float | None = None,
    momentum: float = 0.0,
    centered: bool = False,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """RMSprop: the gradient over the root of a moving average of its square.

    `eps` stands inside the root; None is 1e-8, with Keras semantics 1e-7. `centered` subtracts the square of
    the mean gradient, so that the root is of the variance. Errors: InputError. Source: Hinton, lecture 6e of
    "Neural Networks for Machine Learning"; `optax.rmsprop`, `keras.optimizers.RMSprop`.

    >>> transform = rmsprop(0.1, decay=0.75)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.2 -0.2]
    """
    settings = _settled(rmsprop, learning_rate, common, decay=decay, eps=eps, momentum=momentum, centered=centered)
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    core = optax.chain(
        scale(decay, _eps(eps, settings)),
        optax.scale_by_learning_rate(learning_rate),
        _momentum(momentum),
    )
    return _assembled(core, learning_rate, settings)


def adam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float | None = None,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """Adam: the mean gradient over the root of the mean square, both corrected for their start at zero.

    `eps` is added to the corrected root (None: 1e-8), with Keras semantics to the uncorrected one (None:
    1e-7): where gradients are near 1e-6 the two part entirely. Errors: InputError. Source: arXiv 1412.6980;
    `optax.adam`, `keras.optimizers.Adam`.

    >>> transform = adam(0.1)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f}")
    -0.100
    """
    settings = _settled(adam, learning_rate, common, b1=b1, b2=b2, eps=eps)
    return _assembled(_adam_core(learning_rate, b1, b2, eps, settings), learning_rate, settings)


def adamw(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float | None = None,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """Adam with weight decay by default: 1e-4, with Keras semantics 0.004; otherwise `adam`.

    Errors: InputError. Source: arXiv 1711.05101; `optax.adamw`, `keras.optimizers.AdamW`.

    >>> transform = adamw(0.1, weight_decay=0.5)
    >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f} {updates['bias'][0]:.3f}")
    -0.150 -0.100
    """
    settings = _settled(adamw, learning_rate, common, b1=b1, b2=b2, eps=eps)
    core = _adam_core(learning_rate, b1, b2, eps, settings)
    return _assembled(core, learning_rate, settings, weight_decay={"optax": 1e-4, "keras": 4e-3})


def adagrad(
    learning_rate: Rate,
    *,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """Adagrad: the gradient over the root of the sum of all its squares; the same in Optax and Keras.

    Errors: InputError. Source: Duchi et al., JMLR 12 (2011); `optax.adagrad`, `keras.optimizers.Adagrad`.

    >>> transform = adagrad(0.1, initial_accumulator_value=3.0)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.05 -0.05]
    """
    settings = _settled(adagrad, learning_rate, common, initial_accumulator_value=initial_accumulator_value, eps=eps)
    core = optax.adagrad(learning_rate, initial_accumulator_value, eps)
    return _assembled(core, learning_rate, settings)


def nadam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float | None = None,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """Adam with Nesterov's momentum.

    Keras semantics warm the momentum up, `b1 * (1 - 0.5 * 0.96 ** step)`, and correct by its running product.
    `eps` None: 1e-8, with Keras semantics 1e-7. Errors: InputError. Source: Dozat 2016 (OpenReview
    OM0jvwB8jIp57ZJjtNEZ); `optax.nadam`, `keras.optimizers.Nadam`.

    >>> transform = nadam(0.1)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f}")
    -0.147
    """
    settings = _settled(nadam, learning_rate, common, b1=b1, b2=b2, eps=eps)
    if settings["semantics"] == "keras":
        scale = _scale_by_keras_nadam(b1, b2, _eps(eps, settings))
    else:
        scale = optax.scale_by_adam(b1, b2, _eps(eps, settings), nesterov=True)
    core = optax.chain(scale, optax.scale_by_learning_rate(learning_rate))
    return _assembled(core, learning_rate, settings)


def lion(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.99, **common: Unpack[Common]
) -> optax.GradientTransformation:
    """Lion: the sign of an interpolation between momentum and gradient.

    Weight decay is 1e-3 by default, as in Optax; with Keras semantics 0. It wants a learning rate 3 to 10
    times smaller than AdamW's. Errors: InputError. Source: arXiv 2302.06675; `optax.lion`,
    `keras.optimizers.Lion`.

    >>> transform = lion(0.1, weight_decay=0.0)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.1 -0.1]
    """
    settings = _settled(lion, learning_rate, common, b1=b1, b2=b2)
    core = optax.chain(optax.scale_by_lion(b1, b2), optax.scale_by_learning_rate(learning_rate))
    return _assembled(core, learning_rate, settings, weight_decay={"optax": 1e-3, "keras": 0.0})


def muon(
    learning_rate: Rate,
    *,
    beta: float = 0.95,
    ns_steps: int = 5,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    muon_mask: Callable[[PyTree], PyTree] | None = None,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """Muon: the momentum of each hidden weight matrix, orthogonalised; Nadam (`b1`, `b2`) for all the rest.

    `muon_mask` maps the parameters to a tree of booleans, from paths and ranks only: True for the leaves, of
    rank 2 or more, that Muon takes, each as a matrix of its last axis against all its others. Default: leaves
    of rank 2 and 4 (dense and 2-D convolution kernels), unless a name on the path holds 'embed' or is 'head',
    since Muon is meant for hidden layers. Rank 3 is left to Nadam: it may be an attention kernel, whose axes
    the shape does not tell. Updates are scaled to Adam's size (0.2 in root mean square), so that one learning
    rate, of AdamW's order, serves both. Errors: InputError, also for Keras semantics. Source: arXiv
    2502.16982; `optax.contrib.muon`.

    >>> transform = muon(0.1)
    >>> params = {"dense": {"kernel": jnp.eye(4)}, "head": {"kernel": jnp.eye(4)}}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> bool((updates["dense"]["kernel"] != updates["head"]["kernel"]).any())
    True
    """
    settings = _settled(
        muon, learning_rate, common, beta=beta, ns_steps=ns_steps, b1=b1, b2=b2, eps=eps, muon_mask=muon_mask
    )
    _refuse_keras_semantics("muon", settings)

    def dimensions(params: PyTree) -> PyTree:
        mask = (muon_mask or _hidden_matrices)(params)
        return jax.tree.map(lambda taken, leaf: _last_axis_against_the_rest(leaf) if taken else None, mask, params)

    core = optax.contrib.muon(
        learning_rate,
        ns_steps=ns_steps,
        beta=beta,
        eps=eps,
        adam_b1=b1,
        adam_b2=b2,
        muon_weight_dimension_numbers=dimensions,
        consistent_rms=0.2,
    )
    return _assembled(core, learning_rate, settings)


def schedule_free(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    **common: Unpack[Common],
) -> optax.GradientTransformation:
    """Schedule-free AdamW: averaging the iterates takes the place of a falling learning rate.

    Evaluate with `evaluation_params`: the parameters being trained are the points where gradients are taken,
    not the average. Give it a constant rate, with warm-up: `schedule("constant", ..., warmup_steps=...)`.
    `b1` is above 0. Errors: InputError, also for Keras semantics, and for `ema_decay`, which would average a
    second time. Source: arXiv 2405.15682; `optax.contrib.schedule_free_adamw`.

    >>> transform = schedule_free(0.1)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> updates, state = transform.update(params, transform.init(params), params)
    >>> print(evaluation_params(state, optax.apply_updates(params, updates))["kernel"][0].round(4))
    [0.9 0.9]
    """
    settings = _settled(schedule_free, learning_rate, common, b1=b1, b2=b2, eps=eps)
    _refuse_keras_semantics("schedule_free", settings)
    if b1 == 0:
        raise InputError("schedule_free: b1 must be above 0, got 0; 0.9 is the usual value.")
    if settings["ema_decay"] is not None:
        raise InputError("schedule_free: it averages the weights itself; leave ema_decay out.")
    core = optax.chain(
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.scale_by_learning_rate(learning_rate),
    )
    return _assembled(
        core,
        learning_rate,
        settings,
        around=partial(optax.contrib.schedule_free, learning_rate=learning_rate, b1=b1),
    )


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
    jaxcls.errors.InputError: sgd takes no setting 'clipnrom'. Did you mean 'clipnorm'? It takes: ...
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


def evaluation_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The weights to evaluate with: the moving average if kept, schedule-free's average, else `params`.

    The moving average is the debiased one: after step t it is the mean of the parameters after steps 1 to t,
    with weights that fall by `ema_decay` a step back; before the first step it is the parameters themselves.
    Shapes and dtypes are those of `params`. Pure, and works under `jit`.

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


def schedule(
    name: str, *, learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any
) -> optax.Schedule:
    """The learning rate as a function of the number of updates applied before, from its name.

    The rate rises linearly from 0 at step 0 to `learning_rate` at `warmup_steps`, then follows the named
    curve to its end at `total_steps`, and stays there: the warm-up is part of `total_steps`. With gradient
    accumulation a step is an applied update.

    - 'constant'.
    - 'linear', 'cosine', 'exponential': falling to `learning_rate * end_factor` (default 0, 0 and 0.01).
    - 'warmup_cosine': 'cosine', with `warmup_steps` required.
    - 'one_cycle': a cosine rise from `learning_rate / div_factor` (25) over `warmup_steps` (0: 30% of all),
      then a cosine fall to that value over `final_div_factor` (1e4).
    - 'piecewise': multiplied by `scales[i]` from step `boundaries[i]` of the whole training on.

    Errors: InputError. Source: `optax.schedules`; one_cycle: arXiv 1708.07120.

    >>> rate = schedule("cosine", learning_rate=0.1, total_steps=10, warmup_steps=2)
    >>> [round(float(rate(step)), 4) for step in (0, 1, 2, 6, 10, 11)]
    [0.0, 0.05, 0.1, 0.05, 0.0, 0.0]
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    curve = SCHEDULES[name]
    _check_names(name, options, _keywords(curve))
    _check(name, learning_rate=learning_rate, total_steps=total_steps, warmup_steps=warmup_steps, **options)
    if warmup_steps >= total_steps:
        raise InputError(
            f"{name}: warmup_steps must be below total_steps, of which it is a part;"
            f" got {warmup_steps} of {total_steps}."
        )
    return curve(learning_rate, total_steps, warmup_steps, **options)


def _constant(peak: float, total: int, warmup: int) -> optax.Schedule:
    return _warmed_up(optax.constant_schedule(peak), peak, warmup)


def _linear(peak: float, total: int, warmup: int, *, end_factor: float = 0.0) -> optax.Schedule:
    return _warmed_up(optax.linear_schedule(peak, peak * end_factor, total - warmup), peak, warmup)


def _cosine(peak: float, total: int, warmup: int, *, end_factor: float = 0.0) -> optax.Schedule:
    return _warmed_up(optax.cosine_decay_schedule(peak, total - warmup, end_factor), peak, warmup)


def _warmup_cosine(peak: float, total: int, warmup: int, *, end_factor: float = 0.0) -> optax.Schedule:
    if warmup == 0:
        raise InputError("warmup_cosine: warmup_steps must be at least 1; without a warm-up use 'cosine'.")
    return _cosine(peak, total, warmup, end_factor=end_factor)


def _exponential(peak: float, total: int, warmup: int, *, end_factor: float = 0.01) -> optax.Schedule:
    if end_factor == 0:
        raise InputError("exponential: end_factor must be above 0: an exponential does not reach 0.")
    curve = optax.exponential_decay(peak, total - warmup, end_factor, end_value=peak * end_factor)
    return _warmed_up(curve, peak, warmup)


def _one_cycle(
    peak: float, total: int, warmup: int, *, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> optax.Schedule:
    # optax.cosine_onecycle_schedule interpolates with a dot product, which an accelerator rounds to bfloat16.
    start = peak / div_factor
    rising = warmup or int(0.3 * total)
    fall = optax.cosine_decay_schedule(peak, total - rising, alpha=1 / (div_factor * final_div_factor))
    if rising == 0:
        return fall
    rise = optax.cosine_decay_schedule(start, rising, alpha=div_factor)
    return optax.join_schedules([rise, fall], [rising])


def _piecewise(
    peak: float, total: int, warmup: int, *, boundaries: Sequence[int] = (), scales: Sequence[float] = ()
) -> optax.Schedule:
    if not boundaries or len(boundaries) != len(scales):
        raise InputError(
            f"piecewise: give boundaries and as many scales, got {len(boundaries)} and {len(scales)} of them."
        )
    edges = [warmup, *boundaries, total]
    if any(left >= right for left, right in pairwise(edges)):
        raise InputError(
            f"piecewise: boundaries must rise, above warmup_steps ({warmup}) and below total_steps ({total}),"
            f" got {list(boundaries)}."
        )
    after_warmup = {edge - warmup: scale for edge, scale in zip(boundaries, scales, strict=True)}
    return _warmed_up(optax.piecewise_constant_schedule(peak, after_warmup), peak, warmup)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "exponential": _exponential,
    "linear": _linear,
    "one_cycle": _one_cycle,
    "piecewise": _piecewise,
    "warmup_cosine": _warmup_cosine,
}


def _warmed_up(curve: optax.Schedule, peak: float, warmup: int) -> optax.Schedule:
    if warmup == 0:
        return curve
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), curve], [warmup])


def _momentum(momentum: float, *, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def _eps(eps: float | None, settings: Common) -> float:
    return {"optax": 1e-8, "keras": 1e-7}[settings["semantics"]] if eps is None else eps


def _adam_core(
    learning_rate: Rate, b1: float, b2: float, eps: float | None, settings: Common
) -> optax.GradientTransformation:
    scale = _scale_by_keras_adam if settings["semantics"] == "keras" else optax.scale_by_adam
    return optax.chain(scale(b1, b2, _eps(eps, settings)), optax.scale_by_learning_rate(learning_rate))


def _scale_by_keras_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    def update(grads: PyTree, state: optax.ScaleByAdamState, params: PyTree = None) -> tuple[PyTree, PyTree]:
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


class _KerasNadamState(NamedTuple):
    adam: optax.ScaleByAdamState
    momentum_product: jax.Array


def _scale_by_keras_nadam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    def init(params: PyTree) -> _KerasNadamState:
        return _KerasNadamState(optax.scale_by_adam().init(params), jnp.ones((), jnp.float32))

    def update(grads: PyTree, state: _KerasNadamState, params: PyTree = None) -> tuple[PyTree, PyTree]:
        count = optax.safe_increment(state.adam.count)
        mu = optax.tree.update_moment(grads, state.adam.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.adam.nu, b2, 2)
        now, ahead = (b1 * (1 - 0.5 * 0.96**step) for step in (count, count + 1))
        product = state.momentum_product * now
        from_mu, from_grad = ahead / (1 - product * ahead), (1 - now) / (1 - product)
        root_correction = jnp.sqrt(1 - b2**count)
        updates = jax.tree.map(
            lambda m, v, g: (from_mu * m + from_grad * g) / (jnp.sqrt(v) / root_correction + eps),
            mu,
            nu,
            grads,
        )
        return updates, _KerasNadamState(optax.ScaleByAdamState(count, mu, nu), product)

    return optax.GradientTransformation(init, update)


def _hidden_matrices(params: PyTree) -> PyTree:
    def taken(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        names = jax.tree_util.keystr(path, simple=True, separator="/").lower().split("/")
        return leaf.ndim in (2, 4) and "head" not in names and not any("embed" in name for name in names)

    return jax.tree_util.tree_map_with_path(taken, params)


def _last_axis_against_the_rest(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers:
    return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)


def _assembled(
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
        transform = _with_ema(transform, settings["ema_decay"])
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


class EmaState(NamedTuple):
    """The average of the parameters after `step` updates, and the state of the wrapped transformation."""

    step: jax.Array
    ema: PyTree
    inner_state: PyTree


def _with_ema(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    def init(params: PyTree) -> EmaState:
        # A copy, for parameters and optimizer state are donated together; float32, for small steps to count.
        ema = jax.tree.map(lambda p: jnp.array(p, jnp.promote_types(p.dtype, jnp.float32)), params)
        return EmaState(jnp.zeros((), jnp.int32), ema, inner.init(params))

    def update(grads: PyTree, state: EmaState, params: PyTree = None) -> tuple[PyTree, EmaState]:
        updates, inner_state = inner.update(grads, state.inner_state, params)
        step = optax.safe_increment(state.step)
        # (1 - decay) / (1 - decay**step): the debiased average itself is kept. expm1, since 1 - decay**step
        # loses its digits where decay is near 1.
        weight = (1 - decay) / -jnp.expm1(step * math.log(decay))
        moved = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda mean, p: mean + weight * (p - mean), state.ema, moved)
        return updates, EmaState(step, ema, inner_state)

    return optax.GradientTransformation(init, update)


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


def _settled(optimizer: Callable[..., Any], learning_rate: Rate, common: Common, /, **own: object) -> Common:
    """The common settings, checked and complete, after a check of the optimizer's own."""
    name = optimizer.__name__
    _check_names(name, common, _keywords(optimizer) + sorted(_DEFAULTS))
    if not callable(learning_rate):
        _check(name, learning_rate=learning_rate)
    _check(name, **own)
    given = {key: value for key, value in common.items() if value is not None}
    _check(name, **given)
    clips = [key for key in ("clipnorm", "global_clipnorm", "clipvalue") if key in given]
    if len(clips) > 1:
        raise InputError(f"{name}: only one of clipnorm, global_clipnorm and clipvalue; got {', '.join(clips)}.")
    return cast(Common, {**_DEFAULTS, **given})


def _refuse_keras_semantics(name: str, settings: Common) -> None:
    if settings["semantics"] == "keras":
        raise InputError(f"{name}: there is no semantics='keras' for it; leave semantics out.")


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _check_names(owner: str, given: Any, taken: list[str]) -> None:
    for name in given:
        if name not in taken:
            raise InputError(
                f"{owner} takes no setting {name!r}.{did_you_mean(name, taken)}"
                f" It takes: {', '.join(sorted(taken)) or 'none'}."
            )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_sequence_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(is_item, value))


class _Rule(NamedTuple):
    words: str
    holds: Callable[[Any], bool]


_POSITIVE = _Rule("a finite number above 0", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE = _Rule("a finite number of at least 0", lambda value: _is_number(value) and value >= 0)
_BELOW_ONE = _Rule("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)
_COUNT = _Rule("an integer of at least 1", lambda value: _is_integer(value) and value >= 1)
_FLAG = _Rule("True or False", lambda value: isinstance(value, bool))

_RULES = {
    "b1": _BELOW_ONE,
    "b2": _BELOW_ONE,
    "beta": _BELOW_ONE,
    "boundaries": _Rule("a list of steps, integers", _is_sequence_of(_is_integer)),
    "centered": _FLAG,
    "clipnorm": _POSITIVE,
    "clipvalue": _POSITIVE,
    "decay": _BELOW_ONE,
    "div_factor": _POSITIVE,
    "ema_decay": _Rule("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1),
    "end_factor": _Rule("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    "eps": _Rule(_POSITIVE.words, lambda value: value is None or _POSITIVE.holds(value)),
    "final_div_factor": _POSITIVE,
    "global_clipnorm": _POSITIVE,
    "gradient_accumulation_steps": _COUNT,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "learning_rate": _POSITIVE,
    "momentum": _BELOW_ONE,
    "muon_mask": _Rule("a function of the parameters", lambda value: value is None or callable(value)),
    "nesterov": _FLAG,
    "ns_steps": _COUNT,
    "scales": _Rule("a list of numbers above 0", _is_sequence_of(_POSITIVE.holds)),
    "semantics": _Rule("'optax' or 'keras'", lambda value: value in ("optax", "keras")),
    "total_steps": _COUNT,
    "warmup_steps": _Rule("an integer of at least 0", lambda value: _is_integer(value) and value >= 0),
    "weight_decay": _NOT_NEGATIVE,
}


def _check(owner: str, **values: object) -> None:
    for name, value in values.items():
        rule = _RULES.get(name)
        if rule and not rule.holds(value):
            raise InputError(f"{owner}: {name} must be {rule.words}, got {value!r}.")
