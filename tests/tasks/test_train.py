"""A whole run: what it keeps, what it reports, and what it refuses before it begins."""

import json
import shutil

import chex
import numpy as np
import pytest
import small_data
from idx_files import write_idx
from small_data import train

from jaxcls import metrics, tasks
from jaxcls._utils.errors import InputError
from jaxcls.data.formats import idx
from jaxcls.kernels import native
from jaxcls.tasks import build, predictor
from jaxcls.training import settings
from jaxcls.training.settings import Settings

# A small table, whose program compiles quickly.
WINES = {"task": "csv", "model": "linear", "epochs": 10}


@pytest.fixture(scope="module")
def data_dir(fashion_run):
    return fashion_run[2]


@pytest.fixture(scope="module")
def finished(fashion_run):
    return fashion_run[:2]


def test_the_output_begins_with_the_source_of_the_data(finished):
    _, lines = finished
    assert lines[0].startswith(f"fashion_mnist: {small_data.TRAIN} + {small_data.TEST} examples from ")
    assert "192 training and 48 validation examples" in lines[1]


def test_a_run_keeps_its_settings_its_source_its_environment_and_its_history(finished):
    result, _ = finished
    saved = settings.from_toml(result.directory / "config.toml")
    assert saved == build.with_recipe(tasks.get("fashion_mnist"), saved)
    assert saved.epochs == 2
    data = json.loads((result.directory / "data.json").read_text())
    assert data["source"] == "files"
    assert all(len(checksum) == 64 for checksum in data["sha256"].values())
    environment = json.loads((result.directory / "environment.json").read_text())
    assert {"jax", "flax", "optax", "orbax-checkpoint"} <= set(environment["packages"])
    lines = (result.directory / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history
    assert [entry["step"] for entry in result.history] == [12, 24]


def test_the_results_are_the_exact_metrics_of_the_test_images(finished, data_dir):
    result, _ = finished
    dataset = tasks.get("fashion_mnist").load(Settings(data_dir=data_dir))
    scores = predictor.load(result.directory).predict(dataset.test.inputs)
    assert result.report["metrics"]["accuracy"] == metrics.accuracy(scores, dataset.test.labels, problem="multiclass")
    assert result.report["examples"] == small_data.TEST
    assert result.report["synthetic"] is False
    assert json.loads((result.directory / "results.json").read_text()) == result.report


def test_training_validation_and_test_examples_are_disjoint(data_dir):
    task = tasks.get("fashion_mnist")
    dataset = task.load(Settings(data_dir=data_dir))
    data = build.split(task, build.with_recipe(task, Settings()), dataset)
    train, validation, test = ({image.tobytes() for image in part.inputs} for part in data)
    assert train | validation == {image.tobytes() for image in dataset.train.inputs}
    assert not train & validation
    assert not (train | validation) & test


def test_the_same_command_does_not_train_again(finished, data_dir):
    result, _ = finished
    again = train(data_dir, result.directory)
    chex.assert_trees_all_equal(again.state, result.state)
    assert again.history == result.history
    assert again.report == result.report


def test_another_seed_is_another_run_and_the_same_seed_the_same(finished, data_dir, tmp_path):
    result, _ = finished
    same = train(data_dir, tmp_path / "same")
    other = train(data_dir, tmp_path / "other", seed=1)
    assert same.report == result.report
    assert other.report["params_sha256"] != result.report["params_sha256"]


def test_data_on_device_or_host_gives_the_same_result_and_run(finished, data_dir, tmp_path):
    lines: list[str] = []
    assert train(data_dir, tmp_path / "run", lines, data_on="host").report == finished[0].report
    assert any("stay on the host" in line for line in lines)
    assert train(data_dir, tmp_path / "run").report == finished[0].report  # finished, on the device: nothing is trained


def test_restore_best_tests_the_best_epoch(data_dir, tmp_path):
    # At such a rate the first epochs are bad, and the last is not the best of many.
    options = {"epochs": 6, "learning_rate": 0.05, "schedule": "constant", "restore_best": True}
    result = train(data_dir, tmp_path / "best", **options)
    values = [entry["val_accuracy"] for entry in result.history]
    assert np.argmax(values) < len(values) - 1
    assert int(result.state.step) == result.history[int(np.argmax(values))]["step"]
    assert train(data_dir, tmp_path / "best", **options).report == result.report


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "semantics": "keras", "learning_rate": 0.05},
        {"optimizer": "schedule_free", "schedule": "constant"},
        {"loss": "focal_loss", "gamma": 1.0, "class_weight": ("effective",)},
        {"loss": "weighted_crossentropy", "ema_decay": 0.9, "dtype": "bfloat16"},
        {"loss": "categorical_crossentropy", "gradient_accumulation_steps": 3, "global_clipnorm": 1.0},
        {"loss": "logit_adjusted_cross_entropy", "tau": 0.5, "monitor": "roc_auc"},
        {"schedule": "piecewise", "boundaries": (30, 60), "scales": (0.5, 0.1)},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_losses_and_optimizers_are_chosen_by_name_with_their_settings(tmp_path, changes):
    result = train(None, tmp_path / "run", **WINES, **changes)
    assert all(np.isfinite(entry["loss"]) for entry in result.history)
    assert result.report["metrics"]["accuracy"] > 0.8


def test_a_preset_in_bfloat16_learns(data_dir, tmp_path):
    result = train(data_dir, tmp_path / "run", dtype="bfloat16", preset="best", monitor="loss")
    assert result.report["metrics"]["accuracy"] > 0.35


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "fashion_mnst"}, "Did you mean 'fashion_mnist'?"),
        ({"model": "resnett"}, "Did you mean 'resnet'?"),
        (
            {"optimizer": "adam", "momentum": 0.9},
            "--optimizer adam takes no --momentum, which is for rmsprop, sgd. It takes: --b1, --b2",
        ),
        ({"pos_weight": 2.0}, "takes no --pos-weight"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"loss": "focal_loss", "gamma": -1.0}, "gamma"),
        ({"source": "tfds"}, "data_dir goes with source files or auto"),
        ({"remat": True}, "--model mlp: remat recomputes the blocks of a network, and MLP has none; leave it out."),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(data_dir, tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        train(data_dir, tmp_path / "run", **changes)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_directory_takes_no_other_settings(finished, data_dir):
    with pytest.raises(InputError, match=r"learning_rate \(begun with 0\.004, now 0\.1\)"):
        train(data_dir, finished[0].directory, learning_rate=0.1)


@pytest.mark.parametrize(("name", "content"), [("predictor.json", "{}"), ("data.json", "{}"), ("data.json", "[]")])
def test_a_directory_whose_records_are_damaged_is_not_continued(finished, data_dir, tmp_path, name, content):
    directory = shutil.copytree(finished[0].directory, tmp_path / "run")
    (directory / name).write_text(content)
    with pytest.raises(InputError, match=f"{name} is .*damaged"):
        train(data_dir, directory)


def test_a_directory_takes_no_other_data(finished, data_dir, tmp_path):
    other = small_data.write(tmp_path / "data")
    labels = idx.read_idx(other / "t10k-labels-idx1-ubyte.gz")
    write_idx(other / "t10k-labels-idx1-ubyte.gz", labels[::-1])
    with pytest.raises(InputError, match=r"holds a run on other data.*: now t10k-labels-idx1-ubyte from"):
        train(other, finished[0].directory)


def test_a_directory_is_not_continued_if_that_is_not_wanted(finished, data_dir):
    with pytest.raises(InputError, match="resume is off"):
        train(data_dir, finished[0].directory, resume=False)


def test_a_label_out_of_range_is_named_with_its_row(data_dir, tmp_path):
    other = small_data.write(tmp_path / "data")
    labels = idx.read_idx(other / "train-labels-idx1-ubyte.gz").copy()
    labels[17] = 10
    write_idx(other / "train-labels-idx1-ubyte.gz", labels)
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\.gz: row 17 has label 10"):
        train(other, tmp_path / "run")


def test_the_library_of_the_convolutions_is_printed_once_and_recorded(tmp_path, monkeypatch):
    by = {"convolutions": "oneDNN 3.2.0 on 2 threads"}
    monkeypatch.setattr(native, "record", lambda: by)
    lines = []
    result = train(None, tmp_path / "run", lines, **WINES)
    assert lines.count("convolutions by oneDNN 3.2.0 on 2 threads") == 1
    assert by.items() <= json.loads((result.directory / "environment.json").read_text()).items()
