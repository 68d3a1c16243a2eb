"""The optimizers: each a core in the chain that all of them share.

All of them take a learning rate, a number or a schedule, and `Options`, and raise `InputError` for an unknown option or
a value out of range.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import jax
import optax

from jaxcls._utils.errors import InputError
from jaxcls.optimizers import keras
from jaxcls.optimizers.chain import Options, PyTree, Rate, chain, has_keras_semantics, validate


def sgd(
    learning_rate: Rate, *, momentum: float = 0.0, nesterov: bool = False, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Stochastic gradient descent, with Polyak or Nesterov momentum.

    With Keras semantics the velocity includes the learning rate, so that a change of the rate affects earlier gradients
    later than in Optax.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"; `optax.sgd`,
    `keras.optimizers.SGD`.

    >>> transform = sgd(0.1, momentum=0.9)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.1 -0.1]
    """
    validate(sgd, learning_rate, options, momentum=momentum, nesterov=nesterov)
    if nesterov and not momentum:
        raise InputError("sgd: nesterov=True needs a momentum above 0, for example momentum=0.9.")
    velocity = optax.trace(momentum, nesterov) if momentum else optax.identity()
    rate = optax.scale_by_learning_rate(learning_rate)
    core = optax.chain(rate, velocity) if has_keras_semantics(options) else optax.chain(velocity, rate)
    return chain(core, learning_rate, options)


def rmsprop(
    learning_rate: Rate,
    *,
    decay: float = 0.9,
    eps: float | None = None,
    momentum: float = 0.0,
    centered: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformation:
    """RMSprop: the gradient divided by the root of a moving average of its square.

    Args:
      decay: of the moving average.
      eps: added inside the root. Default: 1e-8, with Keras semantics 1e-7.
      centered: subtracts the square of the mean gradient, so that the root is of the variance.

    Source: Hinton, lecture 6e of "Neural Networks for Machine Learning"; `optax.rmsprop`, `keras.optimizers.RMSprop`.

    >>> transform = rmsprop(0.1, decay=0.75)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.2 -0.2]
    """
    validate(rmsprop, learning_rate, options, decay=decay, eps=eps, momentum=momentum, centered=centered)
    core = optax.rmsprop(learning_rate, decay, _eps(eps, options), centered=centered, momentum=momentum or None)
    return chain(core, learning_rate, options)


def adam(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float | None = None, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Adam: the mean gradient divided by the root of the mean square, both corrected for their start at zero.

    Args:
      b1, b2: the decays of the mean and of the mean square.
      eps: added to the corrected root (default 1e-8), with Keras semantics to the uncorrected root (default 1e-7). The
        two differ strongly where gradients are near 1e-6.

    Source: Kingma and Ba 2014, arXiv 1412.6980; `optax.adam`, `keras.optimizers.Adam`.

    >>> transform = adam(0.1)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f}")
    -0.100
    """
    validate(adam, learning_rate, options, b1=b1, b2=b2, eps=eps)
    return chain(_adam_core(learning_rate, b1, b2, eps, options), learning_rate, options)


def adamw(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float | None = None, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Adam with weight decay by default: 1e-4, with Keras semantics 0.004; otherwise as `adam`.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101; `optax.adamw`, `keras.optimizers.AdamW`.

    >>> transform = adamw(0.1, weight_decay=0.5)
    >>> params = {"kernel": jax.numpy.ones((2, 2)), "bias": jax.numpy.ones(2)}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f} {updates['bias'][0]:.3f}")
    -0.150 -0.100
    """
    validate(adamw, learning_rate, options, b1=b1, b2=b2, eps=eps)
    core = _adam_core(learning_rate, b1, b2, eps, options)
    return chain(core, learning_rate, options, default_decay=4e-3 if has_keras_semantics(options) else 1e-4)


def adagrad(
    learning_rate: Rate, *, initial_accumulator_value: float = 0.1, eps: float = 1e-7, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Adagrad: the gradient divided by the root of the sum of all its squares; the same in Optax and Keras.

    Source: Duchi et al. 2011, JMLR 12; `optax.adagrad`, `keras.optimizers.Adagrad`.

    >>> transform = adagrad(0.1, initial_accumulator_value=3.0)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.05 -0.05]
    """
    validate(adagrad, learning_rate, options, initial_accumulator_value=initial_accumulator_value, eps=eps)
    return chain(optax.adagrad(learning_rate, initial_accumulator_value, eps), learning_rate, options)


def nadam(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float | None = None, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Adam with Nesterov momentum.

    With Keras semantics the momentum warms up, `b1 * (1 - 0.5 * 0.96 ** step)`, and its running product corrects the
    mean.

    Args:
      b1, b2: the decays of the mean and of the mean square.
      eps: default 1e-8, with Keras semantics 1e-7.

    Source: Dozat 2016 (OpenReview OM0jvwB8jIp57ZJjtNEZ); `optax.nadam`, `keras.optimizers.Nadam`.

    >>> transform = nadam(0.1)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(f"{updates['kernel'][0, 0]:.3f}")
    -0.147
    """
    validate(nadam, learning_rate, options, b1=b1, b2=b2, eps=eps)
    scale = keras.scale_by_nadam if has_keras_semantics(options) else partial(optax.scale_by_adam, nesterov=True)
    core = optax.chain(scale(b1, b2, _eps(eps, options)), optax.scale_by_learning_rate(learning_rate))
    return chain(core, learning_rate, options)


def lion(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.99, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Lion: the sign of an interpolation between momentum and gradient.

    Weight decay is 1e-3 by default, as in Optax, and 0 with Keras semantics. Lion needs a learning rate 3 to 10 times
    smaller than AdamW's.

    Source: Chen et al. 2023, arXiv 2302.06675; `optax.lion`, `keras.optimizers.Lion`.

    >>> transform = lion(0.1, weight_decay=0.0)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> print(updates["kernel"][0])
    [-0.1 -0.1]
    """
    validate(lion, learning_rate, options, b1=b1, b2=b2)
    core = optax.chain(optax.scale_by_lion(b1, b2), optax.scale_by_learning_rate(learning_rate))
    return chain(core, learning_rate, options, default_decay=0.0 if has_keras_semantics(options) else 1e-3)


def muon(
    learning_rate: Rate,
    *,
    beta: float = 0.95,
    ns_steps: int = 5,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    muon_mask: Callable[[PyTree], PyTree] | None = None,
    **options: Unpack[Options],
) -> optax.GradientTransformation:
    """Muon: the orthogonalized momentum of each hidden weight matrix, and Nadam for all other parameters.

    Updates are scaled to Adam's size (a root mean square of 0.2), so that one learning rate, of AdamW's order, suits
    both. Keras has no Muon.

    Args:
      beta, ns_steps: Muon's momentum and number of Newton-Schulz steps.
      b1, b2: Nadam's decays.
      muon_mask: from the parameters to a tree of booleans that depends on paths and ranks only: the leaves, of rank 2
        or more, that Muon updates, each as a matrix of its last axis against all others. Default: leaves of rank 2 and
        4 (dense and 2-D convolution kernels), unless a name on the path contains 'embed' or is 'head', since Muon is
        meant for hidden layers. Rank 3 may be an attention kernel, whose axes the shape does not tell.

    Source: Liu et al. 2025, arXiv 2502.16982; `optax.contrib.muon`.

    >>> transform = muon(0.1)
    >>> params = {"dense": {"kernel": jax.numpy.eye(4)}, "head": {"kernel": jax.numpy.eye(4)}}
    >>> updates, _ = transform.update(params, transform.init(params), params)
    >>> bool((updates["dense"]["kernel"] != updates["head"]["kernel"]).any())
    True
    """
    settings: dict[str, Any] = {"beta": beta, "ns_steps": ns_steps, "eps": eps}
    validate(muon, learning_rate, options, in_keras=False, b1=b1, b2=b2, muon_mask=muon_mask, **settings)

    def dimensions(params: PyTree) -> PyTree:
        mask = (muon_mask or _hidden_matrices)(params)
        return jax.tree.map(lambda chosen, leaf: _last_axis_against_the_rest(leaf) if chosen else None, mask, params)

    settings |= {"adam_b1": b1, "adam_b2": b2, "muon_weight_dimension_numbers": dimensions}
    core = optax.contrib.muon(learning_rate, consistent_rms=0.2, **settings)
    return chain(core, learning_rate, options)


def schedule_free(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, **options: Unpack[Options]
) -> optax.GradientTransformation:
    """Schedule-free AdamW: an average of the iterates replaces a falling learning rate.

    Evaluate with `evaluation_params`: the trained parameters are the points at which gradients are taken, not the
    average. Use a constant rate with a warm-up: `schedule("constant", ..., warmup_steps=...)`. It takes no `ema_decay`,
    which would average a second time. Keras has no such optimizer.

    Args:
      b1: above 0, the interpolation between the average and the iterate.
      b2, eps: as in `adam`.

    Source: Defazio et al. 2024, arXiv 2405.15682; `optax.contrib.schedule_free_adamw`.

    >>> from jaxcls.optimizers import evaluation_params
    >>> transform = schedule_free(0.1)
    >>> params = {"kernel": jax.numpy.ones((2, 2))}
    >>> updates, state = transform.update(params, transform.init(params), params)
    >>> print(evaluation_params(state, optax.apply_updates(params, updates))["kernel"][0].round(4))
    [0.9 0.9]
    """
    validate(schedule_free, learning_rate, options, in_keras=False, b1=b1, b2=b2, eps=eps)
    if b1 == 0:
        raise InputError("schedule_free: b1 must be above 0, got 0; 0.9 is the usual value.")
    if options.get("ema_decay") is not None:
        raise InputError("schedule_free: it averages the parameters itself; leave ema_decay out.")
    scale = optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    core = optax.chain(scale, optax.scale_by_learning_rate(learning_rate))
    average = partial(optax.contrib.schedule_free, learning_rate=learning_rate, b1=b1)
    return chain(core, learning_rate, options, wrap=average)


def _eps(eps: float | None, options: Options) -> float:
    if eps is not None:
        return eps
    return 1e-7 if has_keras_semantics(options) else 1e-8


def _adam_core(
    learning_rate: Rate, b1: float, b2: float, eps: float | None, options: Options
) -> optax.GradientTransformation:
    scale = keras.scale_by_adam if has_keras_semantics(options) else optax.scale_by_adam
    return optax.chain(_recomputed(scale(b1, b2, _eps(eps, options))), optax.scale_by_learning_rate(learning_rate))


def _recomputed(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transformation, with the new state computed separately from the updates.

    A training step that may still be rejected needs the old moments until the updates are known. On a CPU, XLA would
    store the new moments, which updates and state share, until then. Computed a second time, in the pass that chooses,
    they overwrite the old ones: the step of a multilayer perceptron takes 0.9 of its time. Only for what is cheap to
    compute twice.
    """

    def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, _ = inner.update(grads, state, params)
        # Without a barrier XLA would merge the two computations.
        _, state = inner.update(*jax.lax.optimization_barrier((grads, state, params)))
        return updates, state

    return optax.GradientTransformation(inner.init, update)


def _hidden_matrices(params: PyTree) -> PyTree:
    def is_hidden(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        names = jax.tree_util.keystr(path, simple=True, separator="/").lower().split("/")
        return leaf.ndim in (2, 4) and "head" not in names and not any("embed" in name for name in names)

    return jax.tree_util.tree_map_with_path(is_hidden, params)


def _last_axis_against_the_rest(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers:
    return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
