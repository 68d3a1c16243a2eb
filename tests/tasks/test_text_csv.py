"""The text_csv task: user-supplied texts for every problem."""

import random
import re

import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data.formats.tables import write_csv
from jaxcls.tasks import build, text_csv
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

TASTES = {
    "sweet": ["sugar", "honey", "cake"],
    "sour": ["lemon", "vinegar", "plum"],
    "salty": ["crisps", "olives", "brine"],
}


def write_tastes(path, rows=90, tastes=("sour", "sweet", "salty")):
    """Writes texts with three words of a taste each, labeled in one column and in several."""
    rng = random.Random(0)
    labels = [tastes[row % len(tastes)] for row in range(rows)]
    others = ["with", "a", "table", "of", "wood"]
    texts = [" ".join(rng.sample([*TASTES[taste], *rng.choices(others, k=5)], 8)) for taste in labels]
    columns = {taste: [int(taste == label) for label in labels] for taste in tastes}
    ids = [f"{row:04}" for row in range(rows)]
    write_csv(path, {"name": ids, "text": texts, "taste": labels, **columns, "grams": [row / 7 for row in range(rows)]})
    return path


@pytest.fixture
def settings(tmp_path):
    return Settings(
        task="text_csv", data=write_tastes(tmp_path / "tastes.csv"), text_column="text", label_column=("taste",),
        id_column="name", test_fraction=0.2,
    )  # fmt: skip


def changed(settings, **changes):
    return Settings(**{**vars(settings), **changes})


@pytest.mark.parametrize(
    ("tastes", "label_column", "problem", "loss", "metric"),
    [
        (("sour", "sweet"), ("taste",), "binary", "binary_crossentropy", "roc_auc"),
        (("sour", "sweet", "salty"), ("taste",), "multiclass", "sparse_categorical_crossentropy", "accuracy"),
        (("sour", "sweet", "salty"), ("sour", "salty"), "multilabel", "binary_crossentropy", "roc_auc"),
        (("sour", "sweet", "salty"), None, "multilabel", "binary_crossentropy", "roc_auc"),
    ],
)
def test_the_labels_decide_the_problem_the_loss_and_the_metric(
    settings, tmp_path, tastes, label_column, problem, loss, metric
):
    write_tastes(tmp_path / "tastes.csv", tastes=tastes)
    user_settings = changed(settings, label_column=label_column)
    if label_column is None:  # all other columns but those left out
        user_settings = changed(user_settings, drop_column=("taste", "grams", "sweet"))
        label_column = ("sour", "salty")
    task = text_csv.TASK.specialize(text_csv.TASK, user_settings)
    assert task.problem == problem
    assert task.metrics[0] == metric
    resolved = build.with_recipe(task, user_settings)
    assert resolved.loss == loss
    assert resolved.tune_threshold == ("f1" if problem == "multilabel" else None)
    data = task.load(resolved)
    build.split(task, resolved, data)
    assert set(data.class_names) == set(label_column if problem == "multilabel" else tastes)
    assert (len(data.train.labels), len(data.test.labels)) == (72, 18)


def test_texts_of_digits_stay_texts(settings, tmp_path):
    write_csv(tmp_path / "tastes.csv", {"name": "abcd", "text": ["07", "1.50", "", "2"], "taste": ["x", "y", "x", "y"]})
    data = text_csv.load(changed(settings, test_fraction=0.5))
    assert sorted([*data.train.inputs, *data.test.inputs]) == ["", "07", "1.50", "2"]
    rows = text_csv.read(tmp_path / "tastes.csv", settings)
    assert rows.inputs.tolist() == ["07", "1.50", "", "2"]
    assert rows.ids.tolist() == ["a", "b", "c", "d"]


def test_rows_to_predict_need_no_labels(settings, tmp_path):
    write_csv(tmp_path / "rows.csv", {"text": ["plum"]})
    assert text_csv.read(tmp_path / "rows.csv", changed(settings, id_column=None)).ids.tolist() == ["1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_column": None}, "--task text_csv needs --text-column"),
        ({"text_column": "txt"}, r"tastes.csv: has no column 'txt'\. Did you mean 'text'"),
        ({"label_column": ("teste",)}, r"tastes.csv: has no column 'teste'\. Did you mean 'taste'"),
        ({"label_column": ("grams",)}, "'grams' has 90 distinct values in 90 rows.*quantity"),
        ({"label_column": ("name",)}, "'name' has 90 distinct values"),
        ({"label_column": ("sour", "taste")}, "row 1 of column 'taste' is 'sour', but several label columns"),
        ({"label_column": None}, r"'taste' is 'sour', but several label columns \(taste, sour, sweet, salty, grams\)"),
        ({"label_column": None, "drop_column": ("taste", "grams", "sweet", "sour", "salty")}, "has no label column"),
        ({"source": "sample"}, "--data goes with --source auto or files, not with sample"),
    ],
)  # fmt: skip
def test_settings_that_do_not_match_the_table_are_rejected_before_compilation(settings, changes, message):
    with pytest.raises(InputError, match=message):
        train_task(changed(settings, **changes))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["sour", "bitter"],
            "test.csv: row 2 of column 'taste' is 'bitter', which is not a class; these are",
        ),
    ],
)
def test_test_labels_must_be_training_classes(settings, tmp_path, labels, message):
    write_csv(tmp_path / "test.csv", {"name": ["a", "b"], "text": ["plum", "brine"], "taste": labels})
    with pytest.raises(InputError, match=message):
        text_csv.load(changed(settings, test_data=tmp_path / "test.csv"))


def test_the_sample_is_real_and_holds_no_address_and_no_text_twice():
    data = text_csv.load(Settings(task="text_csv", test_fraction=0.2))
    assert not data.provenance.synthetic
    assert data.class_names == ("ham", "spam")
    assert [(len(part.labels), part.labels.sum()) for part in (data.train, data.test)] == [(3896, 990), (1000, 265)]
    texts = [*data.train.inputs, *data.test.inputs]
    assert len(set(texts)) == len(texts)
    assert all(text.isprintable() and len(text) <= 400 for text in texts)
    assert not [text for text in texts if re.search(r"\w@\w|https?://\w", text)]


@pytest.mark.slow
def test_tastes_are_learned_end_to_end(settings, tmp_path):
    small = {"epochs": 8, "batch_size": 16, "vocabulary_size": 400, "max_length": 16, "run_dir": tmp_path / "run"}
    result = train_task(changed(settings, **small), say=lambda line: None)
    assert result.report["metrics"]["accuracy"] > 0.9
