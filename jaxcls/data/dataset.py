"""A data set: its splits, the names of its classes, and its provenance."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

PyTree = Any


class Split(NamedTuple):
    """The examples of a split; row i of every array belongs to the same example.

    Attributes:
      inputs: images, uint8 (N, height, width, channels); texts, str objects (N,); a table, a dict of columns (N,), each
        float64 with NaN where a number is missing, or str objects with '' where a word is; or images on padded
        canvases, see :mod:`jaxcls.data.datasets.object_detection`. In place of an array, :class:`jaxcls.data.rows.Rows`
        are read when they are used.
      labels: int32 (N,) for a binary or multiclass problem; float32 (N, L) for a multi-label problem, with NaN where a
        label is unknown, which is neither trained on nor scored; for detection a dict of arrays, see
        :mod:`jaxcls.data.datasets.object_detection`.
      sample_weight: float32 (N,), or None if every example has the same weight.
      groups: (N,) of any type, or None. Examples of one group, such as the images of one patient, are never divided
        between splits.
      deepest: (N,), the greatest value of each image of more than 8 bits, else 0; or None.
    """

    inputs: PyTree
    labels: Any
    sample_weight: np.ndarray | None = None
    groups: np.ndarray | None = None
    deepest: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Split":
        """Returns the examples of these rows, integer indices or a boolean mask; inputs that are on disk remain there.

        >>> Split({"x": np.arange(3.0)}, np.arange(3)).take(np.array([2, 0])).labels
        array([2, 0])
        """
        # Imports JAX, which a report of a run needs not.
        from jaxcls.data.rows import select

        return Split(*select(tuple(self), rows))

    @property
    def num_examples(self) -> int:
        """The number of examples.

        >>> Split({"x": np.arange(3.0)}, {"boxes": np.zeros((3, 2, 4))}).num_examples
        3
        """
        return len(next(iter(self.labels.values())) if isinstance(self.labels, dict) else self.labels)


class Unlabeled(NamedTuple):
    """Examples without labels, to predict.

    Attributes:
      ids: (N,) str objects: an id column, file names, or row numbers.
      inputs: as in :class:`Split`.
    """

    ids: np.ndarray
    inputs: PyTree


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a data set came from, for the first line of output and for the record of a run.

    Attributes:
      source: 'files', 'tfds', 'sample' or 'memory'.
      location: the folder, or the name in the package.
      sha256: file name -> SHA-256 of its uncompressed content.
      synthetic: whether the data was generated; a score on it must always be called synthetic.
      note: what a reader should know: how the data was verified, whether it is a subset, what was dropped and why.
      passed_over: why each source that `auto` tried before this one was not available.
    """

    source: Literal["files", "tfds", "sample", "memory"]
    location: str
    sha256: Mapping[str, str]
    synthetic: bool = False
    note: str = ""
    passed_over: tuple[str, ...] = ()


class Dataset(NamedTuple):
    """A decoded data set.

    Attributes:
      name: the name of the task.
      train: the training examples; validation examples are split off from them unless `validation` is given.
      test: the examples that a run is evaluated on; all are labeled.
      class_names: the classes of a multiclass problem, the negative and the positive class of a binary one, or the
        labels of a multi-label one.
      provenance: where it came from.
      validation: the validation examples, if the data set defines them.
      white: the integer that is white in images of more than 8 bits, if that was fitted on the training images.
    """

    name: str
    train: Split
    test: Split
    class_names: Any
    provenance: Provenance
    validation: Split | None = None
    white: int | None = None


def describe(dataset: Dataset) -> str:
    """Describes what was loaded and from where, in one line.

    >>> two = Split(np.zeros((2, 3), np.float32), np.array([0, 1], np.int32))
    >>> record = Provenance("sample", "jaxcls/data/samples/toy", {}, True, "drawn from two Gaussians")
    >>> describe(Dataset("toy", two, two, ("no", "yes"), record))
    'toy: 2 + 2 synthetic examples from jaxcls/data/samples/toy (drawn from two Gaussians)'
    """
    record = dataset.provenance
    synthetic = "synthetic " if record.synthetic else ""
    passed_over = "".join(f"; not {reason}" for reason in record.passed_over)
    splits = [dataset.train, dataset.validation, dataset.test]
    counts = " + ".join(f"{split.num_examples:,}" for split in splits if split is not None)
    return f"{dataset.name}: {counts} {synthetic}examples from {record.location} ({record.note}{passed_over})"
