"""The step does what its formula says, and many steps in one dispatch are the same steps."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcls import losses, optimizers
from jaxcls._utils import interruption
from jaxcls._utils.errors import InputError
from jaxcls.data import batching
from jaxcls.data.batching import AHEAD, sequence_buckets
from jaxcls.models import functional, vision
from jaxcls.training import steps
from jaxcls.training.objective import OutputSpec, total_loss


class Net(nnx.Module):
    def __init__(self, rngs):
        self.dense1 = nnx.Linear(5, 16, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dense2 = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense2(self.dropout(nnx.relu(self.norm(self.dense1(x)))))


LOSS = losses.get("softmax_cross_entropy", normalizer="batch")
COUNT, BATCH = 37, 8
STEPS = batching.steps_per_epoch(COUNT, BATCH)


def linear(rngs):
    return nnx.Linear(5, 3, rngs=rngs)


def make(build=Net, optimizer=None, **options):
    model = functional(build)
    optimizer = optimizer or optax.adam(1e-2)
    step = steps.make_train_step(model, LOSS, optimizer, **options)
    return model, step, steps.init_state(model, optimizer, seed=0)


def with_weights(predict, state):
    return functools.partial(predict, state.params, state.model_state)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(COUNT, 5)).astype(np.float32)
    return jax.device_put(batching.examples(inputs, rng.integers(0, 3, COUNT).astype(np.int32)))


def run_epoch(step, state, data, length, **options):
    chunk = steps.make_train_chunk(step)
    feed = batching.device_feed(data, batch_size=BATCH, length=length, **options)
    order = steps.epoch_order(state.key, 0, len(data))
    collected = []
    for first, batches in zip(range(0, STEPS, length), feed(order, 0), strict=True):
        state, metrics = chunk(state, batches)
        collected.append(jax.tree.map(lambda leaf, first=first: np.asarray(leaf)[: STEPS - first], metrics))
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *collected)


def test_a_step_of_gradient_descent_is_the_formula_in_float64(data):
    _, step, state = make(linear, optax.sgd(0.5))
    mask = np.arange(COUNT) % 3 > 0
    weights = np.linspace(0.5, 2, COUNT, dtype=np.float32)
    batch = batching.Batch(data.inputs, data.labels, jnp.asarray(mask), jnp.asarray(weights))
    after, metrics = jax.jit(step)(state, batch)

    kernel, bias = (np.asarray(state.params[name], np.float64) for name in ("kernel", "bias"))
    x, y = np.asarray(data.inputs, np.float64), np.eye(3)[np.asarray(data.labels)]
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scale = (weights * mask / mask.sum())[:, None]
    gradient = {"kernel": x.T @ (scale * (p - y)), "bias": (scale * (p - y)).sum(0)}
    expected = {"kernel": kernel - 0.5 * gradient["kernel"], "bias": bias - 0.5 * gradient["bias"]}
    chex.assert_trees_all_close(after.params, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics.loss, -(scale * np.log(p) * y).sum(), rtol=1e-5)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-5)
    assert int(after.step) == 1


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_any_chunking_gives_the_same_bits(data, length):
    _, step, state = make()
    expected = run_epoch(step, jax.tree.map(jnp.copy, state), data, STEPS)
    chex.assert_trees_all_equal(run_epoch(step, state, data, length), expected)


def test_the_order_is_new_each_epoch_and_follows_from_the_key():
    key = jax.random.key(5)
    orders = [np.asarray(steps.epoch_order(key, epoch, COUNT)) for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(COUNT))
    assert np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])


def test_a_batch_masked_whole_changes_nothing(data):
    _, step, state = make()
    batch = batching.take(data, jnp.arange(BATCH), jnp.zeros(BATCH, bool))
    after, metrics = jax.jit(step)(state, batch)
    chex.assert_trees_all_equal(after, state)
    assert not metrics.applied


def test_a_padded_batch_of_a_normalized_network_is_the_batch_unpadded():
    network = functools.partial(vision.ResNet, (9, 9, 1), 3, widths=(4, 8))
    _, step, state = make(lambda rngs: network(rngs=rngs))
    step, rng = jax.jit(step), np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 9, 9, 1)).astype(np.float32), jnp.arange(8) % 3
    expected, _ = step(state, batching.Batch(images[:5], labels[:5], jnp.ones(5, bool), jnp.ones(5)))
    for filling in (0.5, np.nan):
        padded = np.concatenate([images[:5], np.full((3, 9, 9, 1), filling, np.float32)])
        result, metrics = step(state, batching.Batch(padded, labels, jnp.arange(8) < 5, jnp.ones(8)))
        assert metrics.applied
        chex.assert_trees_all_close(result.model_state, expected.model_state, rtol=1e-5, atol=1e-6)
        # Adam divides by the size of a gradient, which may be rounding alone.
        chex.assert_trees_all_close(result.opt_state[0].mu, expected.opt_state[0].mu, rtol=1e-4, atol=1e-6)


def test_padding_counts_nowhere_for_a_model_without_batch_statistics(data):
    _, step, state = make(linear)
    rows = jnp.arange(BATCH)
    padded = batching.take(data, rows, rows < 5)
    padded = padded._replace(inputs=padded.inputs.at[5:].set(1e3))
    alone = batching.take(data, rows[:5], jnp.ones(5, bool))
    expected, expected_metrics = step(state, alone)
    after, metrics = step(state, padded)
    chex.assert_trees_all_close(after.params, expected.params, rtol=1e-6, atol=1e-7)
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_not_finite_moves_only_the_number_of_the_step(data, value):
    _, step, state = make()
    batch = batching.take(data, jnp.arange(BATCH), jnp.ones(BATCH, bool))
    after, metrics = jax.jit(step)(state, batch._replace(inputs=batch.inputs.at[2, 1].set(value)))
    chex.assert_trees_all_equal(after._replace(step=state.step), state)
    assert int(after.step) == 1
    assert not metrics.applied


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_accumulated_step_is_that_of_the_large_batch(data, dtype):
    """Unknown labels and masked rows lie unevenly, so that micro-batches count differently, one of them not at all."""
    labels = {name: np.where(np.arange(COUNT) % every, data.labels, -1) for name, every in (("a", 2), ("b", 3))}
    mask = (np.arange(COUNT) < 30) & (np.arange(COUNT) % 4 != 1)
    weights = np.linspace(0.5, 2, COUNT, dtype=np.float32)
    batch = jax.tree.map(lambda leaf: leaf[:36], batching.Batch(data.inputs, labels, jnp.asarray(mask), weights))
    loss = losses.get("softmax_cross_entropy", ignore_label=-1)
    specs = {
        "a": OutputSpec("multiclass", functools.partial(loss, normalizer="batch")),
        "b": OutputSpec(
            "multiclass", functools.partial(loss, normalizer="weights", class_weight=[1, 5, 2]), weight=0.3
        ),
    }

    class Two(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = (nnx.Linear(5, 3, param_dtype=dtype, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    model = functional(Two)
    results = []
    for count in (None, 4):
        optimizer = optimizers.sgd(0.5, global_clipnorm=0.2, ema_decay=0.5, gradient_accumulation_steps=count)
        step = jax.jit(steps.make_train_step(model, total_loss(specs), optimizer))
        results.append(step(steps.init_state(model, optimizer, seed=0), batch))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 2e-2, "atol": 1e-3}
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), [(s.params, s.opt_state, m) for s, m in results])
    chex.assert_trees_all_close(*wide, **tolerance)


def test_batch_normalization_of_micro_batches_follows_their_examples(data):
    """A micro-batch that is masked whole is left out, and running statistics pass from one to the next."""
    _, step, state = make(optimizer=optimizers.sgd(0.5, gradient_accumulation_steps=4))
    mask = jnp.arange(36) % 4 != 1
    batch = batching.Batch(data.inputs[:36], data.labels[:36], mask, jnp.ones(36))
    after, metrics = jax.jit(step)(state, batch)
    assert metrics.applied
    _, alone, one = make(optimizer=optax.sgd(0.0))
    for first in (0, 2, 3):
        part = jax.tree.map(lambda leaf, first=first: leaf[first::4], batch)
        one, _ = jax.jit(alone)(one, part)
    chex.assert_trees_all_close(after.model_state["norm"], one.model_state["norm"], rtol=1e-5)


def test_inputs_of_micro_batches_may_have_an_empty_axis(data):
    """A table without categories has them."""

    _, step, state = make(OfNumbers, optimizers.sgd(0.5, gradient_accumulation_steps=4))
    inputs = {"numbers": data.inputs[:8], "categories": jnp.zeros((8, 0), jnp.int32)}
    _, metrics = step(state, batching.Batch(inputs, data.labels[:8], jnp.ones(8, bool), jnp.ones(8)))
    assert metrics.applied


class OfNumbers(nnx.Module):
    def __init__(self, rngs):
        self.layer = linear(rngs)

    def __call__(self, inputs):
        return self.layer(inputs["numbers"])


def test_a_batch_that_does_not_divide_into_micro_batches_is_refused(data):
    _, step, state = make(linear, optimizers.sgd(0.5, gradient_accumulation_steps=4))
    with pytest.raises(InputError, match="37 examples cannot be divided into 4 micro-batches"):
        step(state, batching.Batch(data.inputs, data.labels, jnp.ones(COUNT, bool), jnp.ones(COUNT)))


def test_a_finite_gradient_in_float16_is_applied(data):
    """Its square is not finite."""

    def build(rngs):
        return nnx.Linear(5, 3, param_dtype=jnp.float16, rngs=rngs)

    _, step, state = make(build, optimizers.sgd(1e-6))
    batch = batching.take(data, jnp.arange(BATCH), jnp.ones(BATCH, bool))
    _, metrics = step(state, batch._replace(sample_weight=jnp.full(BATCH, 3000.0)))
    assert metrics.applied
    assert metrics.gradient_norm > 300


def test_averaged_parameters_are_evaluated_with_averaged_statistics(data):
    decay = 0.8
    _, step, state = make(optimizer=optimizers.sgd(0.5, ema_decay=decay))
    run, statistics = jax.jit(step), []
    for first in range(0, 32, BATCH):
        state, _ = run(state, batching.take(data, jnp.arange(first, first + BATCH), jnp.ones(BATCH, bool)))
        statistics.append(np.asarray(state.model_state["norm"]["mean"], np.float64))
    expected = np.average(statistics, axis=0, weights=decay ** np.arange(len(statistics) - 1, -1, -1.0))
    evaluated = steps.evaluated_weights(state)["model_state"]
    np.testing.assert_allclose(evaluated["norm"]["mean"], expected, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_equal_shapes_and_dtypes(evaluated, state.model_state)


@pytest.mark.parametrize(
    "wrong",
    [{"mask": jnp.ones(BATCH)}, {"mask": jnp.ones(BATCH - 1, bool)}, {"sample_weight": jnp.ones((BATCH, 1))}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_batch_of_the_wrong_form_is_refused_while_the_step_is_traced(data, wrong):
    _, step, state = make()
    batch = batching.take(data, jnp.arange(BATCH), jnp.ones(BATCH, bool))
    with pytest.raises(AssertionError, match="Chex"):
        jax.eval_shape(step, state, batch._replace(**wrong))


def test_an_update_that_is_not_finite_is_not_applied_though_its_gradient_is(data):
    spoilt = optax.GradientTransformation(optax.identity().init, lambda g, s, p: (jax.tree.map(lambda x: x / 0, g), s))
    _, step, state = make(linear, spoilt)
    after, metrics = step(state, batching.take(data, jnp.arange(BATCH), jnp.ones(BATCH, bool)))
    chex.assert_trees_all_equal(after.params, state.params)
    assert jnp.isfinite(metrics.gradient_norm)
    assert not metrics.applied


def test_evaluation_traces_once_whatever_the_size_of_the_set(data):
    traces = []

    def counted(inputs):
        traces.append(None)
        return inputs

    model, _, state = make()
    predict = steps.make_prediction_step(model, scores=jax.nn.softmax, preprocess=counted)
    for count in (3, 8, 37):
        steps.collect(with_weights(predict, state), np.asarray(data.inputs)[:count], batch_size=BATCH)
    assert len(traces) == 1


def test_augmentation_precedes_preprocessing_and_its_key_changes_with_the_step(data):
    seen = []

    def augment(key, inputs, labels):
        seen.append(jax.random.key_data(key))
        return inputs + 1, labels

    _, step, state = make(linear, optax.sgd(0.1), augment=augment, preprocess=lambda inputs: inputs * 2)
    _, plain_step, _ = make(linear, optax.sgd(0.1))
    batch = batching.take(data, jnp.arange(BATCH), jnp.ones(BATCH, bool))
    after, _ = step(state, batch)
    expected, _ = plain_step(state, batch._replace(inputs=(batch.inputs + 1) * 2))
    chex.assert_trees_all_close(after.params, expected.params)
    step(after, batch)
    assert not jnp.array_equal(*seen)


def test_two_devices_agree_with_one(data):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    replicated, sharded = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    _, step, state = make()
    one = run_epoch(step, jax.tree.map(jnp.copy, state), data, STEPS)
    two = run_epoch(step, jax.device_put(state, replicated), jax.device_put(data, replicated), STEPS, sharding=sharded)
    chex.assert_trees_all_close(jax.device_get(two[0].params), jax.device_get(one[0].params), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(two[1].loss, one[1].loss, rtol=1e-5)


def test_training_traces_once_for_all_epochs_and_chunks(data):
    _, step, state = make()
    traces = []

    def counted(state, batch):
        traces.append(None)
        return step(state, batch)

    chunk = steps.make_train_chunk(counted)
    feed = batching.device_feed(data, batch_size=BATCH, length=2)
    for epoch in range(2):
        for batches in feed(steps.epoch_order(state.key, epoch, len(data)), 0):
            state, _ = chunk(state, batches)
    assert len(traces) == 1


def test_a_weakly_typed_parameter_is_of_the_same_program_before_and_after_a_step(data):
    """Its type is strong after a step, which jit takes for another program, and compiles again."""

    def weak(rngs):
        layer = nnx.Linear(5, 3, rngs=rngs)
        layer.bias = nnx.Param(jnp.full(3, 0.5))
        return layer

    _, step, state = make(weak)
    chunk = steps.make_train_chunk(step)
    feed = batching.device_feed(data, batch_size=BATCH, length=1)
    for batches in feed(steps.epoch_order(state.key, 0, len(data)), 0):
        state, _ = chunk(state, batches)
    assert chunk._cache_size() == 1


@pytest.mark.parametrize("count", [1, 8, 37])
def test_collected_scores_are_those_of_the_whole_set_at_once_in_its_order(data, count):
    model, _, state = make()
    predict = steps.make_prediction_step(model, scores=jax.nn.softmax, tta=[lambda inputs: -inputs])
    inputs = np.asarray(data.inputs)[:count]
    scores, outputs = steps.collect(with_weights(predict, state), inputs, batch_size=BATCH)
    logits = [model.apply(state.params, state.model_state, sign * inputs)[0] for sign in (1, -1)]
    np.testing.assert_allclose(scores, (jax.nn.softmax(logits[0]) + jax.nn.softmax(logits[1])) / 2, atol=1e-6)
    np.testing.assert_allclose(outputs, logits[0], atol=1e-6)


WIDTHS = (2, 4, 8)
BUCKETS = sequence_buckets(WIDTHS)


@pytest.fixture(scope="module")
def sequences():
    """Tokens from 1, padded with 0 at the end, of every length from 0 to 8."""
    rng = np.random.default_rng(0)
    lengths = np.arange(COUNT) % 9
    return np.where(np.arange(8)[None, :] < lengths[:, None], rng.integers(1, 9, (COUNT, 8)), 0).astype(np.int32)


class Bag(nnx.Module):
    """A model that heeds padding: the mean of its tokens' embeddings."""

    def __init__(self, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (9, 3)))

    def __call__(self, tokens):
        used = (tokens != 0)[..., None]
        return (self.table[...][tokens] * used).sum(1) / jnp.maximum(used.sum(1), 1)


def test_each_sequence_has_the_first_width_that_holds_it(sequences):
    numbers = BUCKETS.indices(sequences)
    lengths = (sequences != 0).sum(1)
    assert numbers.tolist() == [next(i for i, width in enumerate(WIDTHS) if length <= width) for length in lengths]


def test_a_step_on_sequences_that_are_cut_is_the_step_on_all_of_them(sequences):
    _, step, state = make(Bag)
    cut = jax.jit(make(Bag, buckets=BUCKETS)[1])
    labels = jnp.asarray(np.arange(COUNT) % 3)
    data = batching.examples(jnp.asarray(sequences), labels, jnp.ones(COUNT))
    for rows in (np.arange(3), np.arange(5), np.arange(9)):
        batch = batching.take(data, rows, jnp.ones(len(rows), bool))
        (after, metrics), (expected, expected_metrics) = cut(state, batch), jax.jit(step)(state, batch)
        chex.assert_trees_all_close(after.params, expected.params, rtol=1e-6)
        chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-6)


def test_batches_of_a_bucketed_epoch_hold_one_bucket_but_where_two_meet(sequences):
    buckets = BUCKETS.indices(sequences)
    orders = [steps.bucketed_order(jax.random.key(5), epoch, buckets, BATCH) for epoch in range(20)]
    mixed = []
    for order in orders:
        assert sorted(order.tolist()) == list(range(COUNT))
        batches = np.asarray(buckets)[np.asarray(order)[: COUNT // BATCH * BATCH]].reshape(-1, BATCH)
        mixed.append(sum(len(set(batch)) > 1 for batch in batches.tolist()))
    # Three buckets in a ring meet in three places.
    assert max(mixed) <= 3
    assert len({tuple(order.tolist()) for order in orders}) == 20
    # Any example may be in the last batch, which is a small one.
    assert len({int(row) for order in orders for row in order[COUNT // BATCH * BATCH :]}) > COUNT // 2


def test_scores_of_sequences_that_are_cut_come_in_the_order_of_the_examples(sequences):
    model, _, state = make(Bag)
    predict = steps.make_prediction_step(model, scores=jax.nn.softmax)
    scores, outputs = steps.collect(with_weights(predict, state), sequences, batch_size=BATCH, buckets=BUCKETS)
    expected, _ = model.apply(state.params, {}, sequences)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    np.testing.assert_allclose(scores, jax.nn.softmax(expected), rtol=1e-6)


def test_predictions_of_many_batches_are_progress(monkeypatch):
    """A test that takes longer than the limit of the watchdog must not end the process."""
    calls = []
    monkeypatch.setattr(interruption, "_watchdogs", [lambda: calls.append(None)])
    inputs = np.arange(23.0, dtype=np.float32)
    doubled = steps.collect(jax.jit(lambda x: 2 * x), inputs, batch_size=2)
    np.testing.assert_array_equal(doubled, 2 * inputs)
    assert len(calls) == 12 - AHEAD
