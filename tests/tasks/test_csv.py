"""The csv task: from a user-supplied table to a data set and a run."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data.formats.tables import read_csv, write_csv
from jaxcls.tasks import csv as task_csv
from jaxcls.tasks.build import specialized, with_recipe
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings


def table(rows=60, seed=0):
    """A table with numbers, some of them missing, words, ids, weights, and labels of each problem."""
    random = np.random.default_rng(seed)
    size = random.normal(10, 3, rows)
    color = random.choice(["red", "green", ""], rows)
    kind = np.where(color == "red", "fruit", np.where(size > 10, "tree", "herb"))
    return {
        "id": [f"00{row}" for row in range(rows)],
        "size": np.where(random.random(rows) < 0.1, np.nan, size),
        "color": color,
        "weight": np.full(rows, 0.5),
        "kind": kind,
        "big": (size > 10).astype(int),
        "red": (color == "red").astype(int),
    }


@pytest.fixture
def settings(tmp_path):
    write_csv(tmp_path / "plants.csv", table())
    return Settings(
        task="csv", data=tmp_path / "plants.csv", label_column=("kind",), weight_column="weight", id_column="id",
        drop_column=("big", "red"),
    )  # fmt: skip


def load(settings):
    task = specialized(settings)
    return task.load(with_recipe(task, settings))


@pytest.mark.parametrize(
    ("label_column", "drop_column", "problem", "class_names"),
    [
        (("kind",), ("big", "red"), "multiclass", ("fruit", "herb", "tree")),
        (("big",), ("kind", "red"), "binary", ("0", "1")),
        (("big", "red"), ("kind",), "multilabel", ("big", "red")),
    ],
)
def test_the_label_columns_decide_the_problem(settings, label_column, drop_column, problem, class_names):
    changed = dataclasses.replace(settings, label_column=label_column, drop_column=drop_column)
    assert specialized(changed).problem == problem
    data = load(changed)
    assert data.class_names == class_names
    assert list(data.train.inputs) == ["size", "color"]
    assert (len(data.train.labels), len(data.test.labels)) == (48, 12)
    np.testing.assert_array_equal(data.train.sample_weight, np.full(48, 0.5, np.float32))


def test_a_large_table_and_a_single_perceptron_train_for_fewer_epochs(settings, monkeypatch):
    small = with_recipe(specialized(settings), settings)
    mlp = dataclasses.replace(settings, model="mlp")
    assert with_recipe(specialized(mlp), mlp).epochs < small.epochs
    monkeypatch.setattr(task_csv, "LARGE_ROWS", 60)
    large = with_recipe(specialized(settings), settings)
    assert large.epochs < small.epochs
    assert large.batch_size > small.batch_size
    assert large.loss == small.loss == "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("kind", "shrub", "row 3 of column 'kind' is 'shrub', which is not a class; these are"),
    ],
)
def test_an_invalid_row_of_the_test_file_is_named(settings, tmp_path, column, value, message):
    path = tmp_path / "later.csv"
    columns = {name: list(map(str, values)) for name, values in table(8, seed=1).items()}
    columns[column][2] = value
    write_csv(path, columns)
    with pytest.raises(InputError, match=f"later.csv: {message}"):
        load(dataclasses.replace(settings, test_data=path))


def test_a_renamed_column_of_the_test_file_is_suggested(settings, tmp_path):
    columns = table(8)
    columns["Color"] = columns.pop("color")
    write_csv(tmp_path / "later.csv", columns)
    with pytest.raises(InputError, match=r"later.csv: has no column 'color'\. Did you mean 'Color'\?"):
        load(dataclasses.replace(settings, test_data=tmp_path / "later.csv"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": ["tree"] * 60}, "plants.csv: column 'kind' is 'tree' in every row"),
        ({"kind": ["", "NA"] * 30}, "plants.csv: row 1 of column 'kind' is ''"),
        ({"weight": [-1.0] * 60}, "row 1 of column 'weight' is '-1'"),
        ({"id": ["1"] * 60}, "plants.csv: row 2 of column 'id' is '1', the same as row 1"),
    ],
)
def test_an_invalid_training_row_is_named(settings, changes, message):
    write_csv(settings.data, {**table(), **changes})
    with pytest.raises(InputError, match=message):
        load(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_column": None}, "--task csv needs --label-column"),
        ({"label_column": ("knid",)}, "no column 'knid'. Did you mean 'kind'"),
        ({"drop_column": ("size", "color", "big", "red")}, "no feature columns besides"),
        ({"data": None}, "--label-column goes with --data"),
        ({"source": "tfds"}, "not with tfds"),
    ],
)
def test_settings_that_do_not_match_the_table_are_rejected(settings, changes, message):
    with pytest.raises(InputError, match=message):
        load(dataclasses.replace(settings, **changes))


def test_columns_that_cannot_be_used_are_left_out_at_once(settings):
    names = [f"plant {row}" for row in range(60)]
    write_csv(settings.data, {**table(), "name": names, "alias": names, "row_id": range(60), "empty": ["?"] * 60})
    fitted = task_csv.TASK.fit_preprocessor(load(settings).train.inputs, settings)
    unused = {name: why for name, type_, why in fitted.types if type_ == "unused"}
    assert unused.keys() == {"name", "alias", "row_id", "empty"}
    assert unused["name"] == "48 distinct words in 48 rows: they name the rows"


def test_a_duplicate_id_among_rows_to_predict_is_named(settings, tmp_path):
    write_csv(tmp_path / "new.csv", {**table(3), "id": ["7", "8", "7"]})
    fitted = task_csv.TASK.fit_preprocessor(load(settings).train.inputs, settings)
    with pytest.raises(InputError, match=r"new.csv: row 3 of column 'id' is '7', the same as row 1"):
        task_csv.read(tmp_path / "new.csv", settings, fitted)


def test_rows_to_predict_need_neither_labels_nor_weights(settings, tmp_path):
    new = table(4, seed=3)
    write_csv(tmp_path / "new.csv", {name: new[name] for name in ("id", "color", "size", "big", "red")})
    fitted = task_csv.TASK.fit_preprocessor(load(settings).train.inputs, settings)
    rows = task_csv.read(tmp_path / "new.csv", settings, fitted)
    assert rows.ids.tolist() == ["000", "001", "002", "003"]
    assert fitted.transform(rows.inputs)["numeric"].shape == (4, 1)


def test_the_sample_is_real_complete_and_verified(monkeypatch, tmp_path):
    sample = Settings(task="csv")
    data = load(sample)
    assert (len(data.train.labels), len(data.test.labels), len(data.train.inputs)) == (142, 36, 13)
    assert data.provenance.source == "sample"
    assert not data.provenance.synthetic
    fitted = task_csv.TASK.fit_preprocessor(data.train.inputs, sample)
    assert len(task_csv.read(task_csv.SAMPLE, sample, fitted).ids) == 178

    altered = tmp_path / "wine.csv"
    altered.write_bytes(task_csv.SAMPLE.read_bytes().replace(b"14.23", b"14.32"))
    altered.with_name("SHA256SUMS").write_bytes(task_csv.SAMPLE.with_name("SHA256SUMS").read_bytes())
    monkeypatch.setattr(task_csv, "SAMPLE", altered)
    with pytest.raises(InputError, match="Install jaxcls again"):
        load(sample)


def test_the_sample_equals_the_wine_data_of_scikit_learn():
    from sklearn.datasets import load_wine

    wine, columns = load_wine(), read_csv(task_csv.SAMPLE)
    classes = columns.pop("class")
    np.testing.assert_array_equal(np.stack(list(columns.values()), axis=1), wine.data)
    np.testing.assert_array_equal(classes, wine.target_names[wine.target])


@pytest.mark.slow
def test_a_run_learns_the_table_and_saves_its_preprocessor(settings, tmp_path):
    write_csv(settings.data, table(400))
    result = train_task(dataclasses.replace(settings, run_dir=tmp_path / "run", epochs=10), say=lambda line: None)
    # A tenth of the rows have no size, and of those two thirds can be guessed: 0.97 is the maximum.
    assert result.report["metrics"]["accuracy"] > 0.85
    record = json.loads((tmp_path / "run" / "predictor.json").read_text())
    assert record["class_names"] == ["fruit", "herb", "tree"]
    assert record["preprocessor"]["type"] == "tables"


def passengers(rows, seed):
    """A table like that of the Titanic: numbers, categories with gaps, dates, texts, names and ids."""
    random = np.random.default_rng(seed)
    female, port = random.random(rows) < 0.4, random.choice(["S", "C", "Q", ""], rows, p=[0.6, 0.2, 0.1, 0.1])
    age, fare, day = random.normal(30, 12, rows).clip(1), random.lognormal(3, 0.8, rows), random.integers(0, 700, rows)
    ill = random.random(rows) < 0.4
    score = 2.0 * female + 0.5 * (port == "C") - 0.02 * age + 0.3 * np.log(fare) - 1.2 * ill + np.sin(day / 110) - 0.8
    notes = np.where(ill, "complains of a high fever", "in good health and well fed")
    return {
        "PassengerId": np.arange(rows) + 1,
        "Survived": (random.random(rows) < 1 / (1 + np.exp(-score))).astype(int),
        "Name": [f"Doe{random.integers(10**6)}" for _ in range(rows)],
        "Sex": np.where(female, "female", "male"),
        "Age": np.where(random.random(rows) < 0.2, np.nan, age.round(1)),
        "Fare": [f"{value:.2f}" if row % 97 else "unknown" for row, value in enumerate(fare)],
        "Embarked": port,
        "Booked": (np.datetime64("2021-01-04") + day).astype(str),
        "Notes": [f"Cabin {random.integers(90)}, {note}" for note in notes],
    }


@pytest.mark.slow
def test_a_table_like_that_of_the_titanic_needs_no_flag_but_the_label(tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    train, test = passengers(891, 0), passengers(418, 1)
    write_csv(tmp_path / "train.csv", train)
    write_csv(tmp_path / "test.csv", test)
    lines: list[str] = []
    options = {"data": tmp_path / "train.csv", "test_data": tmp_path / "test.csv", "run_dir": tmp_path / "run"}
    result = train_task(Settings(task="csv", label_column=("Survived",), **options), say=lines.append)
    # On a busy machine, lines about its progress come before.
    (listed,) = (line for line in lines if line.startswith("PassengerId"))
    types = {line.split()[0]: line.split()[1] for line in listed.splitlines()}
    assert types == {
        "PassengerId": "unused", "Name": "unused", "Sex": "category", "Age": "number", "Fare": "number",
        "Embarked": "category", "Booked": "date", "Notes": "text",
    }  # fmt: skip

    def features(table):
        fare = np.array([np.nan if word == "unknown" else float(word) for word in table["Fare"]])
        numbers = [np.nan_to_num(column, nan=30.0) for column in (table["Age"], fare)]
        return np.stack([*numbers, table["Sex"] == "male", *(table["Embarked"] == port for port in "SCQ")], axis=1)

    scaled = LogisticRegression(max_iter=5000).fit(features(train), train["Survived"])
    expected = roc_auc_score(test["Survived"], scaled.predict_proba(features(test))[:, 1])
    assert result.report["metrics"]["roc_auc"] > expected
