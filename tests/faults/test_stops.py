"""A run that is stopped, however and however often, ends with the bits of an uninterrupted run."""

import collections

import numpy as np
import pytest
import real_runs
import small_data
import tally

RUNS, KILLS = 24, 11
KILLED_AT_EVENTS = "SIGKILL: at four events, in the short test"


def events(directory):
    """The events at which a run is killed, in their order: by name, a function that tells whether it has happened."""
    before = real_runs.epochs_in(directory)
    checkpoints = directory / "checkpoints"
    return {
        "it starts": lambda: True,
        "the first step is compiled": (directory / "config.toml").exists,
        "a checkpoint is written": lambda: any(checkpoints.glob("*.orbax-checkpoint-tmp*")),
        "an old checkpoint is deleted": lambda: any(checkpoints.glob("*.deleted")),
        "the history is written": (directory / ".partial-metrics.jsonl").exists,
        # After an epoch: validation, history, checkpoint.
        "the history is ahead of the checkpoint": lambda: real_runs.epochs_in(directory) > before,
        "the tested weights are written": (directory / "model").exists,
        "the results are written": (directory / "SHA256SUMS").exists,
    }


@pytest.mark.slow
def test_a_run_killed_at_each_event_ends_with_the_same_bits(expected, tmp_path):
    directory = tmp_path / "run"
    arguments = [*real_runs.TABLE, "--run-dir", directory]
    sent = 0
    for name, delay in (
        ("the first step is compiled", 0.3),
        ("a checkpoint is written", 0.0),
        ("the history is ahead of the checkpoint", 0.0),
        ("the tested weights are written", 0.0),
    ):
        if real_runs.killed(arguments, events(directory)[name], delay):
            tally.record(KILLED_AT_EVENTS, tried=1)
            sent += 1
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(directory) == expected
    tally.record(KILLED_AT_EVENTS, passed=sent)
    assert sent >= 3


@pytest.mark.slow
def test_signals_save_and_print_how_to_resume_and_a_second_interrupt_exits_at_once(expected, tmp_path):
    directory = tmp_path / "a run's directory"
    arguments = [*real_runs.TABLE, "--run-dir", directory]
    reached = [0]
    for signals, status, message in (
        (
            "SIGTERM",
            75,
            f"the state is saved. To continue: python -m jaxcls.train {' '.join(real_runs.TABLE)} --run-dir '",
        ),
        ("SIGINT", 75, "the state is saved. To continue: python -m jaxcls.train"),
        ("SIGINT SIGINT", 130, "stopped at once; what was saved before remains"),
    ):
        send = "; ".join(f"signal.raise_signal(signal.{name})" for name in signals.split())
        with tally.trial(f"signals: {signals}, exit status {status}, and a good state"):
            done = real_runs.after_saves(3, send, *arguments)
            assert done.returncode == status, done.stderr
            assert message in done.stderr
            assert "Traceback" not in done.stderr
            reached.append(real_runs.steps_in(directory)[-1])
            assert reached[-1] > reached[-2]
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(directory) == expected


@pytest.fixture(scope="module")
def runs(expected, tmp_path_factory):
    """The arguments of two runs, of a table and of images, and their outcomes if uninterrupted."""
    folder = tmp_path_factory.mktemp("images")
    data = small_data.write(folder / "data")
    images = (
        *("--data-dir", data, "--model", "cnn", "--epochs", 6, "--batch-size", 4, "--data-on", "host"),
        *("--validation-fraction", 0.2, "--monitor", "loss", "--optimizer", "sgd", "--checkpoint-seconds", 0),
    )
    done = real_runs.run(*images, "--run-dir", folder / "run")
    assert done.returncode == 0, done.stderr
    return {"table": (real_runs.TABLE, expected), "images": (images, real_runs.outcome(folder / "run"))}


@pytest.mark.faults_long
@pytest.mark.parametrize("number", range(RUNS))
@tally.trial("runs killed up to eleven times each: same bits as an uninterrupted run")
def test_a_run_killed_many_times_ends_with_the_same_bits(runs, tmp_path, number):
    rng = np.random.default_rng(number)
    arguments, expected = runs["images" if number % 4 == 0 else "table"]
    directory = tmp_path / "run"
    arguments = [*arguments, "--run-dir", directory]
    sent = collections.Counter()
    for kill in range(KILLS):
        named = events(directory)
        # The last two events happen only at the end.
        name = list(named)[rng.integers(len(named) - (0 if kill >= KILLS - 2 else 2))]
        # At any time, at the event, or soon after it.
        delay = rng.uniform(0, 4) if name == "it starts" else rng.choice([0, rng.uniform(0, 0.3)])
        # With an empty cache, everything is compiled again.
        fresh = {"env": real_runs.with_environment(XDG_CACHE_HOME=str(tmp_path / f"cache{kill}"))}
        if real_runs.killed(arguments, named[name], delay, **(fresh if rng.random() < 0.2 else {})):
            tally.record(f"SIGKILL: when {name}", tried=1)
            sent[name] += 1
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(directory) == expected
    assert not [path for path in directory.rglob("*") if "damaged" in path.name]
    for name, count in sent.items():
        tally.record(f"SIGKILL: when {name}", passed=count)
