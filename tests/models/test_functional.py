"""Any NNX module becomes a pair of pure functions, with its normalization state and its dropout."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models import functional, layers, text, vision


class Net(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.drop1 = nnx.Dropout(0.5, rngs=rngs)
        self.drop2 = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop2(jnp.ones((x.shape[0], 64))), self.drop1(self.norm(self.dense(x)))


@pytest.fixture(scope="module")
def net():
    model = functional(Net)
    inputs = jnp.asarray(np.random.default_rng(9).normal(size=(16, 4)), jnp.float32)
    return model, *jax.jit(model.init)(jax.random.key(0)), inputs


def test_variables_are_plain_dicts_of_arrays(net):
    _, params, model_state, _ = net
    assert set(params) == {"dense", "norm"}
    assert set(model_state) == {"norm"}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((params, model_state)))


def test_evaluation_matches_the_module_and_leaves_its_state(net):
    model, params, model_state, inputs = net
    module = Net(nnx.Rngs(jax.random.key(0)))
    module.eval()
    outputs, after = model.apply(params, model_state, inputs)
    chex.assert_trees_all_equal(outputs, module(inputs))
    chex.assert_trees_all_equal(after, model_state)


def test_training_updates_the_running_statistics(net):
    model, params, model_state, inputs = net
    _, after = jax.jit(model.apply)(params, model_state, inputs, key=jax.random.key(1))
    hidden = inputs @ params["dense"]["kernel"] + params["dense"]["bias"][None, :]
    chex.assert_trees_all_close(
        after, {"norm": {"mean": 0.5 * hidden.mean(0), "var": 0.5 + 0.5 * hidden.var(0)}}, rtol=1e-5, atol=1e-6
    )
    # The weights of a checkpoint are NumPy arrays, which must not change in place.
    arrays = jax.tree.map(np.array, model_state)
    chex.assert_trees_all_close(model.apply(params, arrays, inputs, key=jax.random.key(1))[1], after, rtol=1e-5)
    chex.assert_trees_all_equal(arrays, model_state)


def test_dropout_follows_from_the_key_and_differs_between_layers(net):
    model, params, model_state, inputs = net

    def outputs(seed):
        return model.apply(params, model_state, inputs, key=jax.random.key(seed))[0]

    chex.assert_trees_all_equal(outputs(1), outputs(1))
    ones, normed = outputs(1)
    assert not jnp.array_equal(ones, outputs(2)[0])
    assert not jnp.array_equal(ones[:, :8] == 0, normed == 0)


def test_gradients_pass_through_normalization_and_dropout_under_jit(net):
    model, params, model_state, inputs = net

    def loss(params):
        (_, outputs), after = model.apply(params, model_state, inputs, key=jax.random.key(1))
        return jnp.sum(outputs**3), after

    gradient, after = jax.jit(jax.grad(loss, has_aux=True))(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, model_state)
    assert all(bool(jnp.abs(leaf).max() > 0) for leaf in jax.tree.leaves(gradient["norm"]))


# Deep and narrow: activations between blocks are small compared with those inside them.
DEEP = {
    "resnet": (
        functools.partial(vision.ResNet, (16, 16, 1), 10, widths=(8,), blocks=6, dropout=0.1),
        np.random.default_rng(0).normal(size=(64, 16, 16, 1)).astype(np.float32),
    ),
    "transformer": (
        functools.partial(
            text.Transformer, 2, vocabulary_size=100, max_length=64, layers=6, features=16, heads=2, dropout=0.1
        ),
        np.random.default_rng(0).integers(1, 100, (16, 64)).astype(np.int32),
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_remat_gives_the_same_gradients_in_less_memory(name):
    build, inputs = DEEP[name]

    def compiled(remat):
        model = functional(lambda rngs: build(rngs=rngs), remat=remat)
        # Not compiled as a whole, here and below: many layers have the same shapes.
        params, model_state = model.init(jax.random.key(0))

        def loss(params, model_state, inputs):
            outputs, model_state = model.apply(params, model_state, inputs, key=jax.random.key(1))
            return jnp.sum(jnp.sin(outputs)), model_state

        arguments = params, model_state, inputs
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile()
        return gradient(*arguments), gradient.memory_analysis().temp_size_in_bytes

    (expected, memory), (again, less_memory) = (compiled(remat) for remat in (False, True))
    chex.assert_trees_all_close(again, expected, rtol=1e-5, atol=1e-5)
    assert less_memory < 0.6 * memory


@pytest.mark.parametrize("name", DEEP)
def test_remat_changes_neither_weights_nor_predictions(name):
    build, inputs = DEEP[name]
    plain, remat = (functional(lambda rngs: build(rngs=rngs), remat=remat) for remat in (False, True))
    weights = plain.init(jax.random.key(0))
    chex.assert_trees_all_equal(remat.init(jax.random.key(0)), weights)
    chex.assert_trees_all_close(jax.jit(remat.apply)(*weights, inputs), jax.jit(plain.apply)(*weights, inputs))


def test_remat_of_a_network_without_blocks_is_refused():
    with pytest.raises(InputError, match="MLP has none"):
        functional(lambda rngs: vision.MLP((4, 4, 1), 2, rngs=rngs), remat=True)


def test_frozen_layers_are_state_and_compute_as_in_evaluation():
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.body = nnx.Sequential(
                nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
            )
            self.head = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.body(x))

    model = functional(Network, frozen=lambda path: path[0] == "body")
    params, state = model.init(jax.random.key(0))
    assert params.keys() == {"head"}
    x = jax.random.normal(jax.random.key(1), (5, 3))
    trained, after = model.apply(params, state, x, key=jax.random.key(2))
    np.testing.assert_array_equal(trained, model.apply(params, state, x)[0])
    jax.tree.map(np.testing.assert_array_equal, state, after)


@pytest.mark.parametrize(("remat", "dtype"), [(False, jnp.float32), (True, jnp.bfloat16)])
def test_rates_in_the_state_drop_as_constant_rates_do(remat, dtype):
    class Block(nnx.Module):
        def __init__(self, rate, rngs):
            self.slow, self.fast = nnx.Dropout(rate, rngs=rngs), layers.Dropout(rate, rngs=rngs)
            self.dense = nnx.Linear(32, 32, dtype=dtype, rngs=rngs)

        def __call__(self, x):
            return self.fast(self.dense(self.slow(x)))

    def build(rate):
        return lambda rngs: nnx.Sequential(Block(rate, rngs), Block(rate, rngs))

    constant = functional(build(0.375), remat=remat)
    variable = functional(layers.with_variable_rates(build(0.5)), remat=remat)
    params, state = variable.init(jax.random.key(0))
    is_rate = layers.are_rates(variable)
    assert sum(is_rate) == 4
    leaves, tree = jax.tree.flatten((params, state))
    # As constants of a member of a population are given.
    leaves = [np.float32(0.375) if rated else leaf for rated, leaf in zip(is_rate, leaves, strict=True)]
    params, state = jax.tree.unflatten(tree, leaves)
    x, key = jnp.ones((8, 32), dtype), jax.random.key(1)
    for randomness in (key, None):
        wanted, _ = jax.jit(constant.apply)(params, {}, x, key=randomness)
        outputs, after = jax.jit(variable.apply)(params, state, x, key=randomness)
        assert outputs.dtype == wanted.dtype
        tolerance = 1e-5 if dtype == jnp.float32 else 0.05
        chex.assert_trees_all_close(outputs.astype(jnp.float32), wanted.astype(jnp.float32), atol=tolerance)
        chex.assert_trees_all_equal(after, state)
