"""SIGKILL anywhere, many times in one run: the same command ends with the bits of a run that nothing stopped."""

import numpy as np
import pytest
import real_runs
import small_data
import tally

RUNS, KILLS = 24, 9

# Where a run can be, as one sees it from outside: by a file that is there then.
SEEN = {
    "it starts": lambda directory: True,
    "the first step is compiled": lambda directory: (directory / "config.toml").exists(),
    "a checkpoint is written": lambda directory: any(directory.glob("checkpoints/*.orbax-checkpoint-tmp*")),
    "an old one is deleted": lambda directory: any(directory.glob("checkpoints/*.deleted")),
    "the history is written": lambda directory: (directory / "metrics.jsonl.partial").exists(),
    "the history has more than the checkpoint": lambda directory: _epochs(directory) > _first_epochs(directory),
    "the tested weights are written": lambda directory: (directory / "model").exists(),
    "the results are written": lambda directory: (directory / "SHA256SUMS").exists(),
}


def _epochs(directory):
    try:
        return len((directory / "metrics.jsonl").read_bytes().splitlines())
    except FileNotFoundError:
        return 0


_known: dict = {}


def _first_epochs(directory):
    """How many epochs there were when this process of the run was first looked at."""
    return _known.setdefault(directory, _epochs(directory))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Arguments of runs, and what each ends with where nothing stops it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    data = small_data.write(folder / "data")
    images = ["--data-dir", data, "--model", "cnn", "--epochs", 4, "--batch-size", 4, "--data-on", "host"]
    images += ["--validation-fraction", 0.2, "--monitor", "loss", "--checkpoint-seconds", 0, "--optimizer", "sgd"]
    made = {}
    for name, arguments in (("table", real_runs.TABLE), ("streamed images", images)):
        directory = folder / name
        done = real_runs.run(*arguments, "--run-dir", directory)
        assert done.returncode == 0, done.stderr
        made[name] = arguments, real_runs.outcome(directory)
    return made


def killed_and_continued(arguments, directory, kills, rng, cache):
    """Kills a run so many times at the most, then lets it come to its end; gives how many it survived."""
    sent = 0
    for _ in range(kills):
        seen = list(SEEN)[rng.integers(len(SEEN))]
        _known.pop(directory, None)
        # Up to the length of a whole process, or at once.
        delay = rng.uniform(0, 4) if seen == "it starts" else rng.choice([0, rng.uniform(0, 0.3)])
        # With a cache of its own, everything is compiled first.
        options = {"env": real_runs.with_environment(XDG_CACHE_HOME=str(cache))} if rng.random() < 0.2 else {}
        arguments_now = [*arguments, "--run-dir", directory]
        sent += real_runs.killed(arguments_now, directory, SEEN[seen], delay, **options)
        if (directory / "results.json").exists():
            break
    done = real_runs.run(*arguments, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    return sent


@pytest.mark.faults_long
@pytest.mark.parametrize("number", range(RUNS))
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tasks, tmp_path, number):
    rng = np.random.default_rng(number)
    arguments, expected = tasks["table" if number % 4 else "streamed images"]
    directory = tmp_path / "run"
    sent = killed_and_continued(arguments, directory, KILLS, rng, tmp_path / "cache")
    found = real_runs.outcome(directory)
    tally.record("SIGKILL, and the run continued", sent, sent if found == expected else 0)
    tally.record("killed runs that ended bit for bit as one that nothing stopped", 1, found == expected)
    assert found == expected
    assert not [path for path in directory.rglob("*") if "damaged" in path.name]
