"""``python -m jaxcls.train`` as a process."""

import json
import os
import re
import subprocess
import sys

import pytest

from jaxcls.cli.commands import Train
from jaxcls.cli.main import main

EPOCHS = 3


def command(*arguments):
    return [sys.executable, "-m", "jaxcls.train", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_training_ends_with_the_test_scores(tmp_path):
    directory = tmp_path / "run"
    flags = ["--task", "csv", "--model", "linear", "--epochs", EPOCHS, "--batch-size", 16]
    done = run(*flags, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    record = json.loads((directory / "results.json").read_text())
    assert done.stdout.startswith("csv: 142 + 36 examples from")
    assert f"accuracy                     {record['metrics']['accuracy']:.4f}" in done.stdout
    assert all(name in done.stdout for name in record["labels"])
    assert f"saved in {directory}; report: {directory / 'report.html'}" in done.stdout
    assert len(re.findall(r"^epoch +\d+/3  loss \d", done.stdout, re.MULTILINE)) == EPOCHS
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
def test_wrong_option_exits_with_2_and_a_suggestion(arguments, message, capsys):
    try:
        status = main(["train", *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_options_override_the_config_file_which_overrides_the_preset(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('task = "csv"\nmodel = "linear"\nepochs = 3\nbatch_size = 16\n')
    flags = ["--config", config, "--epochs", 1, "--run-dir", tmp_path / "run"]
    assert main(["train", *map(str, flags)]) == 0
    saved = (tmp_path / "run" / "config.toml").read_text()
    for line in ('model = "linear"', "epochs = 1", "batch_size = 16", 'optimizer = "adamw"'):
        assert line in saved


def test_list_tasks_names_tasks_and_models_the_second_time_without_jax(tmp_path):
    code = (
        "import sys; from jaxcls.cli import main\n"
        "assert main.main(['train', '--list-tasks']) == 0\n"
        "print('jax' in sys.modules, file=sys.stderr)"
    )
    cache = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", code], env=cache, capture_output=True, text=True) for _ in range(2)
    )
    assert (first.stderr, second.stderr) == ("True\n", "False\n")
    assert first.stdout == second.stdout
    assert "fashion_mnist" in first.stdout
    assert "models: mlp, cnn, resnet" in first.stdout


def test_second_run_in_a_locked_directory_is_refused(tmp_path):
    from jaxcls.checkpoints import CheckpointManager

    directory = tmp_path / "run"
    with CheckpointManager(directory / "checkpoints"):
        done = run("--task", "csv", "--model", "linear", "--run-dir", directory)
    assert done.returncode == 2
    assert "another run" in done.stderr
