"""More epochs: raised in place, or from the last weights of a run into a new one."""

import itertools
import json

import pytest

from jaxcls._utils.errors import InputError
from jaxcls._utils.interruption import Interrupted
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.tasks.train import train_task

# Five steps an epoch; dropout depends on the step.
COMMAND = ["--task", "csv", "--model", "mlp", "--validation-fraction", "0.2", "--dropout", "0.2"]
CONSTANT = [*COMMAND, "--schedule", "constant", "--warmup", "0"]


def train(directory, *words, stop=lambda: False):
    lines = []
    words = [*map(str, words), "--run-dir", str(directory)]
    return train_task(parse(Train, words), say=lines.append, stop=stop), lines


def history(directory):
    entries = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for entry in entries:
        del entry["seconds"], entry["examples_per_second"]
    return entries


def outcome(directory):
    results = json.loads((directory / "results.json").read_text())
    return results["params_sha256"], results["metrics"], history(directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three epochs."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    train(directory, *COMMAND, "--epochs", "3")
    return directory


def test_raised_epochs_end_with_the_bits_of_a_longer_run(tmp_path):
    train(tmp_path / "longer", *CONSTANT, "--epochs", "4")
    train(tmp_path / "raised", *CONSTANT, "--epochs", "2")
    train(tmp_path / "raised", *CONSTANT, "--epochs", "4")
    assert outcome(tmp_path / "raised") == outcome(tmp_path / "longer")
    assert "epochs = 4" in (tmp_path / "raised" / "config.toml").read_text()
    with pytest.raises(InputError, match=r"begun with 4, now 3.*can only be raised"):
        train(tmp_path / "raised", *CONSTANT, "--epochs", "3")


def test_epochs_of_a_schedule_that_depends_on_them_are_refused_with_commands_that_work(finished, tmp_path):
    with pytest.raises(InputError, match="cannot be changed, because --schedule cosine ") as error:
        train(finished, *COMMAND, "--epochs", "5")
    *_, continued, begun = str(error.value).removesuffix(".").split("--")[-3:]
    assert continued == f"config {finished / 'config.toml'} "
    train(finished, "--config", finished / "config.toml")
    assert begun == f"run-dir {finished}"
    assert f"--continue-from {finished}." in str(error.value)
    train(tmp_path / "more", "--continue-from", finished, "--epochs", "1")


@pytest.mark.parametrize("words", [["--seed", "1"], ["--validation-fraction", "0.3"], ["--model", "linear"]], ids=str)
def test_what_splits_and_reads_the_data_is_that_of_the_run(finished, tmp_path, words):
    with pytest.raises(InputError, match=rf"keeps the {words[0]} of that run"):
        train(tmp_path / "run", "--continue-from", finished, *words)
    # Of such settings, no warm start is advised.
    with pytest.raises(InputError) as error:
        train(finished, *COMMAND, "--epochs", "3", *words)
    assert "--continue-from" not in str(error.value)


def test_a_continued_run_starts_from_the_last_weights_and_keeps_the_history(finished, tmp_path):
    # At such a rate, weights hardly change.
    words = ["--continue-from", finished, "--learning-rate", "1e-12", "--weight-decay", "0", "--epochs", "2"]
    result, lines = train(tmp_path / "run", *words)
    before, after = history(finished), history(tmp_path / "run")
    assert after[:3] == before
    assert [entry["epoch"] for entry in after] == [1, 2, 3, 4, 5]
    assert [after[index]["step"] for index in (3, 4)] == [before[-1]["step"] * 4 // 3, before[-1]["step"] * 5 // 3]
    assert after[-1]["val_loss"] == pytest.approx(before[-1]["val_loss"], rel=1e-4)
    assert result.report["metrics"] == pytest.approx(outcome(finished)[1], rel=1e-4)
    assert f"continuing from {finished} after 3 epochs, for 2 more" in lines


def test_options_not_given_are_those_of_the_run_unless_they_are_of_another_optimizer(finished):
    settings = parse(Train, ["--continue-from", str(finished), "--optimizer", "sgd"])
    assert (settings.task, settings.dropout, settings.epochs, settings.run_dir) == ("csv", 0.2, 3, None)
    assert (settings.learning_rate, settings.weight_decay) == (None, None)
    settings = parse(Train, ["--continue-from", str(finished), "--epochs", "9"])
    assert (settings.learning_rate, settings.weight_decay, settings.epochs) == (5e-3, 0.05, 9)


def test_an_interrupted_continued_run_resumes_with_the_same_bits(finished, tmp_path):
    words = ["--continue-from", finished, "--learning-rate", "1e-3", "--epochs", "3", "--optimizer", "adam"]
    train(tmp_path / "straight", *words)
    polls = itertools.count(1)
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", *words, stop=lambda: next(polls) == 2)
    assert len(history(tmp_path / "resumed")) < 6
    train(tmp_path / "resumed", *words)
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "straight")


def test_a_stopped_run_is_continued_from_its_last_checkpoint(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", *COMMAND, "--epochs", "4", stop=lambda: True)
    train(tmp_path / "run", "--continue-from", tmp_path / "stopped", "--epochs", "1")
    assert history(tmp_path / "run")[:-1] == history(tmp_path / "stopped")


@pytest.mark.parametrize("content", [None, 'task = "csv"\n'])
def test_a_folder_without_a_state_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InputError):
        train(tmp_path / "run", "--continue-from", tmp_path)
