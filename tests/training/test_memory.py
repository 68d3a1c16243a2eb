"""What does not fit is refused before the first step, with a batch size that does."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcls import losses
from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.data import batching
from jaxcls.models import functional
from jaxcls.training import memory, steps

BATCH = 512
MODEL = functional(
    lambda rngs: nnx.Sequential(nnx.Linear(100, 300, rngs=rngs), nnx.relu, nnx.Linear(300, 2, rngs=rngs))
)
OPTIMIZER = optax.adam(1e-2)
STEP = steps.make_train_step(MODEL, losses.get("softmax_cross_entropy", normalizer="batch"), OPTIMIZER)


def chunk_and_arguments(batch_size=BATCH):
    data = jax.device_put(batching.examples(np.ones((1024, 100), np.float32), np.zeros(1024, np.int32)))
    feed = batching.device_feed(data, batch_size=batch_size, length=2)
    state = steps.init_state(MODEL, OPTIMIZER, seed=0)
    return steps.make_train_chunk(STEP), state, next(feed(jnp.arange(1024), 0))


def needs(batch_size):
    chunk, *arguments = chunk_and_arguments(batch_size)
    analysis = chunk.lower(*arguments).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes


def test_the_message_names_the_batch_size_that_fits_and_the_flag_that_makes_up_for_it(monkeypatch):
    chunk, *arguments = chunk_and_arguments()
    # Enough for a quarter of the batch, but not for half of it.
    free_bytes = needs(BATCH // 4)
    assert free_bytes < needs(BATCH // 2)
    monkeypatch.setattr(memory, "free", lambda devices: free_bytes)
    with pytest.raises(InputError, match=rf"--batch-size {BATCH}: .* --batch-size 128 fits; .*-steps 4 ") as error:
        memory.compile_checked(chunk, *arguments)
    assert re.search(r"has 0\.\d+ GB free", str(error.value))
    # Nothing was run: the state was not donated.
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(arguments[0]))
    monkeypatch.setattr(memory, "free", lambda devices: 1)
    with pytest.raises(InputError, match="No smaller batch fits"):
        memory.compile_checked(chunk, *arguments)


@pytest.mark.parametrize("free_bytes", [None, 1 << 40])
def test_what_fits_is_run_and_compiled_once(monkeypatch, free_bytes):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    monkeypatch.setattr(memory, "free", lambda devices: free_bytes)
    chunk, state, batches = chunk_and_arguments()
    compiled.clear()
    expected = []
    memory.compile_checked(chunk, state, batches, expected.append)
    state, metrics = chunk(state, batches)
    state, metrics = chunk(state, batches)
    assert expected[0] > 0
    assert len(compiled) == 1
    assert int(state.step) == 4
    assert metrics.applied.all()


def test_the_host_has_memory_and_less_than_all_of_it():
    total = 1024 * int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    assert 0 < memory.free(jax.devices("cpu")[:1]) < 2 * total


def test_memory_that_runs_out_all_the_same_is_a_line_with_the_flags(capsys):
    def fails():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nmore")

    assert console.exit_status(fails) == 1
    output = capsys.readouterr().err
    assert "Out of memory allocating 123 bytes" in output
    assert "--gradient-accumulation-steps" in output
    assert "Traceback" not in output
