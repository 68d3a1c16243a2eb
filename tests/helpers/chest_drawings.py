"""A generated chest_xray/: drawings of chests, with and without faint opacities, in the layout of Kaggle's archive.

It has what makes the real set hard: 16 validation images, pneumonia in three of four training images but in fewer test
images, several similar images of some patients, patients of the training and of the test images that are both numbered
from 1, images of many sizes and of two modes, and the junk files of an unpacked archive.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxcls.data.samples import radiographs

# The fractions of images with pneumonia in the real splits.
TRAIN_POSITIVE, TEST_POSITIVE = 0.743, 0.625
# The fraction of images with pneumonia whose drawing does not show it, which bounds the area under the ROC curve by
# 1 - HIDDEN / 2.
HIDDEN = 0.06


def write(folder: Path, *, train: int = 900, test: int = 200, seed: int = 0) -> None:
    """Writes chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg; the validation split has 16 images."""
    rng = np.random.default_rng(seed)
    root = folder / "chest_xray"
    normal, pneumonia = _normal_names(rng, 115), _pneumonia_names(rng)
    positives = {"train": round(TRAIN_POSITIVE * train), "val": 8, "test": round(TEST_POSITIVE * test)}
    for split, count in (("train", train), ("val", 16), ("test", test)):
        # The validation images of the real set continue the numbers.
        if split == "test":
            normal, pneumonia = _normal_names(rng, 1), _pneumonia_names(rng)
        negatives = itertools.islice(normal, count - positives[split])
        for label, names in ("NORMAL", negatives), ("PNEUMONIA", itertools.islice(pneumonia, positives[split])):
            (root / split / label).mkdir(parents=True)
            for patient, name in names:
                findings = _findings(rng) if label == "PNEUMONIA" else {}
                image = radiographs.radiograph(rng, patient, findings)
                width = int(rng.integers(110, 220))
                # Some of the real images with pneumonia, and none of the others, have three equal channels.
                mode = "RGB" if label == "PNEUMONIA" and rng.random() < 0.07 else "L"
                height = round(width / rng.uniform(1, 1.6))
                radiographs.save(root / split / label / name, image, width=width, height=height, mode=mode)
    junk = folder / "__MACOSX" / "chest_xray" / "train" / "NORMAL"
    junk.mkdir(parents=True)
    (junk / "._IM-0115-0001.jpeg").write_bytes(b"\0\5\26\7")
    (root / "train" / "NORMAL" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


def _findings(rng: np.random.Generator) -> dict[str, float]:
    if rng.random() < HIDDEN:
        return {}
    strength = float(np.exp(rng.normal(0, 0.4)))
    return {"Pneumonia": strength} if rng.random() < 0.6 else {"Infiltration": strength}


def _normal_names(rng: np.random.Generator, first: int) -> Iterator[tuple[radiographs.Patient, str]]:
    for number in range(first, 10_000):
        patient, prefix = radiographs.new_patient(rng), "" if number % 2 else "NORMAL2-"
        yield patient, f"{prefix}IM-{number:04d}-0001.jpeg"
        for repeat in range(2, rng.geometric(0.7) + 1):
            yield patient, f"{prefix}IM-{number:04d}-0001-{repeat:04d}.jpeg"


def _pneumonia_names(rng: np.random.Generator) -> Iterator[tuple[radiographs.Patient, str]]:
    image = 0
    for number in range(1, 10_000):
        patient, cause = radiographs.new_patient(rng), "bacteria" if rng.random() < 0.65 else "virus"
        for _ in range(rng.geometric(0.45)):
            image += 1
            yield patient, f"person{number}_{cause}_{image}.jpeg"
