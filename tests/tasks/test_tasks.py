"""Every task from its recipe to predictions; a new task is one file and one line in a dict."""

import ast
import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import small_tasks

import jaxcls
from jaxcls import losses, tasks
from jaxcls.cli.main import main
from jaxcls.data.formats import tables
from jaxcls.tasks import build
from jaxcls.training import problems
from jaxcls.training.settings import Settings


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_recipe_task_modules_resolves(name):
    task = tasks.get(name)
    assert task.name == name
    assert task.metrics
    assert "default" in task.presets
    for preset in task.presets:
        user_settings = Settings(task=name, preset=preset, source="sample")
        task = build.specialized(user_settings)
        resolved = build.with_recipe(task, user_settings)
        assert resolved.model in task.models
        outputs = task.problem.values() if isinstance(task.problem, dict) else [task.problem]
        for problem in outputs:
            losses.find(resolved.loss, problem)


@pytest.mark.parametrize("name", ["chest_xray", "disease_tagging", "image_folder"])
def test_images_are_standardized_as_the_setting_says(name):
    fit = tasks.get(name).fit_preprocessor
    images = np.zeros((2, 4, 4, 1), np.uint8)
    assert [fit(images, Settings(standardize=value)).per_image for value in ("image", "dataset")] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_has_a_valid_sample(name):
    user_settings = Settings(task=name, source="sample")
    task = build.specialized(user_settings)
    resolved = build.with_recipe(task, user_settings)
    dataset = task.load(resolved)
    parts = build.split(task, resolved, dataset)
    assert dataset.provenance.source == "sample"
    assert len(dataset.provenance.sha256) > 0
    assert all(len(digest) == 64 for digest in dataset.provenance.sha256.values())
    for part in parts:
        problems.get(task.problem, dataset.class_names).check_labels(part)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in tasks.TASKS if name != "detection"])
def test_a_task_is_trained_evaluated_and_predicted(name, small_run, tmp_path, capsys):
    directory, folder = small_run(name)
    trained = json.loads((directory / "results.json").read_text())
    assert trained["synthetic"] is False
    assert trained["metrics"]

    assert main(["evaluate", "--run-dir", str(directory)]) == 0, capsys.readouterr()
    evaluated = json.loads((directory / "evaluation-test.json").read_text())
    defined = {metric: value for metric, value in trained["metrics"].items() if value is not None}
    assert evaluated["metrics"].keys() == trained["metrics"].keys()
    assert {metric: evaluated["metrics"][metric] for metric in defined} == pytest.approx(defined, rel=1e-4)

    output = tmp_path / "out.csv"
    flags = ["--run-dir", directory, "--input", folder / small_tasks.TASKS[name].queries, "--output", output]
    assert main(["predict", *(str(word) for word in flags)]) == 0, capsys.readouterr()
    columns = tables.read_csv(output, text=("id", "predicted"))
    names = json.loads((directory / "predictor.json").read_text())["class_names"]
    if isinstance(names, dict):
        probabilities = [f"{output}_probability_{label}" for output, labels in names.items() for label in labels]
        assert list(columns) == ["id", *names, *probabilities]
        return
    assert list(columns)[2:] == [f"probability_{label}" for label in (names[1:] if len(columns) == 3 else names)]
    assert len(set(columns["id"])) == len(columns["id"]) > 0


NEW = '''
"""Two Gaussians, a task that jaxcls does not have."""

import numpy as np

from jaxcls.data.dataset import Dataset, Split, Provenance, Unlabeled
from jaxcls.data.formats.tables import read_csv
from jaxcls.data.preprocessing import images
from jaxcls.models import vision
from jaxcls.training.settings import Settings
from jaxcls.tasks.task import Preset, Task


def load(settings):
    labels = (np.arange(200) % 2).astype(np.int32)
    pixels = np.random.default_rng(0).normal(100 + 60 * labels[:, None], 20, (200, 16)).clip(0, 255)
    part = Split(pixels.astype(np.uint8).reshape(-1, 4, 4, 1), labels)
    record = Provenance("sample", "nowhere", {}, synthetic=True, note="two Gaussians")
    return Dataset("gaussians", part.take(np.arange(160)), part.take(np.arange(160, 200)), ("low", "high"), record)


def read(path, settings, preprocessor=None):
    grays = read_csv(path)["gray"].astype(np.uint8)
    ids = np.arange(len(grays)).astype(str).astype(object)
    return Unlabeled(ids, np.tile(grays[:, None, None, None], (1, 4, 4, 1)))


TASK = Task(
    name="gaussians",
    summary="two Gaussians",
    problem="binary",
    load=load,
    read=read,
    fit_preprocessor=lambda inputs, settings: images.fit(inputs),
    models={"mlp": vision.MLP},
    presets={"default": Preset(Settings(
        model="mlp", epochs=3, batch_size=16, dropout=0.0, loss="binary_crossentropy", optimizer="adam",
        validation_fraction=0.2, monitor="roc_auc", restore_best=True, tune_threshold="f1",
    ))},
    metrics=["roc_auc"],
)
'''


def test_a_new_task_is_one_new_file_and_one_name_in_the_dict(tmp_path, monkeypatch, capsys):
    (tmp_path / "gaussians.py").write_text(NEW)
    spec = importlib.util.spec_from_file_location("gaussians", tmp_path / "gaussians.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(tasks.TASKS, "gaussians", module.TASK)

    directory = str(tmp_path / "run")
    assert main(["train", "--task", "gaussians", "--run-dir", directory]) == 0, capsys.readouterr()
    assert main(["evaluate", "--run-dir", directory]) == 0, capsys.readouterr()
    trained, evaluated = (
        json.loads((tmp_path / "run" / name).read_text()) for name in ("results.json", "evaluation-test.json")
    )
    assert trained["metrics"]["roc_auc"] > 0.99
    assert evaluated["thresholds"] == trained["thresholds"] != 0.5
    assert "SYNTHETIC test, 40 examples" in capsys.readouterr().out

    queries, output = tmp_path / "grays.csv", tmp_path / "out.csv"
    queries.write_text("gray\n100\n160\n")
    assert main(["predict", "--run-dir", directory, "--input", str(queries), "--output", str(output)]) == 0
    with output.open() as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == ["low", "high"]
    assert "SYNTHETIC" in capsys.readouterr().out


def test_only_their_package_imports_tasks():
    root = Path(jaxcls.__file__).parent
    files = {f"jaxcls.tasks.{path.stem}": path for path in (root / "tasks").glob("*.py")}
    task_modules = {name for name in files if name.rpartition(".")[2] in tasks.TASKS}
    assert len(task_modules) == len(tasks.TASKS)
    for path in root.rglob("*.py"):
        if path.parent == root / "tasks":  # tasks may share recipes
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                known = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                known = {alias.name for alias in node.names}
            else:
                continue
            assert not known & task_modules, f"{path} imports {known & task_modules}"


def test_each_task_is_named_once():
    source = Path(tasks.__file__).read_text(encoding="utf-8")
    for name in tasks.TASKS:
        assert source.count(f'"{name}",') == 1
