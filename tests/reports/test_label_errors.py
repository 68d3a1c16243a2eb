"""Probable label errors are in a file and on the page, with the rows of the training examples."""

import json

import numpy as np
import pytest
from made_records import made

from jaxcls._utils import schemas
from jaxcls.data.formats.tables import read_csv
from jaxcls.reports import html_report, label_errors, records


@pytest.mark.parametrize("problem", ["binary", "multilabel"])
def test_errors_are_written_and_shown_by_training_row(tmp_path, problem):
    scores = np.where(np.arange(20) % 2, 0.9, 0.1)
    labels = np.arange(20) % 2
    labels[7], labels[4] = 0, 1
    scores[4] = 0.05
    names = ("cat", "dog")
    if problem == "multilabel":
        scores, labels = np.stack([scores, np.full(20, 0.2)], axis=1), np.stack([labels, np.zeros(20)], axis=1)
    named, lines, rows = label_errors.find(scores, labels, problem, names), [], np.arange(100, 120)
    label_errors.save(tmp_path / "errors.csv", named, rows, lines.append)
    columns = read_csv(tmp_path / "errors.csv")
    assert columns["row"].tolist() == [104, 107]
    assert columns["current"].tolist() == (["dog", "cat"] if problem == "binary" else ["yes", "no"])
    np.testing.assert_allclose(columns["probability_current"], [0.05, 0.1])
    assert ("label" in columns) == (problem == "multilabel")
    assert lines[0].startswith(f"2 of {labels.size} training labels are probably wrong")

    inputs = np.array([f"<text> {row}" for row in range(120)], object)
    shown = json.loads(json.dumps(label_errors.summary(named, rows, inputs)))
    schemas.check(shown, records.SUMMARY["label_errors?"], "here")
    run = made(kind="texts")
    html = html_report.render(run._replace(summary=run.summary | {"label_errors": shown}))
    assert "&lt;text&gt; 104" in html
    assert "probably cat" in html or problem == "multilabel"
