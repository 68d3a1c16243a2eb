"""Data that vanishes or changes during training, and a loader that hangs."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import real_runs
import tally

import jaxcls
from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.data.formats import images
from jaxcls.data.samples import image_folder as sample
from jaxcls.tasks import build
from jaxcls.training.settings import Settings

# The loader waits for ever from now on, as for a network that is down, and the seconds of the watchdog are short.
HANGS = """
import threading
from jaxcls.data import batching
wait = threading.Event.wait
threading.Event.wait = lambda event, seconds=None: wait(event, seconds and seconds / 30)
batching.gather_chunk = lambda *_: threading.Event().wait()
"""
STREAMED = (*real_runs.TABLE, "--data-on", "host")


@pytest.mark.slow
@tally.trial("data: a loader that hangs, status 1, the stack of each thread, resumed")
def test_a_loader_that_hangs_ends_the_run_which_resumes_with_the_same_bits(expected, tmp_path):
    arguments = [*STREAMED, "--run-dir", tmp_path / "run"]
    done = real_runs.after_saves(5, HANGS, *arguments, "--stall-seconds", 90)
    assert done.returncode == 1
    assert "error: no progress for 90 s (--stall-seconds)" in done.stderr
    assert "batching.py" in done.stderr, "the stack of the loader is not shown"
    assert real_runs.steps_in(tmp_path / "run")
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(tmp_path / "run") == expected


@pytest.mark.slow
@tally.trial("data: a file that changes or vanishes during training")
def test_a_file_that_changes_during_training_matters_only_when_the_run_is_resumed(uninterrupted, tmp_path):
    table = Path(shutil.copy(Path(jaxcls.__file__).parent / "data/samples/csv/wine.csv", tmp_path / "table.csv"))
    content = table.read_bytes()
    arguments = [*real_runs.TABLE, "--run-dir", tmp_path / "run", "--data", table, "--label-column", "class"]
    write = f"Path({str(table)!r}).write_bytes(b'nothing'); signal.raise_signal(signal.SIGTERM)"
    assert real_runs.after_saves(3, write, *arguments).returncode == 75
    done = real_runs.run(*arguments)
    assert done.returncode == 2
    assert str(table) in done.stderr
    table.write_bytes(content + content.splitlines(keepends=True)[1])
    done = real_runs.run(*arguments)
    assert done.returncode == 2
    assert "holds a run on other data" in done.stderr
    table.write_bytes(content)
    done = real_runs.after_saves(2, f"Path({str(table)!r}).unlink()", *arguments)
    assert done.returncode == 0, done.stderr
    assert not table.exists()
    assert real_runs.history(tmp_path / "run") == real_runs.history(uninterrupted)


@tally.trial("data: truncated images, an error, or skipped and counted on request")
def test_undecodable_images_are_an_error_or_are_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sample.write(tmp_path / "data", train=6, test=2)
    files, _ = images.list_files(tmp_path / "data")
    damaged = files[0], files[-1]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:40])
    settings = Settings(task="image_folder", data=tmp_path / "data", image_size=16)
    task = build.specialized(settings)
    with pytest.raises(InputError, match="|".join(re.escape(str(file)) for file in damaged)):
        task.load(build.with_recipe(task, settings))
    for _ in range(2):  # the second time from the cache
        dataset = task.load(build.with_recipe(task, dataclasses.replace(settings, skip_damaged=True)))
        assert len(dataset.train.labels) + len(dataset.test.labels) == len(files) - 2
        assert dataset.provenance.note.count("1 images of") == 2
        assert "cannot be decoded and are left out, such as" in dataset.provenance.note
        # No empty image replaces them.
        assert all(image.any() for split in (dataset.train, dataset.test) for image in split.inputs)


@tally.trial("data: an image that vanishes before it is read")
def test_an_image_that_vanishes_before_it_is_read_is_named(tmp_path, monkeypatch):
    sample.write(tmp_path / "data", train=6, test=2)
    settings = Settings(task="image_folder", data=tmp_path / "data", image_size=16)
    task = build.specialized(settings)
    listed = images.list_files
    gone = listed(tmp_path / "data" / "train")[0][3]

    def listed_then_lost(folder):
        files = listed(folder)
        if folder == tmp_path / "data":
            gone.unlink()
        return files

    monkeypatch.setattr(images, "list_files", listed_then_lost)
    with pytest.raises(InputError, match=rf"{re.escape(str(gone))}: cannot be read \(No such file or directory\)"):
        task.load(build.with_recipe(task, settings))


def test_a_disk_error_is_reported_in_one_line_with_the_path(capsys):
    def fails():
        raise OSError(5, "Input/output error", "/data/images.npy")

    assert console.exit_status(fails) == 1
    assert capsys.readouterr().err == (
        "error: [Errno 5] Input/output error: '/data/images.npy'; what was saved before remains\n"
    )
