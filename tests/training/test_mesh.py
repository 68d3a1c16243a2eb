"""Meshes: what is divided over devices changes where numbers are, and not what they are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import jaxcls
from jaxcls._utils.errors import InputError
from jaxcls.data import batching
from jaxcls.models.layers import BatchNorm
from jaxcls.optimizers import adam
from jaxcls.training import mesh

COUNT, BATCH = 44, 7
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(COUNT, 32)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, COUNT).astype(np.int32)


class Net(nnx.Module):
    def __init__(self, *, rngs):
        self.first = nnx.Linear(32, 64, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(16, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, inputs):
        images = self.norm(self.first(inputs).reshape(-1, 2, 2, 16))
        return self.last(self.drop(nnx.relu(images)).reshape(-1, 64))


def compiled(text=None, **options):
    return jaxcls.compile(Net, adam(1e-3, ema_decay=0.9, **options), eval_batch_size=16, mesh=text)


def bytes_on_first_device(tree):
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])


def total_bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_a_divided_state_stays_divided_and_learns_the_same(tmp_path):
    """Through initialization, steps of padded batches, averages, validation, checkpoints and prediction."""
    data = (INPUTS, LABELS)
    options = {"batch_size": BATCH, "verbose": False}
    plain = compiled()
    expected, history = plain.fit(plain.init(0), data, 2, data, **options)
    divided = compiled("fsdp=2")
    first = divided.init(0)
    chex.assert_trees_all_equal(jax.device_get(first.params), jax.device_get(plain.init(0).params))
    half, _ = divided.fit(first, data, 1, data, run_dir=tmp_path / "run", **options)
    for tree in (first.params, first.opt_state, half.params, half.opt_state):
        assert bytes_on_first_device(tree) <= 0.6 * total_bytes(tree)
    # The same command on another mesh continues the run.
    whole = plain.fit(plain.init(0), data, 1, data, run_dir=tmp_path / "run", **options)[0]
    chex.assert_trees_all_equal(jax.device_get(whole.params), jax.device_get(half.params))
    assert bytes_on_first_device(whole.params) == total_bytes(whole.params)
    assert divided.evaluate(half, data)["loss"] == pytest.approx(history[0]["val_loss"], abs=1e-5)
    after, moved = divided.fit(half, data, 1, data, **options)
    assert [entry["val_loss"] for entry in moved] == pytest.approx([history[1]["val_loss"]], abs=1e-5)
    chex.assert_trees_all_close(divided.predict(after, INPUTS), plain.predict(expected, INPUTS), atol=1e-5)


def test_masked_rows_change_no_step():
    """As where devices cannot share a batch equally: batch statistics, dropout and loss are those without them."""
    experiment = compiled(gradient_accumulation_steps=2)
    data = batching.examples(INPUTS, LABELS)
    order = np.random.default_rng(1).permutation(COUNT)
    results = []
    for padding in (0, 4):
        rows, mask = batching.batch_rows(order, 0, batch_size=2 * BATCH, length=1, padding=padding)
        batch = jax.tree.map(jnp.asarray, batching.take(data, rows[0], mask[0]))
        assert len(batch.mask) == 2 * BATCH + padding
        assert batch.mask.sum() == 2 * BATCH
        results.append(jax.device_get(experiment.train_step(experiment.init(0), batch)))
    (state, metrics), (padded_state, padded_metrics) = results
    chex.assert_trees_all_close(padded_metrics, metrics, rtol=1e-5)
    assert padded_metrics.examples == 2 * BATCH
    chex.assert_trees_all_close(padded_state.model_state, state.model_state, rtol=1e-5, atol=1e-6)
    # Moments, since Adam's update of a gradient near 0 depends on its last bits.
    chex.assert_trees_all_close(padded_state.opt_state.inner_state, state.opt_state.inner_state, rtol=1e-4, atol=1e-6)


def test_leaves_are_divided_along_the_largest_axis_that_can_be():
    shapes = {
        "embedding": jax.ShapeDtypeStruct((3000, 64), jnp.float32),
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 96), jnp.float32),
        "wide": jax.ShapeDtypeStruct((64, 97), jnp.float32),
        "odd": jax.ShapeDtypeStruct((63, 97), jnp.float32),
        "bias": jax.ShapeDtypeStruct((96,), jnp.float32),
    }
    placed = mesh.placed(mesh.make("data=1,fsdp=2"), shapes)
    assert {name: leaf.sharding.spec for name, leaf in placed.items()} == {
        "embedding": PartitionSpec(None, "fsdp"),
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "wide": PartitionSpec("fsdp"),
        "odd": PartitionSpec(),
        "bias": PartitionSpec(),
    }
    assert all(leaf.sharding.is_fully_replicated for leaf in mesh.placed(mesh.make(), shapes).values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=4,fsdp=2", r"is of 8 devices, and there are 2 \(cpu\); give --mesh fsdp=2, or set JAX_NUM_CPU_DEVICES"),
        ("data=3", "give --mesh data=2, or set JAX_NUM_CPU_DEVICES=3"),
        ("fdsp=2", "'fdsp=2' is no axis of a mesh. Did you mean 'fsdp'?"),
        ("data=2,data=1", "'data=1' is no axis"),
        ("fsdp=-1", "'fsdp=-1' is no axis"),
        ("", "'' is no axis"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        compiled(text)
    assert mesh.usable(text) is None
