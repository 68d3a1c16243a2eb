"""Plain English: .ci/check_language finds the words that this project replaces, and finds none in the project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKED = [
    ".ci", "ARCHITECTURE.md", "CHANGELOG.md", "README.md", "SECURITY.md", "docs", "experiments", "jaxcls", "tests",
]  # fmt: skip


def check(*arguments):
    command = [sys.executable, ROOT / ".ci" / "check_language", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def words_in(output):
    return [line.split("'")[1] for line in output.splitlines() if "'" in line]


def test_the_project_has_no_findings():
    done = check("--strict", *(ROOT / path for path in CHECKED))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"""The house has rooms."""\n', ["house", "rooms"]),
        ("x = 1  # it goes on, normalised, as it is.\n", ["goes on", "normalised", "as it is"]),
        ("def of_each(found): ...\n", ["found", "of_each"]),
        ("class TestColours: ...\nplaces_of = [1]\n", ["TestColours", "places_of"]),
        ("# `kept in` is code; a warehouse in part, precise noise, otherwise arise and promise.\n", []),
        ("from hypothesis import given\nunknown, founded, owner = 1, 2, 3\n", []),
        ("x = 'apart'  # language: ok, apart\n", []),
    ],
)
def test_python_files(tmp_path, text, words):
    (tmp_path / "x.py").write_text(text)
    done = check(tmp_path / "x.py", "--strict")
    assert sorted(words_in(done.stdout)) == sorted(words)
    assert done.returncode == bool(words)


def test_markdown_outside_of_code(tmp_path):
    (tmp_path / "x.md").write_text("# Title\n\n```\nkept in\n```\n\n`room` [text](room.md)\nA seam.\n")
    done = check(tmp_path / "x.md")
    assert f"{tmp_path / 'x.md'}:8: 'seam': write interface" in done.stdout
    assert words_in(done.stdout) == ["seam"]
    assert done.returncode == 0, "without --strict it only reports"


def test_notebooks(tmp_path):
    cells = [{"cell_type": "markdown", "source": ["One.\n", "A house.\n"]}, {"cell_type": "code", "source": ["x = 1"]}]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}, indent=1))
    assert words_in(check(tmp_path / "x.ipynb").stdout) == ["house"]
