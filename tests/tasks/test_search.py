"""``jaxcls search``: its decisions come from validation examples, and a search that was stopped ends like any other."""

import functools
import itertools
import json
import shlex

import jax
import numpy as np
import pytest

from jaxcls import optimizers, tasks
from jaxcls._utils.errors import InputError
from jaxcls._utils.interruption import Interrupted
from jaxcls.cli.main import main
from jaxcls.data.formats import tables
from jaxcls.optimizers.hyperparameters import with_hyperparameters
from jaxcls.tasks import build, search
from jaxcls.tasks.csv import SAMPLE
from jaxcls.tasks.search import Options
from jaxcls.training import search_space
from jaxcls.training.settings import Settings, from_toml

SPACE = {
    "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "label_smoothing": {"low": 0.0, "high": 0.2},
    "weight_decay": {"low": 0.01, "high": 0.1},
    "dropout": {"low": 0.1, "high": 0.5},
}
OPTIONS = Options(trials=7, rungs=2, reduction=2)


def settings(test_data):
    return Settings(
        task="csv",
        data=SAMPLE,
        label_column=("class",),
        test_data=test_data,
        model="linear",
        epochs=2,
        schedule="cosine",
    )


def searched(folder, test_data, options=OPTIONS, space=SPACE, **others):
    space = search_space.from_record(space, "space")
    return search.search(settings(test_data), space, options, folder, say=lambda line: None, **others)


def lines(folder):
    """What the search did, without its times."""
    records = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    by_job = {(record["trial"], record["rung"]): record | {"seconds": None} for record in records}
    assert len(by_job) == len(records)
    return by_job


@pytest.fixture(scope="module")
def test_files(tmp_path_factory):
    """Test examples, and others with wrong labels."""
    folder = tmp_path_factory.mktemp("tests")
    table = tables.read_csv(SAMPLE)
    some = {name: np.asarray(column)[:30] for name, column in table.items()}
    tables.write_csv(folder / "right.csv", some)
    tables.write_csv(folder / "wrong.csv", some | {"class": np.roll(np.asarray(table["class"])[::6], 7)[:30]})
    return folder / "right.csv", folder / "wrong.csv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, test_files):
    folder = tmp_path_factory.mktemp("searches") / "whole"
    return searched(folder, test_files[0])


def test_best_of_those_that_trained_to_the_end_wins(whole):
    done = lines(whole.directory)
    finished = {trial: record["values"][-1] for (trial, rung), record in done.items() if rung == 1}
    assert {trial for trial, rung in done if rung == 0} == {*range(7)}
    assert 3 <= len(finished) < 7
    assert whole.winner["trial"] == min(finished, key=finished.get)
    assert all(len(record["values"]) == rung + 1 for (_, rung), record in done.items())
    assert whole.record["monitor"] == "log_loss"
    # Checkpoints of trials that cannot be promoted are deleted.
    assert len([*(whole.directory / "trials").iterdir()]) <= 3


def test_command_trains_the_winner(whole, tmp_path):
    words = shlex.split(whole.command)
    assert words[:2] == ["jaxcls", "train"]
    assert main([*words[1:], "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # The trial takes its settings as arguments, which round differently.
    assert [entry["val_log_loss"] for entry in history] == pytest.approx(whole.winner["values"], rel=1e-4)
    config = from_toml(whole.directory / "winner.toml")
    _, resolved = build.resolve(config)
    assert (resolved.learning_rate, resolved.epochs) == (whole.winner["settings"]["learning_rate"], 2)
    assert whole.command in (whole.directory / "report.html").read_text(encoding="utf-8")


def test_test_examples_decide_nothing_and_a_stopped_search_ends_with_the_same_bits(whole, test_files, tmp_path):
    folder = tmp_path / "stopped"
    for polls in (4, 5, 6):
        counter = itertools.count()
        with pytest.raises(Interrupted):
            searched(folder, test_files[1], stop=lambda counter=counter, polls=polls: next(counter) > polls)
    begun = lines(folder)
    assert 0 < len(begun) < len(lines(whole.directory))
    assert searched(folder, test_files[1]).winner["trial"] == whole.winner["trial"]
    assert lines(folder) == lines(whole.directory)


def test_more_trials_continue_a_search_and_another_space_does_not(whole, test_files):
    before = lines(whole.directory)
    more = searched(whole.directory, test_files[0], OPTIONS._replace(trials=8))
    after = lines(whole.directory)
    assert {trial for trial, _ in after} == {*range(8)}
    assert all(after[job] == record for job, record in before.items())
    assert more.winner["value"] <= whole.winner["value"]
    space = {"learning_rate": {"low": 1e-3, "high": 1.0, "log": True}}
    with pytest.raises(
        InputError, match=r"holds another search: learning_rate \(begun with {'low': 0.001, 'high': 0.1"
    ):
        searched(whole.directory, test_files[0], space=space)
    with pytest.raises(InputError, match="holds another search: reduction"):
        searched(whole.directory, test_files[0], OPTIONS._replace(reduction=3))


def test_search_ends_after_its_minutes(test_files, tmp_path):
    with pytest.raises(InputError, match="the 1e-09 minutes were over before a trial ended"):
        searched(tmp_path / "search", test_files[0], OPTIONS._replace(minutes=1e-9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": OPTIONS._replace(trials=0)}, "--trials is 0; it must be 1 or more"),
        ({"options": OPTIONS._replace(minutes=-1)}, "--minutes is -1; it must be above 0"),
        ({"space": {"model": {"choices": ["mlp", "cnn"]}}}, "--space: model cnn: unknown model of csv 'cnn'"),
        ({"space": {"momentum": {"low": 0.5, "high": 0.9}}}, "--optimizer adamw takes no --momentum"),
        (
            {"space": {"optimizer": {"choices": ["adam"]}, "momentum": {"low": 0.5, "high": 0.9}}},
            "momentum is taken by no loss, optimizer or schedule of the 1 trials",
        ),
    ],
    ids=str,
)
def test_mistakes_are_refused_before_data_is_read(test_files, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        searched(tmp_path / "search", test_files[0], **changes)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "adagrad"])
def test_traced_hyperparameters_give_the_updates_of_constants(optimizer):
    values = dict.fromkeys({*search.TRACED} - {"clipnorm", "clipvalue"}, 0.3)
    _, takes = build.options(tasks.get("csv"))["optimizer"]
    values = {name: value for name, value in values.items() if name in {*takes[optimizer], "learning_rate"}}
    parameters = {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), "bias": np.ones(3, np.float32)}

    def updated(transform):
        state, updates = transform.init(parameters), None
        for _ in range(2):
            updates, state = jax.jit(transform.update)(parameters, state, parameters)
        return jax.tree.leaves(updates)

    make = functools.partial(optimizers.get, optimizer)
    for traced, constant in zip(updated(with_hyperparameters(make, values)), updated(make(**values)), strict=True):
        np.testing.assert_allclose(traced, constant, rtol=1e-5, atol=1e-7)


def test_losses_are_not_compared_by_the_loss(test_files, tmp_path):
    space = search_space.from_record({"label_smoothing": {"low": 0.0, "high": 0.2}}, "space")
    chosen = settings(test_files[0])
    with pytest.raises(InputError, match="--monitor loss cannot compare trials whose label_smoothing differs"):
        search.search(Settings(**{**vars(chosen), "monitor": "loss"}), space, OPTIONS, tmp_path / "search")


def test_command_line_searches_and_continues_with_seeds(test_files, tmp_path, capsys, monkeypatch):
    running = []

    def report(*arguments, **options):
        result = original(*arguments, **options)
        running.append("The search is running" in (result.directory / "report.html").read_text(encoding="utf-8"))
        return result

    original = search._report
    monkeypatch.setattr(search, "_report", report)
    file = tmp_path / "space.toml"
    file.write_text("dropout = {choices = [0.0]}\nlearning_rate = {low = 1e-3, high = 0.1, log = true}\n")
    flags = ["--task", "csv", "--data", str(SAMPLE), "--label-column", "class", "--test-data", str(test_files[0])]
    flags += ["--model", "linear", "--epochs", "2", "--schedule", "cosine", "--trials", "2", "--space", str(file)]
    flags += ["--seeds", "3", "4"]
    arguments = ["search", *flags, "--search-dir", str(tmp_path / "search"), "--json"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    assert "the 2% of the recipe are few" in first.err
    result = json.loads(first.out)
    assert shlex.split(result["command"])[:4] == ["jaxcls", "train", "--task", "csv"]
    assert "--seeds 3 4" in result["command"]
    assert (running[0], running[-1]) == (True, False)
    for record in lines(tmp_path / "search").values():
        assert np.unique(record["by_seed"], axis=0).shape == (2, record["rung"] + 1)
        np.testing.assert_allclose(record["values"], np.mean(record["by_seed"], axis=0))
    assert result["value"] == min(
        record["values"][-1] for record in lines(tmp_path / "search").values() if record["rung"]
    )
    assert main(arguments) == 0
    second = capsys.readouterr()
    assert json.loads(second.out) == result
    assert "continuing this search" in second.err
    assert main(["search", *flags, "--run-dir", "x"]) == 2
    assert main(["search", "--task", "csv"]) == 2
