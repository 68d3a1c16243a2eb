"""Every cell of the notebook runs as a script, on the sample and for one epoch."""

import json
import sys
import types
from pathlib import Path

import pytest
from flax import nnx  # before the tests replace IPython, of which flax's imports use more

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "colab_tpu.ipynb"


def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def tagged(tag):
    return [cell for cell in cells() if tag in cell["metadata"].get("tags", ())]


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    shown = []
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, shown.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    names = {"__name__": "__main__", "nnx": nnx}
    for cell in cells():
        exec(compile(source(cell), NOTEBOOK.name, "exec"), names)
        if cell in tagged("parameters"):
            names |= {"SOURCE": "sample", "EPOCHS": 1, "MODEL": "mlp", "RUNS": str(tmp_path)}
    assert "most confident mistakes" in shown[0].lower()
    assert names["accuracy"] > 0.7
    assert names["history"][0]["val_accuracy"] > 0.7
    assert "logits" in capsys.readouterr().out


def test_installation_upgrades_no_installed_package(tmp_path, monkeypatch):
    """Every installed version is a constraint of the only pip command."""
    called = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: called.append(command))
    [cell] = tagged("install")
    exec(source(cell), {})
    [command] = called
    assert command[command.index("-c") + 1] == "constraints.txt"
    constraints = (tmp_path / "constraints.txt").read_text().splitlines()
    import jax

    assert f"jax=={jax.__version__}" in constraints
    assert all(line.count("==") == 1 for line in constraints)


def test_the_notebook_has_no_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())
    assert len(tagged("parameters")) == len(tagged("install")) == 1
