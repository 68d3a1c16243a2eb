"""Folders of images in which every class has a folder of its own."""

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

# The names in use for the examples that a data set sets aside for choices.
_VALIDATION = ("val", "valid", "validation")


class Layout(NamedTuple):
    """Where the images of a data set stand.

    Attributes:
      train: the folder that holds a folder for each class.
      test, validation: likewise, or None.
      class_names: the names of the folders, in order of the alphabet.
      roots: of each part, the folder that was given, out of which no link may lead.
    """

    train: Path
    test: Path | None
    validation: Path | None
    class_names: tuple[str, ...]
    roots: dict[Path, Path]


def layout(data: Path, test_data: Path | None = None) -> Layout:
    """Finds the parts of a data set and its classes, and opens no image.

    Args:
      data: holds a folder for each class, in which images stand at any depth; or train/, test/ and val/ (each of
        the last two may be missing), which do.
      test_data: a folder for each class, for data that has no test/ of its own.

    Raises:
      InputError: a folder is missing or empty, there is one class only, or a part has a class that train has not.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("train/cat", "train/dog", "test/dog"):
    ...     (folder / name).mkdir(parents=True)
    >>> layout(folder).class_names
    ('cat', 'dog')
    """
    parts = {folder.name: folder for folder in _folders(data)}
    # A folder that holds images itself is a class, even one called train.
    divided = "train" in parts and not any(path.suffix.lower() in images.SUFFIXES for path in parts["train"].iterdir())
    train = parts["train"] if divided else data
    test, validation = test_data, None
    if divided:
        validation = next((parts[name] for name in _VALIDATION if name in parts), None)
        if "test" in parts and test_data is not None:
            raise InputError(f"{data} has a folder test of its own: leave --test-data out, or give --data {train}.")
        test = parts.get("test", test_data)
    classes = _folders(train)
    for folder in classes:
        files.check_name(folder)
    class_names = tuple(folder.name for folder in classes)
    if len(class_names) < 2:
        found = f"only the folder {class_names[0]!r}" if class_names else "no folders"
        raise InputError(f"{train} holds {found}; it must hold a folder of images for each of two classes or more.")
    for part in (test, validation):
        for folder in _folders(part) if part else ():
            if folder.name not in class_names:
                raise InputError(f"{folder}: no class of {train}, which are {', '.join(class_names)}.")
    roots = {part: test_data if part == test_data else data for part in (train, test, validation) if part is not None}
    for part, root in roots.items():
        files.all_inside(root, _folders(part))
    return Layout(train, test, validation, class_names, roots)


def read(name: str, where: Layout, *, size: int, test_fraction: float, skip_damaged: bool = False) -> Dataset:
    """Decodes a data set to uint8 images (N, size, size, 3), class by class, in order of their names.

    Args:
      name: the task's.
      where: from :func:`layout`.
      size: height and width that images are brought to.
      test_fraction: the share that is set aside for the test where the data has no test part.
      skip_damaged: leave out, and count, images that cannot be decoded.

    Raises:
      InputError: a class has no image, or an image cannot be decoded and is not to be left out.
    """
    checksums, notes = {}, ["a folder for each class"]

    def part(role: str, folder: Path) -> Split:
        paths, labels, others = _listed(folder, where.class_names)
        decoded = images.decode_all(
            paths,
            size=size,
            channels=3,
            root=folder,
            what=f"{role} images",
            inside=where.roots[folder],
            skip_damaged=skip_damaged,
        )
        checksums[role] = decoded.sha256
        pixels = decoded.images
        if out := decoded.left_out:
            named = paths[out[0]].relative_to(folder)
            notes.append(
                f"warning: {len(out):,} images of {folder} cannot be decoded and are left out, such as {named}"
            )
            pixels, labels = (np.delete(rows, out, axis=0) for rows in (pixels, labels))
            paths = [path for row, path in enumerate(paths) if row not in set(out)]
        if others:
            notes.append(f"{len(others):,} files of {folder} are no images by their names, such as {others[0]}")
        if twice := _in_two_classes(pixels, labels):
            first, second = (paths[row].relative_to(folder) for row in twice[0])
            notes.append(
                f"warning: {len(twice):,} images of {folder} stand in two classes, such as {first} and {second}"
            )
        return Split(pixels, labels)

    train = part("train", where.train)
    validation = part("validation", where.validation) if where.validation else None
    if where.test:
        test = part("test", where.test)
    else:
        train, test = user_tables.hold_out_test(train, test_fraction, str(where.train))
        notes.append(f"{len(test.labels):,} images set aside for the test")
    if len(where.class_names) == 2:
        notes.append(f"the positive class is {where.class_names[1]!r}")
    provenance = Provenance("files", str(where.train), checksums, synthetic=False, note="; ".join(notes))
    return Dataset(name, train, test, where.class_names, provenance, validation)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds a folder of images for each class.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def _listed(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], np.ndarray, list[Path]]:
    """The images of a part, their labels, and the files that are none."""
    paths: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(class_names):
        # A test part may lack a class; a folder for it that is empty is an oversight.
        if not (folder / name).is_dir():
            continue
        found, no_images = images.list_files(folder / name)
        if not found:
            seen = f", but {len(no_images):,} other files such as {no_images[0].name}" if no_images else ""
            raise InputError(
                f"{folder / name} holds no images{seen}; the names of images end in "
                f"{', '.join(sorted(images.SUFFIXES))}. Fill the folder, or remove it."
            )
        paths += found
        labels += [label] * len(found)
        others += no_images
    return paths, np.array(labels, np.int32), others


def _in_two_classes(pixels: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows that hold the same pixels under different labels: nobody could tell which is right."""
    first: dict[bytes, int] = {}
    rows = (first.setdefault(hashlib.sha256(image.data).digest(), row) for row, image in enumerate(pixels))
    return [(earlier, row) for row, earlier in enumerate(rows) if labels[earlier] != labels[row]]
