"""Folds and seeds: every example is predicted by models that have not seen it, and each model is what it would be
alone."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls._utils.interruption import Interrupted
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Evaluate, Predict, Train
from jaxcls.data.formats.tables import read_csv, write_csv
from jaxcls.tasks import predictor
from jaxcls.tasks.csv import SAMPLE
from jaxcls.tasks.train import train_task
from jaxcls.training.mesh import on_devices

EPOCHS = ["--epochs", "3", "--warmup", "0"]
WINE = ["--task", "csv", *EPOCHS, "--folds", "3", "--seeds", "0", "1"]
ROWS = 90


def train(directory, *words, stop=lambda: False):
    lines = []
    result = train_task(parse(Train, [*map(str, words), "--run-dir", str(directory)]), say=lines.append, stop=stop)
    return result, "\n".join(lines)


def results(directory):
    return json.loads((directory / "results.json").read_text())


def members(directory):
    """The weights of each model of a run, by its name."""
    learned = predictor.load(directory)
    model = learned.experiment.model
    return dict(zip([one.name for one in model.members], model.unstack(learned.weights), strict=True))


def table(path, *, shift=()):
    """A table of numbers that say nothing of the label; those of some rows are shifted."""
    random = np.random.default_rng(0)
    columns = {f"x{index}": random.normal(size=ROWS) for index in range(12)}
    for column in columns.values():
        column[list(shift)] += 100
    write_csv(path, columns | {"label": np.arange(ROWS) % 2})
    return ["--task", "csv", "--data", path, "--label-column", "label", "--test-data", path, "--folds", "3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("population") / "run"
    train(directory, *WINE)
    return directory


def test_every_example_has_one_out_of_fold_prediction_in_order(finished):
    columns = read_csv(finished / "out_of_fold.csv")
    assert columns["row"].tolist() == [*range(len(columns["row"]))]
    assert np.bincount(columns["fold"].astype(int)).tolist() == [0, 48, 47, 47]
    probabilities = np.stack([columns[f"probability_class_{index}"] for index in range(3)], axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    truth = np.array([int(label[-1]) for label in columns["label"]])
    report = results(finished)
    log_loss = -np.log(probabilities[np.arange(len(truth)), truth]).mean()
    np.testing.assert_allclose(report["out_of_fold"]["metrics"]["log_loss"], log_loss, rtol=1e-5)
    errors = json.loads((finished / "summary.json").read_text())["label_errors"]
    listed = (finished / "label_errors.csv").read_text().splitlines()
    assert errors["errors"] == len(listed) - 1
    assert listed[0] == "row,current,suggested,probability_current,probability_suggested"
    assert "Probable label errors" in (finished / "report.html").read_text()
    assert "Subgroups with more errors" in (finished / "report.html").read_text()
    assert json.loads((finished / "summary.json").read_text())["slices_of"] == "out-of-fold"
    of_folds = [np.flatnonzero(columns["fold"] == fold) for fold in (1, 2, 3)]
    assert [one["examples"] for one in report["members"]] == np.repeat([len(rows) for rows in of_folds], 2).tolist()
    assert [one["name"] for one in report["members"]][:3] == ["fold1-seed0", "fold1-seed1", "fold2-seed0"]


def test_ensemble_is_the_mean_of_its_models_and_a_run_like_any_other(finished, tmp_path):
    learned = predictor.load(finished)
    inputs = {name: values for name, values in read_csv(SAMPLE).items() if name != "class"}
    each = [
        member.experiment.scores(weights, member.experiment.transform(inputs))
        for member, weights in zip(learned.experiment.model.members, [*members(finished).values()], strict=True)
    ]
    np.testing.assert_allclose(learned.predict(inputs), np.mean(each, axis=0), atol=1e-6)
    parse(Evaluate, ["--run-dir", str(finished), "--quiet"]).run()
    evaluated = json.loads((finished / "evaluation-test.json").read_text())
    assert evaluated["metrics"] == results(finished)["metrics"]
    parse(
        Predict,
        ["--run-dir", str(finished), "--input", str(SAMPLE), "--output", str(tmp_path / "p.csv"), "--quiet"],
    ).run()
    assert len(read_csv(tmp_path / "p.csv")["id"]) == 178


def test_the_ensemble_is_calibrated_by_out_of_fold_scores(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    plain, (result, printed) = results(finished), train(tmp_path / "run", *WINE, "--calibrate", "vector")
    assert "calibration error" in printed
    shown = result.report["calibration"]
    assert (shown["split"], shown["examples"]) == ("out_of_fold", 142)
    assert shown["before"]["log_loss"] == plain["metrics"]["log_loss"]
    assert result.report["out_of_fold"] == plain["out_of_fold"]
    inputs = {name: values for name, values in read_csv(SAMPLE).items() if name != "class"}
    logits = np.log(predictor.load(finished).predict(inputs)) * shown["scale"] + shown["bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor.load(tmp_path / "run").predict(inputs), expected, atol=1e-6)


def test_model_of_a_seed_is_that_of_a_run_of_its_own(tmp_path):
    words = ["--task", "csv", *EPOCHS, "--validation-fraction", "0.2"]
    train(tmp_path / "both", *words, "--seeds", "0", "1")
    with on_devices(jax.devices()[:1]):
        train(tmp_path / "alone", *words, "--seed", "1", "--split-seed", "0")
    alone = predictor.load(tmp_path / "alone").weights
    jax.tree.map(np.testing.assert_array_equal, members(tmp_path / "both")["seed1"], alone)


def test_validation_rows_of_a_fold_change_nothing_of_its_model(tmp_path):
    words = [*table(tmp_path / "table.csv"), *EPOCHS]
    train(tmp_path / "before", *words)
    fold = read_csv(tmp_path / "before" / "out_of_fold.csv")["fold"]
    table(tmp_path / "table.csv", shift=np.flatnonzero(fold == 2))
    train(tmp_path / "after", *words)
    before, after = (members(tmp_path / name) for name in ("before", "after"))
    jax.tree.map(np.testing.assert_array_equal, before["fold2-seed0"], after["fold2-seed0"])
    assert not np.array_equal(*(jax.tree.leaves(one["fold1-seed0"]["params"])[0] for one in (before, after)))


def test_examples_that_are_learned_by_heart_are_unknown_out_of_fold(tmp_path):
    words = [
        *table(tmp_path / "table.csv"),
        "--model",
        "mlp",
        "--epochs",
        "60",
        "--dropout",
        "0",
        "--weight-decay",
        "0",
    ]
    train(tmp_path / "run", *words)
    report = results(tmp_path / "run")
    # The labels are chance, and the test rows are those that two of three models have seen.
    assert report["metrics"]["roc_auc"] > 0.9
    assert 0.3 < report["out_of_fold"]["metrics"]["roc_auc"] < 0.7


def test_interrupted_run_ends_with_the_same_bits(finished, tmp_path):
    for stop_at in (2, 9):
        polled = itertools.count()
        with pytest.raises(Interrupted):
            train(tmp_path / "run", *WINE, stop=lambda polled=polled, stop_at=stop_at: next(polled) >= stop_at)
    train(tmp_path / "run", *WINE)
    assert results(tmp_path / "run") == results(finished)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "1"], "--folds is 1; it must be an integer of 2 or more"),
        (["--seeds", "1", "1"], "--seeds is (1, 1); it must be distinct integers"),
        (["--folds", "100"], "100 folds"),
        (
            ["--folds", "3", "--data", SAMPLE, "--label-column", "class", "--validation-data", SAMPLE],
            "leave out --validation-data",
        ),
        (["--folds", "3", "--tensorboard"], "--tensorboard is for a run of one model"),
        (["--seeds", "1", "--ensemble", "greedy"], "give two or more"),
        (["--task", "detection", "--folds", "3"], "boxes of several models have no mean"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(tmp_path, words, message):
    with pytest.raises(InputError) as error:
        train(tmp_path / "run", "--task", "csv", *words)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
