"""The fraud task: Kaggle's file, pitfalls, and errors."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxcls import tasks
from jaxcls._utils.errors import InputError
from jaxcls.data import duplicates
from jaxcls.data.formats.tables import read_csv
from jaxcls.data.samples import fraud as sample
from jaxcls.tasks import build
from jaxcls.training.settings import Settings

TASK = tasks.get("fraud")
ROWS = 2000


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    sample.write(folder, rows=ROWS, fraud=0.05, twice=0.02)
    return folder


@pytest.fixture
def path(written, tmp_path):
    """A copy of creditcard.csv, to edit."""
    return Path(shutil.copy(written / "creditcard.csv", tmp_path))


def load(folder, **settings):
    resolved = build.with_recipe(TASK, Settings(task="fraud", data_dir=folder, **settings))
    dataset = TASK.load(resolved)
    return dataset, build.split(TASK, resolved, dataset)


def edit(path, change):
    """Edits the lines of a file in place; the header is line 0."""
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def test_the_sample_has_the_layout_and_the_quirks_of_kaggles_file(tmp_path):
    sample.write(tmp_path)
    path = tmp_path / "creditcard.csv"
    first, second = path.read_text().splitlines()[:2]
    names = ["Time", *(f"V{i}" for i in range(1, 29)), "Amount", "Class"]
    assert first == ",".join(f'"{name}"' for name in names)
    assert second.endswith(',"0"')

    table = read_csv(path)
    rows = np.stack([*table.values()], axis=1)
    distinct = np.unique(rows, axis=0)
    assert 0.003 < 1 - len(distinct) / len(rows) < 0.005
    assert len(distinct) == 40_000
    assert distinct[:, -1].sum() == 200
    assert table["Class"].sum() > 200
    assert (np.diff(table["Time"]) >= 0).all()
    assert table["Time"][-1] > 172_000
    assert table["Amount"].max() > 100 * np.median(table["Amount"])
    deviations = [table[f"V{i}"].std() for i in (1, 7, 14, 21, 28)]
    assert deviations == sorted(deviations, reverse=True)
    early, late = np.array_split(table["V1"], 2)
    assert late.mean() - early.mean() > 0.1


def test_validation_and_test_come_after_training_in_time(written):
    _, parts = load(written)
    table = read_csv(written / "creditcard.csv")
    time_of = dict(zip(table["V1"], table["Time"], strict=True))
    train, validation, test = ([time_of[value] for value in part.inputs["V1"]] for part in parts)
    assert max(train) <= min(validation)
    assert max(validation) <= min(test)
    assert [len(train), len(validation), len(test)] == [ROWS * 0.64, ROWS * 0.16, ROWS * 0.2]


def test_the_order_of_the_rows_in_the_file_does_not_matter(written, path):
    edit(path, lambda lines: lines.__setitem__(slice(1, None), lines[:0:-1]))
    for original, reversed_ in zip(load(written)[1], load(path.parent)[1], strict=True):
        np.testing.assert_array_equal(np.sort(original.inputs["V1"]), np.sort(reversed_.inputs["V1"]))


def test_duplicates_are_dropped_before_splitting(written):
    duplicate_rows = len(read_csv(written / "creditcard.csv")["Time"]) - ROWS
    dataset, (train, validation, test) = load(written)
    assert duplicate_rows == 40
    assert f"{duplicate_rows} duplicate rows were dropped" in dataset.provenance.note
    assert f"100 of 2,000 payments are fraud, {test.labels.sum()} of them in the test split" in dataset.provenance.note
    assert duplicates.shared(train.inputs, validation.inputs) == 0
    assert duplicates.shared(dataset.train.inputs, test.inputs) == 0


def test_nothing_is_resampled(written):
    _, parts = load(written)
    table = read_csv(written / "creditcard.csv")
    class_of = dict(zip(table["V1"], table["Class"], strict=True))
    for part in parts:
        np.testing.assert_array_equal(part.labels, [class_of[value] for value in part.inputs["V1"]])
        assert len(np.unique(part.inputs["V1"])) == len(part.labels)


def test_scales_do_not_depend_on_later_payments(written, path):
    table = read_csv(path)
    begins = np.quantile(table["Time"], 0.85)

    def inflate(lines):
        for row, line in enumerate(lines[1:], 1):
            words = line.split(",")
            if float(words[0]) > begins:
                words[-2] = "99999"
                lines[row] = ",".join(words)

    edit(path, inflate)
    (_, before), (_, after) = load(written), load(path.parent)
    fitted, refitted = (TASK.fit_preprocessor(parts.train.inputs, Settings(task="fraud")) for parts in (before, after))
    assert after.test.inputs["Amount"].max() == 99999
    assert fitted == refitted


def test_time_becomes_the_hour_of_the_day(written):
    _, (train, _, test) = load(written)
    assert list(train.inputs) == [*(f"V{i}" for i in range(1, 29)), "Amount", "Hour"]
    for part in (train, test):
        assert 0 <= part.inputs["Hour"].min() <= part.inputs["Hour"].max() < 24


def test_payments_to_predict_need_no_class_and_are_numbered(written, path):
    edit(path, lambda lines: lines.__setitem__(slice(None), [line.rpartition(",")[0] for line in lines]))
    without, with_ = (TASK.read(file, Settings(task="fraud")) for file in (path, written / "creditcard.csv"))
    assert without.ids.tolist()[:2] == ["1", "2"]
    assert len(without.ids) == ROWS + 40
    np.testing.assert_array_equal(without.inputs["V28"], with_.inputs["V28"])


def put(row, column, word):
    def change(lines):
        words = lines[row].split(",")
        words[column] = word
        lines[row] = ",".join(words)

    return lambda path: edit(path, change)


def label_all(*, after, label):
    """Sets the class of all rows after a fraction of them."""

    def change(lines):
        for row in range(max(1, int(after * len(lines))), len(lines)):
            lines[row] = f'{lines[row].rpartition(",")[0]},"{label}"'

    return lambda path: edit(path, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "does not hold creditcard.csv. Set data_dir to a folder with Kaggle's"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), r"row \d+ \(line \d+\) has length|column 'V|quote"),
        (put(0, 14, '"V41"'), "has no column 'V14'"),
        (put(0, 30, '"class"'), "has no column 'Class'. Did you mean 'class'"),
        (put(7, 30, '"2"'), "row 7 of column 'Class' is '2', but must be one of 0, 1"),
        (put(7, 30, '""'), "row 7 of column 'Class' is empty"),
        (put(7, 3, "NaN"), "row 7 of column 'V3' is empty"),
        (put(7, 29, "much"), "row 7 of column 'Amount' is 'much'"),
        (label_all(after=0, label=0), "creditcard.csv: .*all .* rows, by time, have class 0"),
        (label_all(after=0.7, label=0), "creditcard.csv: .*all 400 of the last rows, by time, have class 0"),
    ],
)
def test_errors_name_the_file_and_the_row(path, change, message):
    change(path)
    with pytest.raises(InputError, match=message):
        load(path.parent)


def test_validation_rows_of_one_class_are_rejected(path):
    # The test split, the last fifth, keeps its frauds; the rows from 60 to 79 % lose them.
    def change(lines):
        for row in range(int(0.6 * len(lines)), int(0.79 * len(lines))):
            lines[row] = f'{lines[row].rpartition(",")[0]},"0"'

    edit(path, change)
    with pytest.raises(InputError, match=r"all 40 of the last rows, by time, have class 0"):
        load(path.parent, validation_fraction=0.025)


def test_a_test_fraction_out_of_range_is_rejected(written):
    with pytest.raises(InputError, match=r"--test-fraction is 1\.5"):
        load(written, test_fraction=1.5)
