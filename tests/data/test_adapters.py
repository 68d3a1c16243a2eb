"""User-supplied examples: the accepted containers, their conversion to arrays, and errors."""

import types

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data import adapters, batching, rows
from jaxcls.data.adapters import Counted, as_arrays, as_examples

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


def test_examples_are_accepted():
    examples = batching.examples(np.zeros((9, 2), np.float32), np.zeros(9, np.int32))
    assert len(as_examples(examples)) == 9


class Reading(Source):
    """A source that records which examples are read."""

    read = None

    def __getitem__(self, index):
        if self.read is not None:
            self.read.append(index)
        return super().__getitem__(index)


@pytest.fixture
def large(monkeypatch):
    """Examples that count as more than what is read at once."""
    monkeypatch.setattr(adapters, "SMALL", 4000)
    inputs = np.arange(200.0 * 8).reshape(200, 8)
    return inputs, np.arange(200) % 3


def test_a_large_source_is_read_when_its_examples_are_used(large):
    inputs, labels = large
    source = Reading([*zip(inputs, labels, strict=True)])
    source.read = []
    examples = as_examples(source)
    assert len(set(source.read)) <= 65
    source.read.clear()
    batch = batching.gather_chunk(examples, np.arange(200)[::-1], 1, 5, 2)
    assert sorted(source.read) == [*range(185, 195)]
    np.testing.assert_array_equal(batch.inputs, inputs[194:184:-1].reshape(2, 5, 8).astype(np.float32))
    np.testing.assert_array_equal(batch.labels, labels[194:184:-1].reshape(2, 5))
    # Labels are small, and remembered.
    source.read.clear()
    np.testing.assert_array_equal(np.asarray(examples.labels), labels)
    assert len(source.read) < 200
    source.read.clear()
    assert np.asarray(examples.labels).dtype == np.int32
    assert not source.read
    assert (examples.inputs.dtype, examples.inputs.shape) == (np.float32, (200, 8))


@pytest.mark.parametrize("kind", [None, "custom"])
def test_a_large_hugging_face_data_set_is_read_when_its_examples_are_used(large, kind):
    columns = {"x": large[0], "y": large[0][:, 0], "label": large[1]}
    examples = as_examples(HuggingFace(columns, kind=kind, count=200))
    assert isinstance(examples.inputs["x"], rows.Rows)
    np.testing.assert_array_equal(examples.inputs["y"][[3, 1]], large[0][[3, 1], 0])
    np.testing.assert_array_equal(np.asarray(examples.labels), large[1])


def test_a_large_memory_mapped_array_stays_on_disk(large, tmp_path):
    np.save(tmp_path / "inputs.npy", large[0])
    examples = as_examples((np.load(tmp_path / "inputs.npy", mmap_mode="r"), large[1]))
    assert isinstance(examples.inputs, rows.Rows)
    np.testing.assert_array_equal(np.asarray(examples.inputs), large[0].astype(np.float32))
    large[0][150, 3] = 1e300
    np.save(tmp_path / "inputs.npy", large[0])
    examples = as_examples((np.load(tmp_path / "inputs.npy", mmap_mode="r"), large[1]))
    with pytest.raises(InputError, match=r"a batch of inputs.* does not fit into float32"):
        examples.inputs[[150]]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((np.zeros(7), 0), r"example 5 has an array of shape \(7,\)"),
        ((np.zeros(8), 0.5), "example 5 has an array of float32, and those before it are int32"),
    ],
)
def test_an_unfit_example_of_a_large_source_is_named_when_it_is_read(large, item, message):
    items = [*zip(*large, strict=True)]
    items[5] = item
    examples = as_examples(items)
    with pytest.raises(InputError, match=message):
        batching.gather_chunk(examples, np.arange(200), 0, 8, 1)


@pytest.mark.parametrize("size", [4000, 1 << 20])
def test_an_iterable_of_a_stated_length_is_read_once_as_far_as_needed(large, monkeypatch, tmp_path, size):
    monkeypatch.setattr(adapters, "SMALL", size)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    read = []

    def stream():
        for item in zip(*large, strict=True):
            read.append(item)
            yield item

    examples = as_examples(Counted(stream(), 200))
    assert len(read) == (64 if size == 4000 else 200)
    assert rows.window(tuple(examples)) == (adapters.STREAM_WINDOW if size == 4000 else None)
    batch = batching.gather_chunk(examples, np.array([70, 3, 90, 3]), 0, 4, 1)
    assert len(read) == (91 if size == 4000 else 200)
    np.testing.assert_array_equal(batch.inputs[0], large[0][[70, 3, 90, 3]].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(examples.labels), large[1])
    assert len(read) == 200


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(0.5, 0)] * 5, "the stream ends after 5 examples; 200 were stated"),
        ([(0.5, 0)] * 5 + [({"x": 0.5}, 0)] * 195, "example 5 has another structure than example 0"),
    ],
)
def test_an_iterable_that_is_not_as_stated_is_refused(items, message):
    with pytest.raises(InputError, match=message):
        as_examples(Counted(items, 200))


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


def test_examples_of_several_types_have_the_type_that_holds_all():
    examples = as_examples([([1, 2], 0), ([0.5, 1], 1), (np.array([3, 4], np.uint8), 1)])
    np.testing.assert_array_equal(examples.inputs, np.array([[1, 2], [0.5, 1], [3, 4]], np.float32))
    assert [array.dtype for array in examples] == [np.float32, np.int32, np.float32]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 1_700_000_000_000]]), r"inputs\[0, 1\] is 1700000000000, which does not fit into int32"),
        ({"time": np.array([2**31], np.uint64), "x": [1.0]}, None),
        ({"time": np.array([2**32], np.uint64), "x": [1.0]}, r"inputs.time\[0\] is 4294967296.* into uint32"),
        (np.array([1.0, -1e300]), r"inputs\[1\] is -1e\+300.* into float32"),
        (np.array([1.0, -np.inf, np.nan, 3e38]), None),
        (np.array([-(2**31), 2**31 - 1]), None),
    ],
)
def test_numbers_that_do_not_fit_into_32_bits_are_refused(values, message):
    if message is None:
        as_arrays(values)
    else:
        with pytest.raises(InputError, match=message):
            as_arrays(values)


def test_labels_do_not_wrap():
    with pytest.raises(InputError, match=r"labels\[1\] is 4294967296.*number the classes from 0"):
        as_examples((INPUTS, np.array([0, 2**32, 1])))
    with pytest.raises(InputError, match="example 1: labels is 4294967296"):
        as_examples([(0.5, 0), (0.5, 2**32)])


class ClassLabel:
    """As the feature of that name in Hugging Face's `datasets`."""


class HuggingFace(Source):
    """The part of `datasets.Dataset` that is used; a slice is a dict of columns, in lists unless formatted."""

    def __init__(self, items, features=None, kind=None, count=3):
        names, self.count = list(items), count
        super().__init__(items, features=features or {}, column_names=names, format={"type": kind, "columns": names})

    def with_format(self, kind, columns):
        chosen = {name: np.asarray(self.items[name], object if name == "text" else None) for name in columns}
        return HuggingFace(chosen, self.features, kind, self.count)

    def __len__(self):
        return self.count

    def __getitem__(self, rows):
        return {name: np.asarray(column)[rows] for name, column in self.items.items()}


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"image": INPUTS.tolist(), "kind": LABELS.tolist()}, {"kind": ClassLabel()}),
        ({"image": INPUTS.tolist(), "labels": LABELS.tolist()}, {}),
    ],
)
def test_the_class_label_of_a_hugging_face_data_set_is_the_label(columns, features):
    data = HuggingFace(columns, features)
    examples = as_examples(data)
    np.testing.assert_array_equal(examples.inputs, INPUTS)
    np.testing.assert_array_equal(examples.labels, LABELS)
    np.testing.assert_array_equal(as_arrays(data), INPUTS)


def test_several_columns_of_a_hugging_face_data_set_are_a_dict_of_inputs():
    columns = {"a": INPUTS[:, 0], "b": INPUTS[:, 1], "label": LABELS, "sample_weight": WEIGHTS}
    examples = as_examples(HuggingFace(columns, kind="custom"))
    assert {name: values.tolist() for name, values in examples.inputs.items()} == {"a": [0, 2, 4], "b": [1, 3, 5]}
    assert examples.sample_weight.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "features", "message"),
    [
        ({"x": INPUTS}, {}, "without a column of labels"),
        ({"x": INPUTS, "fine": LABELS, "coarse": LABELS}, dict.fromkeys(("fine", "coarse"), ClassLabel()), "all hold"),
        ({"text": ["a", "b", "c"], "label": LABELS}, {}, "column 'text' does not hold numbers.*remove_columns"),
    ],
)
def test_a_hugging_face_data_set_that_is_not_ready_is_refused(columns, features, message):
    with pytest.raises(InputError, match=message):
        as_examples(HuggingFace(columns, features))


def test_a_real_hugging_face_data_set():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"x": [datasets.Value("float32")], "kind": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"x": INPUTS.tolist(), "kind": LABELS.tolist()}, features=features)
    np.testing.assert_array_equal(as_examples(data).inputs, INPUTS)
    np.testing.assert_array_equal(as_examples(data).labels, LABELS)
    with pytest.raises(InputError, match="Give one of its splits: train"):
        as_examples(datasets.DatasetDict(train=data))


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
