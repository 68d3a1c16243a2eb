"""However often a run is stopped, and by what: the same command ends with the bits of a run that nothing stopped."""

import numpy as np
import pytest
import real_runs
import small_data
import tally

RUNS, KILLS = 24, 11


def points(directory):
    """Where a run can be when it is killed, as one sees it from outside, in their order."""
    before = real_runs.epochs_in(directory)
    checkpoints = directory / "checkpoints"
    return {
        "it starts": lambda: True,
        "the first step is compiled": (directory / "config.toml").exists,
        "a checkpoint is written": lambda: any(checkpoints.glob("*.orbax-checkpoint-tmp*")),
        "an old checkpoint is deleted": lambda: any(checkpoints.glob("*.deleted")),
        "the history is written": (directory / ".partial-metrics.jsonl").exists,
        # An epoch is validated, then written to the history, then saved.
        "the history is ahead of the checkpoint": lambda: real_runs.epochs_in(directory) > before,
        "the tested weights are written": (directory / "model").exists,
        "the results are written": (directory / "SHA256SUMS").exists,
    }


@pytest.mark.slow
def test_a_run_killed_at_every_point_of_its_way_ends_with_the_same_bits(expected, tmp_path):
    directory = tmp_path / "run"
    arguments = [*real_runs.TABLE, "--run-dir", directory]
    sent = 0
    for name, delay in (
        ("the first step is compiled", 0.3),
        ("a checkpoint is written", 0.0),
        ("the history is ahead of the checkpoint", 0.0),
        ("the tested weights are written", 0.0),
    ):
        sent += real_runs.killed(arguments, points(directory)[name], delay)
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    found = real_runs.outcome(directory)
    tally.record("SIGKILL: at a named point, in the fast part", sent, sent if found == expected else 0)
    assert found == expected
    assert sent >= 3


@pytest.mark.slow
def test_signals_save_and_say_how_to_go_on_and_a_second_interrupt_leaves_at_once(expected, tmp_path):
    directory = tmp_path / "a run's directory"
    arguments = [*real_runs.TABLE, "--run-dir", directory]
    reached = [0]
    for signals, status, said in (
        (
            "SIGTERM",
            75,
            f"the state is saved. To go on: python -m jaxcls.train {' '.join(real_runs.TABLE)} --run-dir '",
        ),
        ("SIGINT", 75, "the state is saved. To go on: python -m jaxcls.train"),
        ("SIGINT SIGINT", 130, "stopped at once; what was saved before stands"),
    ):
        send = "; ".join(f"signal.raise_signal(signal.{name})" for name in signals.split())
        done = real_runs.after_saves(3, send, *arguments)
        assert done.returncode == status, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        reached.append(real_runs.steps_in(directory)[-1])
        tally.record(f"signals: {signals}, exit status {status}, and a good state", 1, reached[-1] > reached[-2])
    assert reached == sorted(set(reached))
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(directory) == expected


@pytest.fixture(scope="module")
def kinds(uninterrupted, expected, tmp_path_factory):
    """Arguments of runs of two kinds, and what each ends with where nothing stops it."""
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
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(kinds, tmp_path, number):
    rng = np.random.default_rng(number)
    arguments, expected = kinds["images" if number % 4 == 0 else "table"]
    directory = tmp_path / "run"
    arguments = [*arguments, "--run-dir", directory]
    sent = {}
    for kill in range(KILLS):
        seen = points(directory)
        # Those at the end come at the end.
        name = list(seen)[rng.integers(len(seen) - (0 if kill >= KILLS - 2 else 2))]
        # Anywhere in the length of a process, or at what is seen, or soon after.
        delay = rng.uniform(0, 4) if name == "it starts" else rng.choice([0, rng.uniform(0, 0.3)])
        # With a cache of its own, everything is compiled again.
        fresh = {"env": real_runs.with_environment(XDG_CACHE_HOME=str(tmp_path / f"cache{kill}"))}
        if real_runs.killed(arguments, seen[name], delay, **(fresh if rng.random() < 0.2 else {})):
            sent[name] = sent.get(name, 0) + 1
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    found = real_runs.outcome(directory)
    same = found == expected
    for name, count in sent.items():
        tally.record(f"SIGKILL: when {name}", count, count * same)
    tally.record("runs killed up to eleven times each: ended bit for bit as one that nothing stopped", 1, same)
    assert same
    assert not [path for path in directory.rglob("*") if "damaged" in path.name]
