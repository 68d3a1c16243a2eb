"""Examples on the host give the bits that those on the device give, and come ahead of their use in bounded number."""

import threading
import time
import types

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcls import losses
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data import batching, streaming
from jaxcls.data.buckets import of_sequences
from jaxcls.models.functional import functional
from jaxcls.training import steps
from jaxcls.training.loop import Interrupted, fit

COUNT, BATCH, EPOCHS = 333, 4, 2
BUCKETS = of_sequences((2, 4, 8))
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, COUNT).astype(np.int32)
WEIGHTS = RNG.uniform(0.5, 2, COUNT).astype(np.float32)
TOKENS = np.where(np.arange(8) < RNG.integers(0, 9, (COUNT, 1)), RNG.integers(1, 9, (COUNT, 8)), 0).astype(np.int32)


class Net(nnx.Module):
    """Of a table: two arrays of different types."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.table = nnx.Embed(9, 5, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, columns):
        return self.head(self.dropout(self.norm(columns["numbers"]) + self.table(columns["words"])))


class Bag(nnx.Module):
    """Of tokens: the mean of their embeddings."""

    def __init__(self, rngs):
        self.table = nnx.Embed(9, 3, rngs=rngs)

    def __call__(self, tokens):
        used = (tokens != 0)[..., None]
        return (self.table(tokens) * used).sum(1) / np.float32(8)


TABLE = {"numbers": RNG.normal(size=(COUNT, 5)).astype(np.float32), "words": RNG.integers(0, 9, COUNT).astype(np.int32)}
OPTIMIZER = optax.adam(1e-2)


def train(build, inputs, feed, *, sharding=None, place=None, buckets=None, **options):
    """The state and the losses after some epochs of a small model."""
    model = functional(build)
    step = steps.make_train_step(model, losses.get("softmax_cross_entropy", normalizer="batch"), OPTIMIZER)
    data = batching.examples(inputs, LABELS, WEIGHTS)
    if buckets is not None:
        step = steps.bucketed(step, buckets)
        numbers = buckets.of_each(inputs)
        options["order"] = lambda key, epoch: steps.bucketed_order(key, epoch, numbers, BATCH)
    state = jax.device_put(steps.init_state(model, OPTIMIZER, seed=0), place)
    if feed is batching.resident:
        data = jax.device_put(data, place)
    state, history = fit(
        state, step, data, epochs=EPOCHS, batch_size=BATCH, validate=lambda state: {}, feed=feed, sharding=sharding,
        **options,
    )  # fmt: skip
    return jax.device_get(state._replace(key=jax.random.key_data(state.key))), [entry["loss"] for entry in history]


@pytest.fixture(scope="module")
def resident():
    return train(Net, TABLE, batching.resident)


def mapped(folder, arrays):
    """The arrays as files that are mapped into memory."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in arrays}


def test_streamed_arrays_give_the_same_bits(resident):
    chex.assert_trees_all_equal(train(Net, TABLE, streaming.streamed), resident)


def test_memory_mapped_files_give_the_same_bits(resident, tmp_path):
    chex.assert_trees_all_equal(train(Net, mapped(tmp_path, TABLE), streaming.streamed), resident)


def test_sequences_in_the_order_of_their_buckets_give_the_same_bits():
    expected = train(Bag, TOKENS, batching.resident, buckets=BUCKETS)
    chex.assert_trees_all_equal(train(Bag, TOKENS, streaming.streamed, buckets=BUCKETS), expected)


def test_two_devices_give_the_same_bits(resident):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    here, there = (
        train(Net, TABLE, feed, place=whole, sharding=split) for feed in (batching.resident, streaming.streamed)
    )
    chex.assert_trees_all_equal(there, here)
    chex.assert_trees_all_close(there[0].params, resident[0].params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feed", [batching.resident, streaming.streamed], ids=lambda feed: feed.__name__)
def test_each_device_gets_its_part_of_each_batch_alone(feed):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    chunks_of = feed(batching.examples(TABLE, LABELS), batch_size=BATCH, length=3, sharding=sharding)
    chunk = next(chunks_of(jax.numpy.arange(COUNT), 2))
    chex.assert_tree_shape_prefix(chunk, (3, BATCH))
    for leaf in jax.tree.leaves(chunk):
        assert {shard.data.shape[:2] for shard in leaf.addressable_shards} == {(3, BATCH // 2)}


@pytest.mark.parametrize(
    ("before", "after"),
    [(streaming.streamed, streaming.streamed), (streaming.streamed, batching.resident)],
    ids=["streamed", "resident"],
)
def test_a_streamed_run_that_is_stopped_goes_on_within_the_epoch_wherever_the_examples_are(
    resident, tmp_path, before, after
):
    chunks = iter(range(100))
    with CheckpointManager(tmp_path) as checkpoints, pytest.raises(Interrupted) as stopped:
        train(Net, TABLE, before, checkpoints=checkpoints, stop=lambda: next(chunks) == 4)
    steps_an_epoch = batching.steps_per_epoch(COUNT, BATCH)
    assert stopped.value.step % steps_an_epoch
    assert stopped.value.step > steps_an_epoch
    with CheckpointManager(tmp_path) as checkpoints:
        chex.assert_trees_all_equal(train(Net, TABLE, after, checkpoints=checkpoints), resident)


def test_no_more_than_two_chunks_are_ahead(monkeypatch):
    begun = []

    def counted(*arguments):
        begun.append(arguments)
        return gathered(*arguments)

    gathered = streaming.gathered
    monkeypatch.setattr(streaming, "gathered", counted)
    chunks = streaming.streamed(batching.examples(TABLE, LABELS), batch_size=BATCH, length=2)(np.arange(COUNT), 0)
    for taken in range(1, 6):
        next(chunks)
        time.sleep(0.05)  # as long as the device would take with it
        assert taken <= len(begun) <= taken + 2
    chunks.close()
    assert len(begun) == 7, "and they are there ahead"


def test_no_thread_is_left_behind():
    before = set(threading.enumerate())
    chunks = streaming.streamed(batching.examples(TABLE, LABELS), batch_size=BATCH, length=2)(np.arange(COUNT), 0)
    next(chunks)
    begun = set(threading.enumerate()) - before
    assert begun
    chunks.close()
    for thread in begun:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_what_goes_wrong_while_examples_are_read_is_raised_where_they_are_used(monkeypatch):
    def gathered(*arguments):
        raise OSError("the disk is gone")

    monkeypatch.setattr(streaming, "gathered", gathered)
    with pytest.raises(OSError, match="the disk is gone"):
        train(Net, TABLE, streaming.streamed)


def device(platform, limit, used):
    statistics = {} if limit is None else {"bytes_limit": limit, "bytes_in_use": used}
    return types.SimpleNamespace(platform=platform, memory_stats=lambda: statistics)


@pytest.mark.parametrize(
    ("devices", "fits"),
    [
        ([("gpu", 2000, 0)], True),
        ([("gpu", 2000, 1), ("gpu", 2000, 0)], False),
        ([("gpu", 4000, 2001)], False),
        ([("gpu", None, None)], True),
        ([("cpu", 10, 10)], True),
    ],
    ids=str,
)
def test_examples_live_on_the_device_if_half_of_its_free_memory_holds_them(devices, fits):
    data = batching.Examples(np.zeros((100, 2), np.uint8), np.zeros(100, np.int32), np.zeros(100, np.float32))
    assert sum(array.nbytes for array in data) == 1000
    assert streaming.fits(data, [device(*given) for given in devices]) == fits
