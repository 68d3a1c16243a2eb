"""``jaxcls evaluate``: reproduces the results of training, on any split, and scores other data."""

import dataclasses
import json
import shutil

import pytest
import small_data
from idx_files import write_idx

from jaxcls.cli import console
from jaxcls.cli.main import main
from jaxcls.data.formats import idx
from jaxcls.data.samples import image_folder
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings


@pytest.fixture(scope="module")
def data_dir(fashion_run):
    return fashion_run[2]


@pytest.fixture(scope="module")
def finished(fashion_run):
    return fashion_run[0]


def evaluated(capsys, directory, *arguments):
    assert main(["evaluate", "--run-dir", str(directory), *map(str, arguments)]) == 0
    split = arguments[arguments.index("--split") + 1] if "--split" in arguments else "test"
    return capsys.readouterr().out, json.loads((directory / f"evaluation-{split}.json").read_text())


def test_test_split_scores_equal_the_results_of_the_run(finished, capsys):
    output, result = evaluated(capsys, finished.directory)
    trained = json.loads((finished.directory / "results.json").read_text())
    for name in ("problem", "examples", "undefined_labels", "thresholds", "synthetic"):
        assert result[name] == trained[name]
    # Training used both devices of the tests, so the last bits differ.
    assert result["metrics"] == pytest.approx(trained["metrics"])
    assert result["labels"]["Bag"] == pytest.approx(trained["labels"]["Bag"])
    assert output.startswith("fashion_mnist: 240 + 60 examples from ")
    assert console.table(finished.report, "test") in output
    assert f"saved as {finished.directory / 'evaluation-test.json'}" in output
    assert "note:" not in output


def test_validation_split_is_the_one_of_the_run(finished, capsys):
    output, result = evaluated(capsys, finished.directory, "--split", "validation")
    assert "validation, 48 examples" in output
    assert result["metrics"]["accuracy"] == pytest.approx(finished.history[-1]["val_accuracy"])
    _, result = evaluated(capsys, finished.directory, "--split", "train")
    assert result["examples"] == 192


def test_other_data_is_scored_and_noted(finished, data_dir, tmp_path, capsys):
    other = small_data.write(tmp_path / "other")
    name = "t10k-labels-idx1-ubyte"
    write_idx(other / f"{name}.gz", idx.read_idx(other / f"{name}.gz")[::-1])
    output, result = evaluated(capsys, finished.directory, "--data-dir", other)
    assert f"note: this is not the data of the run, from {data_dir}: {name} differ" in output
    assert result["metrics"]["accuracy"] != finished.report["metrics"]["accuracy"]
    assert result["data"]["location"] == str(other)


def test_source_replaces_the_data_folder_of_the_run(finished, capsys):
    output, result = evaluated(capsys, finished.directory, "--source", "sample")
    assert "from jaxcls/data/samples/fashion_mnist" in output
    assert result["examples"] == 2000


def test_user_data_is_scored_on_other_test_examples(tmp_path, capsys):
    for name, seed in (("own", 0), ("new", 1)):
        (tmp_path / name).mkdir()
        image_folder.write(tmp_path / name, train=6, test=2, seed=seed)
    folders = {"data": tmp_path / "own" / "train", "test_data": tmp_path / "own" / "test"}
    settings = Settings(task="image_folder", **folders, image_size=8, model="mlp", epochs=1, batch_size=16)
    directory = train_task(dataclasses.replace(settings, run_dir=tmp_path / "run"), say=lambda line: None).directory
    _, result = evaluated(capsys, directory)
    assert result["metrics"] == pytest.approx(json.loads((directory / "results.json").read_text())["metrics"])
    output, _ = evaluated(capsys, directory, "--test-data", tmp_path / "new" / "train")
    assert "test, 30 examples" in output
    assert "note: this is not the data of the run" in output

    assert main(["evaluate", "--run-dir", str(directory), "--data-dir", str(tmp_path / "new")]) == 2
    assert "--task image_folder takes no --data-dir" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "new" / "train" / "star")
    assert main(["evaluate", "--run-dir", str(directory), "--data", str(tmp_path / "new" / "train")]) == 2
    assert "learned a multiclass one of circle, cross, square, star, triangle" in capsys.readouterr().err


def test_damaged_checkpoint_exits_with_1(finished, tmp_path, capsys):
    damaged = tmp_path / "run"
    shutil.copytree(finished.directory, damaged)
    for file in (damaged / "model").rglob("*"):
        if file.is_file() and file.stat().st_size > 10_000:
            content = bytearray(file.read_bytes())
            content[5_000] ^= 1
            file.write_bytes(content)
    assert main(["evaluate", "--run-dir", str(damaged)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run-dir", "no-such-run"], "error: run directory no-such-run holds no run"),
        (["--data-dir", "no-such-folder"], "error: data_dir no-such-folder is not a folder"),
        (["--source", "tfds", "--data-dir", "no-such-folder"], "error: data_dir goes with source files"),
        (["--split", "tests"], "--split"),
        (["--splits", "test"], "--split"),
    ],
)
def test_wrong_option_exits_with_2_and_a_suggestion(finished, capsys, arguments, message):
    try:
        status = main(["evaluate", "--run-dir", str(finished.directory), *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_unfinished_run_is_refused(finished, tmp_path, capsys):
    begun = tmp_path / "run"
    shutil.copytree(finished.directory, begun)
    (begun / "SHA256SUMS").unlink()
    assert main(["evaluate", "--run-dir", str(begun)]) == 2
    assert "has not finished. Continue it with python -m jaxcls.train" in capsys.readouterr().err
