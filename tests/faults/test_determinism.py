"""Results do not depend on how steps are dispatched or where a run was interrupted."""

import json
import re
import shutil
import subprocess
import sys

import chex
import jax
import numpy as np
import optax
import pytest
import real_runs
import tally
from flax import nnx

from jaxcls import losses, metrics, optimizers
from jaxcls._utils import environment
from jaxcls._utils.interruption import Interrupted
from jaxcls.checkpoints import CheckpointManager
from jaxcls.cli.main import main
from jaxcls.data import batching
from jaxcls.models import functional
from jaxcls.reports.callbacks import Callback
from jaxcls.tasks.train import train_task
from jaxcls.training import loop
from jaxcls.training.experiment import Experiment
from jaxcls.training.objective import OutputSpec
from jaxcls.training.settings import Settings

COUNT, BATCH, EPOCHS = 23, 4, 2
STEPS = EPOCHS * batching.steps_per_epoch(COUNT, BATCH)
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(COUNT, 4)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int32)
FINITE = batching.examples(INPUTS.copy(), LABELS)
# The step with this example is skipped and counted.
INPUTS[7] = np.inf
EXAMPLES = batching.examples(INPUTS, LABELS)


def build(rngs):
    hidden = nnx.Linear(4, 8, use_bias=False, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)
    return nnx.Sequential(*hidden, nnx.Linear(8, 2, rngs=rngs))


MODEL = functional(build)
OPTIMIZER = optimizers.adam(optax.linear_schedule(1e-2, 1e-3, STEPS), ema_decay=0.5, gradient_accumulation_steps=2)
EXPERIMENT = Experiment(
    model=MODEL,
    objective=OutputSpec(
        "multiclass", losses.get("softmax_cross_entropy", normalizer="batch"), {"accuracy": metrics.accuracy}
    ),
    optimizer=OPTIMIZER,
    augment=lambda key, inputs, labels: (inputs + 0.1 * jax.random.normal(key, inputs.shape), labels),
)


class Dispatched(Callback):
    """Remembers the last step that was dispatched."""

    step = 0

    def on_chunk_end(self, step, loss):
        self.step = step


def trained(most, directory=None, stop_at=None):
    """The state and the history, with at most ``most`` steps in a dispatch."""
    dispatched = Dispatched()

    def fit(checkpoints=None):
        return loop.train(
            EXPERIMENT,
            EXPERIMENT.init(),
            EXAMPLES,
            FINITE,
            loop.FitConfig(EPOCHS, BATCH // 2, monitor="accuracy"),
            checkpoints=checkpoints,
            callbacks=[dispatched],
            stop=lambda: dispatched.step == stop_at,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "MAX_CHUNK_STEPS", most)
        if directory is None:
            state, history = fit()
        else:
            with CheckpointManager(directory, best_metric="accuracy") as checkpoints:
                state, history = fit(checkpoints)
    return state, [{k: v for k, v in e.items() if k not in ("seconds", "examples_per_second")} for e in history]


@pytest.fixture(scope="module")
def whole():
    state, history = trained(32)
    assert [entry["skipped_steps"] for entry in history] == [1, 1]
    return state, history


@pytest.mark.parametrize("most", [1, 2])
@tally.trial("determinism: steps in a dispatch, same bits")
def test_bits_do_not_depend_on_the_steps_in_a_dispatch(whole, most):
    state, history = trained(most)
    assert real_runs.same_bits(state, whole[0])
    assert history == whole[1]


@pytest.mark.parametrize("at", range(1, STEPS))
@tally.trial("determinism: interrupted at any step of a short run, same bits")
def test_a_run_interrupted_at_any_step_gives_the_same_bits(whole, tmp_path, at):
    with pytest.raises(Interrupted) as stopped:
        trained(1, tmp_path, stop_at=at)
    assert stopped.value.step == at
    # Resumed with other dispatches.
    state, history = trained(32, tmp_path)
    assert real_runs.same_bits(state, whole[0])
    assert history == whole[1]


# What another order of additions may change in a few hundred steps, for weights of about 0.1 to 1.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}
SPREAD = (
    *("--task", "csv", "--model", "mlp", "--epochs", "3", "--batch-size", "16", "--validation-fraction", "0.2"),
    *("--monitor", "loss", "--restore-best", "--checkpoint-seconds", "0"),
)


@pytest.mark.slow
def test_numbers_of_devices_agree_and_a_run_resumes_on_another_number(tmp_path):
    on = {count: {"env": real_runs.with_environment(JAX_NUM_CPU_DEVICES=str(count))} for count in (1, 6, 8)}
    done = real_runs.run(*SPREAD, "--run-dir", tmp_path / "1", **on[1])
    assert done.returncode == 0, done.stderr
    # This process has two.
    assert main(["train", *SPREAD, "--run-dir", str(tmp_path / "2")]) == 0
    # Two of three epochs on eight, with a divided state.
    moved = [*SPREAD, "--run-dir", tmp_path / "moved"]
    divided = [*moved, "--mesh", "data=4,fsdp=2"]
    assert real_runs.after_saves(2, "signal.raise_signal(signal.SIGTERM)", *divided, **on[8]).returncode == 75
    done = real_runs.run(*moved, **on[6])
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"warning: devices was \['cpu'(, 'cpu'){7}\], is \['cpu'(, 'cpu'){5}\]; the last bits of the", done.stdout
    )
    assert "6 devices share a batch of 16 and 2 masked rows, which do not count" in done.stdout
    one = real_runs.outcome(tmp_path / "1")
    for name in ("2", "moved"):
        with tally.trial("determinism: other numbers of devices, equal to the tolerance"):
            other = real_runs.outcome(tmp_path / name)
            chex.assert_trees_all_close(real_runs.arrays(other["last"]), real_runs.arrays(one["last"]), **TOLERANCE)
            assert [e["loss"] for e in other["history"]] == pytest.approx([e["loss"] for e in one["history"]], rel=1e-3)


@pytest.mark.slow
def test_evaluation_in_another_process_gives_the_bits_of_the_test_of_training(uninterrupted, tmp_path):
    directory = shutil.copytree(uninterrupted, tmp_path / "run")
    command = [sys.executable, "-m", "jaxcls", "evaluate", "--run-dir", directory]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained, result = (json.loads((directory / name).read_text()) for name in ("results.json", "evaluation-test.json"))
    shared = trained.keys() & result.keys()
    assert {"metrics", "labels", "thresholds"} <= shared
    assert {name: result[name] for name in shared} == {name: trained[name] for name in shared}


def test_resuming_in_another_environment_prints_warnings(tmp_path):
    settings = Settings(task="csv", model="linear", epochs=1, batch_size=16, run_dir=tmp_path / "run")
    train_task(settings, say=lambda line: None)
    file = tmp_path / "run" / "environment.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["packages"]["jax"] = "0.0.1"
    record["cpus"] = 96
    record["devices"] = ["TPU v9"]
    file.write_text(json.dumps(record), encoding="utf-8")
    lines = []
    train_task(settings, say=lines.append)
    warnings = [line.split(";")[0] for line in lines if line.startswith("warning: ")]
    now = environment.record()
    assert warnings == [
        f"warning: jax was 0.0.1, is {jax.__version__}",
        f"warning: devices was ['TPU v9'], is {now['devices']}",
        f"warning: cpus was 96, is {now['cpus']}",
    ]
