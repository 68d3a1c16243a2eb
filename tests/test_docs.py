"""The examples of the pages run, the API page lists the public interface, and Sphinx builds without warnings."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text(encoding="utf-8")]
SPHINX = ("sphinx", "myst_parser", "furo", "latex2mathml")
PACKAGES = (
    "jaxcls", "jaxcls.checkpoints", "jaxcls.data", "jaxcls.losses", "jaxcls.metrics", "jaxcls.metrics.detection",
    "jaxcls.models", "jaxcls.models.detection", "jaxcls.optimizers", "jaxcls.tasks",
)  # fmt: skip


def documented_names():
    """The full names on the API page."""
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(jaxcls\.[\w.]+)`", page)) | {
        f"{module}.{name}"
        for module, names in re.findall(r"^`(jaxcls[\w.]*)`: (.+?)(?=\n\n|\Z)", page, re.MULTILINE | re.DOTALL)
        for name in re.findall(r"`(\w+)`", names)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_a_page_run(page):
    names = {"__name__": page.stem}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_api_page_lists_every_public_name(package):
    public = {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    assert public - documented_names() == set()


def test_every_name_on_the_api_page_is_public():
    for name in documented_names():
        value = pkgutil.resolve_name(name)
        package, _, member = name.rpartition(".")
        # A module that needs an extra is in no __all__.
        if package in PACKAGES and not inspect.ismodule(value):
            assert member in importlib.import_module(package).__all__, name


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, SPHINX)), reason="the site is built where jaxcls[docs] is installed"
)
def test_the_site_builds_without_a_warning(tmp_path):
    # In a process, since Sphinx and matplotlib change warnings and the environment.
    options = ["-q", "-W", "-E", "-d", str(tmp_path / "trees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "losses.html").read_text(encoding="utf-8")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">' in page
    # Nothing is loaded from elsewhere: the site works offline.
    assert not re.search(r'(src|href)="https?://[^"]+\.(js|css)', page)
    assert "focal loss of each label" in (tmp_path / "api.html").read_text(encoding="utf-8").lower()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib draws them, of jaxcls[docs]")
def test_the_plots_of_the_losses_are_current(tmp_path):
    # In a process, since matplotlib changes warnings and the environment.
    code = f"import pathlib, plots; plots.write(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=DOCS, check=True)
    for drawn in tmp_path.iterdir():
        assert _curves(drawn) == _curves(DOCS / "plots" / drawn.name)


def _curves(plot):
    return re.findall(r' d="([^"]+)"', plot.read_text(encoding="utf-8"))
