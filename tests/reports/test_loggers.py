"""TensorBoard event files and Weights & Biases runs hold each epoch once, after interruptions too.

A stand-in replaces wandb, whose service needs a network.
"""

import importlib.util
import math
import struct
import sys
import types

import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxcls._utils.errors import InputError
from jaxcls._utils.interruption import Interrupted
from jaxcls.reports.callbacks import TensorBoardLogger, WandbLogger
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

QUICK = {"task": "csv", "model": "linear", "batch_size": 16, "validation_fraction": 0.2, "monitor": "loss"}


def scalars(folder):
    """(tag, step, value) of every event, in the order of the files: TFRecords, a length and its CRC before each."""
    values = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            values += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return values


def entry(epoch):
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "loss": 1 / epoch,
        "val_accuracy": 0.5,
        "skipped_steps": 0,
        "seconds": 1.5,
        "examples_per_second": 100.0,
    }


def test_tensorboard_logs_each_epoch_once(tmp_path):
    with TensorBoardLogger(tmp_path) as events:
        for epochs in (1, 2, 2, 3):
            events.write([entry(epoch) for epoch in range(1, epochs + 1)])
    logged = scalars(tmp_path)
    assert {tag for tag, _, _ in logged} == {
        "train/loss", "train/skipped_steps", "train/examples_per_second", "validation/accuracy",
    }  # fmt: skip
    losses = [(step, value) for tag, step, value in logged if tag == "train/loss"]
    assert losses == [(10, 1.0), (20, 0.5), (30, pytest.approx(1 / 3))]


def test_event_files_of_an_earlier_process_are_replaced(tmp_path):
    # The first process was killed between logging the second epoch and saving it.
    with TensorBoardLogger(tmp_path) as events:
        events.write([entry(1), entry(2)])
    with TensorBoardLogger(tmp_path) as events:
        events.write([entry(1), entry(2)])
        events.write([entry(1), entry(2), entry(3)])
    steps = [step for tag, step, _ in scalars(tmp_path) if tag == "train/loss"]
    assert steps == [10, 20, 30]


def test_event_files_stay_if_nothing_is_written(tmp_path):
    with TensorBoardLogger(tmp_path) as events:
        events.write([entry(1)])
    before = scalars(tmp_path)
    with TensorBoardLogger(tmp_path):
        pass
    assert scalars(tmp_path) == before


def test_missing_values_are_left_out_and_nan_is_logged(tmp_path):
    with TensorBoardLogger(tmp_path) as events:
        events.write([entry(1) | {"loss": None, "val_accuracy": math.nan}])
    logged = {tag: value for tag, _, value in scalars(tmp_path)}
    assert "train/loss" not in logged
    assert math.isnan(logged["validation/accuracy"])


def test_event_files_of_a_continued_run_match_its_history(tmp_path):
    arguments = Settings(**QUICK, run_dir=tmp_path / "run", epochs=3, tensorboard=True)
    calls = []

    def stop():
        calls.append(None)
        return len(calls) > 1

    with pytest.raises(Interrupted):
        train_task(arguments, say=lambda line: None, stop=stop)
    begun = scalars(tmp_path / "run" / "tensorboard")
    assert 0 < len({step for _, step, _ in begun}) < 3
    result = train_task(arguments, say=lambda line: None)
    losses = [(step, value) for tag, step, value in scalars(tmp_path / "run" / "tensorboard") if tag == "train/loss"]
    assert losses == [(entry["step"], pytest.approx(entry["loss"])) for entry in result.history]


def test_missing_tensorboardx_is_reported_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jaxcls\[tensorboard\]'"):
        train_task(Settings(run_dir=tmp_path / "run", tensorboard=True), say=lambda line: None)
    assert not (tmp_path / "run").exists()


class Recorder:
    def __init__(self, **arguments):
        self.arguments, self.logged, self.finished = arguments, [], None

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.finished = exit_code


@pytest.fixture
def begun(monkeypatch):
    runs = []
    stand_in = types.ModuleType("wandb")
    stand_in.init = lambda **arguments: runs.append(Recorder(**arguments)) or runs[-1]
    stand_in.__spec__ = importlib.util.spec_from_loader("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return runs


def test_wandb_logs_each_epoch_once(begun, tmp_path):
    history = [{"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "val_loss": None} for epoch in (1, 2)]
    with WandbLogger("name", tmp_path, {"epochs": 2}) as online:
        for epochs in (1, 1, 2):
            online.write(history[:epochs])
    [written] = begun
    assert written.arguments["config"] == {"epochs": 2}
    assert written.logged == [(10, {"epoch": 1, "loss": 1.0}), (20, {"epoch": 2, "loss": 0.5})]
    assert written.finished == 0


def test_failed_run_finishes_with_exit_code_1(begun, tmp_path):
    online = WandbLogger("name", tmp_path, {})
    online.write([{"epoch": 1, "step": 1, "loss": 1.0}])
    online.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert begun[0].finished == 1


@pytest.mark.slow
def test_wandb_receives_settings_and_history(begun, tmp_path):
    arguments = Settings(**QUICK, run_dir=tmp_path / "run", epochs=1, wandb=True)
    result = train_task(arguments, say=lambda line: None)
    [written] = begun
    assert written.arguments["config"]["model"] == "linear"
    assert [(step, values["loss"]) for step, values in written.logged] == [(8, result.history[0]["loss"])]


def test_missing_wandb_is_reported_before_the_run_begins(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install 'jaxcls\\[wandb\\]'"):
        train_task(Settings(task="fashion_mnist", wandb=True))
