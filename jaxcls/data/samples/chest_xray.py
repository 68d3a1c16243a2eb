"""A synthetic chest_xray/: drawings of chests, with and without faint opacities, in the layout of Kaggle's archive.

What makes the real set hard is here too: 16 validation images, three of four training images with pneumonia but fewer
test images, several images of some patients, which look alike, patients of the training and of the test images that
are numbered from 1 both, images of many sizes and of two modes, and what an unpacked archive holds besides.

A split by row instead of by patient shows better than it is here: the task's recipe then has areas under the ROC curve
of 0.943 and 0.946 on validation images (seeds 0 and 1) for 0.906 and 0.924 on test images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxcls.data.samples import radiographs

# The shares of images with pneumonia in the real parts.
TRAIN_POSITIVE, TEST_POSITIVE = 0.743, 0.625
# The share of the images with pneumonia whose drawing shows none: no model ranks them above others, and none can
# have a greater area under the ROC curve than 1 - HIDDEN / 2.
HIDDEN = 0.06


def write(folder: Path, *, train: int = 900, test: int = 200, seed: int = 0) -> None:
    """Writes chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg: so many training and test images, and 16 others."""
    rng = np.random.default_rng(seed)
    root = folder / "chest_xray"
    positive = round(TRAIN_POSITIVE * train)
    normal_names, pneumonia_names = _normal_names(rng, 115), _pneumonia_names(rng, 1)
    _write_part(rng, root / "train", normal_names, train - positive, pneumonia_names, positive)
    # The validation images of the real set carry the numbers on.
    _write_part(rng, root / "val", normal_names, 8, pneumonia_names, 8)
    positive = round(TEST_POSITIVE * test)
    _write_part(rng, root / "test", _normal_names(rng, 1), test - positive, _pneumonia_names(rng, 1), positive)
    junk = folder / "__MACOSX" / "chest_xray" / "train" / "NORMAL"
    junk.mkdir(parents=True)
    (junk / "._IM-0115-0001.jpeg").write_bytes(b"\0\5\26\7")
    (root / "train" / "NORMAL" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


# Someone, and the name of an image of theirs.
_Names = Iterator[tuple[radiographs.Patient, str]]


def _write_part(
    rng: np.random.Generator, folder: Path, normal_names: _Names, normals: int, pneumonia_names: _Names, positives: int
) -> None:
    for kind, names, count in [("NORMAL", normal_names, normals), ("PNEUMONIA", pneumonia_names, positives)]:
        (folder / kind).mkdir(parents=True)
        for _ in range(count):
            person, name = next(names)
            findings = _findings(rng) if kind == "PNEUMONIA" else {}
            image = radiographs.radiograph(rng, person, findings)
            width = int(rng.integers(110, 220))
            # Some of the real images with pneumonia, and none of the others, hold three equal channels.
            mode = "RGB" if kind == "PNEUMONIA" and rng.random() < 0.07 else "L"
            radiographs.save(
                folder / kind / name, image, width=width, height=round(width / rng.uniform(1, 1.6)), mode=mode
            )


def _findings(rng: np.random.Generator) -> dict[str, float]:
    if rng.random() < HIDDEN:
        return {}
    strength = float(np.exp(rng.normal(0, 0.4)))
    return {"Pneumonia": strength} if rng.random() < 0.6 else {"Infiltration": strength}


def _normal_names(rng: np.random.Generator, first: int) -> _Names:
    for number in range(first, 10_000):
        person, prefix = radiographs.patient(rng), "" if number % 2 else "NORMAL2-"
        yield person, f"{prefix}IM-{number:04d}-0001.jpeg"
        for again in range(2, rng.geometric(0.7) + 1):
            yield person, f"{prefix}IM-{number:04d}-0001-{again:04d}.jpeg"


def _pneumonia_names(rng: np.random.Generator, first: int) -> _Names:
    image = 0
    for number in range(first, 10_000):
        person, kind = radiographs.patient(rng), "bacteria" if rng.random() < 0.65 else "virus"
        for _ in range(rng.geometric(0.45)):
            image += 1
            yield person, f"person{number}_{kind}_{image}.jpeg"
