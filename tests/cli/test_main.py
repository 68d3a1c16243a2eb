"""The program ``jaxcls``: its commands, their help and their options."""

import dataclasses
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from jaxcls import losses, optimizers, tasks
from jaxcls._utils.errors import InputError, flag
from jaxcls._utils.interruption import Interrupted
from jaxcls.cli import arguments, main
from jaxcls.cli import names as cli_names
from jaxcls.cli.commands import Train
from jaxcls.metrics.decisions import check_tunable
from jaxcls.training.settings import Settings, SigmoidLoss, SoftmaxLoss, names, value_type


def options_of(command):
    options = main.COMMANDS[command]
    return set(names(options)) - set(getattr(options, "OMITTED", ()))


def help_of(command, capsys, monkeypatch, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stopped:
        main.main([command, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", main.COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_describes_every_option(command, columns, capsys, monkeypatch):
    text = help_of(command, capsys, monkeypatch, columns)
    assert max(map(len, text.splitlines())) <= max(columns, 100)
    for name in options_of(command) - {"file", "command"}:
        spelled = flag(name).removeprefix("--")
        assert f"  --{spelled}" in text or f"  --[no-]{spelled}" in text


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_field_has_a_docstring(command):
    options = main.COMMANDS[command]
    documented = {name for group in options.__mro__[:-1] for name in arguments._docstrings(group)}
    assert documented == set(names(options))


def test_help_of_train_lists_the_most_used_options_first(capsys, monkeypatch):
    text = help_of("train", capsys, monkeypatch)
    most_used = text.split("most used:\n")[1].split("\n\n")[0]
    for option in ("--task", "--data", "--model", "--epochs", "--batch-size", "--learning-rate", "--optimizer"):
        assert f"  {option} " in most_used
    assert "--momentum" not in most_used
    for section in ("data", "model", "loss", "optimizer", "schedule", "evaluation"):
        assert f"\n{section}:\n" in text


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_imports_neither_jax_nor_numpy(command):
    code = (
        "import sys; from jaxcls.cli import main\n"
        "try: main.main(sys.argv[1:])\n"
        "finally: print({'jax', 'numpy', 'flax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stderr


def test_mistyped_names_are_refused_without_jax():
    mistyped = [
        ("--task fraudd", "unknown task 'fraudd'. Did you mean 'fraud'?"),
        ("--preset bst", "unknown preset 'bst'. Did you mean 'best'?"),
        ("--model restnet", "unknown model of fashion_mnist 'restnet'. Did you mean 'resnet'?"),
        ("--task sentiment --model transfomer", "unknown model of sentiment 'transfomer'. Did you mean 'transformer'?"),
        ("--optimizer adma", "unknown --optimizer 'adma'. Did you mean 'adam'?"),
        ("--schedule cosin", "unknown --schedule 'cosin'. Did you mean 'cosine'?"),
        ("--loss crossentropy", "unknown loss 'crossentropy'. Did you mean 'softmax_cross_entropy'?"),
        ("--task fraud --loss crossentropy", "unknown loss 'crossentropy'. Did you mean 'binary_crossentropy'?"),
        ("--task csv --data x.csv --loss hing", "unknown --loss 'hing'. Did you mean 'hinge'?"),
        ("--monitor acuracy", "unknown metric 'acuracy'. Did you mean 'accuracy'?"),
    ]
    code = (
        "import sys; from jaxcls.cli import main\n"
        "for words in sys.argv[1:]: assert main.main(['train', *words.split()]) == 2\n"
        "print({'jax', 'flax'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, *(words for words, _ in mistyped)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "set()\n"
    for line, (words, message) in zip(done.stderr.splitlines(), mistyped, strict=True):
        assert line.startswith(f"error: {message}"), words


def test_names_that_are_checked_without_jax_are_all_names():
    assert cli_names.known_tasks() == list(tasks.TASKS)
    for name, task in tasks.TASKS.items():
        assert cli_names.known_of_task(name) == (list(task.presets), list(task.models), task.problem)
    fields = {field.name: get_args(field.type) for field in dataclasses.fields(Settings)}
    assert {*fields["optimizer"]} == {*optimizers.OPTIMIZERS}
    assert {*fields["schedule"]} == {*optimizers.SCHEDULES}
    assert {*get_args(SoftmaxLoss)} == {*losses.names("multiclass")}
    assert {*get_args(SigmoidLoss)} == {*losses.names("binary")}
    for metric in value_type(get_type_hints(Settings)["tune_threshold"])[1]:
        check_tunable(metric, "binary")


def test_program_lists_its_commands(capsys):
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in main.COMMANDS)
    assert main.main([]) == 2
    assert main.main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epochs", "3", "--learning-rate=1e-2"], {"epochs": 3, "learning_rate": 0.01}),
        (["--batch_size", "8"], {"batch_size": 8}),
        (["--no-resume", "--nesterov"], {"resume": False, "nesterov": True}),
        (
            ["--label-column", "a", "b_c", "--loss-weights", "1", "0"],
            {"label_column": ("a", "b_c"), "loss_weights": (1.0, 0.0)},
        ),
        (["--seed", "1", "--seed", "2"], {"seed": 2}),
    ],
)  # fmt: skip
def test_options_are_converted_to_the_types_of_their_fields(words, expected):
    assert arguments.parse(Train, words) == Train(**expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epoch", "3"], "unknown option '--epoch'. Did you mean '--epochs'?"),
        (["--lr", "0.1"], "unknown option '--lr'. Did you mean '--learning-rate'?"),
        (["--bs", "8"], "Did you mean '--batch-size'?"),
        (["--epochs", "three"], "argument --epochs: invalid int value: 'three'"),
        (["--source", "fils"], "unknown --source 'fils'. Did you mean 'files'? Known: auto, files, sample, tfds."),
        (["--loss-weights", "1"], "argument --loss-weights: expected 2 arguments"),
        (["fashion_mnist"], "unknown option 'fashion_mnist'"),
    ],
)
def test_wrong_options_are_refused(words, message):
    with pytest.raises(InputError) as error:
        arguments.parse(Train, words)
    assert message in str(error.value)


def test_options_override_the_config_file(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('model = "cnn"\nepochs = 3\n')
    settings = arguments.parse(Train, ["--config", str(config), "--epochs", "4"])
    assert settings == Train(model="cnn", epochs=4, config=config)


def test_required_option_is_named_if_it_is_missing(capsys):
    assert main.main(["export", "--run-dir", "x"]) == 2
    assert "required: --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "shown"), [("jaxcls", "jaxcls train"), ("python -m jaxcls.train", "python -m jaxcls.train")]
)
def test_interrupted_training_prints_the_command_that_continues_it(program, shown, monkeypatch, capsys):
    def interrupted(options):
        raise Interrupted(3)

    monkeypatch.setattr(Train, "run", interrupted)
    command = ["--run-dir", "a b"]
    if program == "jaxcls":
        status = main.main(["train", *command])
    else:
        status = main.run("train", *command, program=program)
    assert status == 75
    assert capsys.readouterr().err.endswith(f"the state is saved. To continue: {shown} --run-dir 'a b'\n")
