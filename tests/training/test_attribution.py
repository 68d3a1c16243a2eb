"""Contributions add up to what they explain, and name what counts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.text import NGramClassifier, TextCNN, Transformer
from jaxcls.models.vision import CNN
from jaxcls.training import attribution

RNG = np.random.default_rng(0)


def eager(module):
    module.eval()
    graph, state = nnx.split(module)
    return lambda inputs: nnx.merge(graph, state)(inputs)


@pytest.fixture(scope="module")
def cnn():
    return eager(CNN((8, 8, 1), 3, channels=(4, 8), dense=8, rngs=nnx.Rngs(0)))


def test_integrated_gradients_add_up_to_the_difference(cnn):
    def function(inputs):
        return cnn(inputs)[:, 1]

    images, baseline = jnp.asarray(RNG.normal(size=(3, 8, 8, 1)), jnp.float32), jnp.zeros((3, 8, 8, 1))
    contributions = attribution.integrated_gradients(function, images, baseline)
    difference = function(images) - function(baseline)
    np.testing.assert_allclose(contributions.sum(axis=(1, 2, 3)), difference, rtol=0.01)


def test_grad_cam_shows_where_the_evidence_is():
    convolution = nnx.Conv(1, 1, (1, 1), use_bias=False, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    image = np.zeros((1, 6, 6, 1), np.float32)
    image[0, 1, 4] = 2
    seen = attribution.grad_cam(lambda inputs: eager(convolution)(inputs).mean((1, 2, 3)), jnp.asarray(image))
    assert np.argwhere(seen[0]).tolist() == [[1, 4]]
    with pytest.raises(InputError, match="no feature map"):
        attribution.grad_cam(lambda inputs: inputs.mean((1, 2, 3)), jnp.asarray(image))


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(NGramClassifier, buckets=64),
        functools.partial(TextCNN, embedding=8, channels=8),
        functools.partial(Transformer, features=8, layers=1, heads=2),
    ],
    ids=["ngrams", "cnn", "transformer"],
)
def test_contributions_of_tokens_add_up_and_their_removal_lowers_the_logit_most(make):
    module = make(3, vocabulary_size=30, max_length=10, rngs=nnx.Rngs(0))
    if isinstance(module, NGramClassifier):
        module.votes.embedding[...] = jnp.asarray(RNG.normal(size=module.votes.embedding.shape), jnp.float32)
        module(jnp.asarray(RNG.integers(1, 30, (40, 10))))  # counts n-grams
    function = eager(module)
    tokens = RNG.integers(1, 30, (4, 10)).astype(np.int32)
    tokens[0, 5:] = 0
    tokens[1, 3] = tokens[1, 7]  # an n-gram that occurs twice
    targets = np.array([0, 2, 1, 2])
    contributions = attribution.of_tokens(function, jnp.asarray(tokens), targets)
    assert not contributions[0, 5:].any()
    logits = np.asarray(jax.jit(function)(jnp.asarray(tokens)))
    if isinstance(module, NGramClassifier):
        np.testing.assert_allclose(contributions.sum(axis=1), logits[np.arange(4), targets], atol=1e-5)

    # One token left out at a time.
    shorter = np.stack([np.pad(np.delete(tokens, column, axis=1), ((0, 0), (0, 1))) for column in range(10)])
    without = np.asarray(jax.jit(function)(shorter.reshape(40, 10))).reshape(10, 4, 3)
    drops = (logits - without)[:, np.arange(4), targets]
    ordered = np.argsort(contributions[1:], axis=1)
    most, least = (drops[ordered[:, column], np.arange(1, 4)].mean() for column in (-1, 0))
    assert most > least


def test_a_model_without_tokens_is_refused():
    with pytest.raises(InputError, match="does not embed tokens"):
        attribution.of_tokens(
            lambda tokens: jnp.zeros((2, 2)) + tokens.sum(), jnp.ones((2, 3), jnp.int32), np.zeros(2, int)
        )


@pytest.mark.parametrize("num_features", [3, 8])
def test_shapley_values_are_the_mean_gains_over_all_orders(num_features):
    example, background = RNG.normal(size=num_features), RNG.normal(size=(4, num_features))

    def outputs(mask, rows):
        mixed = np.where(mask, example, background[rows])
        return np.stack([mixed[:, 0] * mixed[:, 1] + mixed.sum(axis=1), np.exp(mixed[:, 2])], axis=1)

    # With as many orders as rows of the background, each is used equally often.
    values, base = attribution.shapley(outputs, num_features, 4, permutations=4 * 64)
    whole = outputs(np.ones((1, num_features), bool), np.zeros(1, int))[0]
    np.testing.assert_allclose(values.sum(axis=0), whole - base)
    # Of features that add up, the contribution is the distance from the mean.
    np.testing.assert_allclose(values[3:, 0], (example - background.mean(axis=0))[3:])
    if num_features > 3:
        return
    expected = np.zeros((3, 2))
    for order in itertools.permutations(range(3)):
        mask, before = np.zeros(3, bool), outputs(np.zeros((4, 3), bool), np.arange(4)).mean(axis=0)
        for feature in order:
            mask[feature] = True
            after = outputs(np.tile(mask, (4, 1)), np.arange(4)).mean(axis=0)
            expected[feature] += (after - before) / 6
            before = after
    np.testing.assert_allclose(values, expected)
