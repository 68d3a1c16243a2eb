"""Data that is lost or changed while a run learns from it, and a loader that never answers."""

import shutil
from pathlib import Path

import pytest
import real_runs
import tally

import jaxcls
from jaxcls import terminal

# From now on, the loader waits for ever, as for a network that is gone.
HANGS = "from jaxcls.data import streaming; import threading; streaming.gathered = lambda *_: threading.Event().wait()"
STREAMED = (*real_runs.TABLE, "--data-on", "host")


@pytest.mark.slow
def test_a_loader_that_hangs_ends_the_run_which_goes_on_to_the_same_bits(expected, tmp_path):
    arguments = [*STREAMED, "--run-dir", tmp_path / "run"]
    done = real_runs.after_saves(5, HANGS, *arguments, "--stall-seconds", 3)
    assert done.returncode == 1
    assert "error: nothing was done for 3 s, which --stall-seconds takes for a hang" in done.stderr
    assert "streaming.py" in done.stderr, "it says where it was"
    assert real_runs.steps_in(tmp_path / "run")
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    same = real_runs.outcome(tmp_path / "run") == expected
    tally.record("a loader that hangs: status 1, where it hung, continued", 1, same)
    assert same


@pytest.mark.slow
def test_a_file_that_changes_or_vanishes_while_a_run_learns_from_it_has_no_effect_until_it_is_read_again(
    uninterrupted, tmp_path
):
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
    same = real_runs.history(tmp_path / "run") == real_runs.history(uninterrupted)
    tally.record("a file that changes or vanishes during training", 3, 3 * same)
    assert same


def test_an_error_of_a_disk_is_a_line_that_names_it(capsys):
    def fails():
        raise OSError(5, "Input/output error", "/data/images.npy")

    assert terminal.exit_status(fails) == 1
    assert capsys.readouterr().err == (
        "error: [Errno 5] Input/output error: '/data/images.npy'; what was saved before stands\n"
    )
