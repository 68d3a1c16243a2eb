"""A data set as it was read: its parts, the names of its classes, and the record of where it came from."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxcls._utils.labels import AnyProblemName

PyTree = Any


class Split(NamedTuple):
    """Some examples; row i of every array belongs to the same one.

    Attributes:
      inputs: images, uint8 (N, height, width, channels); texts, str objects (N,); a table, a dict of columns
        (N,), each float64 with NaN where a number is missing, or str objects with '' where a word is; or images on
        padded canvases, as :mod:`jaxcls.data.datasets.detection` has them.
      labels: int32 (N,) of a multiclass problem, int32 (N,) of a binary one, float32 (N, L) of a multi-label one.
        NaN where a label of a multi-label problem is not known; it is then neither learned from nor scored. Of
        detection, a dict of arrays, as :mod:`jaxcls.data.datasets.detection` has them.
      sample_weight: float32 (N,), or None where every example counts the same.
      groups: (N,) of any type, or None. Examples of one group, such as the images of one patient, stay together
        where rows are divided.
    """

    inputs: PyTree
    labels: Any
    sample_weight: np.ndarray | None = None
    groups: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Split":
        """The examples of these rows, by number or by mask.

        >>> Split({"x": np.arange(3.0)}, np.arange(3)).take(np.array([2, 0])).labels
        array([2, 0])
        """
        sample_weight = None if self.sample_weight is None else self.sample_weight[rows]
        groups = None if self.groups is None else self.groups[rows]
        return Split(_rows(self.inputs, rows), _rows(self.labels, rows), sample_weight, groups)

    @property
    def num_examples(self) -> int:
        """The number of examples.

        >>> Split({"x": np.arange(3.0)}, {"boxes": np.zeros((3, 2, 4))}).num_examples
        3
        """
        return len(next(iter(self.labels.values())) if isinstance(self.labels, dict) else self.labels)


def _rows(arrays: Any, rows: np.ndarray) -> Any:
    """These rows of an array, or of each array of a dict."""
    return {name: array[rows] for name, array in arrays.items()} if isinstance(arrays, dict) else arrays[rows]


class Unlabeled(NamedTuple):
    """Examples without labels, to predict.

    Attributes:
      ids: (N,) str objects, what each is called in the file that asks.
      inputs: as in :class:`Split`.
    """

    ids: np.ndarray
    inputs: PyTree


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a data set came from, for the first line of output and for the record of a run.

    Attributes:
      source: 'files', 'tfds' or 'sample'.
      location: the folder, or the name in the package.
      sha256: file name -> SHA-256 of its unpacked content.
      synthetic: True if the data was generated; no score on it may stand beside a real one without that word.
      note: what a reader should know: how it was verified, that it is a part, what was dropped and why.
      passed_over: why each source that `auto` tried before this one was not there.
    """

    source: Literal["files", "tfds", "sample"]
    location: str
    sha256: Mapping[str, str]
    synthetic: bool
    note: str
    passed_over: tuple[str, ...] = ()


class Dataset(NamedTuple):
    """A decoded data set.

    Attributes:
      train: what is learned from, and what validation examples are cut from unless `validation` is given.
      test: what a run is judged by. All of it has labels.
      class_names: of the classes of a multiclass problem, of the negative and the positive class of a binary one,
        of the labels of a multi-label one.
      validation: the examples that the data set itself sets aside for choices.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    provenance: Provenance
    validation: Split | None = None


def num_outputs(problem: AnyProblemName, class_names: tuple[str, ...]) -> int:
    """How many logits a model gives for an example, or an anchor: one for a binary problem, else one a class or label.

    >>> num_outputs("binary", ("no", "yes"))
    1
    """
    return 1 if problem == "binary" else len(class_names)


def describe(dataset: Dataset) -> str:
    """One line that says what was loaded and from where, for the first line of a run's output.

    >>> two = Split(np.zeros((2, 3), np.float32), np.array([0, 1], np.int32))
    >>> record = Provenance("sample", "jaxcls/data/samples/toy", {}, True, "drawn from two Gaussians")
    >>> describe(Dataset("toy", two, two, ("no", "yes"), record))
    'toy: 2 + 2 synthetic examples from jaxcls/data/samples/toy (drawn from two Gaussians)'
    """
    record = dataset.provenance
    synthetic = "synthetic " if record.synthetic else ""
    passed_over = "".join(f"; not {reason}" for reason in record.passed_over)
    parts = [dataset.train, dataset.validation, dataset.test]
    counts = " + ".join(f"{part.num_examples:,}" for part in parts if part is not None)
    return f"{dataset.name}: {counts} {synthetic}examples from {record.location} ({record.note}{passed_over})"
