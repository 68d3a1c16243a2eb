"""Optimizers agree with Keras, Optax and NumPy, and schedules with their formulas; invalid settings are rejected."""

import chex
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcls import optimizers
from jaxcls._utils.errors import InputError
from jaxcls.optimizers import evaluation_params, get, schedule

STEPS = 25
FALLING = optax.exponential_decay(0.02, 5, 0.5)
KERAS_FALLING = keras.optimizers.schedules.ExponentialDecay(0.02, 5, 0.5)


def some_params():
    """A kernel, a bias, and a leaf at zero with tiny gradients, whose path is compared to full precision."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 2)), rng.normal(size=2)
    return {"bias": jnp.float32(bias), "kernel": jnp.float32(kernel), "tiny": jnp.zeros(3, jnp.float32)}


def some_grads(steps=STEPS):
    rng = np.random.default_rng(1)
    sizes = {"bias": ((2,), 3.0, 0.2), "kernel": ((3, 2), 1.0, 0.2), "tiny": ((3,), 3e-7, 1e-6)}
    return {
        name: jnp.float32(mean + noise * rng.normal(size=(steps, *shape)))
        for name, (shape, noise, mean) in sizes.items()
    }


def trajectory(transform, params, grads):
    """The parameters and the state after every update, stacked: one compile for the whole path."""

    def step(carry, grad):
        params, state = carry
        updates, state = transform.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.jit(lambda carry, grads: jax.lax.scan(step, carry, grads)[1])((params, transform.init(params)), grads)


def keras_trajectory(optimizer, params, grads):
    variables = [keras.Variable(leaf) for leaf in params.values()]
    optimizer.build(variables)

    @jax.jit
    def step(carry, grad):
        return optimizer.stateless_apply(carry[1], list(grad.values()), carry[0])

    carry = ([v.value for v in variables], [v.value for v in optimizer.variables])
    path = []
    for k in range(STEPS):
        carry = step(carry, {name: leaf[k] for name, leaf in grads.items()})
        path.append(carry[0])
    return {name: np.stack([point[i] for point in path]) for i, name in enumerate(params)}


def assert_same_path(actual, expected):
    for name in ("bias", "kernel"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(actual["tiny"], expected["tiny"], rtol=2e-4, err_msg="tiny")


@pytest.mark.parametrize(
    ("name", "options", "oracle", "theirs"),
    [
        ("sgd", {}, "SGD", {}),
        ("sgd", {"momentum": 0.9, "clipnorm": 1.0}, "SGD", {"momentum": 0.9, "clipnorm": 1.0}),
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, "SGD", None),
        ("rmsprop", {"clipvalue": 0.5}, "RMSprop", None),
        (
            "rmsprop",
            {"decay": 0.8, "momentum": 0.9, "centered": True, "weight_decay": 0.1},
            "RMSprop",
            {"rho": 0.8, "momentum": 0.9, "centered": True, "weight_decay": 0.1},
        ),
        ("adam", {}, "Adam", {}),
        (
            "adam",
            {"b1": 0.8, "b2": 0.9, "eps": 1e-5},
            "Adam",
            {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-5},
        ),
        ("adam", {"global_clipnorm": 1.0}, "Adam", None),
        ("adamw", {}, "AdamW", {}),
        ("adagrad", {}, "Adagrad", {}),
        (
            "adagrad",
            {"eps": 1e-3, "initial_accumulator_value": 0.0},
            "Adagrad",
            {"epsilon": 1e-3, "initial_accumulator_value": 0.0},
        ),
        ("nadam", {}, "Nadam", {}),
        ("nadam", {"b1": 0.8, "weight_decay": 0.1}, "Nadam", {"beta_1": 0.8, "weight_decay": 0.1}),
        ("lion", {}, "Lion", {}),
        ("lion", {"b1": 0.8, "weight_decay": 0.1}, "Lion", {"beta_1": 0.8, "weight_decay": 0.1}),
    ],
)
def test_keras_semantics_agree_with_keras_under_a_falling_rate(name, options, oracle, theirs):
    theirs = options if theirs is None else theirs
    params, grads = some_params(), some_grads()
    actual, _ = trajectory(get(name, learning_rate=FALLING, semantics="keras", **options), params, grads)
    oracle = getattr(keras.optimizers, oracle)(learning_rate=KERAS_FALLING, **theirs)
    assert_same_path(actual, keras_trajectory(oracle, params, grads))


def matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}, optax.sgd(FALLING, 0.9, True)),
        ("rmsprop", {"momentum": 0.5}, optax.rmsprop(FALLING, momentum=0.5)),
        ("rmsprop", {"centered": True}, optax.rmsprop(FALLING, centered=True)),
        ("adam", {"b1": 0.8}, optax.adam(FALLING, b1=0.8)),
        ("adam", {"global_clipnorm": 0.5}, optax.chain(optax.clip_by_global_norm(0.5), optax.adam(FALLING))),
        ("adamw", {}, optax.adamw(FALLING, mask=matrices)),
        (
            "adamw",
            {"decay_mask": lambda _: True, "weight_decay": 0.1},
            optax.adamw(FALLING, weight_decay=0.1),
        ),
        ("adagrad", {}, optax.adagrad(FALLING)),
        ("nadam", {}, optax.nadam(FALLING)),
        ("lion", {}, optax.lion(FALLING, mask=matrices)),
        ("schedule_free", {"b1": 0.8}, optax.contrib.schedule_free_adamw(FALLING, b1=0.8)),
    ],
)
def test_optax_semantics_agree_with_optax(name, options, oracle):
    params, grads = some_params(), some_grads()
    actual, _ = trajectory(get(name, learning_rate=FALLING, **options), params, grads)
    expected, _ = trajectory(oracle, params, grads)
    assert_same_path(actual, expected)


def test_weight_decay_is_decoupled_from_momentum_and_excludes_biases():
    params = some_params()
    zeros = jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), params)
    path, _ = trajectory(get("sgd", learning_rate=0.5, momentum=0.9, weight_decay=0.1), params, zeros)
    chex.assert_trees_all_close(path["kernel"][-1], params["kernel"] * 0.95**3, rtol=1e-6)
    chex.assert_trees_all_equal(path["bias"][-1], params["bias"])


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-6, 1e6), limit=st.floats(1e-3, 1e3))
def test_clipnorm_scales_each_variable_separately(scale, limit):
    grads = {"long": np.float32([3, 4]) * np.float32(scale), "short": np.float32([[0.6 * limit]])}
    transform = get("sgd", learning_rate=1.0, clipnorm=limit)
    updates, _ = transform.update(jax.tree.map(jnp.asarray, grads), transform.init(grads), grads)
    np.testing.assert_allclose(updates["short"], -grads["short"], rtol=1e-6)
    norm = min(5 * scale, limit)
    np.testing.assert_allclose(updates["long"], -np.float32([0.6, 0.8]) * norm, rtol=1e-5)


def conv_net():
    rng = np.random.default_rng(2)
    shapes = {
        "conv": {"kernel": (3, 3, 2, 8), "bias": (8,)},
        "dense": {"kernel": (12, 5)},
        "embedding": (6, 4),
        "head": {"kernel": (5, 3)},
    }
    return jax.tree.map(
        lambda shape: jnp.float32(rng.normal(size=shape)), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def test_muon_orthogonalizes_hidden_kernels_and_applies_nadam_to_the_rest():
    params = conv_net()
    first = {}
    for name in ("muon", "nadam"):
        transform = get(name, learning_rate=0.1)
        first[name], _ = jax.jit(transform.update)(params, transform.init(params), params)
    muon, nadam = first["muon"], first["nadam"]
    for tree in (muon, nadam):
        tree["rest"] = (tree["conv"]["bias"], tree["embedding"], tree["head"])
    chex.assert_trees_all_close(muon["rest"], nadam["rest"], rtol=1e-6)
    for update, grad in zip(
        (muon["conv"]["kernel"], muon["dense"]["kernel"]),
        (params["conv"]["kernel"], params["dense"]["kernel"]),
        strict=True,
    ):
        matrix, grad = (np.float64(x).reshape(-1, x.shape[-1]) for x in (update, grad))
        u, _, vt = np.linalg.svd(grad, full_matrices=False)
        in_its_basis = u.T @ matrix @ vt.T / (-0.1 * 0.2 * np.sqrt(max(matrix.shape)))
        np.testing.assert_allclose(in_its_basis, np.diag(np.diag(in_its_basis)), atol=1e-3)
        assert ((np.diag(in_its_basis) > 0.6) & (np.diag(in_its_basis) < 1.3)).all()


def test_muon_mask_chooses_the_leaves():
    params = conv_net()
    transform = get("muon", learning_rate=0.1, muon_mask=lambda tree: jax.tree.map(lambda leaf: False, tree))
    nadam = get("nadam", learning_rate=0.1)
    updates, _ = jax.jit(transform.update)(params, transform.init(params), params)
    expected, _ = jax.jit(nadam.update)(params, nadam.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


@pytest.mark.parametrize("semantics", ["optax", "keras"])
def test_micro_batches_equal_one_large_batch(semantics):
    micro = 4
    options = {"learning_rate": FALLING, "clipnorm": 0.5, "ema_decay": 0.9, "semantics": semantics}
    params, grads = some_params(), some_grads(5 * micro)
    means = jax.tree.map(lambda leaf: leaf.reshape(5, micro, *leaf.shape[1:]).mean(1), grads)
    many = get("adamw", gradient_accumulation_steps=micro, **options)
    path, states = trajectory(many, params, grads)
    expected_path, expected_states = trajectory(get("adamw", **options), params, means)
    actual = {"params": path, "average": jax.jit(jax.vmap(evaluation_params))(states, path)}
    expected = {
        "params": expected_path,
        "average": jax.jit(jax.vmap(evaluation_params))(expected_states, expected_path),
    }
    applied = jax.tree.map(lambda leaf: leaf[micro - 1 :: micro], actual)
    chex.assert_trees_all_close(applied, expected, rtol=1e-5, atol=1e-7)
    between = jax.tree.map(lambda leaf: leaf[micro - 1 : 2 * micro - 1], actual)
    chex.assert_trees_all_equal(between, jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * micro), applied))


def test_ema_is_the_debiased_mean_of_past_parameters():
    decay, params = 0.999, some_params()
    transform = get("sgd", learning_rate=0.1, ema_decay=decay)
    chex.assert_trees_all_equal(evaluation_params(transform.init(params), params), params)
    path, states = trajectory(transform, params, some_grads())
    average = jax.jit(jax.vmap(evaluation_params))(states, path)
    for t in (1, 2, STEPS):
        weights = decay ** np.arange(t - 1, -1, -1.0)
        mean = jax.tree.map(lambda leaf, t=t, weights=weights: np.average(np.float64(leaf[:t]), 0, weights), path)
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, t=t: np.float64(leaf[t - 1]), average), mean, rtol=1e-5)


def test_the_ema_of_keras_semantics_is_keras_s():
    params, grads = some_params(), some_grads()
    transform = get("sgd", learning_rate=0.1, ema_decay=0.9, semantics="keras")
    path, states = trajectory(transform, params, grads)
    average = jax.jit(jax.vmap(evaluation_params))(states, path)
    oracle = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    variables = [keras.Variable(leaf) for leaf in params.values()]
    oracle.build(variables)
    for k in range(STEPS):
        oracle.apply([leaf[k] for leaf in grads.values()])
        for name, expected in zip(params, oracle._model_variables_moving_average, strict=True):
            np.testing.assert_allclose(average[name][k], expected, rtol=1e-5, atol=1e-7)


def test_bfloat16_gradients_are_accumulated_in_float32():
    params = {"kernel": jnp.zeros(4, jnp.bfloat16)}
    transform = get("sgd", learning_rate=1.0, gradient_accumulation_steps=256)
    gradients = {"kernel": jnp.concatenate([jnp.full((1, 4), 256.0), jnp.full((255, 4), 1.0)]).astype(jnp.bfloat16)}
    path, _ = trajectory(transform, params, gradients)
    np.testing.assert_allclose(np.asarray(path["kernel"][-1], np.float64), -511 / 256, rtol=1e-2)


def test_schedule_free_average_is_found_inside_clipping_and_accumulation():
    params, grads = some_params(), some_grads()
    oracle = optax.contrib.schedule_free_adamw(0.02)
    path, states = trajectory(oracle, params, grads)
    expected = jax.jit(jax.vmap(optax.contrib.schedule_free_eval_params))(states, path)
    doubled = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), grads)
    transform = get("schedule_free", learning_rate=0.02, gradient_accumulation_steps=2, global_clipnorm=1e6)
    path, states = trajectory(transform, params, doubled)
    actual = jax.jit(jax.vmap(evaluation_params))(states, path)
    assert_same_path(jax.tree.map(lambda leaf: leaf[1::2], actual), expected)


def test_evaluation_params_are_the_parameters_without_an_average():
    params = some_params()
    assert evaluation_params(get("adam", learning_rate=0.1).init(params), params) is params


def signature(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


EVERYTHING = {"clipnorm": 1.0, "weight_decay": 0.1, "gradient_accumulation_steps": 2}
VARIANTS = [(name, {}) for name in optimizers.OPTIMIZERS]
VARIANTS += [(name, {"semantics": "keras"}) for name in ("sgd", "rmsprop", "adam", "adagrad", "nadam", "lion")]
VARIANTS += [("adamw", {"ema_decay": 0.99} | EVERYTHING), ("schedule_free", EVERYTHING), ("muon", EVERYTHING)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_an_update_preserves_shapes_dtypes_and_weak_types(name, options, dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), conv_net())
    rate = schedule("warmup_cosine", learning_rate=0.1, total_steps=10, warmup_steps=2)
    transform = get(name, learning_rate=rate, **options)

    def step(params, state):
        updates, state = transform.update(params, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, evaluation_params(state, params)

    state = transform.init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    after, state_after, evaluated = jax.eval_shape(step, params, state)
    assert signature(state_after) == signature(state)
    assert signature(after) == signature(evaluated) == signature(params)


def test_params_and_state_are_donated_and_compiled_once():
    transform = get("adamw", learning_rate=FALLING, ema_decay=0.9, clipnorm=1.0)

    @chex.assert_max_traces(1)
    def step(params, state, grads):
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = some_params()
    state = transform.init(params)
    for _ in range(2):
        params, state = step(params, state, some_params())
    assert np.isfinite(params["kernel"]).all()


def test_bfloat16_moments_reach_the_mean_square():
    """In bfloat16 a second moment with b2 = 0.999 would stop far below the square that it averages."""
    params = {"kernel": jnp.zeros((2, 2), jnp.bfloat16)}
    grads = {"kernel": jnp.ones((3000, 2, 2), jnp.bfloat16)}
    _, states = trajectory(get("adam", learning_rate=1e-3), params, grads)
    nu = optax.tree.get(states, "nu")["kernel"]
    np.testing.assert_allclose(nu[-1], 1 - 0.999**3000, rtol=1e-3)


TOTAL, WARMUP = 40, 10


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("constant", {}, lambda u: 1.0),
        ("linear", {"end_factor": 0.2}, lambda u: 1 - 0.8 * u),
        ("cosine", {}, lambda u: (1 + np.cos(np.pi * u)) / 2),
        ("warmup_cosine", {"end_factor": 0.1}, lambda u: 0.1 + 0.9 * (1 + np.cos(np.pi * u)) / 2),
        ("exponential", {"end_factor": 0.5}, lambda u: 0.5**u),
        (
            "piecewise",
            {"boundaries": [20, 30], "scales": [0.5, 0.1]},
            lambda u: 1 if u < 1 / 3 else 0.5 if u < 2 / 3 else 0.05,
        ),
    ],
)
def test_a_schedule_warms_up_follows_its_formula_and_stays_at_its_end(name, options, formula):
    rate = schedule(name, learning_rate=0.3, total_steps=TOTAL, warmup_steps=WARMUP, **options)
    steps = np.arange(TOTAL + 5)
    expected = [0.3 * (k / WARMUP if k < WARMUP else formula(min((k - WARMUP) / (TOTAL - WARMUP), 1.0))) for k in steps]
    np.testing.assert_allclose(jax.vmap(rate)(steps), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(optimizers.SCHEDULES) - {"warmup_cosine", "one_cycle"}))
def test_without_warm_up_the_first_rate_is_the_learning_rate(name):
    options = {"boundaries": [1], "scales": [0.1]} if name == "piecewise" else {}
    rate = schedule(name, learning_rate=0.3, total_steps=TOTAL, **options)
    np.testing.assert_allclose(rate(0), 0.3, rtol=1e-6)


@pytest.mark.parametrize(("warmup", "start"), [(0, 0.3), (10, 0.25)])
def test_one_cycle_agrees_with_optax(warmup, start):
    rate = schedule("one_cycle", learning_rate=0.3, total_steps=TOTAL, warmup_steps=warmup)
    oracle = optax.cosine_onecycle_schedule(TOTAL, 0.3, start)
    steps = np.arange(TOTAL + 5)
    np.testing.assert_allclose(jax.vmap(rate)(steps), jax.vmap(oracle)(steps), rtol=1e-4, atol=1e-7)


def test_one_cycle_of_very_few_steps_starts_at_the_peak():
    rate = schedule("one_cycle", learning_rate=0.3, total_steps=2)
    np.testing.assert_allclose([rate(0), rate(2)], [0.3, 0.3 / 25e4], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamm", {}, "unknown optimizer 'adamm'. Did you mean 'adam'?"),
        ("sgd", {"b1": 0.9}, "sgd takes no setting 'b1'.* It takes: clipnorm, .*momentum, nesterov"),
        ("adam", {"clipnrom": 1.0}, "Did you mean 'clipnorm'?"),
        ("adam", {"learning_rate": 0.0}, "learning_rate is 0.0; it must be a finite number above 0"),
        ("adam", {"learning_rate": "1e-3"}, "learning_rate is '1e-3'; it must be"),
        ("adam", {"b1": 1.0}, "b1 is 1.0; it must be a number of at least 0 and less than 1"),
        ("adam", {"eps": 0.0}, "eps is 0.0; it must be a finite number above 0"),
        ("adam", {"lr": 0.1}, "adam takes no setting 'lr'.* It takes: .*learning_rate"),
        ("sgd", {"momentum": None}, "momentum is None; it must be a number"),
        ("sgd", {"nesterov": True}, "needs a momentum above 0"),
        ("sgd", {"nesterov": "yes"}, "nesterov is 'yes'; it must be True or False"),
        ("sgd", {"clipnorm": 0.0}, "clipnorm is 0.0; it must be a finite number above 0"),
        ("sgd", {"clipnorm": 1.0, "clipvalue": 1.0}, "only one of .* got clipnorm, clipvalue"),
        ("sgd", {"weight_decay": -0.1}, "weight_decay is -0.1; it must be a finite number of 0 or more"),
        ("sgd", {"ema_decay": 1.0}, "ema_decay is 1.0; it must be a number between 0 and 1"),
        ("sgd", {"gradient_accumulation_steps": 2.0}, "2.0; it must be an integer of 1 or more"),
        ("sgd", {"semantics": "torch"}, "semantics is 'torch'; it must be 'optax' or 'keras'"),
        ("muon", {"semantics": "keras"}, "Keras has no such optimizer"),
        ("muon", {"muon_mask": True}, "muon_mask is True; it must be a function of the parameters"),
        ("schedule_free", {"semantics": "keras"}, "Keras has no such optimizer"),
        ("schedule_free", {"b1": 0.0}, "b1 must be above 0"),
        ("schedule_free", {"ema_decay": 0.9}, "leave ema_decay out"),
    ],
)
def test_an_invalid_optimizer_setting_is_rejected(name, options, message):
    with pytest.raises(InputError, match=message):
        get(name, **{"learning_rate": 0.1, **options})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ("cosine", {"end_facter": 0.1}, "cosine takes no setting 'end_facter'. Did you mean 'end_factor'?"),
        ("constant", {"alpha": 0.1}, "It takes: none"),
        ("cosine", {"learning_rate": optax.constant_schedule(1.0)}, "learning_rate is .*; it must be a finite number"),
        ("cosine", {"total_steps": 0}, "total_steps is 0; it must be an integer of 1 or more"),
        ("cosine", {"warmup_steps": 10}, "warmup_steps must be below total_steps.* 10 of 10"),
        ("cosine", {"end_factor": 1.5}, "end_factor is 1.5; it must be a number from 0 to 1"),
        ("warmup_cosine", {}, "warmup_steps must be at least 1"),
        ("exponential", {"end_factor": 0.0}, "end_factor must be above 0"),
        ("piecewise", {"boundaries": [5]}, "as many scales as boundaries, got 0 and 1"),
        ("piecewise", {}, "as many scales as boundaries, got 0 and 0"),
        ("piecewise", {"boundaries": [5, 5], "scales": [0.1, 0.1]}, "boundaries must rise"),
        ("piecewise", {"boundaries": [10], "scales": [0.1]}, r"below total_steps \(10\)"),
    ],
)
def test_an_invalid_schedule_setting_is_rejected(name, options, message):
    with pytest.raises(InputError, match=message):
        schedule(name, **{"learning_rate": 0.1, "total_steps": 10, **options})


def test_get_uses_the_default_learning_rate_if_none_is_passed():
    params, grads = {"kernel": jnp.zeros(1)}, {"kernel": jnp.ones(1)}
    for name in ("sgd", "lion"):
        transform = get(name, weight_decay=0.0)
        updates, _ = transform.update(grads, transform.init(params), params)
        np.testing.assert_allclose(updates["kernel"], -optimizers.default_learning_rate(name), rtol=1e-6)


def test_a_schedule_counts_applied_updates():
    rate = schedule("piecewise", learning_rate=0.5, total_steps=9, boundaries=[2], scales=[0.1])
    grads = {"kernel": jnp.ones((8, 1))}
    transform = get("sgd", learning_rate=rate, gradient_accumulation_steps=2)
    path, _ = trajectory(transform, {"kernel": jnp.zeros(1)}, grads)
    np.testing.assert_allclose(path["kernel"][:, 0], [0, -0.5, -0.5, -1, -1, -1.05, -1.05, -1.1], rtol=1e-6)
