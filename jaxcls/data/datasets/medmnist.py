"""Data sets of MedMNIST: one .npz file holds the images and labels of the official parts."""

from pathlib import Path

from jaxcls.data import sources
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.formats import npz


def read(path: Path, *, name: str, class_names: tuple[str, ...], num_labels: int, size: int) -> Dataset:
    """The data set of a file; its official validation images are those that choices are made by.

    Labels stand in (N, 1) for a binary problem, and are (N,) in the result.

    Args:
      path: the file, one that :func:`jaxcls.data.formats.npz.find` found.
      name: the task's.
      class_names: as in :class:`Dataset`.
      num_labels: how many labels an image has.
      size: the height and width that the images are brought to.

    Raises:
      InputError: as :func:`jaxcls.data.formats.npz.read`.
    """
    parts = {
        key: Split(images, labels[:, 0] if num_labels == 1 else labels.astype("float32"))
        for key, (images, labels) in npz.read(path, num_labels=num_labels, size=size).items()
    }
    note = "MedMNIST's parts; no patients are named, so that none can be told to stand in two of them"
    record = Provenance("files", str(path.parent), sources.checksums([path]), synthetic=False, note=note)
    return Dataset(name, parts["train"], parts["test"], class_names, record, validation=parts["val"])
