"""The pages of the site: their examples run, and it is built without a warning where Sphinx is installed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text(encoding="utf-8")]
NEEDED = ("sphinx", "myst_parser", "furo", "matplotlib")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page):
    names = {"__name__": page.stem}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)), reason="the site is built where jaxcls[docs] is installed"
)
def test_the_site_is_built_without_a_warning(tmp_path):
    # A process of its own: Sphinx and matplotlib change what warnings and the environment are.
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-E",
        "-d",
        str(tmp_path / "trees"),
        str(DOCS),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sigmoid_focal" in (tmp_path / "losses.html").read_text(encoding="utf-8")
