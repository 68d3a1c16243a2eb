"""The command that writes pages, from runs that were trained."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import small_data

from jaxcls.cli import commands
from jaxcls.cli.main import main


@pytest.fixture(scope="module")
def runs(fashion_run, tmp_path_factory):
    result, _, data = fashion_run
    directory = shutil.copytree(result.directory, tmp_path_factory.mktemp("runs") / "seed0")
    return [result._replace(directory=directory), small_data.train(data, directory.with_name("seed1"), seed=1)]


@pytest.fixture
def finished(runs, tmp_path):
    """A copy of a run, to be changed."""
    return shutil.copytree(runs[0].directory, tmp_path / "run")


def test_training_writes_a_report(runs):
    html = (runs[0].directory / "report.html").read_text(encoding="utf-8")
    assert "<title>fashion_mnist: mlp</title>" in html
    assert f"{runs[0].report['metrics']['accuracy']:.4f}" in html


def test_report_is_reproduced_without_weights_or_data(finished, capsys):
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    # Neither the weights nor the data are needed.
    for folder in ("checkpoints", "model"):
        shutil.rmtree(finished / folder)
    assert main(["report", "--run-dir", str(finished)]) == 0
    assert capsys.readouterr().out == f"saved as {finished / 'report.html'}\n"
    again = (finished / "report.html").read_bytes()
    assert again == before.replace(b"seed0</code>", b"run</code>", 1)


def test_summary_names_the_settings_that_differ_from_the_preset(runs):
    summary = json.loads((runs[1].directory / "summary.json").read_text())
    assert summary["recipe"] == {
        "model": "cnn", "epochs": 12, "batch_size": 128, "validation_fraction": 0.05, "eval_batch_size": 500, "seed": 0,
    }  # fmt: skip
    assert summary["headline"] == ["accuracy"]
    assert summary["parameters"] == 535_818


def test_comparison_shows_all_runs_and_is_not_overwritten_unless_told(runs, tmp_path, capsys):
    output = tmp_path / "compared.html"
    arguments = ["--compare", *(str(result.directory) for result in runs), "--output", str(output)]
    assert main(["report", *arguments]) == 0
    html = output.read_text(encoding="utf-8")
    for result in runs:
        assert f"{result.report['metrics']['log_loss']:.4f}" in html
        assert result.directory.name in html
    assert main(["report", *arguments]) == 2
    assert "exists; name another file, or give --overwrite" in capsys.readouterr().err
    assert main(["report", *arguments, "--overwrite"]) == 0


def test_open_shows_the_report_in_the_browser(finished, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(commands.webbrowser, "open", lambda address: opened.append(address) or False)
    assert main(["report", "--run-dir", str(finished)]) == 0
    assert opened == []
    assert main(["report", "--run-dir", str(finished), "--open"]) == 0
    assert opened == [(finished / "report.html").resolve().as_uri()]
    assert "no browser was found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --run-dir, for the report of one run, or --compare"),
        (["--run-dir", "{run}", "--compare", "{run}"], "give either --run-dir"),
        (["--run-dir", "no-such-run"], "run directory no-such-run holds no run"),
        (["--compare", "{run}"], "takes 2 to 24 runs, got 1"),
        (["--compare", "{run}", "{run}"], "one run twice"),
        (["--compare", "{run}", "no-such-run"], "run directory no-such-run holds no run"),
        (["--run-dir", "{run}", "--output", "no-such-folder/page.html"], "in an existing folder"),
        (["--run-dir", "{run}", "--output", "{run}"], "give the name of a file"),
        (["--run-dir", "{run}", "--output", "{run}/config.toml"], "config.toml exists"),
    ],
)
def test_wrong_option_exits_with_2_and_writes_nothing(finished, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *(argument.format(run=finished) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", None, "lacks results.json or summary.json"),
        ("summary.json", "{", "summary.json is damaged"),
        ("summary.json", "{}", "summary.json is damaged"),
        ("metrics.jsonl", "no JSON\n", "metrics.jsonl: line 1 is damaged"),
        ("SHA256SUMS", None, "has not finished"),
        ("data.json", "{}", "data.json is not as the run wrote it"),
    ],
)
def test_incomplete_run_is_refused(finished, capsys, name, content, message):
    if content is None:
        (finished / name).unlink()
    else:
        (finished / name).write_text(content)
    assert main(["report", "--run-dir", str(finished)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_report_does_not_import_jax(finished):
    code = "import sys; from jaxcls.cli.main import main\n"
    code += "print(main(['report', *sys.argv[1:]]), 'jax' in sys.modules)"
    command = [sys.executable, "-c", code, "--run-dir", str(finished)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.stdout.endswith("0 False\n"), done.stderr
