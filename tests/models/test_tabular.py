"""Tabular models: encodings, gradients, and agreement with logistic regression."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from jaxcls.data.preprocessing import tables
from jaxcls.models import functional, tabular

MODELS = {
    "linear": tabular.TabularLinear,
    "mlp": tabular.TabularMLP,
    "ensemble": functools.partial(tabular.TabularMLP, hidden=(8,), members=3),
}


@pytest.fixture(scope="module")
def columns():
    random = np.random.default_rng(0)
    return {
        "a": np.where(random.random(60) < 0.2, np.nan, random.normal(size=60)),
        "b": random.choice(np.array(["red", "green", "blue"], object), 60),
        "c": random.lognormal(size=60),
        "d": np.ones(60),
    }


def prepared(columns):
    fitted = tables.fit(columns)
    return fitted, fitted.normalize(fitted.transform(columns))


def untrained(name, fitted, **options):
    constructor = functools.partial(MODELS[name], num_classes=3, **fitted.model_arguments, **options)
    return functional(lambda rngs: constructor(rngs=rngs))


def build(name, fitted, **options):
    """A model with parameters that are all nonzero (the last layers are initialized to zero)."""
    model, rng = untrained(name, fitted, **options), np.random.default_rng(1)
    params, state = jax.jit(model.init)(jax.random.key(0))
    return model, jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype("f4"), params), state


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("letters", ["abcd", "b", "d", "bc"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_subset_of_columns_gives_float32_logits_and_no_empty_parameters(columns, name, letters, dtype):
    fitted, table = prepared({letter: columns[letter] for letter in letters})
    model = untrained(name, fitted, dropout=0.5, dtype=jnp.dtype(dtype))
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    shape, _ = jax.eval_shape(model.apply, params, state, table, key=jax.random.key(1))
    assert (shape.shape, shape.dtype) == ((60, 3), jnp.float32)
    # Arrays without elements cannot be saved.
    assert all(leaf.size and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_piecewise_linear_encoding_matches_the_paper():
    """Equation 1 of arXiv 2203.05556, but clipped at the ends too, and centered and scaled."""
    bins = [(0.0, 1.0, 3.0), (), (-1.0, 2.0)]
    values = np.random.default_rng(0).uniform(-4, 5, (20, 3)).astype(np.float32)
    expected = [
        [
            (2 * min(max((row[column] - low) / (high - low), 0), 1) - 1) / np.sqrt(len(edges) - 1)
            for column, edges in enumerate(bins)
            for low, high in itertools.pairwise(edges)
        ]
        for row in values
    ]
    np.testing.assert_allclose(tabular.PiecewiseLinear(bins)(jnp.asarray(values)), expected, atol=1e-6)
    # Unused bins encode 0 and change no other.
    encode = tabular.PiecewiseLinear([(0.0, 1.0, 3.0, 3.0, 3.0), (0.0, 0.0), (-1.0, 2.0)])
    encoded, gradient = jax.vjp(encode, np.append(values, np.float32([[3, 0, 2]]), axis=0))
    np.testing.assert_array_equal(encoded[:, [2, 3, 4]], 0)
    np.testing.assert_allclose(encoded[:-1, [0, 1, 5]], expected, atol=1e-6)
    assert np.isfinite(gradient(jnp.ones_like(encoded))[0]).all()


@pytest.mark.parametrize("name", MODELS)
def test_unknown_category_ignores_the_other_embeddings(columns, name):
    """Its logits do not depend on the parameters of the known categories."""
    fitted, table = prepared({"b": columns["b"]})
    model, params, state = build(name, fitted)
    unknown = {**table, "categories": jnp.zeros_like(table["categories"])}
    gradient = jax.jit(jax.grad(lambda params: (model.apply(params, state, unknown)[0] ** 2).sum()))(params)
    category_gradient = gradient["head"]["kernel"] if name == "linear" else gradient["embeddings"]["table"]["embedding"]
    np.testing.assert_array_equal(category_gradient, 0.0)
    assert np.abs(gradient["head"]["bias"] if name == "linear" else gradient["bias"]).max() > 0


def test_linear_model_matches_logistic_regression(columns):
    random = np.random.default_rng(1)
    fitted, table = prepared(columns)
    labels = random.integers(0, 3, 60)
    model, params, state = build("linear", fitted)
    penalty = 0.05

    def objective(params):
        logits, _ = model.apply(params, state, table)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean() + penalty / 2 * (params["head"]["kernel"] ** 2).sum()

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = solver.update(gradient, state, params, value=value, grad=gradient, value_fn=objective)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=50))((params, solver.init(params)))
    one_hot = np.eye(4)[np.asarray(table["categories"])[:, 0]][:, 1:]
    features = np.concatenate([table["numeric"], table["missing"], one_hot], axis=1)
    oracle = LogisticRegression(C=1 / (penalty * 60), tol=1e-8, max_iter=1000).fit(features, labels)
    logits, _ = model.apply(params, state, table)
    np.testing.assert_allclose(jax.nn.softmax(logits), oracle.predict_proba(features), atol=2e-3)


def test_dropout_acts_in_training_only(columns):
    fitted, table = prepared(columns)
    model, params, state = build("mlp", fitted, dropout=0.5)
    apply = jax.jit(model.apply)
    still = [apply(params, state, table)[0] for _ in range(2)]
    moved = [apply(params, state, table, key=jax.random.key(seed))[0] for seed in range(2)]
    np.testing.assert_array_equal(*still)
    assert np.abs(moved[0] - moved[1]).max() > 0.1


def test_members_are_averaged_and_each_learns_from_its_own_loss(columns):
    fitted, table = prepared(columns)
    # The last row is the first of three.
    table = jax.tree.map(lambda column: column[:58], table)
    model, params, state = build("ensemble", fitted)
    labels, member_of = np.arange(58) // 3 % 3, np.arange(58) % 3

    def member_logits(params, member):
        """The logits of one member, from a model whose members are all equal to it."""
        same = jax.tree.map(lambda leaf: jnp.stack([leaf[member]] * 3) if leaf.ndim == 3 else leaf, params)
        return jax.jit(model.apply)(same, state, table)[0]

    def losses(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    logits, _ = jax.jit(model.apply)(params, state, table)
    np.testing.assert_allclose(
        logits, np.mean([member_logits(params, member) for member in range(3)], axis=0), atol=1e-5
    )

    trained = jax.grad(lambda params: losses(model.apply(params, state, table, key=jax.random.key(0))[0]).sum())
    dealt = jax.grad(lambda params, member: (losses(member_logits(params, member)) * (member_of == member)).sum())
    expected = jax.tree.map(lambda *members: sum(members), *(dealt(params, member) for member in range(3)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), trained(params), expected)
