"""A run that has finished is calibrated without being trained again, and what predicts it then."""

import json

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Evaluate, Predict, Train
from jaxcls.data.formats.tables import read_csv
from jaxcls.reports import run_directory
from jaxcls.tasks import predictor
from jaxcls.tasks.csv import SAMPLE
from jaxcls.tasks.train import train_task

INPUTS = {name: values for name, values in read_csv(SAMPLE).items() if name != "class"}


def train(directory, *words):
    lines = []
    options = [
        "--task",
        "csv",
        "--model",
        "linear",
        "--epochs",
        "3",
        "--validation-fraction",
        "0.3",
        "--run-dir",
        str(directory),
    ]
    result = train_task(parse(Train, [*options, "--run-dir", str(directory), *words]), say=lines.append)
    return result.report, predictor.load(directory).predict(INPUTS), "\n".join(lines)


def test_a_finished_run_is_calibrated_and_not_trained_again(tmp_path):
    directory, output = tmp_path / "run", tmp_path / "predicted.csv"
    predict = ["--run-dir", str(directory), "--input", str(SAMPLE), "--output", str(output), "--quiet", "--overwrite"]
    plain, before, _ = train(directory)
    report, scores, printed = train(directory, "--calibrate", "temperature")
    assert report["params_sha256"] == plain["params_sha256"]
    np.testing.assert_array_equal(scores.argsort(axis=1), before.argsort(axis=1))
    assert report["metrics"]["accuracy"] == plain["metrics"]["accuracy"]
    assert report["metrics"]["log_loss"] < plain["metrics"]["log_loss"], "three epochs leave it unsure"
    shown = report["calibration"]
    assert shown["before"]["ece"] == plain["metrics"]["ece"]
    assert f"calibration error {shown['before']['ece']:.4f}, now {report['metrics']['ece']:.4f}" in printed
    logs = np.log(before.astype(np.float64)) * shown["scale"]
    np.testing.assert_allclose(scores, np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True), atol=1e-6)
    records = run_directory.read_records(directory)
    assert records.config["calibrate"] == "temperature"
    page = (directory / "report.html").read_text()
    assert f"the temperature {1 / shown['scale']:.3g}, from {shown['examples']} validation predictions" in page
    assert "Conformal sets of classes" in page

    parse(Evaluate, ["--run-dir", str(directory), "--quiet"]).run()
    assert json.loads((directory / "evaluation-test.json").read_text())["metrics"] == report["metrics"]
    parse(Predict, [*predict, "--coverage", "0.9"]).run()
    columns = read_csv(output)
    assert list(columns)[:4] == ["id", "predicted", "set_0.9", "probability_class_0"]
    inside = predictor.load(directory).sets(0.9)(scores)
    names = np.array(["class_0", "class_1", "class_2"])
    assert columns["set_0.9"].tolist() == ["|".join(names[row]) for row in inside]
    # Those of the table, of which the run learned half.
    truth = read_csv(SAMPLE)["class"]
    assert np.mean([label in names[row] for label, row in zip(truth, inside, strict=True)]) > 0.8

    (directory / "calibration.json").rename(tmp_path / "calibration.json")
    with pytest.raises(InputError, match=r"calibration\.json is missing"):
        predictor.load(directory)
    again, scores, _ = train(directory)
    assert again == plain
    np.testing.assert_array_equal(scores, before)
    with pytest.raises(InputError, match="with --calibrate temperature, which does not train it again"):
        parse(Predict, [*predict, "--coverage", "0.9"]).run()
