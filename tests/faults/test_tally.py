"""The counts that experiments/faults.py shows: a case that fails is tried and not passed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import tally

HELPERS = Path(tally.__file__).parent


@pytest.fixture
def counts(tmp_path, monkeypatch):
    file = tmp_path / "counts"
    monkeypatch.setenv(tally.VARIABLE, str(file))
    return file


@pytest.fixture
def faults():
    path = Path(__file__).parents[2] / "experiments" / "faults.py"
    specification = importlib.util.spec_from_file_location("experiments_faults", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses looks it up
    specification.loader.exec_module(module)
    return module


def test_a_failing_case_shows_as_two_of_three(counts, faults, monkeypatch, tmp_path, capsys):
    @tally.trial("disks: a full disk")
    def case(passes):
        assert passes

    for passes in (True, False, True):
        if passes:
            case(passes)
        else:
            with pytest.raises(AssertionError):
                case(passes)
    monkeypatch.setattr(faults, "TABLE", tmp_path / "faults.md")
    monkeypatch.setattr(sys, "argv", ["faults.py", "--counts", str(counts)])
    assert faults.main() == 1
    text = (tmp_path / "faults.md").read_text(encoding="utf-8")
    assert "## disks: 2 of 3\n" in text
    assert "| a full disk | 3 | 2 |" in text


def test_a_process_that_dies_counts_as_a_failure(counts, faults):
    code = "import os, tally\nwith tally.trial('runs: killed'): os._exit(1)"
    subprocess.run([sys.executable, "-c", code], cwd=HELPERS, check=False)
    case = faults.counted([counts])["runs: killed"]
    assert (case.tried, case.passed) == (1, 0)


def test_correct_outcomes_are_listed(counts, faults):
    tally.record("bits: a file", tried=3)
    tally.record("bits: a file", passed=1, outcome="had no effect")
    tally.record("bits: a file", passed=2, outcome="detected")
    assert "| a file (2 detected, 1 had no effect) | 3 | 3 |" in faults.table(faults.counted([counts]))


def test_nothing_is_written_where_nobody_counts(monkeypatch, tmp_path):
    monkeypatch.delenv(tally.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with tally.trial("a case"):
        pass
    assert list(tmp_path.iterdir()) == []
