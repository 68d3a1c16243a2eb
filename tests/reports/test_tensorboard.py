"""Event files: what TensorBoard reads of a run, each step once, whatever was interrupted."""

import math
import struct

import pytest
import small_data
from tensorboardX.proto.event_pb2 import Event

from jaxcls._utils.errors import InputError
from jaxcls.reports import tensorboard
from jaxcls.tasks import run
from jaxcls.training.loop import Interrupted
from jaxcls.training.settings import Settings


def scalars(folder):
    """(tag, step, value) of every event, in the order of the files: TFRecords, a length and its CRC before each."""
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


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


def test_each_epoch_is_written_once_however_often_the_history_is_given(tmp_path):
    with tensorboard.EventFiles(tmp_path) as events:
        for epochs in (1, 2, 2, 3):
            events.write([entry(epoch) for epoch in range(1, epochs + 1)])
    found = scalars(tmp_path)
    assert {tag for tag, _, _ in found} == {
        "train/loss", "train/skipped_steps", "train/examples_per_second", "validation/accuracy",
    }  # fmt: skip
    losses = [(step, value) for tag, step, value in found if tag == "train/loss"]
    assert losses == [(10, 1.0), (20, 0.5), (30, pytest.approx(1 / 3))]


def test_what_an_earlier_process_wrote_stands_once(tmp_path):
    # It was killed after it had written the second epoch and before that was saved: the next one trains it again.
    with tensorboard.EventFiles(tmp_path) as events:
        events.write([entry(1), entry(2)])
    with tensorboard.EventFiles(tmp_path) as events:
        events.write([entry(1), entry(2)])
        events.write([entry(1), entry(2), entry(3)])
    steps = [step for tag, step, _ in scalars(tmp_path) if tag == "train/loss"]
    assert steps == [10, 20, 30]


def test_a_process_that_writes_nothing_leaves_what_there_is(tmp_path):
    with tensorboard.EventFiles(tmp_path) as events:
        events.write([entry(1)])
    before = scalars(tmp_path)
    with tensorboard.EventFiles(tmp_path):
        pass
    assert scalars(tmp_path) == before


def test_a_loss_that_was_not_counted_is_left_out_and_one_that_is_nan_is_nan(tmp_path):
    with tensorboard.EventFiles(tmp_path) as events:
        events.write([entry(1) | {"loss": None, "val_accuracy": math.nan}])
    found = {tag: value for tag, _, value in scalars(tmp_path)}
    assert "train/loss" not in found
    assert math.isnan(found["validation/accuracy"])


def test_a_run_that_is_stopped_and_continued_writes_what_its_history_holds(tmp_path):
    given = Settings(
        data_dir=small_data.write(tmp_path / "data"), run_dir=tmp_path / "run", model="mlp", epochs=3, batch_size=16,
        validation_fraction=0.2, tensorboard=True,
    )  # fmt: skip
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 1

    with pytest.raises(Interrupted):
        run.run(given, say=lambda line: None, stop=stop)
    begun = scalars(tmp_path / "run" / "tensorboard")
    assert 0 < len({step for _, step, _ in begun}) < 3
    result = run.run(given, say=lambda line: None)
    losses = [(step, value) for tag, step, value in scalars(tmp_path / "run" / "tensorboard") if tag == "train/loss"]
    assert losses == [(entry["step"], pytest.approx(entry["loss"])) for entry in result.history]


def test_without_tensorboardx_nothing_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jaxcls\[tensorboard\]'"):
        run.run(Settings(run_dir=tmp_path / "run", tensorboard=True), say=lambda line: None)
    assert not (tmp_path / "run").exists()
