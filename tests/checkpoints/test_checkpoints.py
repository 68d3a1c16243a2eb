"""A restored state equals the saved state bit for bit; anything else raises or is logged."""

import asyncio
import gc
import json
import logging
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointError, CheckpointManager
from jaxcls.checkpoints.record import fingerprint


class State(NamedTuple):
    step: jax.Array
    key: jax.Array
    params: Any
    opt_state: Any
    extra: Any


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def make_state(seed: int = 0) -> State:
    """A state with every type of leaf and node of a training state, and with values that text would round."""
    key = jax.random.key(seed)
    params = {"kernel": jax.random.normal(key, (6, 4)), "bias": jnp.full(4, 0.1, jnp.bfloat16)}
    extra = {
        "flags": jnp.array([True, False, True]),
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-42], jnp.float32),
        "keys": jax.random.split(key, 2),
        "count": jnp.uint32(2**32 - 1),
        "nothing": None,
        "empty": (),
    }
    return State(jnp.int32(seed), key, params, OPTIMIZER.init(params), extra)


def bits(tree) -> list[tuple]:
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)
    ]
    return [(str(x.dtype), x.shape, np.asarray(x).tobytes()) for x in leaves]


def assert_same(state, expected) -> None:
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert bits(state) == bits(expected)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory) -> Path:
    """A directory with the checkpoints 1 and 2, to copy."""
    directory = tmp_path_factory.mktemp("saved") / "run"
    with CheckpointManager(directory, best_metric="accuracy") as saved:
        for step in (1, 2):
            saved.save(step, make_state(step), metadata={"step": step}, metrics={"accuracy": 0.5})
    return directory


@pytest.fixture
def two(two_saved, tmp_path) -> Path:
    return Path(shutil.copytree(two_saved, tmp_path / "run"))


def listing(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


class TestRoundTrip:
    def test_a_new_run_restores_the_state_bit_for_bit(self, tmp_path):
        state = make_state(3)
        metadata = {"epoch": 1, "history": [0.1, float("inf")], "task": "ü"}
        with CheckpointManager(tmp_path, best_metric="loss", best_mode="min") as saved:
            assert saved.restore(like=state) is None
            saved.save(np.int64(7), state, metadata=metadata, metrics={"loss": jnp.float32(0.5)})
        with CheckpointManager(tmp_path) as saved:
            abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
            for like in (state, abstract):
                restored = saved.restore(like)
                assert_same(restored.state, state)
                assert (restored.step, restored.metadata) == (7, metadata)
                assert (restored.metrics, restored.quarantined) == ({"loss": 0.5}, ())
                restored.metadata["history"].clear()  # must not affect the next restore

    def test_constant_leaves_are_those_of_the_caller_and_others_are_refused(self, tmp_path):
        state = {"frozen": jax.random.normal(jax.random.key(0), (100_000,)), "head": jnp.ones(3)}
        with CheckpointManager(tmp_path, constant=["['frozen']"]) as saved:
            saved.save(1, state, wait=True)
            assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 100_000
            assert_same(saved.restore(state | {"head": jnp.zeros(3)}).state, state)
            with pytest.raises(InputError, match=r"other frozen weights \(1 of 1 leaves differ: \['frozen'\]"):
                saved.restore(state | {"frozen": state["frozen"].at[7].add(1)})
            assert_same(saved.restore(state).state, state)

    def test_names_with_dots_and_slashes_are_distinguished(self, tmp_path):
        state = {"a.b": jnp.ones(2), "a": {"b": jnp.zeros(3)}, "a/b": jnp.ones(1)}
        with CheckpointManager(tmp_path) as saved:
            saved.save(0, state, wait=True)
            assert_same(saved.restore(state).state, state)

    def test_leaves_are_matched_by_name_when_their_order_changes(self, tmp_path):
        before = NamedTuple("S", [("a", Any), ("b", Any)])(jnp.zeros(2), jnp.ones(2))
        after = NamedTuple("S", [("b", Any), ("a", Any)])(jnp.zeros(2), jnp.zeros(2))
        with CheckpointManager(tmp_path) as saved:
            saved.save(0, before, wait=True)
            restored = saved.restore(after).state
        np.testing.assert_array_equal(restored.a, before.a)
        np.testing.assert_array_equal(restored.b, before.b)

    def test_buffers_may_be_donated_as_soon_as_save_returns(self, tmp_path):
        step = jax.jit(lambda x: x + 1, donate_argnums=0)
        x = jnp.zeros(1_000_000)
        with CheckpointManager(tmp_path) as saved:
            for i in range(5):
                saved.save(i, {"x": x})
                for _ in range(3):
                    x = step(x)
                restored = saved.restore({"x": x})
                assert (restored.step, restored.quarantined) == (i, ())
                np.testing.assert_array_equal(restored.state["x"], 3.0 * i)

    def test_save_and_restore_inside_a_running_event_loop(self, tmp_path):
        async def cell():
            with CheckpointManager(tmp_path) as saved:
                saved.save(0, make_state())
                saved.wait_until_finished()
                return saved.restore(make_state())

        assert_same(asyncio.run(cell()).state, make_state())

    @pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
    def test_a_state_moves_between_shardings(self, tmp_path, kind):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        split = NamedSharding(mesh, PartitionSpec(None, "data"))
        whole = jax.sharding.SingleDeviceSharding(jax.devices()[1])
        x = jnp.arange(24.0).reshape(3, 8)
        with CheckpointManager(tmp_path) as saved:
            for step, (before, after) in enumerate([(split, whole), (whole, split)]):
                saved.save(step, {"x": jax.device_put(x, before)}, wait=True)
                restored = saved.restore({"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=after)})
                assert (restored.step, restored.state["x"].sharding) == (step, after)
                np.testing.assert_array_equal(restored.state["x"], x)
            odd = {"x": jax.ShapeDtypeStruct((3, 8), x.dtype, sharding=NamedSharding(mesh, PartitionSpec("data")))}
            with pytest.raises(InputError, match=r"leaf \['x'\] of the state does not fit the requested sharding"):
                saved.restore(odd)

    @pytest.mark.parametrize("devices", [1, 2])
    def test_a_restored_state_can_be_the_template_of_the_next_restore(self, tmp_path, devices):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        whole = NamedSharding(mesh, PartitionSpec())
        state = jax.device_put(make_state(), whole)
        with CheckpointManager(tmp_path) as saved:
            saved.save(0, state, wait=True)
            once = saved.restore(state).state
            twice = saved.restore(once).state
        assert_same(twice, state)
        assert all(leaf.sharding.is_equivalent_to(whole, leaf.ndim) for leaf in jax.tree.leaves(twice))


# When a load fails, Orbax abandons the tasks of the other leaves, which are reported after the error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class TestDamage:
    @pytest.fixture(autouse=True)
    def wait_for_abandoned_tasks(self):
        yield
        time.sleep(0.05)  # for TensorStore's threads, which report to a closed event loop
        gc.collect()

    def test_a_flipped_bit_a_truncated_or_a_missing_file_never_restores_a_wrong_state(
        self, two_saved, tmp_path, caplog
    ):
        """Either the exact state is restored, or the damage is reported and the previous checkpoint is restored."""
        caplog.set_level(logging.CRITICAL)
        rng = np.random.default_rng(0)
        outcomes = set()
        for file in sorted(path for path in (two_saved / "2").rglob("*") if path.is_file()):
            content = file.read_bytes()
            changes = [None, content[: len(content) // 2]]
            for bit in rng.integers(8 * len(content), size=4 if content else 0):
                flipped = bytearray(content)
                flipped[bit // 8] ^= 1 << (bit % 8)
                changes.append(bytes(flipped))
            for change in changes:
                directory = Path(shutil.copytree(two_saved, tmp_path / "run"))
                target = directory / file.relative_to(two_saved)
                target.unlink() if change is None else target.write_bytes(change)
                with CheckpointManager(directory) as saved:
                    restored = saved.restore(make_state())
                assert_same(restored.state, make_state(restored.step))
                assert restored.metadata == {"step": restored.step}
                assert [Path(bad.path).name for bad in restored.quarantined] == ["2.damaged-1"] * (2 - restored.step)
                outcomes.add(restored.step)
                shutil.rmtree(directory)
        assert outcomes == {1, 2}

    def test_a_flipped_bit_that_orbax_does_not_detect_is_detected(self, tmp_path):
        """Small arrays are stored in nodes with a checksum, large ones in files without."""
        state = {"large": jax.random.normal(jax.random.key(0), (100, 100)), "small": jnp.ones(3)}
        with CheckpointManager(tmp_path) as saved:
            for step in (1, 2):
                saved.save(step, state, wait=True)
            largest = max((tmp_path / "2").rglob("d/*"), key=lambda path: path.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 1
            largest.write_bytes(content)
            restored = saved.restore(state)
        assert restored.step == 1
        assert restored.quarantined[0].reason == "the bits of 1 of 2 leaves have changed: ['large'] first"
        assert_same(restored.state, state)

    def test_data_that_cannot_be_decompressed_is_damage(self, tmp_path):
        """Orbax reports it as a plain Exception."""
        state = {"large": jax.random.normal(jax.random.key(0), (100, 100))}
        with CheckpointManager(tmp_path) as saved:
            for step in (1, 2):
                saved.save(step, state, wait=True)
            largest = max((tmp_path / "2").rglob("d/*"), key=lambda path: path.stat().st_size)
            content = largest.read_bytes()
            zstd = b"\x28\xb5\x2f\xfd"
            assert zstd in content
            largest.write_bytes(content.replace(zstd, b"\x28\xb5\x2f\xfc"))
            restored = saved.restore(state)
        assert (restored.step, len(restored.quarantined)) == (1, 1)
        assert_same(restored.state, state)

    def test_a_damaged_checkpoint_is_logged_and_moved_and_the_previous_one_restored(self, two, caplog):
        (two / "2/jaxcls_state/manifest.ocdbt").write_bytes(b"")
        with CheckpointManager(two) as saved:
            restored = saved.restore(make_state())
            assert (restored.step, saved.latest_step) == (1, 1)
            (bad,) = restored.quarantined
            assert Path(bad.path) == two / "2.damaged-1"
            assert "2 is damaged" in caplog.text
            assert bad.reason in caplog.text
            saved.save(2, make_state(2), wait=True)
            assert saved.restore(make_state()).step == 2
        assert listing(two) == {"1", "2", "2.damaged-1", "jaxcls.lock"}

    def test_read_only_changes_nothing_and_needs_no_lock(self, two):
        (two / "2/jaxcls_state/manifest.ocdbt").write_bytes(b"")
        shutil.copytree(two / "1", two / "0.deleted")
        with CheckpointManager(two / "other") as other, CheckpointManager(two / "other", read_only=True) as reader:
            other.save(1, make_state(1), wait=True)
            assert reader.restore(make_state()) is None  # saved after it was opened
        before = listing(two)
        with CheckpointManager(two, read_only=True) as reader:
            restored = reader.restore(make_state())
            with pytest.raises(InputError, match="read_only=True"):
                reader.save(3, make_state(3))
        assert (restored.step, restored.quarantined[0].path) == (1, str(two / "2"))
        (two / "1/jaxcls_state/manifest.ocdbt").write_bytes(b"")
        with (
            CheckpointManager(two, read_only=True) as reader,
            pytest.raises(CheckpointError, match="every checkpoint in"),
        ):
            reader.restore(make_state())
        assert listing(two) == before

    def test_a_changed_metric_is_damage(self, two):
        file = two / "2/_CHECKPOINT_METADATA"
        content = file.read_bytes()
        assert content.count(b"0.5") == 1
        file.write_bytes(content.replace(b"0.5", b"0.7"))
        with CheckpointManager(two, best_metric="accuracy") as saved:
            restored = saved.restore(make_state(), best=True)
        assert (restored.step, restored.metrics) == (1, {"accuracy": 0.5})
        assert restored.quarantined[0].reason == "its record is not the one that was saved"

    def test_a_record_of_another_step_is_damage(self, two):
        (two / "2").rename(two / "3")
        with CheckpointManager(two) as saved:
            assert saved.restore(make_state()).step == 1

    def test_a_run_with_only_damaged_checkpoints_does_not_start_afresh(self, two):
        for step in (1, 2):
            (two / f"{step}/jaxcls_state/_METADATA").unlink()
        for _ in range(2):  # a scheduler may start the command again
            with (
                CheckpointManager(two) as saved,
                pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"),
            ):
                saved.restore(make_state())

    def test_an_error_of_the_file_system_moves_nothing(self, two):
        file = two / "2/jaxcls_state/manifest.ocdbt"
        file.unlink()
        file.symlink_to(file)
        with CheckpointManager(two) as saved, pytest.raises(OSError, match="symbolic links"):
            saved.restore(make_state())
        assert listing(two) == {"1", "2", "jaxcls.lock"}

    def test_another_model_is_refused_with_the_leaves_that_differ(self, two):
        state = make_state()
        other = state._replace(
            params={"kernel": state.params["kernel"].astype(jnp.float16), "scale": jnp.ones(4)},
        )
        with CheckpointManager(two) as saved, pytest.raises(InputError) as error:
            saved.restore(other)
        for line in (
            "3 leaves differ",
            ".params['kernel']: saved float32[6, 4], now float16[6, 4]",
            ".params['bias']: saved bfloat16[4], now nothing",
            ".params['scale']: saved nothing, now float32[4]",
        ):
            assert line in str(error.value)
        assert listing(two) == {"1", "2", "jaxcls.lock"}

    def test_checkpoints_of_other_programs_are_refused_and_not_changed(self, tmp_path, two):
        from orbax.checkpoint import v1 as ocp

        ocp.save(tmp_path / "foreign/3", {"x": jnp.ones(1)})
        with pytest.raises(InputError, match=r"no jaxcls\.lock"):
            CheckpointManager(tmp_path / "foreign")
        (tmp_path / "foreign/3").rename(two / "3")
        with pytest.raises(InputError, match="jaxcls did not write"):
            CheckpointManager(two)
        assert listing(two) == {"1", "2", "3", "jaxcls.lock"}

    def test_the_next_best_is_restored_if_the_best_is_damaged(self, tmp_path):
        state = {"x": jnp.ones(3)}
        with CheckpointManager(tmp_path, max_to_keep=3, best_metric="m") as saved:
            for step, score in enumerate([0.5, 0.9, 0.1]):
                saved.save(step, state, metrics={"m": score})
            saved.wait_until_finished()
            (tmp_path / "1/jaxcls_state/manifest.ocdbt").unlink()
            restored = saved.restore(state, best=True)
            assert (restored.step, len(restored.quarantined), saved.best_step) == (0, 1, 0)

    def test_leftovers_of_a_killed_save_are_removed(self, two):
        for name in ("3.orbax-checkpoint-tmp", "0.deleted"):
            shutil.copytree(two / "1", two / name)
        (two / "notes").mkdir()
        with CheckpointManager(two) as saved:
            assert saved.latest_step == 2
        assert listing(two) == {"1", "2", "jaxcls.lock", "notes"}


class TestRetention:
    @pytest.mark.parametrize(
        ("mode", "scores", "best", "left"),
        [
            ("max", [0.1, 0.9, 0.5, 0.9, 0.2], 1, {1, 3, 4}),
            ("min", [0.5, 0.1, float("nan"), -float("inf"), 0.2], 1, {1, 3, 4}),
            ("max", [float("nan"), None, 0.1, float("nan"), float("nan")], 2, {2, 3, 4}),
            ("max", [None] * 5, None, {3, 4}),
        ],
    )
    def test_only_the_newest_and_the_best_are_retained(self, tmp_path, mode, scores, best, left):
        with CheckpointManager(tmp_path, best_metric="m", best_mode=mode) as saved:
            for step, score in enumerate(scores):
                saved.save(step, {"x": jnp.float32(step)}, metrics=None if score is None else {"m": score})
        with CheckpointManager(tmp_path, best_metric="m", best_mode=mode) as saved:
            assert (saved.latest_step, saved.best_step) == (4, best)
            assert saved.restore({"x": jnp.float32(0)}, best=True).step == (min(left) if best is None else best)
        assert listing(tmp_path) == {*map(str, left), "jaxcls.lock"}

    def test_a_checkpoint_may_be_deleted_by_hand(self, two):
        with CheckpointManager(two) as saved:
            shutil.rmtree(two / "1")
            saved.save(3, make_state(3))
        assert listing(two) == {"2", "3", "jaxcls.lock"}

    def test_a_step_may_be_saved_again_but_not_as_another_state(self, two):
        with CheckpointManager(two) as saved:
            for step in (1, 2):
                saved.save(step, make_state(step), wait=True)
            for step in (0, 1, 2):
                with pytest.raises(InputError, match="already holds a checkpoint of step 2"):
                    saved.save(step, make_state(9))
            assert_same(saved.restore(make_state()).state, make_state(2))


class TestFailedSave:
    @pytest.fixture
    def small_files_only(self):
        """Limits files to 100 kB, which to this process is like a full disk."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_a_failed_save_is_logged_and_the_next_save_replaces_it(self, tmp_path, small_files_only, caplog):
        state = {"x": jax.random.normal(jax.random.key(0), (100_000,))}
        with CheckpointManager(tmp_path) as saved:
            saved.save(1, state)
            saved.save(2, state)
            assert "step 1 could not be saved" in caplog.text
            with pytest.raises(CheckpointError, match="step 2 could not be saved"):
                saved.wait_until_finished()
            assert listing(tmp_path) == {"jaxcls.lock"}
            assert saved.restore(state) is None
            small_files_only()
            saved.save(2, state)
            saved.wait_until_finished()
            assert_same(saved.restore(state).state, state)

    def test_close_raises_and_unlocks_the_directory(self, tmp_path, small_files_only):
        state = {"x": jax.random.normal(jax.random.key(0), (100_000,))}
        with (
            pytest.raises(CheckpointError, match="step 1 could not be saved"),
            CheckpointManager(tmp_path) as saved,
        ):
            saved.save(1, state)

        def interrupted():
            with CheckpointManager(tmp_path) as saved:
                saved.save(1, state)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()


class TestInvalidArguments:
    @pytest.mark.parametrize(
        ("leaf", "says"),
        [
            (np.float32(1), "float32; convert it"),
            (np.ones(2), "ndarray; convert it"),
            (1, "int; convert it"),
            (b"x", "bytes; convert it"),
            (jnp.zeros((0, 3)), "empty array"),
            (jnp.asarray(1.0), "weakly typed"),
            (jax.ShapeDtypeStruct((2,), jnp.float32), "shape without values"),
        ],
    )
    def test_a_leaf_that_cannot_be_saved_is_refused_by_its_path(self, tmp_path, leaf, says):
        with CheckpointManager(tmp_path) as saved, pytest.raises(InputError, match=rf"leaf \['a'\]\['b'\].*{says}"):
            saved.save(0, {"a": {"b": leaf}, "c": jnp.ones(1)})

    def test_leaves_with_the_same_path_are_refused(self, tmp_path):
        @jax.tree_util.register_pytree_with_keys_class
        class Twins(tuple):
            def tree_flatten_with_keys(self):
                return [(jax.tree_util.GetAttrKey("twin"), leaf) for leaf in self], None

            @classmethod
            def tree_unflatten(cls, _, leaves):
                return cls(leaves)

        with CheckpointManager(tmp_path) as saved, pytest.raises(InputError, match="the same path"):
            saved.save(0, Twins((jnp.zeros(1), jnp.ones(1))))

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"step": -1}, "step is -1"),
            ({"state": ()}, "no leaves"),
            ({"metadata": {"x": jnp.ones(1)}}, "JSON"),
            ({"metrics": {"accuracy": "high"}}, "metrics numbers"),
            ({"metrics": {"acuracy": 1.0}}, "unknown best_metric 'accuracy'. Did you mean 'acuracy'"),
        ],
    )
    def test_wrong_arguments_of_save(self, tmp_path, arguments, says):
        with CheckpointManager(tmp_path, best_metric="accuracy") as saved, pytest.raises(InputError, match=says):
            saved.save(**{"step": 0, "state": {"x": jnp.ones(1)}, **arguments})

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"max_to_keep": 0}, "max_to_keep=0"),
            ({"best_mode": "mix"}, "unknown best_mode 'mix'. Did you mean 'min'"),
            ({"directory": "gs://bucket/run"}, "is a URL"),
            ({"directory": __file__}, "is a file"),
            ({"directory": f"{__file__}/run"}, "is a file, or inside one"),
        ],
    )
    def test_wrong_arguments_of_the_class(self, tmp_path, arguments, says):
        with pytest.raises(InputError, match=says):
            CheckpointManager(**{"directory": tmp_path, **arguments})

    def test_the_best_needs_a_metric(self, tmp_path):
        with CheckpointManager(tmp_path) as saved, pytest.raises(InputError, match="best_metric=NAME"):
            saved.restore(make_state(), best=True)

    def test_relative_and_home_paths(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for directory in ("run", "~/home"):
            with CheckpointManager(directory) as saved:
                saved.save(0, {"x": jnp.ones(1)})
        assert listing(tmp_path) == {"run", "home"}


class TestProcesses:
    def test_a_directory_has_one_run_at_a_time(self, tmp_path):
        with CheckpointManager(tmp_path), pytest.raises(InputError, match=f"in use by another run .*{os.getpid()}"):
            CheckpointManager(tmp_path)
        CheckpointManager(tmp_path).close()

    def test_the_lock_of_a_dead_process_is_free(self, tmp_path):
        script = """
import sys
from jaxcls.checkpoints import CheckpointManager
saved = CheckpointManager(sys.argv[1])
print("open", flush=True)
input()
"""
        with child(script, tmp_path) as other:
            other.stdout.readline()
            with pytest.raises(InputError, match=f"process {other.pid} "):
                CheckpointManager(tmp_path)
            other.kill()
            other.wait()
            CheckpointManager(tmp_path).close()

    @pytest.mark.slow
    def test_a_killed_run_resumes_from_a_complete_checkpoint(self, tmp_path):
        script = """
import sys, jax.numpy as jnp
from jaxcls.checkpoints import CheckpointManager
state = lambda step: {"x": jnp.full((300, 300), step, jnp.float32)}
with CheckpointManager(sys.argv[1]) as saved:
    restored = saved.restore(state(0))
    step = restored.step + 1 if restored else 1
    # One complete save, however slow the machine; the others may be interrupted anywhere.
    saved.save(step, state(step), wait=True)
    print(step, flush=True)
    while True:
        step += 1
        saved.save(step, state(step))
"""
        rng = np.random.default_rng(0)
        last = 0
        for delay in rng.uniform(0.2, 0.6, size=3):
            with child(script, tmp_path) as run:
                assert int(run.stdout.readline()) > last
                with pytest.raises(subprocess.TimeoutExpired):
                    run.wait(timeout=delay)
                run.send_signal(signal.SIGKILL)
                run.wait()
            with CheckpointManager(tmp_path) as saved:
                restored = saved.restore({"x": jnp.zeros((300, 300))})
            assert restored.quarantined == ()
            np.testing.assert_array_equal(restored.state["x"], restored.step)
            assert restored.step > last
            last = restored.step


def child(script: str, directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class TestFingerprint:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, jnp.bfloat16, np.int32, np.float32])
    @settings(max_examples=20, deadline=None)
    @given(data=st.data())
    def test_any_change_of_one_element_changes_the_hash(self, dtype, data):
        x = np.frombuffer(np.random.default_rng(0).bytes(24 * np.dtype(dtype).itemsize), dtype).reshape(2, 3, 4)
        y = bytearray(x.tobytes())
        size = x.dtype.itemsize
        at = data.draw(st.integers(0, x.size - 1)) * size
        y[at : at + size] = data.draw(st.binary(min_size=size, max_size=size).filter(lambda b: b != y[at : at + size]))
        y = np.frombuffer(bytes(y), dtype).reshape(x.shape)
        assert fingerprint(jnp.asarray(x)) != fingerprint(jnp.asarray(y))

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            (jnp.arange(1.0, 7.0), -jnp.arange(1.0, 7.0)),
            (jnp.arange(6), jnp.arange(6)[::-1]),
            (jnp.zeros((2, 3)), jnp.ones((2, 3))),
            (jnp.array([True, False]), jnp.array([False, True])),
            (jax.random.key(0), jax.random.key(1)),
        ],
        ids=["all signs", "order", "all values", "bools", "keys"],
    )
    def test_changes_of_many_elements_change_the_hash(self, x, y):
        assert fingerprint(x) != fingerprint(y)

    def test_it_is_the_sum_of_murmur_finalizers(self):
        """Compares with Python integers: checkpoints of one release must verify in the next."""

        def finalizer(h: int) -> int:
            for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
                h = ((h ^ (h >> shift)) * factor) % 2**32
            return h

        x = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7.3
        words = x.view(np.uint32).ravel().tolist()
        expected = sum(finalizer((word + i * 0x9E3779B9) % 2**32) for i, word in enumerate(words)) % 2**32
        assert int(fingerprint(jnp.asarray(x))) == expected


def test_an_infinite_number_in_the_metadata_of_orbax_is_damage(tmp_path):
    state = {"w": jnp.ones(3)}
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, state, wait=True)
        checkpoints.save(2, state, wait=True)
    [metadata] = (tmp_path / "2" / "jaxcls_state").glob("_METADATA")
    record = json.loads(metadata.read_text())
    [entry] = record["tree_metadata"].values()
    for key in entry["key_metadata"]:
        key["key"] = math.inf
    metadata.write_text(json.dumps(record))
    with CheckpointManager(tmp_path) as checkpoints:
        restored = checkpoints.restore(like=state)
    assert restored.step == 1
    assert len(restored.quarantined) == 1
