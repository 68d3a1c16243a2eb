"""``python -m jaxcls.train`` as a process."""

import json
import re
import subprocess
import sys

import pytest
import small_data

from jaxcls.cli.commands import Train
from jaxcls.cli.main import main

EPOCHS = 60
QUICK = ["--model", "mlp", "--epochs", str(EPOCHS), "--batch-size", "8", "--validation-fraction", "0.2"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_data.write(tmp_path_factory.mktemp("data"))


def command(*arguments):
    return [sys.executable, "-m", "jaxcls.train", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL)


def results(directory):
    record = json.loads((directory / "results.json").read_text())
    history = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for entry in history:
        del entry["seconds"], entry["examples_per_second"]
    return record, history


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = run("--data-dir", data_dir, "--run-dir", directory, *QUICK)
    assert done.returncode == 0, done.stderr
    return done, directory


def test_training_ends_with_the_test_scores(uninterrupted):
    done, directory = uninterrupted
    record, _ = results(directory)
    assert done.stdout.startswith("fashion_mnist: 240 + 60 examples from")
    assert f"accuracy                     {record['metrics']['accuracy']:.4f}" in done.stdout
    assert "Ankle boot" in done.stdout
    assert f"saved in {directory}; report: {directory / 'report.html'}" in done.stdout
    assert len(re.findall(r"^epoch +\d+/60  loss \d", done.stdout, re.MULTILINE)) == EPOCHS
    assert done.stderr == ""


def test_keyboard_interrupt_exits_with_130_and_no_traceback(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Train, "run", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "stopped at once; what was saved before remains\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "3"], "--epochs"),
        (["--task", "fashion_mnst"], "Did you mean 'fashion_mnist'?"),
        (["--epochs", "three"], "--epochs"),
        (["--config", "no-such-file.toml"], "No such file"),
        (["--data-dir", "no-such-folder"], "no-such-folder"),
    ],
)
def test_wrong_option_exits_with_2_and_a_suggestion(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_options_override_the_config_file_which_overrides_the_preset(tmp_path, data_dir):
    config = tmp_path / "run.toml"
    config.write_text('model = "mlp"\nepochs = 3\nbatch_size = 32\n')
    done = run("--config", config, "--epochs", 1, "--data-dir", data_dir, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    saved = (tmp_path / "run" / "config.toml").read_text()
    for line in ('model = "mlp"', "epochs = 1", "batch_size = 32", "learning_rate = 0.004"):
        assert line in saved


def test_list_tasks_names_tasks_and_models():
    done = run("--list-tasks")
    assert done.returncode == 0
    assert "fashion_mnist" in done.stdout
    assert "models: mlp, cnn, resnet" in done.stdout


def test_second_run_in_a_locked_directory_is_refused(data_dir, tmp_path):
    from jaxcls.checkpoints import CheckpointManager

    directory = tmp_path / "run"
    with CheckpointManager(directory / "checkpoints"):
        done = run("--data-dir", data_dir, "--run-dir", directory, *QUICK)
    assert done.returncode == 2
    assert "another run" in done.stderr
