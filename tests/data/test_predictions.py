"""Predictions as columns: what is predicted follows from the problem, and a submission from its sample."""

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data import predictions

IDS = np.array(["a", "b", "c"], object)
ASKED = "test.csv"


def listed(table):
    return {name: column.tolist() for name, column in table.items()}


def test_of_a_binary_problem_the_positive_class_is_reported_and_its_threshold_is_inclusive():
    columns = predictions.columns(IDS, np.array([0.2, 0.3, 0.9], np.float32), np.float32(0.3), "binary", ("no", "yes"))
    assert list(columns) == ["id", "predicted", "probability_yes"]
    assert columns["predicted"].tolist() == ["no", "yes", "yes"]


def test_of_a_multiclass_problem_the_likeliest_class_is_reported():
    scores = np.array([[0.1, 0.5, 0.4], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]])
    columns = listed(predictions.columns(IDS, scores, 0.5, "multiclass", ("x", "y", "id")))
    assert columns["predicted"] == ["y", "x", "id"]
    assert columns["id"] == ["a", "b", "c"], "though a class is called so"
    assert columns["probability_id"] == [0.4, 0.4, 1.0]


def test_of_a_multilabel_problem_each_label_has_its_threshold():
    scores = np.array([[0.5, 0.5], [0.1, 0.2], [0.0, 0.1]])
    columns = listed(predictions.columns(IDS, scores, np.array([0.4, 0.2]), "multilabel", ("x", "y")))
    assert columns["predicted"] == ["x|y", "y", ""]


@pytest.fixture
def sample(tmp_path):
    def write(text):
        path = tmp_path / "sample_submission.csv"
        path.write_text(text)
        return path

    return write


def filled(path, ids, scores, problem, class_names):
    form = predictions.read_form(path, np.array(ids, object), problem, class_names, asked=ASKED)
    return predictions.submission(form, np.array(scores), problem, class_names)


def test_a_submission_has_the_ids_and_the_columns_of_the_sample_in_its_order(sample):
    path = sample("Id,y,x\n007,0,0\n12,0,0\n00e1,0,0\n")
    table = filled(path, ["12", "00e1", "007"], [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], "multilabel", ("x", "y"))
    assert list(table) == ["Id", "y", "x"]
    assert listed(table) == {"Id": ["007", "12", "00e1"], "y": [0.6, 0.2, 0.4], "x": [0.5, 0.1, 0.3]}


def test_rows_of_a_multiclass_submission_are_clipped_and_sum_to_one(sample):
    path = sample("id,x,y,z\na,0,0,0\nb,0,0,0\n")
    scores = np.array([[1.0, 0.0, 0.0], [0.3333, 0.3333, 0.3333]], np.float32)
    table = filled(path, ["a", "b"], scores, "multiclass", ("x", "y", "z"))
    rows = np.stack([table[name] for name in "xyz"], axis=1)
    assert rows.dtype == np.float64
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(rows[0], [1, 1e-15, 1e-15])


def test_the_column_of_a_binary_submission_may_be_called_anything(sample):
    table = filled(sample("id,target\nb,0\na,0\n"), ["a", "b"], [0.25, 0.75], "binary", ("no", "yes"))
    assert listed(table) == {"id": ["b", "a"], "target": [0.75, 0.25]}


@pytest.mark.parametrize(
    ("text", "ids", "message"),
    [
        ("id,x,y\na,0,0\nb,0,0\n", ["a", "c"], "row 2 asks for id 'b', which is not in test.csv"),
        ("id,x,y\na,0,0\n", ["b", "a"], "test.csv holds 2 examples.*asks for 1: row 1, id 'b'"),
        ("id,x,y\na,0,0\na,0,0\n", ["a", "b"], "sample_submission.csv: row 2 of column 'id' is 'a', the same as row 1"),
        ("id,x,y\na,0,0\nb,0,0\n", ["a", "b", "a"], "test.csv: row 3 of column 'id' is 'a', the same as row 1"),
        ("id,x,y\na,0,0\n,0,0\n", ["a", "b"], "row 2 of column 'id' is empty"),
        ("id,x\na,0\nb,0\n", ["a", "b"], "has no column 'y'"),
        ("id,x,y,z\na,0,0,0\nb,0,0,0\n", ["a", "b"], "column 'z' is none of the classes"),
        ("x,y\n0,0\n", ["a"], "has no column 'x'"),
        ("", ["a"], "is empty"),
        ("id,x,y\n", ["a"], "no rows"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_in_words(sample, text, ids, message):
    with pytest.raises(InputError, match=message):
        filled(sample(text), ids, np.full((len(ids), 2), 0.5), "multilabel", ("x", "y"))


def test_a_binary_sample_has_one_column_of_probabilities(sample):
    with pytest.raises(InputError, match="has 2 columns beside the id"):
        filled(sample("id,no,yes\na,0,0\n"), ["a"], [0.5], "binary", ("no", "yes"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.5])
def test_what_is_no_probability_is_refused_with_its_row_and_id(sample, wrong):
    scores = np.array([[0.5, 0.5], [0.5, wrong], [0.5, 0.5]])
    with pytest.raises(InputError, match=r"row 2, id 'b'.*no probability"):
        predictions.columns(IDS, scores, 0.5, "multilabel", ("x", "y"))
    with pytest.raises(InputError, match=r"id 'b'.*no probability"):
        filled(sample("id,x,y\nc,0,0\nb,0,0\na,0,0\n"), IDS, scores, "multilabel", ("x", "y"))
