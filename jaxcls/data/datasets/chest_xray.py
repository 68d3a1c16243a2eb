"""Pneumonia in chest radiographs (Kermany et al. 2018): Kaggle's folders, or MedMNIST's pneumoniamnist.npz."""

import functools
import os
import re
from pathlib import Path

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data import sources
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.datasets import image_folders, medmnist
from jaxcls.data.formats import images
from jaxcls.data.samples import chest_xray as sample

CLASSES = ("NORMAL", "PNEUMONIA")
NEEDS = (
    "Set data_dir to a folder with Kaggle's chest_xray/{train,val,test}/{NORMAL,PNEUMONIA} "
    "(paultimothymooney/chest-xray-pneumonia) or with MedMNIST's pneumoniamnist.npz, or source to sample."
)
# person12_bacteria_47.jpeg; IM-0115-0001.jpeg, NORMAL2-IM-0327-0001.jpeg
_PATIENT = re.compile(r"(person\d+)_|(?:NORMAL2-)?(IM-\d+)-")


def load(source: str, data_dir: str | os.PathLike[str] | None, *, size: int) -> Dataset:
    """Loads gray images of this height and width from a source; see :func:`jaxcls.data.sources.load`."""
    read = functools.partial(_read, size=size)
    return sources.load("chest_xray", source, data_dir, read=read, needs=NEEDS, write_sample=sample.write)


def _read(folder: Path, size: int) -> Dataset:
    for root in (folder, folder / "chest_xray"):
        if (root / "train").is_dir():
            return _from_kaggle(root, size, folder)
    file = medmnist.find(folder, "pneumoniamnist", size)
    if file is None:
        raise InputError(f"{folder}: holds neither chest_xray/train nor pneumoniamnist.npz. {NEEDS}")
    return medmnist.read(file, name="chest_xray", class_names=CLASSES, num_labels=1, size=size)


def _from_kaggle(root: Path, size: int, folder: Path) -> Dataset:
    train_paths, train_labels = _list(root / "train")
    if (root / "val").is_dir():
        val_paths, val_labels = _list(root / "val")
        train_paths, train_labels = train_paths + val_paths, np.append(train_labels, val_labels)
    examples: dict[str, Split] = {}
    patients: dict[str, np.ndarray] = {}
    checksums = {}
    for name, (paths, labels) in {"train": (train_paths, train_labels), "test": _list(root / "test")}.items():
        what = f"{name} radiographs"
        decoded = images.decode_all(paths, size=size, channels=1, root=root, what=what, inside=folder)
        # An image without a patient in its name is its own group.
        matches = [(path.name, _PATIENT.match(path.name)) for path in paths]
        patients[name] = np.array([match[1] or match[2] if match else file for file, match in matches])
        examples[name] = Split(decoded.images, labels, groups=patients[name])
        checksums[name] = decoded.sha256
    numbers = len(np.unique(patients["train"]))
    shared = len(np.intersect1d(patients["train"], patients["test"]))
    note = (
        f"the archive's validation images count as training images; {numbers:,} patients, of which the numbers of "
        f"{shared:,} also occur in the test split, for the same patient or another"
    )
    record = Provenance("files", str(root), checksums, synthetic=False, note=note)
    return Dataset("chest_xray", examples["train"], examples["test"], CLASSES, record)


def _list(folder: Path) -> tuple[list[Path], np.ndarray]:
    classes = [path.name for path in image_folders.class_folders(folder)]
    if classes != [*CLASSES]:
        raise InputError(f"{folder}: holds the folders {classes}; it must hold {' and '.join(CLASSES)} only.")
    paths, labels, others = image_folders.list_images(folder, CLASSES)
    if others:
        raise InputError(f"{others[0]}: is not an image by its name; remove or rename it.")
    return paths, labels
