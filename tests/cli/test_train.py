"""The command as a person runs it: real processes, real signals."""

import json
import re
import subprocess
import sys

import pytest
import small_data

from jaxcls.cli import train

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


def test_a_run_ends_with_a_table_of_the_test_scores(uninterrupted):
    done, directory = uninterrupted
    record, _ = results(directory)
    assert done.stdout.startswith("fashion_mnist: 240 + 60 examples from")
    assert f"accuracy                     {record['metrics']['accuracy']:.4f}" in done.stdout
    assert "Ankle boot" in done.stdout
    assert f"kept in {directory}" in done.stdout
    assert len(re.findall(r"^epoch +\d+/60  loss \d", done.stdout, re.MULTILINE)) == EPOCHS
    assert done.stderr == ""


def test_an_interrupt_that_does_not_wait_ends_with_a_line_and_no_traceback(monkeypatch, capsys):
    def interrupted(settings, arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_train", interrupted)
    assert train.main([]) == 130
    assert capsys.readouterr().err == "stopped at once; what was saved before stands\n"


def test_help_names_every_flag_and_needs_no_jax():
    code = "import sys; from jaxcls.cli import train\ntry: train.main(['--help'])\nfinally: print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for flag in (
        "--task",
        "--model",
        "--optimizer",
        "--learning-rate",
        "--source",
        "--run-dir",
        "--resume",
        "--config",
    ):
        assert flag in done.stdout
    assert done.stdout.endswith("False\n")


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
def test_a_wrong_flag_ends_with_status_2_and_says_what_is_right(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path, data_dir):
    config = tmp_path / "run.toml"
    config.write_text('model = "mlp"\nepochs = 3\nbatch_size = 32\n')
    done = run("--config", config, "--epochs", 1, "--data-dir", data_dir, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    kept = (tmp_path / "run" / "config.toml").read_text()
    for line in ('model = "mlp"', "epochs = 1", "batch_size = 32", "learning_rate = 0.004"):
        assert line in kept


def test_tasks_are_listed():
    done = run("--list-tasks")
    assert done.returncode == 0
    assert "fashion_mnist" in done.stdout
    assert "models: mlp, cnn, resnet" in done.stdout


def test_two_runs_do_not_share_a_directory(data_dir, tmp_path):
    from jaxcls.checkpoints import CheckpointManager

    directory = tmp_path / "run"
    with CheckpointManager(directory / "checkpoints"):
        done = run("--data-dir", data_dir, "--run-dir", directory, *QUICK)
    assert done.returncode == 2
    assert "another run" in done.stderr
