"""Table preprocessing: statistics of training rows, and the encoding of other rows."""

import json

import chex
import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from jaxcls import losses
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import copies, examples
from jaxcls.data.formats import columns as columns_module
from jaxcls.data.formats.tables import read_csv
from jaxcls.data.preprocessing import from_record, tables
from jaxcls.models import functional, tabular
from jaxcls.training import mesh
from jaxcls.training.experiment import Experiment
from jaxcls.training.objective import OutputSpec


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


def test_a_column_that_is_constant_in_training_is_always_zero():
    fitted = tables.fit({"a": np.full(5, 0.1)})
    assert fitted.numeric[0].edges == ()
    np.testing.assert_array_equal(fitted.transform({"a": np.array([0.1, 7.0, np.nan])})["numeric"], 0.0)


def test_a_rare_flag_is_not_lost():
    rare = np.zeros(1000)
    rare[3] = 1.0
    scaled = tables.fit({"a": rare}).transform({"a": rare})["numeric"][:, 0]
    assert scaled[3] - scaled[0] > 1


@given(st.lists(st.floats(allow_infinity=False), min_size=1), st.floats(allow_infinity=False))
def test_encoding_is_finite_and_monotonic_for_all_numbers(values, other):
    fitted = tables.fit({"a": np.array([*values, 0.0])})
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
    assert other["store"].dtype == np.float64  # as a Parquet file holds them
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
        (
            {"a": words(*"abcdefghijklmnopqrstuvwxyz"), "b": np.full(26, np.nan), "c": words(*["?"] * 26)},
            "used: a: 26 distinct words in 26 rows: they name the rows; b: no row has a value; c: no row has a value",
        ),
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
    ],
)
def test_transform_rejects_columns_that_do_not_match_training(columns, change, message):
    table = {**columns, **change}
    for name in [*(["b"] if "color" in change else []), *(name for name, value in change.items() if value is None)]:
        del table[name]
    with pytest.raises(InputError, match=message):
        tables.fit(columns).transform(table)


def fitted_to(*values):
    return tables.fit({"a": words(*values), "b": np.zeros(len(values))})


def encoded(fitted, values):
    """The encoding of each value, alone and in a file with the others, which must be the same."""
    together = fitted.transform({"a": words(*values), "b": np.zeros(len(values))})
    for row, value in enumerate(values):
        alone = fitted.transform({"a": words(value), "b": np.zeros(1)})
        chex.assert_trees_all_equal(alone, jax.tree.map(lambda array, row=row: array[[row]], together))
    return together


def test_words_mean_the_same_whatever_the_other_rows_hold():
    fitted = fitted_to("10", "010", "1E1", "x", "None", "x", "10", "010", "None")
    indices = encoded(fitted, ["10", "010", "1E1", "None", "NA", "", "12"])["categories"][:, 0]
    # A missing value is unknown where training rows have none.
    assert len(set(indices[:4])) == 4
    assert indices[4:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("stray", ["?", "#N/A", "45%", "1,234", "about 4", "inf", "$ 3.50"])
def test_a_stray_word_does_not_turn_numbers_into_categories(stray):
    numbers = [str(number / 4) for number in range(60)]
    fitted = fitted_to(*numbers, stray)
    ((name, type_, why), _) = fitted.types
    assert (name, type_) == ("a", "number")
    read = {"45%": 45.0, "1,234": 1234.0, "$ 3.50": 3.5}
    value = encoded(fitted, [stray, "NA", "7"])
    assert (value["numeric"][0, 0] == 0) == (stray not in read)
    if stray in read:
        np.testing.assert_array_equal(value["numeric"][0], encoded(fitted, [str(read[stray])])["numeric"][0])
    elif stray in ("about 4", "inf"):
        assert f"1 are no numbers and count as missing, such as {stray!r}" in why
        assert fitted.unfamiliar({"a": words("1", stray)}) == [
            f"column 'a': 1 of 2 rows hold no numbers, such as {stray!r}; they count as missing"
        ]


def test_a_category_of_which_most_words_are_numbers_is_warned_of():
    ((_, type_, why), _) = fitted_to(*["1", "2", "3", "K"] * 6).types
    assert type_ == "category"
    assert "warning: 75% are numbers, but not 'K'" in why


def test_decimal_commas():
    fitted = tables.fit({"a": words("1,5", "1.234,5", "2", "-3,25e2")}, decimal=",")
    expected = tables.fit({"a": np.array([1.5, 1234.5, 2.0, -325.0])})
    assert fitted.numeric == expected.numeric
    assert from_record(json.loads(json.dumps(fitted.as_record()))) == fitted


@pytest.mark.parametrize(
    ("format", "spelled"),
    [
        ("ISO 8601", "%Y-%m-%d"),
        ("ISO 8601", "%Y-%m-%dT%H:%M:%S"),
        ("ISO 8601", "%Y-%m-%d %H:%M:%S+00:00"),
        ("%m/%d/%Y", "%m/%d/%Y %I:%M %p"),
        ("%d/%m/%Y", "%d/%m/%Y"),
        ("%d.%m.%Y", "%d.%m.%Y %H:%M"),
        ("%d %B %Y", "%d %B %Y"),
        ("%b %d, %Y", "%b %d, %Y"),
    ],
)
def test_dates_become_elapsed_days_and_parts(format, spelled):
    times = np.arange("2023-01-05", "2024-06-01", 13 * 3600, dtype="datetime64[s]")
    spelled_times = [time.strftime(spelled) for time in times.tolist()]
    fitted = fitted_to(*spelled_times, "", "soon")
    assert fitted.dates == {"a": format}
    parts = columns_module.date_parts(words(*spelled_times, "soon"), "a", format)
    has_time = "%M" in spelled
    exact = times.astype("datetime64[m]") if has_time else times.astype("datetime64[D]")
    days = exact.astype("datetime64[s]").astype(np.int64) / 86_400
    if "%S" in spelled:
        days = times.astype(np.int64) / 86_400
    np.testing.assert_allclose(parts["a (days)"][:-1], days)
    np.testing.assert_array_equal(parts["a (month)"][:-1], [time.month for time in times.tolist()])
    np.testing.assert_array_equal(parts["a (weekday)"][:-1], [time.weekday() for time in times.tolist()])
    assert all(np.isnan(values[-1]) for values in parts.values())
    assert ("a (hour)" in {column.name for column in fitted.numeric}) == has_time
    encoded(fitted, [*spelled_times[:3], "", "soon"])


def test_texts_become_n_grams_of_length_1():
    texts = [f"a {size} dog that {verb}" for size in ("big", "small", "tiny") for verb in ("barks", "sleeps")] * 4
    fitted = fitted_to(*(f"{text} {row}" for row, text in enumerate(texts)))
    assert {"big", "tiny dog", "barks"} <= set(fitted.texts["a"])
    array = encoded(fitted, ["A BIG dog, that", "", "nothing known"])["ngrams"]
    known = [fitted.texts["a"][index] for index in np.flatnonzero(array[0])]
    assert known == ["a big", "big", "big dog"]  # 'dog' occurs in every row
    normalized = fitted.normalize(fitted.transform({"a": words("A BIG dog"), "b": np.zeros(1)}))["ngrams"]
    np.testing.assert_allclose(np.linalg.norm(normalized), 1, rtol=1e-6)


def test_of_many_words_the_frequent_ones_are_categories():
    random = np.random.default_rng(0)
    frequent = random.choice(["red", "green"], 300)
    fitted = fitted_to(*frequent, *(f"word{row}" for row in range(299)))
    assert fitted.categories[0].words == ("green", "red")
    assert encoded(fitted, ["word3", "red"])["categories"][:, 0].tolist() == [0, 2]
    ((_, _, why), _) = (fitted := fitted_to(*(f"zip{row % 1200}" for row in range(6000)))).types
    assert why == "1,200 distinct words, of which the most frequent 1,000 are distinguished"
    assert len(fitted.categories[0].words) == 1000


def test_words_are_the_same_in_every_unicode_form():
    one, other = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    texts = [f"a {word} and {row} more" for row in range(21) for word in (one, other, "bar")]
    fitted = tables.fit({one: words(*[one, other, "b"] * 21), "text": words(*texts)})
    assert fitted.categories[0].words == ("b", one)
    # As in an exported loader, whose columns have names of any form.
    table = {other: [other, "b", one], "text": [other, one, "bar"]}
    arrays = columns_module.encode(table, fitted.as_record())
    assert arrays["categories"][:, 0].tolist() == [2, 1, 2]
    np.testing.assert_array_equal(arrays["ngrams"][0], arrays["ngrams"][1])
    assert arrays["ngrams"][0].any()
    assert columns_module.unfamiliar(table, fitted.as_record()) == []


def mixed_table(rows, seed=0):
    """Columns of every type, in which some words are rare."""
    random = np.random.default_rng(seed)
    days = np.datetime64("2023-01-05") + random.integers(0, 400, rows)
    return {
        "number": np.where(random.random(rows) < 0.1, np.nan, random.lognormal(size=rows)),
        "spelled": words(*(f"{value:.1f}%" for value in random.normal(size=rows))),
        "count": random.poisson(0.7, rows).astype(float),
        "color": random.choice(words(*"abcdefgh", ""), rows),
        "many": words(*(f"word{int(value)}" for value in random.lognormal(3, 1.5, rows))),
        "day": words(*map(str, days)),
        "text": words(*(" ".join(random.choice(words(*"uvwxyz"), 4)) for _ in range(rows))),
    }


def rows_of(table, rows):
    return {name: column[rows] for name, column in table.items()}


@pytest.mark.parametrize("rows", [60, 700])
def test_refitting_to_the_same_rows_changes_nothing(rows):
    table = mixed_table(rows)
    fitted = tables.fit(table)
    assert {type_ for _, type_, _ in fitted.types} >= {"number", "category", "date", "text"}
    assert fitted.refit(table) == fitted
    assert fitted.refit(dict(reversed(table.items()))) == fitted


def test_numbers_of_bins_words_and_n_grams_are_rounded_up_and_what_is_added_is_zero():
    table = mixed_table(700)
    fitted = tables.fit(table)
    rounded = fitted.rounded()
    assert rounded != fitted
    assert rounded.rounded() == rounded
    for expected, encoded in zip(fitted.transform(table).values(), rounded.transform(table).values(), strict=True):
        np.testing.assert_array_equal(encoded[:, : expected.shape[1]], expected)
        np.testing.assert_array_equal(encoded[:, expected.shape[1] :], 0)
    bins = [[tabular.PiecewiseLinear([column.edges]) for column in one.numeric] for one in (fitted, rounded)]
    for numbers, (encode, encode_more) in zip(
        fitted.transform(table)["numeric"].T, zip(*bins, strict=True), strict=True
    ):
        expected, encoded = (one(jax.numpy.asarray(numbers)[:, None]) for one in (encode, encode_more))
        np.testing.assert_array_equal(encoded[:, : expected.shape[1]], expected)
        np.testing.assert_array_equal(encoded[:, expected.shape[1] :], 0)


def test_a_refitted_preprocessor_knows_the_rows_of_its_fold_only():
    """Each of its statistics is that of a fit to the rows, and held-out rows change none."""
    table = mixed_table(700)
    rows = np.flatnonzero(np.arange(700) % 5 > 0)
    fitted, alone = tables.fit(table), tables.fit(rows_of(table, rows))
    refitted = fitted.refit(rows_of(table, rows))
    assert refitted.program == fitted.program
    assert [column[:3] for column in refitted.numeric] == [column[:3] for column in alone.numeric]
    for ours, expected in zip(refitted.numeric, alone.numeric, strict=True):
        assert tuple(dict.fromkeys(ours.edges)) == expected.edges
    known = refitted.categories[0].words
    assert known == alone.categories[0].words
    assert set(refitted.texts["text"]) - {None} == set(alone.texts["text"])

    held_out = np.flatnonzero(np.arange(700) % 5 == 0)
    leaking = {name: column.copy() for name, column in table.items()}
    leaking["number"][held_out] *= 1000
    leaking["count"][held_out] += 1
    leaking["color"][held_out] = "a"
    leaking["text"][held_out] = "u v w x"
    other = tables.fit(leaking)
    assert other != fitted
    for column, theirs in zip(other.refit(rows_of(table, rows)).numeric, refitted.numeric, strict=True):
        assert column[:4] == theirs[:4]
    assert fitted.refit(rows_of(leaking, rows)) == refitted


def test_words_that_a_fold_lacks_are_unknown_to_it():
    table = {"color": words(*"aabbccdd"), "size": np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0])}
    fitted = tables.fit(table)
    refitted = fitted.refit(rows_of(table, np.array([2, 3, 0])))
    assert refitted.categories[0].words == ("a", "b", None, None)
    # A column that is constant in these rows.
    assert refitted.numeric[0] == ("size", 1.0, 0.0, False, (0.0,) * len(fitted.numeric[0].edges))
    restored = from_record(json.loads(json.dumps(refitted.as_record())))
    assert restored == refitted
    for one in (refitted, restored):
        encoded = one.transform(table)
        assert encoded["categories"][:, 0].tolist() == [1, 1, 2, 2, 0, 0, 0, 0]
        np.testing.assert_array_equal(encoded["numeric"], 0)
    assert refitted.transform({"color": words("", None), "size": np.zeros(2)})["categories"].tolist() == [[0], [0]]
    (line,) = refitted.unfamiliar(table)
    assert "4 of 8 rows hold words" in line


@settings(deadline=None, max_examples=3)
@given(st.integers(0, 2**32 - 1), st.integers(20, 300))
def test_folds_have_the_same_program(seed, rows):
    """The lowered step contains no value of a preprocessor, and so serves all with an equal `program`."""
    table, labels = mixed_table(rows, seed), np.arange(rows) % 2
    train_rows = np.random.default_rng(seed).permutation(rows)[: rows - rows // 4]
    fitted = tables.fit(table)
    refitted = fitted.refit(rows_of(table, train_rows))
    assert hash(refitted.program) == hash(fitted.program)
    assert refitted.program == fitted.program

    def text(preprocessor):
        arguments = preprocessor.model_arguments
        experiment = Experiment(
            model=functional(lambda rngs: tabular.TabularMLP(num_classes=2, rngs=rngs, **arguments)),
            objective=OutputSpec("multiclass", losses.get("sparse_categorical_crossentropy", "multiclass"), {}),
            optimizer=optax.sgd(0.1),
            preprocess=preprocessor.normalize,
        )
        batch = copies(examples(preprocessor.transform(table), labels), 16)
        init = experiment._init_on(mesh.make())
        lowered = init.func.lower(np.uint32(0), **init.keywords)
        return lowered.as_text(), experiment.train_step.lower(experiment.state_shapes, batch).as_text()

    assert text(fitted) == text(refitted)
