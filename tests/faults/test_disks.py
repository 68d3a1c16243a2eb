"""Full and read-only disks, and too few file descriptors."""

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
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

# When a save fails, Orbax abandons tasks, which Python reports later.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]

# A checkpoint of real_runs.TABLE has about 1.2 MB, and up to four exist at a time.
DISK_BYTES = 8 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A separate disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, leave):
    """Fills a disk up to ``leave`` bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / f"ballast{leave}").write_bytes(bytes(max(0, free - leave)))


# Fills the disk, and frees it after SAVES more saves.
FILLS = """
disk = Path(os.environ["DISK"])
free = os.statvfs(disk)
(disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - int(os.environ["LEAVE"])))
left[0] = int(os.environ["SAVES"])
statement = '(disk / "ballast").unlink()'
"""


@pytest.mark.slow
@tally.trial("disks: a disk that is full for a while")
def test_training_continues_while_the_disk_is_full(expected, small_disk):
    directory = small_disk / "run"
    environment = real_runs.with_environment(DISK=str(small_disk), SAVES="3", LEAVE="65536")
    # At a later save, the best epoch could not be saved, and another one would be tested.
    done = real_runs.after_saves(2, FILLS, *real_runs.TABLE, "--run-dir", directory, env=environment)
    assert done.returncode == 0, done.stderr
    assert "could not be saved" in done.stderr
    assert "the last saved state is that of step" in done.stderr
    assert real_runs.outcome(directory) == expected


@pytest.mark.slow
@tally.trial("disks: a disk that stays full, status 1, the last saved state named, resumed after cleaning up")
def test_a_disk_that_stays_full_ends_the_run_and_names_the_last_good_state(expected, small_disk):
    directory = small_disk / "run"
    environment = real_runs.with_environment(DISK=str(small_disk), SAVES="1000", LEAVE="0")
    done = real_runs.after_saves(4, FILLS, *real_runs.TABLE, "--run-dir", directory, env=environment)
    assert done.returncode == 1
    assert "epoch 6/6" in done.stdout, "training did not continue"
    last = real_runs.steps_in(directory)[-1]
    # Orbax logs to stderr, too, and its threads do not always end their lines.
    error = done.stderr.rpartition("error: ")[2]
    assert f"the last saved state is that of step {last}, in {directory}/checkpoints/{last}" in error
    # With free space, the same command resumes.
    (small_disk / "ballast").unlink()
    done = real_runs.run(*real_runs.TABLE, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(directory) == expected


@tally.trial("disks: too little free space, detected at the start")
def test_too_little_free_space_is_an_error_before_the_first_step(small_disk):
    fill(small_disk, 1 << 20)
    with pytest.raises(InputError, match=r"3 checkpoints of a run take [\d.]+ MB, and the disk has 1\.0 MB for them"):
        train_task(Settings(task="csv", model="mlp", epochs=1, run_dir=small_disk / "run"), say=lambda line: None)
    assert not (small_disk / "run" / "config.toml").exists()
    fill(small_disk, 0)
    with pytest.raises(InputError, match=r"cannot be used|the disk has 0\.0 MB"):
        train_task(Settings(task="csv", model="mlp", epochs=1, run_dir=small_disk / "other"), say=lambda line: None)


@tally.trial("disks: a read-only directory, detected at the start")
def test_a_read_only_directory_is_refused(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for directory in (small_disk, small_disk / "deep" / "run"):
        with pytest.raises(InputError, match=r"cannot be used.*Read-only file system"):
            train_task(Settings(task="csv", model="mlp", epochs=1, run_dir=directory), say=lambda line: None)


@contextlib.contextmanager
def no_more_files():
    """Opens files until this process may open no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                descriptors.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@tally.trial("disks: no file descriptor left, a save fails, a later one succeeds, nothing is set aside")
def test_a_save_without_file_descriptors_fails_and_a_later_one_succeeds(tmp_path, caplog):
    assert not tracemalloc.is_tracing(), (
        "pytest would import tracemalloc to report warnings, which takes a file descriptor"
    )
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


@tally.trial("disks: too few file descriptors, detected at the start")
def test_the_soft_limit_of_open_files_is_raised_and_a_low_hard_limit_refused(tmp_path):
    code = (
        "import resource; from jaxcls._utils import environment; environment.configure(); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    def limited(soft, hard, *program):
        limits = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"'
        shell = ["sh", "-c", limits, "sh", sys.executable, *map(str, program)]
        return subprocess.run(shell, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=real_runs.LIMIT)

    assert int(limited(64, 2000, "-c", code).stdout) == min(2000, environment.OPEN_FILES)
    refused = limited(40, 40, "-m", "jaxcls.train", *real_runs.TABLE, "--run-dir", tmp_path / "run")
    assert refused.returncode == 2
    assert "may open only 40 files" in refused.stderr
    assert not (tmp_path / "run" / "config.toml").exists()
