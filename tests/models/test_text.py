"""Text models: logits do not depend on padding, a gradient for every weight, n-grams as in NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from jaxcls.models import functional, text

VOCABULARY, LENGTH, CLASSES = 40, 24, 3
BUILDERS = {
    "ngrams": functools.partial(text.NGramClassifier, buckets=512),
    "cnn": functools.partial(text.TextCNN, embedding=8, channels=8),
    "transformer": functools.partial(text.Transformer, features=16, heads=2),
}
for_each_model = pytest.mark.parametrize("name", BUILDERS)


def model(name, **options):
    build = functools.partial(BUILDERS[name], CLASSES, vocabulary_size=VOCABULARY, max_length=LENGTH, **options)
    return functional(lambda rngs: build(rngs=rngs))


@functools.cache
def weights(name):
    of, key, rng = model(name), jax.random.key(0), np.random.default_rng(1)
    # Not compiled as a whole: many layers have the same shapes.
    params, state = of.init(key)
    # Some parameters are initialized to zero; move them away from it.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), params)
    return params, jax.jit(of.apply)(params, state, tokens([24, 10, 8, 3, 1]), key=key)[1]


def tokens(lengths, width=LENGTH):
    random = np.random.default_rng(0)
    rows = random.integers(1, VOCABULARY, (len(lengths), LENGTH))
    return np.where(np.arange(LENGTH) < np.array(lengths)[:, None], rows, 0).astype(np.int32)[:, :width]


@for_each_model
def test_padding_does_not_change_the_logits(name):
    of = model(name)
    params, state = weights(name)
    apply = jax.jit(lambda inputs: of.apply(params, state, inputs)[0])
    wide, narrow = apply(tokens([8, 3, 1, 0])), apply(tokens([8, 3, 1, 0], width=8))
    chex.assert_shape(wide, (4, CLASSES))
    chex.assert_type(wide, jnp.float32)
    chex.assert_tree_all_finite(wide)
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)
    assert np.ptp(wide, axis=0).min() > 1e-3, "texts have different logits"


@for_each_model
def test_every_weight_learns_and_dropout_draws_from_the_key(name):
    of = model(name, dropout=0.3)
    params, state = weights(name)
    inputs = tokens([24, 10, 5])

    @jax.jit
    def loss(params, key):
        outputs, _ = of.apply(params, state, inputs, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.array([0, 1, 2])).mean()

    gradient = jax.jit(jax.grad(loss))(params, jax.random.key(0))
    assert all(np.abs(leaf).max() > 1e-7 for leaf in jax.tree.leaves(gradient))
    first, again, other = (loss(params, jax.random.key(seed)) for seed in (0, 0, 1))
    assert first == again != other


@for_each_model
def test_bfloat16_computation_is_near_float32_with_the_same_weights(name):
    exact, rough = model(name), model(name, dtype=jnp.bfloat16)
    params, state = weights(name)
    fresh, _ = jax.eval_shape(rough.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {np.dtype("float32")}
    inputs = tokens([24, 10, 5])
    expected, actual = (jax.jit(of.apply)(params, state, inputs)[0] for of in (exact, rough))
    chex.assert_type(actual, jnp.float32)
    np.testing.assert_allclose(actual, expected, atol=0.1)


def test_ngram_rows_depend_on_their_tokens_only():
    inputs = np.array([[7, 8, 9, 7, 8], [1, 7, 8, 9, 0]], np.int32)
    rows, present = jax.device_get(text.ngram_rows(inputs, orders=3, vocabulary_size=10, buckets=1 << 20))
    rows, present = rows.reshape(2, 3, 5), present.reshape(2, 3, 5)
    np.testing.assert_array_equal(rows[:, 0], inputs)
    np.testing.assert_array_equal(present.sum(axis=2), [[5, 4, 3], [4, 3, 2]])
    # (7, 8) occurs three times, (7, 8, 9) twice.
    assert rows[0, 1, 0] == rows[0, 1, 3] == rows[1, 1, 1]
    assert rows[0, 2, 0] == rows[1, 2, 1]
    assert len({rows[0, 1, 0], rows[0, 1, 1], rows[0, 1, 2], rows[0, 2, 0], rows[0, 2, 1]}) == 5
    assert rows[:, 1:].min() >= 10


def test_hashes_spread_evenly_over_the_buckets():
    inputs = np.stack(np.meshgrid(np.arange(1, 257), np.arange(1, 257)), axis=-1).reshape(-1, 2).astype(np.int32)
    rows, present = jax.device_get(text.ngram_rows(inputs, orders=2, vocabulary_size=0, buckets=1024))
    counts = np.bincount(rows[:, 2:][present[:, 2:]], minlength=1024)
    assert counts.sum() == 65536
    # 64 in each bucket: the chi-squared statistic of a uniform hash is 1023, give or take 45.
    assert abs(((counts - 64) ** 2 / 64).sum() - 1023) < 5 * 45


def strings(inputs):
    return [" ".join(f"t{token}" for token in row if token) for row in inputs]


def test_ngram_classifier_uses_the_tfidf_weights_of_scikit_learn():
    # Enough rows that no two n-grams share one.
    build = functools.partial(
        text.NGramClassifier, 2, vocabulary_size=VOCABULARY, max_length=LENGTH, orders=2, buckets=1 << 20
    )
    of = functional(lambda rngs: build(rngs=rngs))
    params, state = of.init(jax.random.key(0))
    votes = jax.random.normal(jax.random.key(1), params["votes"]["embedding"].shape)
    params = {"votes": {"embedding": votes}, "bias": jnp.array([0.5, -0.5])}
    inputs = tokens([24, 20, 10, 5, 3, 1]) % 9  # few tokens, so that they repeat, and texts end early
    inputs = np.where(np.cumsum(inputs == 0, axis=1) > 0, 0, inputs)
    train, test = inputs[[0, 2, 4, 5]], inputs[[1, 3]]
    train_step = jax.jit(lambda state, batch: of.apply(params, state, batch, key=jax.random.key(0)))
    for _ in range(2):  # epochs
        for batch in (train[:2], train[2:]):
            _, state = train_step(state, batch)

    oracle = TfidfVectorizer(ngram_range=(1, 2), binary=True, smooth_idf=False, token_pattern=r"\S+")
    oracle.fit(strings(train))
    rows = []
    for ngram in oracle.get_feature_names_out():
        pair = np.array([[int(token[1:]) for token in ngram.split()] + [0]])
        ngram_row, present = jax.device_get(text.ngram_rows(jnp.asarray(pair), 2, VOCABULARY, 1 << 20))
        rows.append(ngram_row[present][-1])
    assert len(set(rows)) == len(rows)
    for part in (train, test):
        expected = oracle.transform(strings(part)) @ np.asarray(votes)[rows] + 0.2 * np.asarray(params["bias"])
        actual, after = jax.jit(of.apply)(params, state, part)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_equal(after, state)
