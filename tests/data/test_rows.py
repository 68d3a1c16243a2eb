"""Rows that are read when they are used: as arrays, but not before."""

import numpy as np
import pytest

from jaxcls.data import rows
from jaxcls.data.dataset import Split

VALUES = np.arange(24).reshape(6, 2, 2)
LABELS = np.arange(6) % 2


class Counting(rows.Stored):
    """A source that records what is read of it."""

    def __init__(self, *arrays, sample=None):
        super().__init__(*arrays)
        self.sample, self.calls = sample, []

    def read(self, index):
        self.calls.append(index.tolist())
        return super().read(index)


@pytest.fixture
def source():
    return Counting(VALUES, LABELS, sample=np.array([1, 4]))


@pytest.fixture
def both(source):
    return rows.columns(source, VALUES[0], LABELS[0], count=6)


@pytest.mark.parametrize(
    "key", [3, -1, slice(1, 5, 2), (2, ...), (..., None), np.array([[5, 0], [1, 1]]), np.arange(6) > 3], ids=str
)
def test_rows_are_indexed_like_an_array(both, key):
    chosen = np.array([4, 2, 0, 5, 1, 3])
    for column, values in zip(both, (VALUES, LABELS), strict=True):
        np.testing.assert_array_equal(column[key], values[key])
        np.testing.assert_array_equal(column.select(chosen)[key], values[chosen][key])
        assert (column.shape, column.dtype, column.nbytes) == (values.shape, values.dtype, values.nbytes)


def test_columns_of_a_source_are_read_at_once(source, both):
    tree = {"image": both[0], "label": both[1], "weight": LABELS / 2}
    read = rows.take(tree, np.array([[2, 0], [2, 5]]))
    rows.take(rows.select(tree, np.array([4, 1])), np.array([1]))
    assert source.calls == [[2, 0, 2, 5], [1]]
    np.testing.assert_array_equal(read["image"], VALUES[[[2, 0], [2, 5]]])
    assert read["weight"].tolist() == [[0, 0], [0, 0.5]]


def test_a_split_keeps_what_is_on_disk_there(source, both):
    table = {"z": both[0], "a": LABELS}
    taken = Split(table, LABELS).take(LABELS == 1).take(np.array([2, 1]))
    assert not source.calls
    assert list(taken.inputs) == ["z", "a"]
    assert taken.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(np.asarray(taken.inputs["z"]), VALUES[[5, 3]])


def test_a_sample_of_rows_is_of_those_that_are_there(both):
    assert rows.is_sampled(both)
    assert np.asarray(both[1].select([5, 4, 3]).sample()).tolist() == [0]
    assert len(both[1].select([5, 3]).sample()) == 1
    assert len(rows.sample((VALUES, both[0]))[0]) == 6


def test_blocks_are_all_rows_in_order(both, monkeypatch):
    monkeypatch.setattr(rows, "_BLOCK_BYTES", 100)
    read = [*rows.blocks({"x": both[0], "y": LABELS})]
    assert len(read) > 1
    np.testing.assert_array_equal(np.concatenate([block["x"] for block in read]), VALUES)
    np.testing.assert_array_equal([*both[1]], LABELS)
