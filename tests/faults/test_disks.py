"""Disks that are full or may not be written to, and too few file descriptors."""

import contextlib
import gc
import os
import resource
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest
import real_runs
import tally

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointError, CheckpointManager

# What Orbax abandons where a save fails is noise of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]

# A checkpoint of real_runs.TABLE is about 1.2 MB, and four may be there at a time.
ROOM = 8 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, leave):
    """Takes all room of a disk but so many bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / f"ballast{leave}").write_bytes(bytes(max(0, free - leave)))


# Takes the room of the disk, which it gives back after so many more saves.
FILLS = """
disk = Path(os.environ["DISK"])
free = os.statvfs(disk)
(disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - int(os.environ["LEAVE"])))
left[0] = int(os.environ["SAVES"])
what = '(disk / "ballast").unlink()'
"""


@pytest.mark.slow
def test_training_goes_on_while_the_disk_is_full_and_what_is_saved_later_is_the_same(expected, small_disk):
    directory = small_disk / "run"
    given = real_runs.with_environment(DISK=str(small_disk), SAVES="6", LEAVE="65536")
    done = real_runs.after_saves(4, FILLS, *real_runs.TABLE, "--run-dir", directory, env=given)
    assert done.returncode == 0, done.stderr
    assert "could not be saved" in done.stderr
    assert "the last saved state is that of step" in done.stderr
    same = real_runs.outcome(directory) == expected
    tally.record("disks: a disk that is full for a while", 1, same)
    assert same


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_with_the_last_saved_state_named(expected, small_disk):
    directory = small_disk / "run"
    given = real_runs.with_environment(DISK=str(small_disk), SAVES="1000", LEAVE="0")
    done = real_runs.after_saves(4, FILLS, *real_runs.TABLE, "--run-dir", directory, env=given)
    assert done.returncode == 1
    assert "epoch 12/12" in done.stdout, "training went on"
    last = real_runs.steps_in(directory)[-1]
    # Orbax logs as it likes, before and after.
    [error] = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert f"the last saved state is that of step {last}, in {directory}/checkpoints/{last}" in error
    # With room again, the same command goes on from there.
    (small_disk / "ballast").unlink()
    done = real_runs.run(*real_runs.TABLE, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    same = real_runs.outcome(directory) == expected
    tally.record(
        "disks: a disk that stays full, status 1, the last saved state named, continued once there is room", 1, same
    )
    assert same


def test_too_little_room_is_found_before_the_first_step(small_disk):
    from jaxcls.training.run import run
    from jaxcls.training.settings import Settings

    fill(small_disk, 1 << 20)
    with pytest.raises(InputError, match=r"4 checkpoints of a run take [\d.]+ MB, and the disk has 1\.0 MB for them"):
        run(Settings(task="csv", model="mlp", epochs=1, run_dir=small_disk / "run"), say=lambda line: None)
    assert not (small_disk / "run" / "config.toml").exists()
    fill(small_disk, 0)
    with pytest.raises(InputError, match=r"cannot be used|the disk has 0\.0 MB"):
        run(Settings(task="csv", model="mlp", epochs=1, run_dir=small_disk / "other"), say=lambda line: None)
    tally.record("disks: too little room, found at the start", 2, 2)


def test_a_directory_that_may_not_be_written_to_is_refused(small_disk):
    from jaxcls.training.run import run
    from jaxcls.training.settings import Settings

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for directory in (small_disk, small_disk / "deep" / "run"):
        with pytest.raises(InputError, match=r"cannot be used.*Read-only file system"):
            run(Settings(task="csv", model="mlp", epochs=1, run_dir=directory), say=lambda line: None)
    tally.record("disks: a directory that may not be written to, found at the start", 2, 2)


@contextlib.contextmanager
def no_more_files():
    """This process may open no file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_spoil_nothing(tmp_path, caplog):
    assert not tracemalloc.is_tracing(), "pytest asks it about the noise, and could not import it without files"
    state = {"x": jax.random.normal(jax.random.key(0), (100_000,))}
    with CheckpointManager(tmp_path) as saved:
        saved.save(1, state, wait=True)
        with no_more_files():
            saved.save(2, state)
            with pytest.raises(
                CheckpointError, match=r"step 2 could not be saved .*last saved state is that of step 1"
            ):
                saved.wait_until_finished()
            with pytest.raises((OSError, ValueError), match=r"open files|RESOURCE_EXHAUSTED"):
                saved.restore(state)
            gc.collect()
        saved.save(3, state, wait=True)
        restored = saved.restore(state)
    assert (restored.step, restored.quarantined) == (3, ())
    np.testing.assert_array_equal(restored.state["x"], state["x"])
    tally.record("disks: no file descriptor left, saving fails and is made up for, nothing is set aside", 1, 1)


def test_a_limit_of_open_files_is_raised_as_far_as_it_may_be(tmp_path):
    """Soft limits are low on some systems; a hard one that is too low is refused."""
    code = "import resource; from jaxcls._utils import environment; environment.configure(); print(resource.getrlimit(7)[0])"

    def limited(soft, hard, *program):
        limits = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"'
        shell = ["sh", "-c", limits, "sh", sys.executable, *map(str, program)]
        return subprocess.run(shell, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=real_runs.LIMIT)

    assert int(limited(64, 2000, "-c", code).stdout) == min(2000, environment.OPEN_FILES)
    refused = limited(40, 40, "-m", "jaxcls.train", *real_runs.TABLE, "--run-dir", tmp_path / "run")
    assert refused.returncode == 2
    assert "may open 40 files" in refused.stderr
    assert not (tmp_path / "run" / "config.toml").exists()
    tally.record("disks: too few file descriptors, found at the start", 1, 1)
