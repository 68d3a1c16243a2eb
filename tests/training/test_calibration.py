"""Calibrated experiments: their scores are those of the scaled logits, in every way in which they predict."""

import dataclasses

import numpy as np
import pytest
from flax import nnx
from scipy import special

import jaxcls
from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.export import loader
from jaxcls.training import calibration

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(64, 4)).astype(np.float32)
KINDS = (INPUTS[:, :3] + RANDOM.normal(size=(64, 3))).argmax(axis=1).astype(np.int32)
FLAGS = (INPUTS[:, 3] + RANDOM.normal(size=64) > 0).astype(np.int32)


class Two(nnx.Module):
    def __init__(self, rngs):
        self.kind = nnx.Linear(4, 3, rngs=rngs)
        self.flag = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, inputs):
        return {"kind": 5 * self.kind(inputs), "flag": 5 * self.flag(inputs)}


def two():
    loss = {"kind": "sparse_categorical_crossentropy", "flag": "binary_crossentropy"}
    return jaxcls.compile(Two, "adam", loss, metrics={"kind": ["log_loss"], "flag": ["log_loss"]})


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_several_outputs_are_calibrated_saved_exported_and_loaded(method, tmp_path):
    compiled, labels = two(), {"kind": KINDS, "flag": FLAGS}
    state = compiled.init(0)
    calibrated = compiled.calibrate(state, (INPUTS, labels), method=method)
    logits = calibration.logits(compiled, state._asdict(), INPUTS)
    record = calibrated.calibration["outputs"]
    scaled = {name: logits[name] * record[name]["scale"] + record[name]["bias"] for name in labels}
    expected = {"kind": special.softmax(scaled["kind"], axis=1), "flag": special.expit(scaled["flag"])}
    scores = calibrated.predict(state, INPUTS)
    for name in labels:
        np.testing.assert_allclose(scores[name], expected[name], atol=1e-6)
    before, after = (one.evaluate(state, (INPUTS, labels)) for one in (compiled, calibrated))
    assert after["loss"] == pytest.approx(before["loss"]), "the loss is that of the model"
    for name in labels:
        assert after[f"{name}_log_loss"] < before[f"{name}_log_loss"]
    if method == "vector":
        return
    calibrated.save(state, tmp_path / "run")
    learned = jaxcls.load(tmp_path / "run", Two)
    for name, sets in learned.sets(0.9)(learned.predict(INPUTS)).items():
        np.testing.assert_array_equal(learned.predict(INPUTS)[name], scores[name])
        assert sets[np.arange(64), labels[name]].mean() >= 0.9, "those that were calibrated by"
    calibrated.export(state, tmp_path / "model", INPUTS)
    exported = loader.load(tmp_path / "model")
    assert exported.record["calibration"] == {
        name: {"scale": one["scale"], "bias": one["bias"]} for name, one in record.items()
    }
    np.testing.assert_array_equal(exported.predict(INPUTS)["kind"], scores["kind"])
    compiled.save(state, tmp_path / "plain")
    with pytest.raises(InputError, match="sets of classes need a calibrated run"):
        jaxcls.load(tmp_path / "plain", Two).sets(0.9)


def test_temperature_of_averaged_views_changes_no_decision():
    compiled = jaxcls.compile(lambda rngs: nnx.Linear(4, 3, kernel_init=nnx.initializers.normal(3), rngs=rngs))
    compiled = dataclasses.replace(compiled, tta=[lambda inputs: inputs[:, ::-1]])
    state = compiled.init(0)
    calibrated = compiled.calibrate(state, (INPUTS, KINDS))
    before, after = compiled.predict(state, INPUTS), calibrated.predict(state, INPUTS)
    np.testing.assert_array_equal(before.argsort(axis=1), after.argsort(axis=1))
    scale = calibrated.calibration["outputs"][""]["scale"]
    np.testing.assert_allclose(after, special.softmax(np.log(before) * scale, axis=1), atol=1e-6)
    assert metrics.log_loss(after, KINDS) < metrics.log_loss(before, KINDS)


def test_labels_are_calibrated_each_and_thresholds_are_those_of_calibrated_scores():
    logits = 4 * np.stack([INPUTS[:, 3], INPUTS[:, 0]], axis=1)
    split = jaxcls.data.Split(INPUTS, np.stack([FLAGS, KINDS == 0], axis=1).astype(np.float32))
    record = calibration.fit("multilabel", logits, split, "temperature", tune_threshold="f1")
    assert record["outputs"][""]["sets"] is None
    scores = special.expit(logits * record["outputs"][""]["scale"]).astype(np.float32)
    plain = metrics.tune_threshold(special.expit(logits), split.labels, problem="multilabel")
    np.testing.assert_array_equal(scores >= record["thresholds"], special.expit(logits) >= plain)
    with pytest.raises(InputError, match="not of multilabel"):
        calibration.prediction_sets(record, 0.9, "lac", False)
