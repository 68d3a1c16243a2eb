"""The loop: what it records, when it stops, and that an interrupted run ends as an uninterrupted one."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcls import losses, metrics
from jaxcls._utils.interruption import Interrupted
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data import batching
from jaxcls.models import functional
from jaxcls.reports.callbacks import Callback
from jaxcls.training import loop, steps
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import DivergedError, FitConfig, Progress
from jaxcls.training.objective import OutputSpec

COUNT, BATCH, EPOCHS = 300, 2, 3
STEPS = COUNT // BATCH
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(COUNT, 4)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int32)
MODEL = functional(
    lambda rngs: nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs), nnx.Linear(8, 2, rngs=rngs))
)


def experiment(values=None):
    """An experiment; ``values`` are the accuracies of the validation, epoch by epoch."""
    remaining = iter(values or [])
    spec = OutputSpec(
        "multiclass",
        losses.get("softmax_cross_entropy", normalizer="batch"),
        {"accuracy": lambda *arguments, **options: next(remaining)} if values else {"accuracy": metrics.accuracy},
    )
    return Experiment(model=MODEL, objective=spec, optimizer=optax.adam(1e-2))


EXPERIMENT = experiment()


class Steps(Callback):
    """A callback that remembers how far the run is."""

    step = 0

    def on_chunk_end(self, step, loss):
        self.step = step


def stop_at(step):
    """What makes :func:`run` stop as soon as it reaches a step."""
    steps = Steps()
    return {"callbacks": [steps], "stop": lambda: steps.step >= step}


def run(directory=None, *, inputs=INPUTS, epochs=EPOCHS, values=None, **options: Any):
    """Fits the small model; ``values`` are what validation gives, epoch by epoch."""
    one = experiment(values) if values else EXPERIMENT
    data, validation = batching.examples(inputs, LABELS), batching.examples(INPUTS, LABELS)
    config = FitConfig(epochs, BATCH, "accuracy")._replace(
        **{name: options.pop(name) for name in FitConfig._fields if name in options}
    )
    if directory is None:
        return loop.train(one, one.init(), data, validation, config, **options)
    with CheckpointManager(directory, best_metric="accuracy") as checkpoints:
        return loop.train(one, one.init(), data, validation, config, checkpoints=checkpoints, **options)


def without_times(history):
    return [{k: v for k, v in entry.items() if k not in ("seconds", "examples_per_second")} for entry in history]


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


def test_the_history_has_an_entry_for_each_epoch_and_the_model_learns(uninterrupted):
    state, history = uninterrupted
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert [entry["step"] for entry in history] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert {entry["skipped_steps"] for entry in history} == {0}
    logits, _ = MODEL.apply(state.params, state.model_state, INPUTS)
    assert (np.argmax(logits, 1) == LABELS).mean() > 0.95


@pytest.mark.parametrize("at", [1, STEPS - 60, STEPS, STEPS + 1, 2 * STEPS])
def test_a_stopped_run_that_is_continued_ends_with_the_same_bits(tmp_path, uninterrupted, at):
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, **stop_at(at))
    assert at <= stopped.value.step < 3 * STEPS
    state, history = run(tmp_path)
    expected_state, expected_history = uninterrupted
    chex.assert_trees_all_equal(state, expected_state)
    assert without_times(history) == without_times(expected_history)


def test_a_run_stopped_again_and_again_ends_with_the_same_bits(tmp_path, uninterrupted):
    stops = 0
    while True:
        try:
            state, _ = run(tmp_path, stop=lambda: True)
            break
        except Interrupted:
            stops += 1
    assert stops > EPOCHS
    chex.assert_trees_all_equal(state, uninterrupted[0])


@pytest.mark.parametrize(
    ("mode", "values", "epochs"),
    [
        ("max", [0.1, 0.3, 0.2, 0.3, 0.9], 4),
        ("max", [0.1, np.nan, np.nan, 0.9], 3),
        ("min", [0.5, 0.4, 0.6, 0.7, 0.1], 4),
        ("max", [0.1, 0.2, 0.3, 0.4, 0.5], 5),
    ],
)
def test_patience_ends_training_after_so_many_epochs_without_a_better_value(mode, values, epochs):
    _, history = run(epochs=5, values=values, mode=mode, patience=2)
    assert len(history) == epochs


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_the_best_epoch_can_be_restored(tmp_path, monkeypatch, seconds):
    saved = []

    def save(self, step, *arguments, **options):
        saved.append(step)
        original(self, step, *arguments, **options)

    original = CheckpointManager.save
    monkeypatch.setattr(CheckpointManager, "save", save)
    monkeypatch.setattr(loop, "MIN_CHECKPOINT_SECONDS", seconds)
    state, history = run(tmp_path, epochs=5, values=[0.1, 0.9, 0.2, 0.3, 0.4])
    # Of epochs that follow each other fast, the best and the last.
    assert saved == [entry["step"] for entry in (history if seconds == 0 else [history[1], history[4]])]
    with CheckpointManager(tmp_path, best_metric="accuracy") as checkpoints:
        best = checkpoints.restore(like=state, best=True)
        latest = checkpoints.restore(like=state)
    assert best.step == history[1]["step"]
    assert best.metrics == {"accuracy": 0.9}
    chex.assert_trees_all_equal(latest.state, state)


def test_a_state_is_saved_within_an_epoch_when_enough_time_has_passed(tmp_path):
    class Crash(Steps):
        def on_chunk_end(self, step, loss):
            if step >= STEPS - 1:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, checkpoint_seconds=0.0, callbacks=[Crash()])
    with CheckpointManager(tmp_path) as checkpoints:
        assert 0 < checkpoints.latest_step < STEPS


def test_steps_that_are_not_finite_are_skipped_and_counted():
    inputs = INPUTS.copy()
    inputs[7] = np.inf
    state, history = run(inputs=inputs)
    assert [entry["skipped_steps"] for entry in history] == [1, 1, 1]
    assert all(np.isfinite(entry["loss"]) for entry in history)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_too_many_in_a_row_stop_the_run_and_the_checkpoint_stays_good(tmp_path):
    with pytest.raises(DivergedError, match="not finite in 30 consecutive steps"):
        run(tmp_path, inputs=np.full_like(INPUTS, np.nan), max_skipped_steps=5)
    state = EXPERIMENT.init()
    with CheckpointManager(tmp_path) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like=state).state.params, state.params)


def test_a_diverged_run_stays_diverged_however_often_it_is_continued(tmp_path):
    for _ in range(6):
        with pytest.raises(DivergedError):
            run(tmp_path, inputs=np.full_like(INPUTS, np.nan), max_skipped_steps=5)


def test_the_most_skipped_steps_in_a_row_are_found_wherever_they_lie():
    progress = Progress()
    for applied, most in (([True, False, False], 2), ([False, True], 3), ([True, False, True], 3), ([False] * 4, 4)):
        count = np.full((len(applied), 1), 2.0)
        progress.count(steps.StepMetrics(None, None, np.array(applied), None, numerators=count, denominators=count))
        assert progress.most_in_row == most
    assert (progress.denominators, progress.skipped, progress.numerators) == ([8.0], 8, [8.0])


def test_the_loss_of_an_epoch_is_that_of_its_examples_by_output():
    progress = Progress()
    numerators = np.array([[8.0, 1.0, 0.0], [np.nan, 1.0, 0.0], [16.0, 2.0, 0.0]])
    denominators = np.array([[8, 1, 0], [8, 8, 0], [4, 2, 0]])
    progress.count(steps.StepMetrics(None, None, np.array([True, False, True]), None, numerators, denominators))
    assert progress.close_epoch(3, 20, {})["loss"] == 24 / 12 + 3 / 3
    assert progress.close_epoch(3, 20, {})["loss"] is None
