"""Folders of images with one folder per class."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import splits as data_splits
from jaxcls.data import user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.formats import images
from jaxcls.data.formats.columns import composed
from jaxcls.data.formats.pixels import SUFFIXES
from jaxcls.data.rows import Rows, is_sampled


class Images(NamedTuple):
    """The images of a split.

    Attributes:
      root: the folder above all of them.
      inside: the folder that no link may lead out of.
      paths: class by class, sorted by name.
      labels: int32 (N,), indices of class names.
    """

    root: Path
    inside: Path
    paths: list[Path]
    labels: np.ndarray


class Layout(NamedTuple):
    """The images of a data set.

    Attributes:
      splits: 'train', and 'validation' and 'test' if they exist.
      class_names: the names of the class folders, in alphabetical order.
      notes: what was left out, and what may not be as intended.
    """

    splits: dict[str, Images]
    class_names: tuple[str, ...]
    notes: list[str]


# The folders of a split that hold images, relative to the data set -> the names below the folder of the split.
_Folders = dict[Path, tuple[str, ...]]


def layout(data: Path, validation_data: Path | None = None, test_data: Path | None = None) -> Layout:
    """Finds the splits of a data set and its classes; opens no image.

    A folder is that of a split by its name (train, Training, seg_train; val, Validation; test, Testing, ...), above or
    below the class folders, if there are training images of two classes in it. Folders that only wrap others are
    passed through.

    Args:
      data: a folder with one folder per class, in which images are at any depth, with or without folders of splits.
      validation_data: a folder with one folder per class, for data without a folder val.
      test_data: likewise, for data without a folder test.

    Raises:
      InputError: a folder is missing or empty, there is only one class, or a split has a class that train lacks.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("Training/cat", "Training/dog", "Testing/dog"):
    ...     (folder / name).mkdir(parents=True)
    ...     (folder / name / "1.png").touch()
    >>> found = layout(folder)
    >>> found.class_names, found.splits["test"].labels.tolist()
    (('cat', 'dog'), [1])
    """
    by_folder, others = _by_folder(data)
    notes = [f"{len(others):,} files of {data} are not images by their names, such as {others[0]}"] if others else []
    splits, unused = _splits(data, [*by_folder])
    if unused:
        count, first = sum(len(by_folder[folder]) for folder in unused), by_folder[unused[0]][0]
        notes.append(
            f"warning: {count:,} images of {data} are in no folder of a class and are left out, such as {first}"
        )
    where = {role: (data, by_folder, folders) for role, folders in splits.items()}
    for role, path in {"validation": validation_data, "test": test_data}.items():
        if path is None:
            continue
        if role in splits:
            train = os.path.commonpath([data / folder for folder in splits["train"]])
            raise InputError(f"{data} has a {role} folder: leave {role}_data out, or set data to {train}.")
        listed, _ = _by_folder(path)
        where[role] = (path, listed, {folder: folder.parts for folder in listed})
    class_names: tuple[str, ...] = ()
    images_of: dict[str, Images] = {}
    for role, (root, listed, folders) in where.items():
        below = _below_wrappers(folders, class_names)
        if role == "train":
            class_names = _classes(data, below, [*by_folder], others)
            if like_splits := [name for name in class_names if data_splits.role(name)]:
                notes.append(f"warning: the folder {like_splits[0]!r} counts as a class, not as a split")
        images_of[role] = _images(root, listed, below, class_names)
    return Layout(images_of, class_names, notes)


@images.with_fitted_white
def read(where: Layout, *, test_fraction: float, **decoding: Any) -> Dataset:
    """Decodes a data set to uint8 images (N, size, size, 3), class by class, sorted by file name.

    Args:
      where: the images, from :func:`layout`.
      test_fraction: the fraction of training examples that is held out for testing if there is no test split.
      decoding: ``size`` and ``skip_damaged``, as in :func:`jaxcls.data.formats.images.decode_all`.

    Raises:
      InputError: an image cannot be decoded.
    """
    splits: dict[str, Split] = {}
    checksums, notes = {}, ["a folder for each class", *where.notes]
    for role, (folder, inside, paths, labels) in where.splits.items():
        what = f"{role} images"
        decoded = images.decode_all(paths, channels=3, root=folder, what=what, inside=inside, later=True, **decoding)
        checksums[role] = decoded.sha256
        notes += decoded.notes
        labels = labels[decoded.rows]
        if not is_sampled(decoded.images) and (pairs := _in_two_classes(decoded.images, labels)):
            first, second = (paths[decoded.rows[row]].relative_to(folder) for row in pairs[0])
            notes.append(f"warning: {len(pairs):,} images of {folder} are in two classes, such as {first} and {second}")
        splits[role] = Split(decoded.images, labels, deepest=decoded.deepest)
    location = where.splits["train"].root
    if "test" not in splits:
        splits["train"], splits["test"] = user_tables.hold_out_test(splits["train"], test_fraction, location)
        notes.append(f"{splits['test'].num_examples:,} images held out for testing")
    if len(where.class_names) == 2:
        notes.append(f"the positive class is {where.class_names[1]!r}")
    provenance = Provenance("files", str(location), checksums, note="; ".join(notes))
    return Dataset(
        "image_folder", splits["train"], splits["test"], where.class_names, provenance, splits.get("validation")
    )


def _by_folder(data: Path) -> tuple[dict[Path, list[Path]], list[Path]]:
    """The images in each folder, relative to the data set, and the files that are not images."""
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; give one that holds a folder of images for each class.")
    paths, others = images.list_files(data)
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent.relative_to(data), []).append(path)
    return by_folder, others


def _splits(data: Path, folders: Sequence[Path]) -> tuple[dict[str, _Folders], list[Path]]:
    """The folders of each split, and those of no split."""
    roles = data_splits.roles({name for folder in folders for name in folder.parts})
    splits: dict[str, _Folders] = {}
    for folder in folders:
        role = next((roles[name] for name in folder.parts if name in roles), "")
        names = tuple(name for name in folder.parts if roles.get(name) != role)
        splits.setdefault(role, {})[folder] = names
    plain = splits.pop("", {})
    classes = {role: _tops(_below_wrappers(split)) for role, split in splits.items()}
    if len(classes.get("train", ())) > 1:
        unused = list(plain)
    elif splits and "train" not in splits and _tops(plain) >= set.union(*classes.values()) > set():
        # The training images are those that are in no folder of a split.
        splits, unused = {"train": plain, **splits}, []
    elif splits and not _tops(plain):
        raise InputError(
            f"{data}: {', '.join(sorted(roles))} are splits by their names; there must be training images in a folder "
            "for each of two classes or more."
        )
    else:
        splits, unused = {"train": {folder: folder.parts for folder in folders}}, []
    unused += [folder for split in splits.values() for folder, names in split.items() if not names]
    return {role: splits[role] for role in data_splits.ROLES if any(splits.get(role, {}).values())}, sorted(unused)


def _tops(folders: _Folders) -> set[str]:
    return {names[0] for names in folders.values() if names}


def _below_wrappers(folders: _Folders, class_names: Sequence[str] = ()) -> _Folders:
    """The folders with a class, without the names above the classes, which all have in common."""
    folders = {folder: names for folder, names in folders.items() if names}
    while len(tops := _tops(folders)) == 1 and not tops & {*class_names} and min(map(len, folders.values())) > 1:
        folders = {folder: names[1:] for folder, names in folders.items()}
    return folders


def _classes(data: Path, folders: _Folders, with_images: Sequence[Path], others: Sequence[Path]) -> tuple[str, ...]:
    for folder in folders:
        files.check_name(data / folder)
    # An empty folder is an oversight.
    for parent in sorted({_class_folder(data, folder, names).parent for folder, names in folders.items()}):
        for folder in sorted(filter(Path.is_dir, parent.iterdir())):
            # As in list_files.
            hidden = folder.name.startswith((".", "__MACOSX"))
            if not hidden and not any((data / used).is_relative_to(folder) for used in with_images):
                inside = [path.name for path in others if path.is_relative_to(folder)]
                also = f", but {len(inside):,} other files such as {inside[0]}" if inside else ""
                raise InputError(
                    f"{folder} holds no images{also}; the names of images end in {', '.join(sorted(SUFFIXES))}. Fill "
                    "the folder, or remove it."
                )
    class_names = tuple(sorted({composed(name) for name in _tops(folders)}))
    if len(class_names) < 2:
        only = f"only the folder {class_names[0]!r}" if class_names else "no folders of images"
        raise InputError(f"{data} holds {only}; it must hold a folder of images for each of two classes or more.")
    return class_names


def _images(root: Path, by_folder: Mapping[Path, list[Path]], folders: _Folders, class_names: Sequence[str]) -> Images:
    index = {name: label for label, name in enumerate(class_names)}
    listed: list[tuple[int, Path]] = []
    for folder, names in folders.items():
        if (name := composed(names[0])) not in index:
            raise InputError(
                f"{_class_folder(root, folder, names)}: is not a class of train, which are {', '.join(class_names)}."
            )
        listed += [(index[name], path) for path in by_folder[folder]]
    listed.sort()
    parents = [_class_folder(root, folder, names).parent for folder, names in folders.items()]
    labels = np.array([label for label, _ in listed], np.int32)
    return Images(Path(os.path.commonpath(parents)), root, [path for _, path in listed], labels)


def _class_folder(root: Path, folder: Path, names: Sequence[str]) -> Path:
    """The folder of the class, names[0], in which an image folder lies."""
    depth = folder.parts.index(names[0]) + 1
    return root.joinpath(*folder.parts[:depth])


def _in_two_classes(pixels: Rows, labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows with the same pixels but different labels, of which one must be wrong."""
    first: dict[bytes, int] = {}
    rows = (first.setdefault(hashlib.sha256(image.data).digest(), row) for row, image in enumerate(pixels))
    return [(earlier, row) for row, earlier in enumerate(rows) if labels[earlier] != labels[row]]
