"""User-supplied tables: labels and the problem they imply, weights, ids, the test split."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import LabelEncoder

from jaxcls._utils.errors import InputError
from jaxcls.data import user_tables
from jaxcls.data.dataset import Split
from jaxcls.data.formats.tables import write_csv
from jaxcls.data.user_tables import TableColumns

words = st.text("abc ", min_size=1, max_size=3).filter(str.strip)


def objects(values):
    return np.array(values, object)


def column(values):
    """A column as read from a CSV file: numbers as float64, words as objects."""
    return objects(values) if isinstance([*values, 0][0], str) else np.array(values, np.float64)


@given(st.lists(words, min_size=2, max_size=4, unique_by=str.strip), st.data())
def test_words_are_encoded_as_by_scikit_learn(classes, data):
    values = [*classes, *classes, *data.draw(st.lists(st.sampled_from(classes), max_size=20))]
    labels = user_tables.infer_labels({"y": objects(values)}, ["y"], "rows.csv")
    encoder = LabelEncoder().fit([value.strip() for value in values])
    assert labels.class_names == tuple(encoder.classes_)
    np.testing.assert_array_equal(labels.values, encoder.transform([value.strip() for value in values]))
    assert labels.values.dtype == np.int32
    assert labels.problem == ("binary" if len(classes) == 2 else "multiclass")


@given(st.sets(st.integers(-(10**6), 10**6), min_size=2, max_size=8))
def test_numbers_are_sorted_numerically_and_independent_of_their_spelling(classes):
    order = sorted(classes)
    values = [*classes, *order]
    expected = [order.index(value) for value in values]
    as_text = [objects([f"{value}{end}" for value in values]) for end in ("", ".", ".0")]
    for written in [np.array(values, float), *as_text]:
        labels = user_tables.infer_labels({"y": written}, ["y"], "rows.csv")
        assert labels.class_names == tuple(map(str, order))
        assert labels.values.tolist() == expected


def test_several_columns_of_0_and_1_are_a_multilabel_problem():
    columns = {"a": np.array([0.0, 1.0]), "b": objects(["1", "0"]), "c": objects(["True", "False"])}
    values, problem, class_names = user_tables.infer_labels(columns, ["c", "a", "b"], "rows.csv")
    assert problem == "multilabel"
    assert class_names == ("c", "a", "b")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [[1, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"y": ["a", "b"]}, ["label"], "rows.csv: has no column 'label'"),
        ({"y": ["a", "b", "", "a"]}, ["y"], "rows.csv: row 3 of column 'y' is ''"),
        ({"y": ["a", "nan", "b", "a"]}, ["y"], "row 2 of column 'y' is 'nan'"),
        ({"y": [1.0, 0.0, 1.0, np.nan]}, ["y"], "row 4 of column 'y' is 'nan'"),
        ({"y": [1.0, 0.0, np.inf, 0.0]}, ["y"], "row 3 of column 'y' is 'inf'"),
        ({"y": ["a", "a "]}, ["y"], "'y' is 'a' in every row; classification needs two classes"),
        ({"y": np.arange(10.0)}, ["y"], "10 distinct values in 10 rows.*a quantity, as in regression"),
        ({"y": np.arange(100) % 25 / 2}, ["y"], "25 distinct values in 100 rows.*a quantity"),
        ({"y": list("abcdefgh")}, ["y"], "8 distinct values in 8 rows.*names or ids"),
        ({"y": np.array([])}, ["y"], "rows.csv has no rows"),
        ({"a": [0.0, 1.0], "b": [0.0, 2.0]}, ["a", "b"], "row 2 of column 'b' is '2', but several label columns"),
        ({"a": [0.0, 1.0], "b": [np.nan, 1.0]}, ["a", "b"], "row 1 of column 'b' is 'nan'"),
        ({"a": [0.0, 1.0], "b": [0.0, 0.0]}, ["a", "b"], "'b' is 0 in every row"),
        ({"a": [0.0, 1.0]}, ["a", "a"], "the label columns are 'a, a'; give one, or several different ones"),
    ],
)  # fmt: skip
def test_unusable_labels_are_rejected(columns, names, message):
    columns = {name: column(values) for name, values in columns.items()}
    with pytest.raises(InputError, match=message):
        user_tables.infer_labels(columns, names, "rows.csv")


@pytest.mark.parametrize("training", [["1", "2", "x", "1", "2", "x"], ["1", "2", "3", "1", "2", "3"]])
def test_test_labels_must_be_training_classes(training):
    known = user_tables.infer_labels({"y": objects(training)}, ["y"], "train.csv")
    # Numbers alone, where the training labels had a word among them, are read as numbers.
    names = known.class_names
    assert user_tables.encode_labels(names, {"y": np.array([2.0, 1.0])}, ["y"], "test.csv").tolist() == [1, 0]
    with pytest.raises(InputError, match=r"test.csv: row 2 of column 'y' is '4'.*these are 1, 2, "):
        user_tables.encode_labels(names, {"y": np.array([2.0, 4.0])}, ["y"], "test.csv")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], "row 2 of column 'w' is '-1', but a sample weight is 0 or more"),
        ([1.0, np.nan], "row 2 of column 'w' is empty"),
        ([0.0, 0.0], "'w' is 0 in every row"),
        (["1", "heavy"], "row 2 of column 'w' is 'heavy'"),
    ],
)
def test_weights_are_finite_and_not_negative(weights, message):
    with pytest.raises(InputError, match=f"rows.csv: .*{message}"):
        user_tables.sample_weights({"w": column(weights)}, "w", "rows.csv")


def test_ids_are_read_verbatim_and_unique():
    assert user_tables.row_ids({"id": objects(["007", "1.0"])}, "id", "rows.csv").tolist() == ["007", "1.0"]
    for ids, message in (
        (["a", "b", "a"], "row 3 of column 'id' is 'a', the same as row 1"),
        (["a", ""], "row 2 .* is empty"),
    ):
        with pytest.raises(InputError, match=message):
            user_tables.row_ids({"id": objects(ids)}, "id", "rows.csv")


@given(st.lists(st.integers(0, 2), min_size=8, max_size=60), st.floats(0.05, 0.95))
def test_training_and_test_rows_together_are_all_rows(values, fraction):
    values[:2] = [0, 0]
    part = Split(
        {"x": np.arange(len(values), dtype=float)}, np.array(values, np.int32), np.ones(len(values), np.float32)
    )
    train, test = user_tables.hold_out_test(part, fraction, "rows.csv")
    assert sorted([*train.inputs["x"], *test.inputs["x"]]) == list(range(len(values)))
    assert min(len(train.labels), len(test.sample_weight)) > 0


@pytest.fixture
def table(tmp_path):
    columns = {
        "name": [f"{number:03}" for number in range(40)],
        "x": np.arange(40.0),
        "junk": ["-"] * 40,
        "y": ["no", "no", "no", "yes"] * 10,
        "w": np.full(40, 0.5),
    }
    path = tmp_path / "rows.csv"
    write_csv(path, columns)
    return path


COLUMNS = TableColumns(label=("y",), weight="w", id="name", drop=("junk",))


def load(data, columns=COLUMNS, test_fraction=0.25, **others):
    return user_tables.load("csv", data, columns, test_fraction=test_fraction, **others)


def test_a_fraction_of_a_table_is_held_out_for_the_test(table):
    data = load(table)
    assert list(data.train.inputs) == ["x"]
    assert (len(data.train.labels), len(data.test.labels)) == (30, 10)
    assert data.class_names == ("no", "yes")
    np.testing.assert_array_equal(data.train.labels, data.train.inputs["x"] % 4 == 3)
    np.testing.assert_array_equal(data.train.sample_weight, np.full(30, 0.5, np.float32))
    assert "10 rows held out" in data.provenance.note
    assert "the positive class is 'yes'" in data.provenance.note
    assert list(data.provenance.sha256) == ["data"]


@pytest.mark.parametrize(("role", "trained"), [("validation", 30), ("test", 40)])
def test_all_rows_of_another_table_are_used_and_it_needs_no_weights(table, tmp_path, role, trained):
    write_csv(tmp_path / "other.csv", {"name": ["a", "b"], "x": [1.0, 2.0], "junk": ["", ""], "y": ["yes", "no"]})
    data = load(table, **{f"{role}_data": tmp_path / "other.csv"})
    assert len(data.train.labels) == trained
    assert getattr(data, role).labels.tolist() == [1, 0]
    assert getattr(data, role).sample_weight is None
    assert list(data.provenance.sha256) == ["data", f"{role}_data"]


def test_rows_to_predict_need_no_labels_and_keep_their_ids(tmp_path):
    write_csv(tmp_path / "new.csv", {"name": ["007", "008"], "x": [1.0, 2.0], "junk": ["", ""]})
    rows = user_tables.read_unlabeled(tmp_path / "new.csv", COLUMNS)
    assert rows.ids.tolist() == ["007", "008"]
    assert rows.inputs["x"].tolist() == [1.0, 2.0]
    rows = user_tables.read_unlabeled(tmp_path / "new.csv", COLUMNS, ["x"])
    assert rows.inputs["x"].tolist() == ["1.0", "2.0"]


def test_a_text_column_is_the_only_input_and_is_read_as_text(table):
    data = load(table, TableColumns(label=("y",), text="name"))
    assert sorted([*data.train.inputs, *data.test.inputs]) == [f"{number:03}" for number in range(40)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ("jnuk",)}, "no column 'jnuk'. Did you mean 'junk'"),
        ({"weight": "y"}, "column 'y' is both a label and a weight column"),
        ({"drop": ("y",)}, "column 'y' is both a label and a drop column"),
        ({"id": "w", "weight": None}, "row 2 of column 'w' is '0.5', the same as row 1"),
        ({"label": ("name",), "id": None}, "40 distinct values in 40 rows"),
        ({"drop": ("x", "junk")}, "has no feature columns"),
        ({"text": "txt"}, "has no column 'txt'"),
    ],
)
def test_columns_that_do_not_fit_the_table_are_rejected(table, changes, message):
    with pytest.raises(InputError, match=message):
        load(table, dataclasses.replace(COLUMNS, **changes))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_test_fraction_outside_0_and_1_is_rejected(table, fraction):
    with pytest.raises(InputError, match=r"rows.csv: fraction is .*; it must be"):
        load(table, test_fraction=fraction)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    spellings = ["", "NA", "null", "N/A", "?", "nan"]
    labels = [*["yes", "no"] * 10, *spellings]
    write_csv(tmp_path / "rows.csv", {"x": np.arange(26.0), "y": labels})
    data = load(tmp_path / "rows.csv", TableColumns(label=("y",)), test_data=tmp_path / "rows.csv")
    assert data.class_names == ("no", "yes")
    for split in (data.train, data.test):
        np.testing.assert_array_equal(split.inputs["x"], np.arange(20.0))
        np.testing.assert_array_equal(split.labels, [1, 0] * 10)
    assert data.provenance.note.count("6 rows without a label left out") == 2


def test_gaps_of_several_label_columns_are_unknown_labels(tmp_path):
    write_csv(
        tmp_path / "rows.csv", {"x": np.arange(5.0), "a": ["1", "", "0", "1", "?"], "b": ["NA", "1", "0", "1", ""]}
    )
    data = load(tmp_path / "rows.csv", TableColumns(label=("a,b",)), test_data=tmp_path / "rows.csv")
    np.testing.assert_array_equal(data.train.labels, [[1, np.nan], [np.nan, 1], [0, 0], [1, 1]])
    assert "1 rows without a label left out" in data.provenance.note


def test_lists_of_columns_may_be_joined_by_commas(table):
    assert list(load(table, dataclasses.replace(COLUMNS, drop=("junk,w",), weight=None)).train.inputs) == ["x"]


def test_an_index_without_a_name_is_the_id(tmp_path):
    (tmp_path / "rows.csv").write_text(",x,y\n" + "".join(f"r{row},{row},{row % 2}\n" for row in range(10)))
    assert list(load(tmp_path / "rows.csv", TableColumns(label=("y",))).train.inputs) == ["x"]
    rows = user_tables.read_unlabeled(tmp_path / "rows.csv", TableColumns(label=("y",)))
    assert rows.ids.tolist() == [f"r{row}" for row in range(10)]


def test_names_with_accents_are_the_same_in_every_unicode_form(tmp_path):
    one, other = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"
    path = tmp_path / "rows.csv"
    path.write_text(f"id,{other}t{other},label\n" + f"{other}1,{one},{one}\n{one}2,{other},{other}\na,b,n\nb,b,n\n")
    columns = user_tables.TableColumns(label=("label",), id="id")
    labels, _ = user_tables.read_labels(path, columns)
    assert labels.class_names == ("n", one)
    examples = user_tables.read_unlabeled(path, columns)
    assert examples.ids.tolist() == [f"{other}1", f"{one}2", "a", "b"]
    assert [*examples.inputs] == [f"{one}t{one}"]
    matched = user_tables.match_ids(np.array([f"{other}2", f"{one}1", "a", "b"]), examples.ids, "sample.csv", path)
    assert matched.tolist() == [1, 0, 2, 3]
