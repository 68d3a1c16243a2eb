"""Folders of images with one folder per class."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.formats import images

# The names of the folders of splits; of several with one role, the last is read.
_ROLES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


class Layout(NamedTuple):
    """The folders of a data set.

    Attributes:
      splits: 'train', and 'validation' and 'test' if they exist -> the folder with a folder per class, and the folder
        out of which no link may lead.
      class_names: the names of the class folders, in alphabetical order.
    """

    splits: dict[str, tuple[Path, Path]]
    class_names: tuple[str, ...]


def layout(data: Path, test_data: Path | None = None) -> Layout:
    """Finds the splits of a data set and its classes; opens no image.

    Args:
      data: a folder with one folder per class, in which images are at any depth; or one with such folders train, test
        and val, of which the last two are optional.
      test_data: a folder with one folder per class, for data without a folder test.

    Raises:
      InputError: a folder is missing or empty, there is only one class, or a split has a class that train lacks.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("train/cat", "train/dog", "test/dog"):
    ...     (folder / name).mkdir(parents=True)
    >>> layout(folder).class_names
    ('cat', 'dog')
    """
    subfolders = {folder.name: folder for folder in class_folders(data)}
    # A folder that contains images itself is a class, even one called train.
    if "train" in subfolders and not any(path.suffix.lower() in images.SUFFIXES for path in (data / "train").iterdir()):
        splits = {role: (subfolders[name], data) for name, role in _ROLES.items() if name in subfolders}
    else:
        splits = {"train": (data, data)}
    train = splits["train"][0]
    if test_data is not None:
        if "test" in splits:
            raise InputError(f"{data} has a folder test: leave test_data out, or set data to {train}.")
        splits["test"] = (test_data, test_data)
    classes = class_folders(train)
    for folder in classes:
        files.check_name(folder)
    class_names = tuple(folder.name for folder in classes)
    if len(class_names) < 2:
        only = f"only the folder {class_names[0]!r}" if class_names else "no folders"
        raise InputError(f"{train} holds {only}; it must hold a folder of images for each of two classes or more.")
    for split, root in splits.values():
        folders = class_folders(split)
        for folder in folders:
            if folder.name not in class_names:
                raise InputError(f"{folder}: is not a class of {train}, which are {', '.join(class_names)}.")
        files.all_inside(root, folders)
    return Layout(splits, class_names)


def read(where: Layout, *, size: int, test_fraction: float, skip_damaged: bool = False) -> Dataset:
    """Decodes a data set to uint8 images (N, size, size, 3), class by class, sorted by file name.

    Args:
      where: the folders, from :func:`layout`.
      size: height and width that images are resized to.
      test_fraction: the fraction of training examples that is held out for testing if there is no test split.
      skip_damaged: whether to leave out, and count, images that cannot be decoded instead of raising.

    Raises:
      InputError: a class has no image, or an image cannot be decoded.
    """
    splits: dict[str, Split] = {}
    checksums, notes = {}, ["a folder for each class"]
    for role, (folder, root) in where.splits.items():
        paths, labels, others = list_images(folder, where.class_names)
        what = f"{role} images"
        decoded = images.decode_all(
            paths, size=size, channels=3, root=folder, what=what, inside=root, skip_damaged=skip_damaged
        )
        checksums[role] = decoded.sha256
        pixels = decoded.images
        if damaged := decoded.left_out:
            left_out = f"{len(damaged):,} images of {folder} cannot be decoded and are left out"
            notes.append(f"warning: {left_out}, such as {paths[damaged[0]].relative_to(folder)}")
            pixels, labels = (np.delete(rows, damaged, axis=0) for rows in (pixels, labels))
            paths = [path for row, path in enumerate(paths) if row not in set(damaged)]
        if others:
            notes.append(f"{len(others):,} files of {folder} are not images by their names, such as {others[0]}")
        if pairs := _in_two_classes(pixels, labels):
            first, second = (paths[row].relative_to(folder) for row in pairs[0])
            notes.append(f"warning: {len(pairs):,} images of {folder} are in two classes, such as {first} and {second}")
        splits[role] = Split(pixels, labels)
    location = where.splits["train"][0]
    if "test" not in splits:
        splits["train"], splits["test"] = user_tables.hold_out_test(splits["train"], test_fraction, location)
        notes.append(f"{splits['test'].num_examples:,} images held out for testing")
    if len(where.class_names) == 2:
        notes.append(f"the positive class is {where.class_names[1]!r}")
    provenance = Provenance("files", str(location), checksums, note="; ".join(notes))
    return Dataset(
        "image_folder", splits["train"], splits["test"], where.class_names, provenance, splits.get("validation")
    )


def class_folders(folder: Path) -> list[Path]:
    """Lists the folders in a folder, without hidden ones and those that macOS leaves in archives."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds a folder of images for each class.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def list_images(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], np.ndarray, list[Path]]:
    """Lists the images of a split, their labels, and the files that are not images."""
    paths: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(class_names):
        # A test split may lack a class; an empty folder for it is an oversight.
        if not (folder / name).is_dir():
            continue
        image_paths, not_images = images.list_files(folder / name)
        if not image_paths:
            also = f", but {len(not_images):,} other files such as {not_images[0].name}" if not_images else ""
            raise InputError(
                f"{folder / name} holds no images{also}; the names of images end in "
                f"{', '.join(sorted(images.SUFFIXES))}. Fill the folder, or remove it."
            )
        paths += image_paths
        labels += [label] * len(image_paths)
        others += not_images
    return paths, np.array(labels, np.int32), others


def _in_two_classes(pixels: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows with the same pixels but different labels, of which one must be wrong."""
    first: dict[bytes, int] = {}
    rows = (first.setdefault(hashlib.sha256(image.data).digest(), row) for row, image in enumerate(pixels))
    return [(earlier, row) for row, earlier in enumerate(rows) if labels[earlier] != labels[row]]
