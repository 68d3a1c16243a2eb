"""Predictions as CSV columns, and Kaggle submissions."""

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data import predictions

IDS = np.array(["a", "b", "c"], object)
SOURCE = "test.csv"


def listed(table):
    return {name: column.tolist() for name, column in table.items()}


def test_binary_columns_have_the_positive_class_and_an_inclusive_threshold():
    columns = predictions.columns(IDS, np.array([0.2, 0.3, 0.9], np.float32), np.float32(0.3), "binary", ("no", "yes"))
    assert list(columns) == ["id", "predicted", "probability_yes"]
    assert columns["predicted"].tolist() == ["no", "yes", "yes"]


def test_multiclass_columns_have_the_most_probable_class():
    scores = np.array([[0.1, 0.5, 0.4], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]])
    columns = listed(predictions.columns(IDS, scores, 0.5, "multiclass", ("x", "y", "id")))
    assert columns["predicted"] == ["y", "x", "id"]
    assert columns["id"] == ["a", "b", "c"]
    assert columns["probability_id"] == [0.4, 0.4, 1.0]


def test_of_very_many_classes_the_five_most_probable_are_written():
    scores = np.full((2, 2000), 1e-4)
    scores[0, [7, 1500, 3]], scores[1, 1999] = [0.4, 0.3, 0.2], 0.9
    names = [f"c{number}" for number in range(2000)]
    columns = predictions.columns(np.array(["x", "y"], object), scores, 0.5, "multiclass", names)
    rows = [[column[row] for column in columns.values()] for row in range(2)]
    assert rows[0] == ["x", "c7", 0.4, "c1500", 0.3, "c3", 0.2, "c0", 1e-4, "c1", 1e-4]
    assert rows[1] == ["y", "c1999", 0.9, "c0", 1e-4, "c1", 1e-4, "c2", 1e-4, "c3", 1e-4]
    assert [*columns][:6] == ["id", "predicted", "probability", "class_2", "probability_2", "class_3"]


def test_multilabel_columns_apply_one_threshold_per_label():
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


def submission(path, ids, scores, problem, class_names):
    sample = predictions.read_sample_submission(path, np.array(ids, object), problem, class_names, source=SOURCE)
    return predictions.submission(sample, np.array(scores), problem, class_names)


def test_a_submission_has_the_ids_and_columns_of_the_sample_in_its_order(sample):
    path = sample("Id,y,x\n007,0,0\n12,0,0\n00e1,0,0\n")
    table = submission(path, ["12", "00e1", "007"], [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], "multilabel", ("x", "y"))
    assert list(table) == ["Id", "y", "x"]
    assert listed(table) == {"Id": ["007", "12", "00e1"], "y": [0.6, 0.2, 0.4], "x": [0.5, 0.1, 0.3]}


def test_rows_of_a_multiclass_submission_are_clipped_and_sum_to_one(sample):
    path = sample("id,x,y,z\na,0,0,0\nb,0,0,0\n")
    scores = np.array([[1.0, 0.0, 0.0], [0.3333, 0.3333, 0.3333]], np.float32)
    table = submission(path, ["a", "b"], scores, "multiclass", ("x", "y", "z"))
    rows = np.stack([table[name] for name in "xyz"], axis=1)
    assert rows.dtype == np.float64
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(rows[0], [1, 1e-15, 1e-15])


def test_the_column_of_a_binary_submission_may_have_any_name(sample):
    table = submission(sample("id,target\nb,0\na,0\n"), ["a", "b"], [0.25, 0.75], "binary", ("no", "yes"))
    assert listed(table) == {"id": ["b", "a"], "target": [0.75, 0.25]}


@pytest.mark.parametrize(
    ("values", "class_names", "expected"),
    [
        (["0", "1"], ("no", "yes"), ["1", "0"]),  # Titanic
        (["False", "False"], ("False", "True"), ["True", "False"]),  # Spaceship Titanic
        (["TRUE", "FALSE"], ("0", "1"), ["TRUE", "FALSE"]),
        (["no", "no"], ("no", "yes"), ["yes", "no"]),
        (["0", "0"], ("0", "1"), [0.75, 0.25]),
        (["0.5", "0.5"], ("0", "1"), [0.75, 0.25]),
        (["0.0", "1.0"], ("0", "1"), [0.75, 0.25]),
    ],
)
def test_a_binary_submission_holds_what_its_sample_holds(sample, values, class_names, expected):
    path = sample(f"id,target\nb,{values[0]}\na,{values[1]}\n")
    assert listed(submission(path, ["a", "b"], [0.25, 0.75], "binary", class_names))["target"] == expected


def test_labels_of_a_binary_submission_follow_the_threshold(sample):
    form = predictions.read_sample_submission(
        sample("id,y\na,0\nb,1\n"), np.array(["a", "b"], object), "binary", ("no", "yes"), source=SOURCE
    )
    assert str(form) == "y: the predicted 0, 1"
    assert predictions.submission(form, np.array([0.2, 0.3]), "binary", (), 0.25)["y"].tolist() == ["0", "1"]


def test_one_column_of_a_multiclass_submission_holds_the_class(sample):
    scores = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    table = submission(sample("ImageId,Label\n2,0\n1,0\n"), ["1", "2"], scores, "multiclass", ("0", "3", "7"))
    assert listed(table) == {"ImageId": ["2", "1"], "Label": ["0", "7"]}
    with pytest.raises(
        InputError, match="column 'Label' holds '0', which is not a class of the run; these are x, y, z"
    ):
        submission(sample("ImageId,Label\n2,0\n1,0\n"), ["1", "2"], scores, "multiclass", ("x", "y", "z"))


def test_a_change_of_ids_for_spreadsheets_is_told(tmp_path):
    lines = []
    columns = {"id": np.array(["-a", "b"], object), "probability": np.array([0.5, -1.0])}
    predictions.save(tmp_path / "predicted.csv", columns, lines.append)
    assert (tmp_path / "predicted.csv").read_text() == "id,probability\n'-a,0.5\nb,-1.0\n"
    predictions.save(tmp_path / "submission.csv", columns, lines.append, for_spreadsheets=False)
    assert (tmp_path / "submission.csv").read_text() == "id,probability\n-a,0.5\nb,-1.0\n"
    assert ["such as '-a': they are written with a '" in lines[0], "'-a': do not open it" in lines[1]] == [True, True]
    predictions.save(tmp_path / "plain.csv", {"id": np.array(["-1", "b"], object)}, lines.append)
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("text", "ids", "message"),
    [
        (
            "id,x,y\na,0,0\nb,0,0\n",
            ["a", "c"],
            "sample_submission.csv: row 2 has the id 'b', which test.csv does not have",
        ),
        ("id,x,y\na,0,0\n", ["b", "a"], "test.csv: row 1 has the id 'b', which .*sample_submission.csv does not have"),
        ("id,x,y\na,0,0\na,0,0\n", ["a", "b"], "sample_submission.csv: row 2 of column 'id' is 'a', the same as row 1"),
        ("id,x,y\na,0,0\nb,0,0\n", ["a", "b", "a"], "test.csv: row 3 of column 'id' is 'a', the same as row 1"),
        ("id,x,y\na,0,0\n,0,0\n", ["a", "b"], "row 2 of column 'id' is empty"),
        ("id,x\na,0\nb,0\n", ["a", "b"], "has no column 'y'"),
        ("id,x,y,z\na,0,0,0\nb,0,0,0\n", ["a", "b"], "column 'z' is not a class of the run"),
        ("x,y\n0,0\n", ["a"], "has no column 'x'"),
        ("", ["a"], "is empty"),
        ("id,x,y\n", ["a"], "no rows"),
    ],
)
def test_a_mismatched_sample_is_rejected(sample, text, ids, message):
    with pytest.raises(InputError, match=message):
        submission(sample(text), ids, np.full((len(ids), 2), 0.5), "multilabel", ("x", "y"))


def test_a_binary_sample_has_one_column_of_probabilities(sample):
    with pytest.raises(InputError, match="has 2 columns besides the id"):
        submission(sample("id,no,yes\na,0,0\n"), ["a"], [0.5], "binary", ("no", "yes"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.5])
def test_invalid_probabilities_are_rejected_with_row_and_id(sample, wrong):
    scores = np.array([[0.5, 0.5], [0.5, wrong], [0.5, 0.5]])
    with pytest.raises(InputError, match=r"row 2, id 'b'.*is not a probability"):
        predictions.columns(IDS, scores, 0.5, "multilabel", ("x", "y"))
    with pytest.raises(InputError, match=r"id 'b'.*is not a probability"):
        submission(sample("id,x,y\nc,0,0\nb,0,0\na,0,0\n"), IDS, scores, "multilabel", ("x", "y"))
