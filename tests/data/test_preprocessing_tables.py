"""Table preprocessing: statistics of training rows, and the encoding of other rows."""

import json

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from jaxcls._utils.errors import InputError
from jaxcls.data.formats.tables import read_csv
from jaxcls.data.preprocessing import from_record, tables


def words(*values):
    return np.array(values, object)


@pytest.fixture(scope="module")
def columns():
    random = np.random.default_rng(0)
    numbers = random.normal(50, 10, 200)
    numbers[:5] = np.nan
    return {
        "a": numbers,
        "b": random.choice(words("red", "green", ""), 200),
        "c": random.lognormal(0, 3, 200),
        "d": np.full(200, 0.1),
    }


def test_numbers_without_outliers_are_standardized_as_by_scikit_learn():
    values = np.random.default_rng(0).uniform(-3, 8, (5000, 1))
    scaled = tables.fit({"a": values[:, 0]}).transform({"a": values[:, 0]})["numeric"]
    # The trimmed statistics and the smooth clip make a small difference.
    np.testing.assert_allclose(scaled, StandardScaler().fit_transform(values), atol=0.12)


def test_an_outlier_is_clipped_and_does_not_compress_other_values():
    values = np.random.default_rng(0).normal(size=1000)
    with_outlier = np.append(values, 1e12)
    expected = tables.fit({"a": values}).transform({"a": values})["numeric"]
    scaled = tables.fit({"a": with_outlier}).transform({"a": with_outlier})["numeric"]
    np.testing.assert_allclose(scaled[:-1], expected, atol=0.1)
    assert scaled[-1] == pytest.approx(5.0)


def test_encoding_a_row_does_not_depend_on_the_other_rows(columns):
    fitted = tables.fit(columns)
    alone = fitted.transform({name: column[:1] for name, column in columns.items()})
    chex.assert_trees_all_equal(alone, jax.tree.map(lambda array: array[:1], fitted.transform(columns)))


def test_a_missing_number_becomes_the_mean_with_a_flag_if_training_rows_have_missing_numbers(columns):
    encoded = tables.fit(columns).transform({**columns, "c": np.where(np.arange(200) == 7, np.nan, columns["c"])})
    np.testing.assert_array_equal(encoded["missing"][:, 0], np.isnan(columns["a"]))
    np.testing.assert_array_equal(encoded["numeric"][:5, 0], 0.0)
    assert encoded["numeric"][7, 1] == 0.0
    assert encoded["missing"].shape == (200, 1)


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_a_column_that_is_constant_in_training_is_always_zero(value):
    fitted = tables.fit({"a": np.full(5, value)})
    assert fitted.numeric[0].edges == ()
    np.testing.assert_array_equal(fitted.transform({"a": np.array([0.1, 7.0, np.nan])})["numeric"], 0.0)


def test_a_rare_flag_is_not_lost():
    rare = np.zeros(1000)
    rare[3] = 1.0
    scaled = tables.fit({"a": rare}).transform({"a": rare})["numeric"][:, 0]
    assert scaled[3] - scaled[0] > 1


@given(st.lists(st.floats(allow_infinity=False), min_size=1), st.floats(allow_infinity=False))
def test_encoding_is_finite_and_monotonic_for_all_numbers(values, other):
    fitted = tables.fit({"a": np.array(values)})
    (column,) = fitted.numeric
    assert list(column.edges) == sorted(set(column.edges))
    assert len(column.edges) <= 17
    finite = np.sort([value for value in [*values, other] if value == value])
    scaled = fitted.transform({"a": finite})["numeric"]
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max(initial=0) <= 5
    assert (np.diff(scaled[:, 0]) >= 0).all()


def test_edges_are_quantiles_of_the_scaled_rows():
    values = np.random.default_rng(0).normal(size=3201)
    fitted = tables.fit({"a": values})
    scaled = fitted.transform({"a": values})["numeric"][:, 0]
    np.testing.assert_array_equal(fitted.numeric[0].edges, np.sort(scaled)[::200])


@pytest.mark.parametrize(("rows", "bins"), [(10, 2), (600, 3), (10_000, 16)])
def test_number_of_bins_grows_with_the_rows(rows, bins):
    (edges,) = tables.fit({"a": np.arange(float(rows))}).model_arguments["bins"]
    assert len(edges) == bins + 1


def test_words_become_indices_and_unknown_words_0():
    fitted = tables.fit({"b": words("red", "", "green", "red")})
    encoded = fitted.transform({"b": words("red", "green", "", "Red", "blue")})
    assert encoded["categories"].tolist() == [[3], [2], [1], [0], [0]]
    assert encoded["categories"].dtype == np.int32
    assert fitted.model_arguments["cardinalities"] == (4,)


def test_words_that_another_file_reads_as_numbers_keep_their_index(tmp_path):
    """The type of a column is inferred per file."""
    path = tmp_path / "table.csv"
    path.write_text('store\n07\n1.50\nx\n""\n')
    fitted = tables.fit(read_csv(path))
    path.write_text('store\n07\n1.50\n8\n""\n')
    other = read_csv(path)
    assert other["store"].dtype == np.float64
    np.testing.assert_array_equal(
        fitted.transform(other)["categories"], fitted.transform({"store": words("07", "1.50", "8", "")})["categories"]
    )
    assert (fitted.transform(other)["categories"][[0, 1, 3]] > 0).all()


def test_record_round_trips_through_json(columns):
    fitted = tables.fit(columns)
    restored = from_record(json.loads(json.dumps(fitted.as_record())))
    assert restored == fitted
    chex.assert_trees_all_equal(restored.transform(columns), fitted.transform(columns))


def test_column_order_does_not_matter_and_other_columns_are_ignored(columns):
    fitted = tables.fit(columns)
    shuffled = {"label": columns["b"], **dict(reversed(columns.items()))}
    chex.assert_trees_all_equal(fitted.transform(shuffled), fitted.transform(columns))


def test_absent_types_of_columns_give_empty_arrays():
    encoded = tables.fit({"b": words("x", "y")}).transform({"b": words("x")})
    normalized = tables.fit({"b": words("x", "y")}).normalize(encoded)
    assert {name: (array.shape, str(array.dtype)) for name, array in normalized.items()} == {
        "numeric": ((1, 0), "float32"),
        "missing": ((1, 0), "float32"),
        "categories": ((1, 1), "int32"),
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no feature columns"),
        ({"a": np.array([1.0, np.inf])}, "row 2 of column 'a' is inf"),
        ({"a": words(*map(str, "abcdefghijklmnopqrstuvwxyz"))}, "26 distinct words in 26 rows.*make a the id column"),
        ({"a": words(*map(str, range(30)), "?")}, "Most of them are numbers, but not '\\?'"),
    ],
)
def test_fit_rejects_unusable_columns(table, message):
    with pytest.raises(InputError, match=message):
        tables.fit(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "no column 'a'"),
        ({"color": words("x")}, "no column 'b'.* It has: "),
        ({"a": words("1", "NA", "many")}, "row 3 of column 'a' is 'many', which is not a finite number"),
        ({"a": np.array([1.0, -np.inf])}, "row 2 of column 'a' is -inf"),
    ],
)
def test_transform_rejects_columns_that_do_not_match_training(columns, change, message):
    table = {**columns, **change}
    for name in [*(["b"] if "color" in change else []), *(name for name, value in change.items() if value is None)]:
        del table[name]
    with pytest.raises(InputError, match=message):
        tables.fit(columns).transform(table)
