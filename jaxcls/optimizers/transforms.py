"""The optimizers: each its own core, in the chain that all of them share."""

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import jax
import optax

from jaxcls._utils.errors import InputError
from jaxcls.optimizers import keras
from jaxcls.optimizers.chain import Common, PyTree, Rate, assembled, refuse_keras_semantics, settled


def sgd(
    learning_rate: Rate, *, momentum: float = 0.0, nesterov: bool = False, **common: Unpack[Common]
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with momentum (Polyak) or Nesterov's momentum.

    With Keras semantics the velocity holds the learning rate, so that a change of the rate reaches the old
    gradients' share of the velocity later than with Optax's. Errors: InputError. Source: `optax.sgd`,
    `keras.optimizers.SGD`.

    >>> transform = sgd(0.1, momentum=0.9)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.1 -0.1]
    """
    settings = settled(sgd, learning_rate, common, momentum=momentum, nesterov=nesterov)
    if nesterov and not momentum:
        raise InputError("sgd: nesterov=True needs a momentum above 0, for example momentum=0.9.")
    rate = optax.scale_by_learning_rate(learning_rate)
    velocity = _momentum(momentum, nesterov=nesterov)
    steps = (rate, velocity) if settings["semantics"] == "keras" else (velocity, rate)
    return assembled(optax.chain(*steps), learning_rate, settings)


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
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.2 -0.2]
    """
    settings = settled(rmsprop, learning_rate, common, decay=decay, eps=eps, momentum=momentum, centered=centered)
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    core = optax.chain(
        scale(decay, _eps(eps, settings)),
        optax.scale_by_learning_rate(learning_rate),
        _momentum(momentum),
    )
    return assembled(core, learning_rate, settings)


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
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f}")
    -0.100
    """
    settings = settled(adam, learning_rate, common, b1=b1, b2=b2, eps=eps)
    return assembled(_adam_core(learning_rate, b1, b2, eps, settings), learning_rate, settings)


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
    >>> params = {"kernel": jax.numpy.ones((2, 2)), "bias": jax.numpy.ones(2)}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f} {updates['bias'][0]:.3f}")
    -0.150 -0.100
    """
    settings = settled(adamw, learning_rate, common, b1=b1, b2=b2, eps=eps)
    core = _adam_core(learning_rate, b1, b2, eps, settings)
    return assembled(core, learning_rate, settings, weight_decay={"optax": 1e-4, "keras": 4e-3})


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
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.05 -0.05]
    """
    settings = settled(adagrad, learning_rate, common, initial_accumulator_value=initial_accumulator_value, eps=eps)
    core = optax.adagrad(learning_rate, initial_accumulator_value, eps)
    return assembled(core, learning_rate, settings)


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
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f}")
    -0.147
    """
    settings = settled(nadam, learning_rate, common, b1=b1, b2=b2, eps=eps)
    if settings["semantics"] == "keras":
        scale = keras.scale_by_nadam(b1, b2, _eps(eps, settings))
    else:
        scale = optax.scale_by_adam(b1, b2, _eps(eps, settings), nesterov=True)
    core = optax.chain(scale, optax.scale_by_learning_rate(learning_rate))
    return assembled(core, learning_rate, settings)


def lion(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.99, **common: Unpack[Common]
) -> optax.GradientTransformation:
    """Lion: the sign of an interpolation between momentum and gradient.

    Weight decay is 1e-3 by default, as in Optax; with Keras semantics 0. It wants a learning rate 3 to 10
    times smaller than AdamW's. Errors: InputError. Source: arXiv 2302.06675; `optax.lion`,
    `keras.optimizers.Lion`.

    >>> transform = lion(0.1, weight_decay=0.0)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.1 -0.1]
    """
    settings = settled(lion, learning_rate, common, b1=b1, b2=b2)
    core = optax.chain(optax.scale_by_lion(b1, b2), optax.scale_by_learning_rate(learning_rate))
    return assembled(core, learning_rate, settings, weight_decay={"optax": 1e-3, "keras": 0.0})


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
    >>> params = {"dense": {"kernel": jax.numpy.eye(4)}, "head": {"kernel": jax.numpy.eye(4)}}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> bool((updates["dense"]["kernel"] != updates["head"]["kernel"]).any())
    True
    """
    settings = settled(
        muon, learning_rate, common, beta=beta, ns_steps=ns_steps, b1=b1, b2=b2, eps=eps, muon_mask=muon_mask
    )
    refuse_keras_semantics("muon", settings)

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
    return assembled(core, learning_rate, settings)


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

    >>> from jaxcls.optimizers import evaluation_params
    >>> transform = schedule_free(0.1)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, state = transform.update(params, transform.init(params), params)
    >>> print(evaluation_params(state, optax.apply_updates(params, updates))["kernel"][0].round(4))
    [0.9 0.9]
    """
    settings = settled(schedule_free, learning_rate, common, b1=b1, b2=b2, eps=eps)
    refuse_keras_semantics("schedule_free", settings)
    if b1 == 0:
        raise InputError("schedule_free: b1 must be above 0, got 0; 0.9 is the usual value.")
    if settings["ema_decay"] is not None:
        raise InputError("schedule_free: it averages the weights itself; leave ema_decay out.")
    core = optax.chain(
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.scale_by_learning_rate(learning_rate),
    )
    return assembled(
        core,
        learning_rate,
        settings,
        around=partial(optax.contrib.schedule_free, learning_rate=learning_rate, b1=b1),
    )


def _momentum(momentum: float, *, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


def _eps(eps: float | None, settings: Common) -> float:
    return {"optax": 1e-8, "keras": 1e-7}[settings["semantics"]] if eps is None else eps


def _adam_core(
    learning_rate: Rate, b1: float, b2: float, eps: float | None, settings: Common
) -> optax.GradientTransformation:
    scale = keras.scale_by_adam if settings["semantics"] == "keras" else optax.scale_by_adam
    return optax.chain(_state_apart(scale(b1, b2, _eps(eps, settings))), optax.scale_by_learning_rate(learning_rate))


def _state_apart(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same, with the new state computed apart from the updates.

    A training step that may yet be refused keeps the old moments until the updates are known. On a CPU, XLA holds the
    new ones, which updates and state share, in memory until then. Computed a second time, in the pass that chooses,
    they are written in place of the old ones: the step of a multilayer perceptron takes 0.9 of its time. Only for
    what is cheap to compute twice.
    """

    def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, _ = inner.update(grads, state, params)
        # Without a barrier XLA would see that both are the same.
        _, state = inner.update(*jax.lax.optimization_barrier((grads, state, params)))
        return updates, state

    return optax.GradientTransformation(inner.init, update)


def _hidden_matrices(params: PyTree) -> PyTree:
    def taken(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        names = jax.tree_util.keystr(path, simple=True, separator="/").lower().split("/")
        return leaf.ndim in (2, 4) and "head" not in names and not any("embed" in name for name in names)

    return jax.tree_util.tree_map_with_path(taken, params)


def _last_axis_against_the_rest(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers:
    return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
