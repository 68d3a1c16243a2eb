"""Run directories: continued or refused, and read as they were written, for tasks and for models of compile."""

import json
import re

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Split
from jaxcls.reports import html_report, run_directory, summary
from jaxcls.reports.run_directory import RunDirectory
from tests.helpers import made_records

CONFIG = {"loss": "crossentropy", "optimizer": {"name": "adam", "learning_rate": 0.1}, "epochs": 4, "verbose": True}
DATA = {
    "source": "memory",
    "location": "arrays given to fit",
    "note": "",
    "synthetic": False,
    "sha256": {"inputs": "0" * 64},
    "duplicates_in_test": 0,
}
PREDICTOR = {"problem": "multiclass", "class_names": ["0", "1", "2"], "preprocessor": None}
ENVIRONMENT = {"packages": {"jax": "0.10.2"}, "devices": ["cpu"]}


def directory(path, config=CONFIG, data=DATA, predictor=PREDICTOR, **arguments):
    return RunDirectory(path, config, environment=ENVIRONMENT, data=data, predictor=predictor, **arguments)


@pytest.fixture
def begun(tmp_path):
    directory(tmp_path).begin()
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_run_with_the_same_config_is_continued(begun):
    assert directory(begun).continued


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (CONFIG | {"epochs": 5}, DATA, r"epochs \(begun with 4, now 5\)"),
        (CONFIG | {"optimizer": {"name": "sgd"}}, DATA, "optimizer"),
        (CONFIG, DATA | {"sha256": {"inputs": "1" * 64}}, "other data"),
    ],
)
def test_run_with_another_config_or_other_data_is_refused(begun, config, data, message):
    with pytest.raises(InputError, match=message):
        directory(begun, config, data)


def test_config_values_outside_the_identity_may_change(begun):
    assert directory(begun, CONFIG | {"verbose": False}, identity=["loss", "optimizer", "epochs"]).continued


def test_existing_run_is_refused_without_resume(begun):
    with pytest.raises(InputError, match="holds a run"):
        directory(begun, resume=False)


def test_report_of_a_compiled_run_on_arrays(begun):
    records = made_records.made(names=("0", "1", "2"))
    scores, labels = made_records.scored("multiclass", 3, 120, np.random.default_rng(0))
    test = Split(np.random.default_rng(0).normal(size=(120, 5)), labels)
    shown = summary.summarize(
        records.results,
        scores,
        {"train": test, "test": test},
        problem="multiclass",
        class_names=("0", "1", "2"),
        thresholds=0.5,
    )
    assert all(mistake["example"] is None for mistake in shown["mistakes"])
    run = directory(begun)
    run.write_history(records.history)
    run.write_results(records.results, records.summary | shown | {"recipe": {}})
    read = run_directory.read(begun)
    assert (read.config, read.predictor["preprocessor"]) == (CONFIG, None)
    html = html_report.render(run_directory.read_records(begun))
    assert "compile" in html
    assert "arrays given to fit" in html
    assert len(re.findall(r"<li>\s*<p><strong>", html)) == len(shown["mistakes"])
    assert "recipe" not in html
    assert "preset" not in html


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ("binary", ("no", "yes")),
        ("multiclass", ("cat", "dog", "owl")),
        ("multilabel", ("rude", "spam")),
        ("detection", ("cat", "dog")),
        ({"size": "binary", "color": "multilabel"}, {"size": ("small", "large"), "color": ("red", "blue")}),
    ],
    ids=str,
)
def test_records_are_read_as_they_were_written(tmp_path, problem, names):
    records = made_records.made(problem, names=names)
    run = RunDirectory(
        tmp_path, records.config, environment=records.environment, data=records.data, predictor=records.predictor
    )
    run.begin()
    run.write_history(records.history)
    run.write_results(records.results, records.summary)
    read = run_directory.read_records(tmp_path)
    written = ("predictor", "results", "summary")
    assert read == records._replace(
        path=tmp_path, **json.loads(json.dumps({name: getattr(records, name) for name in written}))
    )
    assert html_report.render(read) == html_report.render(read._replace(results=records.results))


def test_outputs_that_differ_between_records_are_refused(tmp_path):
    problem, names = {"size": "binary", "color": "binary"}, {"size": ("no", "yes"), "color": ("no", "yes")}
    records = made_records.made(problem, names=names)
    run = directory(tmp_path, predictor={"problem": problem, "class_names": names, "preprocessor": None})
    run.begin()
    run.write_history(records.history)
    del records.summary["outputs"]["color"]
    run.write_results(records.results, records.summary)
    with pytest.raises(InputError, match="not of the same outputs"):
        run_directory.read_records(tmp_path)


def test_damaged_config_is_refused(begun):
    run = directory(begun)
    run.write_results({}, {})
    (begun / "config.toml").write_text("task = [")
    sums = begun / "SHA256SUMS"
    sums.write_text(run_directory.checksums(begun))
    with pytest.raises(InputError, match=r"config\.toml is not a TOML file"):
        run_directory.read(begun)
    (begun / "config.toml").write_text("task = 3")
    sums.write_text(run_directory.checksums(begun))
    with pytest.raises(InputError, match="task is 3; it must be a string"):
        run_directory.read(begun)
    assert json.loads((begun / "data.json").read_text()) == DATA
