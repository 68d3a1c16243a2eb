"""Each package imports only itself and those before it in this list, and only the libraries that it needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcls

PACKAGES = (
    "_utils", "kernels", "models", "losses", "metrics", "optimizers", "data", "checkpoints", "reports", "export",
    "training", "tasks", "cli", "train", "__main__",
)  # fmt: skip
ROOT = Path(jaxcls.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported_packages(path):
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
def test_packages_import_only_lower_packages(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in imported_packages(path):
        assert PACKAGES.index(other) <= PACKAGES.index(package), f"{package} imports {other}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import jax; from jaxcls import losses", {"flax", "optax", "chex", "orbax"}),
        ("import jax; from jaxcls import metrics", {"flax", "optax", "chex", "orbax", "sklearn"}),
        (
            "from jaxcls.cli import commands; from jaxcls.reports import html_report, run_directory",
            {"jax", "flax", "jinja2", "PIL"},
        ),
        ("from jaxcls.training import run", {"jinja2", "PIL", "tensorboardX", "wandb"}),
        ("from jaxcls.cli import arguments, commands, main", {"jax", "numpy", "flax", "optax", "orbax"}),
        ("from jaxcls.export import loader", {"flax", "optax", "orbax", "tokenizers"}),
        ("import jaxcls", {"jax", "numpy", "flax"}),
        (
            "from jaxcls import tasks; from jaxcls.training import loop",
            {"tensorflow_datasets", "orbax", "grain", "pyarrow", "PIL", "tokenizers", "sklearn", "pandas"},
        ),
    ],
)
def test_imports_are_lazy(statement, absent):
    code = f"{statement}; import sys; print(*sorted({absent!r} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == []
