"""User-supplied examples: the accepted containers, their conversion to arrays, and errors."""

import types

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data.adapters import as_arrays, as_examples

INPUTS = np.arange(6.0).reshape(3, 2)
LABELS = np.array([0, 1, 0])
WEIGHTS = np.array([1, 2, 3])


class Source:
    """A data source with access by index."""

    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, LABELS, WEIGHTS),
        (INPUTS.tolist(), LABELS.tolist(), WEIGHTS.tolist()),
        [*zip(INPUTS, LABELS, WEIGHTS, strict=True)],
        Source([*zip(INPUTS, LABELS, WEIGHTS, strict=True)]),
        [{"inputs": x, "labels": y, "sample_weight": w} for x, y, w in zip(INPUTS, LABELS, WEIGHTS, strict=True)],
    ],
    ids=["arrays", "lists", "tuples", "source", "dicts"],
)
def test_all_containers_give_the_same_arrays_in_32_bits(data):
    examples = as_examples(data)
    np.testing.assert_array_equal(examples.inputs, INPUTS.astype(np.float32))
    np.testing.assert_array_equal(examples.labels, LABELS)
    np.testing.assert_array_equal(examples.sample_weight, WEIGHTS)
    assert [array.dtype for array in examples] == [np.float32, np.int32, np.float32]


def test_weights_are_one_by_default_and_trees_of_arrays_stay_trees():
    examples = as_examples(({"a": INPUTS, "b": LABELS}, {"x": LABELS, "y": LABELS}))
    assert examples.sample_weight.tolist() == [1, 1, 1]
    assert examples.inputs.keys() == {"a", "b"}
    assert examples.labels.keys() == {"x", "y"}


def test_items_of_tfds_are_split_by_their_supervised_keys():
    items = [{"image": image, "label": label, "id": "x"} for image, label in zip(INPUTS, LABELS, strict=True)]
    source = Source(items, dataset_info=types.SimpleNamespace(supervised_keys=("image", "label")))
    assert as_examples(source).labels.tolist() == [0, 1, 0]


def test_small_types_are_not_converted():
    assert as_arrays(np.zeros(2, np.uint8)).dtype == np.uint8
    assert as_arrays(np.zeros(2, np.float16)).dtype == np.float16


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((INPUTS,), "a tuple of length 1"),
        ((INPUTS, LABELS[:2]), "same length.*inputs 3, labels 2"),
        ((INPUTS, np.int32(1)), "labels a scalar"),
        ((INPUTS[:0], LABELS[:0]), "at least 1"),
        ((INPUTS.astype(str), LABELS), "dtype <U.*examples are numbers"),
        ({"inputs": INPUTS, "labels": LABELS}, "dict does not give access to examples by index"),
        (iter([]), "does not give access to examples by index.*grain.MapDataset"),
        ([], "list is empty"),
        ([INPUTS[0, 0]], "an item of list is a float64"),
        ([{"image": INPUTS[0]}], "a dict with the keys image"),
        ([(INPUTS[0], 0), (INPUTS[0, :1], 0)], r"example 1 has an array of shape \(1,\), example 0 one of \(2,\)"),
        ([(INPUTS[0], 0), ({"a": INPUTS[0]}, 0)], "example 1 has another structure than example 0"),
    ],
    ids=range(12),
)
def test_other_data_is_rejected(data, message):
    with pytest.raises(InputError, match=message):
        as_examples(data)
