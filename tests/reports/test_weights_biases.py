"""What a run writes to Weights & Biases, with a stand-in for it: the service itself needs a network."""

import importlib.util
import sys
import types

import pytest
import small_data

from jaxcls._utils.errors import InputError
from jaxcls.reports import weights_biases
from jaxcls.tasks import run
from jaxcls.training.settings import Settings


class Recorder:
    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], None

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.finished = exit_code


@pytest.fixture
def begun(monkeypatch):
    runs = []
    stand_in = types.ModuleType("wandb")
    stand_in.init = lambda **given: runs.append(Recorder(**given)) or runs[-1]
    stand_in.__spec__ = importlib.util.spec_from_loader("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return runs


def test_each_epoch_is_written_once(begun, tmp_path):
    history = [{"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "val_loss": None} for epoch in (1, 2)]
    with weights_biases.WandbRun("name", tmp_path, {"epochs": 2}) as online:
        for epochs in (1, 1, 2):
            online.write(history[:epochs])
    [written] = begun
    assert written.given["config"] == {"epochs": 2}
    assert written.logged == [(10, {"epoch": 1, "loss": 1.0}), (20, {"epoch": 2, "loss": 0.5})]
    assert written.finished == 0


def test_a_run_that_fails_is_said_to_have_failed(begun, tmp_path):
    online = weights_biases.WandbRun("name", tmp_path, {})
    online.write([{"epoch": 1, "step": 1, "loss": 1.0}])
    online.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert begun[0].finished == 1


@pytest.mark.slow
def test_a_run_writes_its_settings_and_its_history(begun, tmp_path):
    data = small_data.write(tmp_path / "data")
    given = Settings(data_dir=data, run_dir=tmp_path / "run", model="mlp", epochs=1, batch_size=64, wandb=True)
    result = run.run(given, say=lambda line: None)
    [written] = begun
    assert written.given["config"]["model"] == "mlp"
    assert [(step, values["loss"]) for step, values in written.logged] == [(4, result.history[0]["loss"])]


def test_without_it_nothing_is_begun(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install 'jaxcls\\[wandb\\]'"):
        run.run(Settings(task="fashion_mnist", wandb=True))
