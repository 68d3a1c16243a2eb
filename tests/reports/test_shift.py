"""Examples are compared with those of the training, in a sentence and on the page."""

import json

import numpy as np
from made_records import made

from jaxcls._utils import schemas
from jaxcls.reports import html_report, records, shift

RNG = np.random.default_rng(0)
TEXTS = np.array([" ".join(["word"] * count) for count in RNG.integers(5, 50, 400)], object)


def test_longer_texts_are_told_and_shown():
    record = json.loads(json.dumps(shift.reference(TEXTS) | {"scores": {}}))
    schemas.check(record, records.REFERENCE, "here")
    assert shift.line(shift.compare(record, RNG.permutation(TEXTS)[:200], np.zeros(200), "binary")) is None
    result = shift.compare(record, TEXTS + " <and> more" * 10, np.zeros(400), "binary")
    assert shift.line(result).startswith("the examples differ from those of the training: characters (")
    shown = json.loads(json.dumps(shift.summary(result)))
    schemas.check(shown, records.SUMMARY["shift?"], "here")
    run = made(kind="texts")
    html = html_report.render(run._replace(summary=run.summary | {"shift": shown}))
    assert "The test examples differ from those of the training" in html
    assert "(large)" in html


def test_scores_are_compared_where_those_of_validation_examples_are_known():
    record = shift.reference(TEXTS)
    record["scores"] = shift.shift.reference({"probability": np.linspace(0, 0.5, 200)})
    result = shift.compare(record, TEXTS, np.linspace(0.5, 1, 400), "binary")
    assert "prediction: probability (0.2513 before, 0.7494 now)" in shift.line(result)


def test_inputs_without_a_description_are_not_compared():
    arrays = np.zeros((5, 3), np.float32)
    assert shift.compare(shift.reference(arrays), arrays, None, "detection") == []
