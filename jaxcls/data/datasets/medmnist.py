"""MedMNIST data sets: one .npz file with the images and labels of the official splits.

Yang et al. 2023, arXiv 2110.14795.
"""

import zipfile
from pathlib import Path

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import sources
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.formats import npz

SPLITS = ("train", "val", "test")
SIZES = (28, 64, 128, 224)


def find(folder: Path, name: str, size: int, needs: str) -> Path:
    """Finds the file of a data set, such as pneumoniamnist.npz or pneumoniamnist_64.npz.

    Of several files, that with the smallest images of at least this size is chosen, else that with the largest.

    Raises:
      InputError: there is no file; the message ends with `needs`.
    """
    names = {pixels: f"{name}.npz" if pixels == SIZES[0] else f"{name}_{pixels}.npz" for pixels in SIZES}
    there = [pixels for pixels in SIZES if (folder / names[pixels]).is_file()]
    if not there:
        raise InputError(f"{folder} holds none of the known data sets. {needs}")
    return files.inside(folder, folder / names[min((pixels for pixels in there if pixels >= size), default=there[-1])])


def read(path: Path, *, name: str, class_names: tuple[str, ...], size: int) -> Dataset:
    """Reads a data set with yes-or-no labels: a binary problem if there are two classes, else a multi-label one.

    Args:
      path: the .npz file, with arrays train_images, train_labels, val_images, ...
      name: the name of the task.
      class_names: as in :class:`Dataset`.
      size: the height and width that images are resized to.

    Returns:
      A Dataset whose validation split is MedMNIST's.

    Raises:
      InputError: naming the file, the array and the row: it cannot be read, is damaged, lacks an array, or an array
        holds something else than uint8 images or labels 0 and 1.
    """
    num_labels = 1 if len(class_names) == 2 else len(class_names)
    with npz.opened(path) as archive:
        train, validation, test = (_split(path, archive, split, num_labels) for split in SPLITS)
    shapes = {split.inputs.shape[1:] for split in (train, validation, test)}
    if len(shapes) > 1:
        raise InputError(f"{path}: images of different shapes: {sorted(shapes)}; all splits must have the same.")
    train, validation, test = (
        split._replace(inputs=_resized(split.inputs, size)) for split in (train, validation, test)
    )
    note = "MedMNIST's splits; patients are not named, so some may be in several splits"
    record = Provenance("files", str(path.parent), sources.checksums([path]), note=note)
    return Dataset(name, train, test, class_names, record, validation)


def _split(path: Path, archive: zipfile.ZipFile, split: str, num_labels: int) -> Split:
    images = npz.array(path, archive, f"{split}_images")
    square = images.ndim >= 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or images.shape[3:] not in ((), (3,)) or not images.size:
        needed = "uint8 of shape (N, size, size) or (N, size, size, 3), with at least one"
        raise InputError(f"{path}: {split}_images: {images.dtype} of shape {images.shape}; images must be {needed}.")
    labels = npz.array(path, archive, f"{split}_labels")
    if labels.dtype.kind not in "biu" or labels.shape != (len(images), num_labels):
        needed = f"integers of shape ({len(images)}, {num_labels})"
        raise InputError(f"{path}: {split}_labels: {labels.dtype} of shape {labels.shape}; labels must be {needed}.")
    for row, column in np.argwhere((labels != 0) & (labels != 1))[:1]:
        raise InputError(f"{path}: {split}_labels: row {row} holds {labels[row, column]}; labels must be 0 or 1.")
    values = labels[:, 0].astype(np.int32) if num_labels == 1 else labels.astype(np.float32)
    return Split(images if images.ndim == 4 else images[..., None], values)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    if images.shape[1] == size:
        return images
    from PIL import Image

    resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for row, pixels in enumerate(images):
        # Pillow takes grayscale images without a channel axis.
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        smooth = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        resized[row] = smooth.reshape(resized.shape[1:])
    return resized
