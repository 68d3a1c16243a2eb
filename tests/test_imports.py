"""Imports run downward only: each room may know those below it, and its own files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcls

FLOORS = [
    {"apart", "errors", "environment", "printable", "watchdog"},
    {"settings", "signals", "labels", "native", "files", "forms", "detection"},
    {"losses", "metrics", "optimizers", "augment", "augment_boxes", "ops"},
    {"models", "data", "heads"},
    {"steps", "checkpoints", "description", "run_records", "given_heads"},
    {"tasks", "debugging", "memory", "summary"},
    {"assembly", "problems"},
    {"program", "fit", "progress", "run_directory", "tensorboard", "weights_biases", "profiling"},
    {"page", "compilation"},
    {"run", "predictor", "rate_search"},
    {"terminal", "artifact", "rate_plot"},
    {"train", "evaluate", "predict", "report", "export", "find_lr", "replay"},
]
ROOT = Path(jaxcls.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def floor_of(room):
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("jaxcls."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in imported_rooms(path):
        assert other == room or floor_of(other) < floor_of(room), f"{room} imports {other}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from jaxcls import train", {"jax", "numpy", "flax", "optax", "orbax"}),
        ("import jax; from jaxcls import losses", {"flax", "optax", "chex", "orbax"}),
        ("import jax; from jaxcls import metrics", {"flax", "optax", "chex", "orbax", "sklearn"}),
        ("from jaxcls import page, report, run_directory", {"jax", "flax", "jinja2", "PIL"}),
        ("from jaxcls import run", {"jinja2", "PIL", "tensorboardX", "wandb"}),
        ("from jaxcls import export, find_lr, replay", {"jax", "numpy", "flax", "optax", "orbax"}),
        ("from jaxcls.artifact import loader", {"flax", "optax", "orbax", "tokenizers"}),
        ("import jaxcls", {"jax", "numpy", "flax", "tyro"}),
        ("from jaxcls import fit, tasks", {"tensorflow_datasets", "orbax", "grain", "pyarrow", "PIL", "tokenizers"}),
    ],
)
def test_imports_bring_only_what_is_needed(statement, absent):
    code = f"{statement}; import sys; print(*sorted({absent!r} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == []
