"""The leaf task: Kaggle's three files, pitfalls, and errors."""

import codecs

import kaggle_leaves
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from jaxcls import metrics, tasks
from jaxcls._utils.errors import InputError
from jaxcls.data import predictions
from jaxcls.data.datasets import kaggle_tables
from jaxcls.data.formats.tables import read_csv
from jaxcls.tasks import build
from jaxcls.training.settings import Settings

TASK = tasks.get("leaf")
GROUPS = ("margin", "shape", "texture")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Files of the size of Kaggle's files."""
    folder = tmp_path_factory.mktemp("written")
    kaggle_leaves.write(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A few leaves, to edit."""
    kaggle_leaves.write(tmp_path, species=3, per_class=5, queries=2)
    return tmp_path


def load(folder, **settings):
    return TASK.load(build.with_recipe(TASK, Settings(task="leaf", data_dir=folder, **settings)))


def test_the_sample_has_the_layout_of_kaggles_files(written):
    train, test, submission = (
        read_csv(written / f"{name}.csv", text=("species",)) for name in ("train", "test", "sample_submission")
    )
    features = [f"{group}{number}" for group in GROUPS for number in range(1, 65)]
    assert list(train) == ["id", "species", *features]
    assert list(test) == ["id", *features]
    assert list(submission) == ["id", *sorted(set(train["species"]))]
    assert (len(train["id"]), len(test["id"]), len(submission)) == (990, 594, 100)
    assert sorted([*train["id"], *test["id"]]) == list(range(1, 1585))
    np.testing.assert_array_equal(submission["id"], test["id"])

    margin, shape, texture = (np.stack([train[f"{group}{i}"] for i in range(1, 65)], axis=1) for group in GROUPS)
    for histogram in (margin, texture):
        np.testing.assert_allclose(histogram.sum(axis=1), 1, atol=1e-4)
        assert 0.3 < (histogram == 0).mean() < 0.7
    assert 1e-4 < shape.mean() < 1e-3


def test_the_same_seed_writes_the_same_files(folder, tmp_path_factory):
    again, other = tmp_path_factory.mktemp("again"), tmp_path_factory.mktemp("other")
    kaggle_leaves.write(again, species=3, per_class=5, queries=2)
    kaggle_leaves.write(other, species=3, per_class=5, queries=2, seed=1)
    files = sorted(path.name for path in folder.iterdir())
    assert [(folder / name).read_bytes() for name in files] == [(again / name).read_bytes() for name in files]
    assert (folder / "train.csv").read_bytes() != (other / "train.csv").read_bytes()


def test_two_of_ten_leaves_of_each_species_are_the_test_for_every_seed(written):
    first, second = load(written), load(written, seed=1)
    assert np.bincount(first.test.labels).tolist() == [2] * 99
    np.testing.assert_array_equal(first.test.inputs["margin1"], second.test.inputs["margin1"])
    resolved = build.with_recipe(TASK, Settings(task="leaf"))
    train, validation, _ = build.split(TASK, resolved, first)
    assert np.bincount(train.labels).tolist() == [7] * 99
    assert np.bincount(validation.labels).tolist() == [1] * 99


def test_ids_are_not_features(written):
    assert list(load(written).train.inputs) == [f"{group}{number}" for group in GROUPS for number in range(1, 65)]


def test_shape_features_need_standardization(written):
    dataset = load(written)
    fitted = TASK.fit_preprocessor(dataset.train.inputs, Settings(task="leaf"))
    raw, scaled = (
        [np.stack([*part.inputs.values()], axis=1) for part in (dataset.train, dataset.test)],
        [fitted.transform(part.inputs)["numeric"] for part in (dataset.train, dataset.test)],
    )
    assert raw[0][:, 64:128].std() < 1e-3 < 0.5 < scaled[0][:, 64:128].std()
    accuracies = []
    for train, test in (raw, scaled):
        model = LogisticRegression(tol=1e-2).fit(train, dataset.train.labels)
        accuracies.append(model.score(test, dataset.test.labels))
    assert accuracies[0] < 0.7 < 0.9 < accuracies[1] < 1


@pytest.mark.parametrize("rows_sum_to", [1, 0.995])
def test_log_loss_equals_kaggles(rows_sum_to):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 99, 50)
    scores = np.maximum(rng.dirichlet(np.full(99, 0.1), 50), 1e-14)
    # "Each row is divided by the row sum", then max(min(p, 1 - 1e-15), 1e-15).
    scored = np.clip(scores / scores.sum(axis=1, keepdims=True), 1e-15, 1 - 1e-15)
    by_hand = -np.log(scored[np.arange(50), labels]).mean()
    ours = metrics.log_loss(scores * rows_sum_to, labels, problem="multiclass")
    np.testing.assert_allclose(ours, by_hand)
    np.testing.assert_allclose(ours, log_loss(labels, scored, labels=range(99)))


def test_a_submission_has_the_order_and_columns_of_kaggles_sample(written):
    leaves = kaggle_tables.read_unlabeled_leaf(written / "test.csv", kaggle_tables.LEAF_FEATURES)
    names = load(written).class_names
    form = predictions.read_sample_submission(
        written / "sample_submission.csv", leaves.ids, "multiclass", names, source=written / "test.csv"
    )
    assert form.columns == names == kaggle_leaves.SPECIES
    assert form.rows.tolist() == list(range(594))
    columns = predictions.submission(form, np.eye(99, dtype=np.float32)[np.arange(594) % 99], "multiclass", names)
    np.testing.assert_allclose(np.sum([columns[name] for name in names], axis=0), 1)


def test_the_sample_is_of_real_measured_leaves():
    resolved = build.with_recipe(TASK, Settings(task="leaf", source="sample"))
    data = TASK.load(resolved)
    assert (data.provenance.source, data.provenance.synthetic) == ("sample", False)
    assert (len(data.class_names), len(data.train.inputs), len(data.train.labels) + len(data.test.labels)) == (
        32, 49, 1907,
    )  # fmt: skip
    # Words that describe a species would give it away; every number differs between leaves of a species.
    for name, column in data.train.inputs.items():
        assert any(len(np.unique(column[data.train.labels == species])) > 1 for species in range(32)), name
    fitted = TASK.fit_preprocessor(data.train.inputs, resolved)
    assert len(TASK.read(kaggle_tables.LEAF_SAMPLE, resolved, fitted).ids) == 1907


def edited(change):
    """Edits the lines of train.csv, each a list of words, in place."""

    def edit(path):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        change(rows)
        path.write_text("".join(",".join(row) + "\n" for row in rows))

    return edit


def put(row, column, word):
    def change(rows):
        rows[row][rows[0].index(column)] = word

    return edited(change)


def one_species(rows):
    rows[1:] = [row for row in rows[1:] if row[1] == "Acer_Mono"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda path: path.unlink(), r"does not hold train.csv. Set data_dir to a folder with train.csv of Kaggle's"),
        (lambda path: path.write_bytes(b""), "train.csv: is empty"),
        (put(0, "species", "spezies"), "has no column 'species'. Did you mean 'spezies'"),
        (put(0, "margin7", "margin_7"), "has no column 'margin7'. Did you mean 'margin_7'"),
        (put(3, "shape2", ""), "train.csv: row 3 of column 'shape2' is empty"),
        (put(3, "shape2", "nan"), "train.csv: row 3 of column 'shape2' is empty"),
        (put(3, "shape2", "inf"), "train.csv: row 3 of column 'shape2' is inf"),
        (put(3, "shape2", "tiny"), "train.csv: row 3 of column 'shape2' is 'tiny', which is not a finite number"),
        (put(4, "species", ""), "train.csv: row 4 of column 'species' is '', but every row needs a label"),
        (
            put(4, "species", "Acer_Momo"),
            "row 4 .* is 'Acer_Momo', a species of fewer than three .* Did you mean 'Acer_Mono'",
        ),
        (
            edited(lambda rows: rows[5].__setitem__(0, rows[2][0])),
            "train.csv: row 5 of column 'id' is .*, the same as row 2",
        ),
        (edited(lambda rows: rows[5].append("0.1")), "row 5 .* 195 values where there are 194 columns"),
        (edited(one_species), "column 'species' is 'Acer_Mono' in every row"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"Mono", "M\x81no".encode("latin-1"))),
            "is not UTF-8",
        ),
    ],
)
def test_errors_name_the_file_and_the_row(folder, edit, message):
    edit(folder / "train.csv")
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_byte_order_mark_is_not_read_as_part_of_the_header(folder):
    path = folder / "train.csv"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert len(load(folder).class_names) == 3


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            edited(lambda rows: rows[2].__setitem__(0, rows[1][0])),
            "test.csv: row 2 of column 'id' is .*, the same as row 1",
        ),
        (put(0, "texture64", "texture"), "has no column 'texture64'"),
        (put(2, "texture64", ""), "test.csv: row 2 of column 'texture64' is empty"),
    ],
)
def test_invalid_leaves_to_predict_are_rejected(folder, edit, message):
    edit(folder / "test.csv")
    with pytest.raises(InputError, match=message):
        kaggle_tables.read_unlabeled_leaf(folder / "test.csv", kaggle_tables.LEAF_FEATURES)
