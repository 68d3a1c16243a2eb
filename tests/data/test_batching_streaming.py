"""Streaming from the host: the same bits as from the device, a bounded number of chunks ahead."""

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
from jaxcls._utils.interruption import Interrupted
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data import batching
from jaxcls.data.batching import sequence_buckets
from jaxcls.models import functional
from jaxcls.training import loop, memory
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import FitConfig
from jaxcls.training.objective import OutputSpec

COUNT, BATCH, EPOCHS = 333, 4, 2
BUCKETS = sequence_buckets((2, 4, 8))
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, COUNT).astype(np.int32)
WEIGHTS = RNG.uniform(0.5, 2, COUNT).astype(np.float32)
TOKENS = np.where(np.arange(8) < RNG.integers(0, 9, (COUNT, 1)), RNG.integers(1, 9, (COUNT, 8)), 0).astype(np.int32)


class Net(nnx.Module):
    """A model of two input arrays of different types."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.table = nnx.Embed(9, 5, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, columns):
        return self.head(self.dropout(self.norm(columns["numbers"]) + self.table(columns["words"])))


class Bag(nnx.Module):
    """A model of the mean of token embeddings."""

    def __init__(self, rngs):
        self.table = nnx.Embed(9, 3, rngs=rngs)

    def __call__(self, tokens):
        used = (tokens != 0)[..., None]
        return (self.table(tokens) * used).sum(1) / np.float32(8)


TABLE = {"numbers": RNG.normal(size=(COUNT, 5)).astype(np.float32), "words": RNG.integers(0, 9, COUNT).astype(np.int32)}


def train(build, inputs, data_on, *, buckets=None, **options):
    """Trains a small model; returns its state and losses."""
    experiment = Experiment(
        model=functional(build),
        objective=OutputSpec("multiclass", losses.get("softmax_cross_entropy", normalizer="batch")),
        optimizer=optax.adam(1e-2),
        buckets=buckets,
    )
    data, config = batching.examples(inputs, LABELS, WEIGHTS), FitConfig(EPOCHS, BATCH, data_on=data_on)
    state, history = loop.train(experiment, experiment.init(), data, None, config, **options)
    return jax.device_get(state._replace(key=jax.random.key_data(state.key))), [entry["loss"] for entry in history]


@pytest.fixture(scope="module")
def from_device():
    return train(Net, TABLE, "device")


def mapped(folder, arrays):
    """Saves the arrays and memory-maps them."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in arrays}


def test_host_feed_gives_the_same_bits(from_device):
    chex.assert_trees_all_equal(train(Net, TABLE, "host"), from_device)


def test_memory_mapped_files_give_the_same_bits(from_device, tmp_path):
    chex.assert_trees_all_equal(train(Net, mapped(tmp_path, TABLE), "host"), from_device)


def test_bucketed_sequences_give_the_same_bits():
    expected = train(Bag, TOKENS, "device", buckets=BUCKETS)
    chex.assert_trees_all_equal(train(Bag, TOKENS, "host", buckets=BUCKETS), expected)


@pytest.mark.parametrize("feed", [batching.device_feed, batching.host_feed], ids=lambda feed: feed.__name__)
def test_each_device_gets_only_its_shard_of_each_batch(feed):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    chunks_of = feed(batching.examples(TABLE, LABELS), batch_size=BATCH, length=3, sharding=sharding)
    chunk = next(chunks_of(jax.numpy.arange(COUNT), 2))
    chex.assert_tree_shape_prefix(chunk, (3, BATCH))
    for leaf in jax.tree.leaves(chunk):
        assert {shard.data.shape[:2] for shard in leaf.addressable_shards} == {(3, BATCH // 2)}


@pytest.mark.parametrize(("before", "after"), [("host", "host"), ("host", "device")])
def test_an_interrupted_run_resumes_within_the_epoch_from_either_feed(from_device, tmp_path, before, after):
    chunks = iter(range(100))
    with CheckpointManager(tmp_path) as checkpoints, pytest.raises(Interrupted) as stopped:
        train(Net, TABLE, before, checkpoints=checkpoints, stop=lambda: next(chunks) == 4)
    epoch_steps = batching.steps_per_epoch(COUNT, BATCH)
    assert stopped.value.step % epoch_steps
    assert stopped.value.step > epoch_steps
    with CheckpointManager(tmp_path) as checkpoints:
        chex.assert_trees_all_equal(train(Net, TABLE, after, checkpoints=checkpoints), from_device)


def test_at_most_two_chunks_are_ahead(monkeypatch):
    begun = []

    def counted(*arguments):
        begun.append(arguments)
        return gather_chunk(*arguments)

    gather_chunk = batching.gather_chunk
    monkeypatch.setattr(batching, "gather_chunk", counted)
    chunks = batching.host_feed(batching.examples(TABLE, LABELS), batch_size=BATCH, length=2)(np.arange(COUNT), 0)
    for taken in range(1, 6):
        next(chunks)
        time.sleep(0.05)  # the device computes
        assert taken <= len(begun) <= taken + 2
    chunks.close()
    assert len(begun) == 7


def test_no_thread_is_left_behind():
    before = set(threading.enumerate())
    chunks = batching.host_feed(batching.examples(TABLE, LABELS), batch_size=BATCH, length=2)(np.arange(COUNT), 0)
    next(chunks)
    begun = set(threading.enumerate()) - before
    assert begun
    chunks.close()
    for thread in begun:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_an_error_while_reading_examples_reaches_the_training_loop(monkeypatch):
    def failing(*arguments):
        raise OSError("the disk is gone")

    monkeypatch.setattr(batching, "gather_chunk", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        train(Net, TABLE, "host")


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
def test_examples_fit_if_they_take_at_most_half_of_the_free_memory(devices, fits):
    data = batching.Examples(np.zeros((100, 2), np.uint8), np.zeros(100, np.int32), np.zeros(100, np.float32))
    assert sum(array.nbytes for array in data) == 1000
    assert memory.fits(data, [device(*arguments) for arguments in devices]) == fits
