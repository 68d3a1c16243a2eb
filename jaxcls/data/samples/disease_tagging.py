"""A synthetic ChestX-ray14: drawings of chests with some of 14 faint findings, in the layout of the real files.

What makes the real set hard is here too: more than half of the images show nothing, the findings are as rare as in the
real set (a hernia is one image in five hundred), some come together, patients with several images keep most of what
they have, and what the table says was read in reports, not in the images. `write_chexpert` and `write_medmnist` write
the same drawings in the layouts of CheXpert and of MedMNIST.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls.data.samples import radiographs

# The share of the images of ChestX-ray14 with each finding.
SHARES = {
    "Atelectasis": 0.103, "Cardiomegaly": 0.025, "Effusion": 0.119, "Infiltration": 0.177, "Mass": 0.052,
    "Nodule": 0.056, "Pneumonia": 0.013, "Pneumothorax": 0.047, "Consolidation": 0.042, "Edema": 0.021,
    "Emphysema": 0.022, "Fibrosis": 0.015, "Pleural_Thickening": 0.030, "Hernia": 0.002,
}  # fmt: skip
# What often comes with a finding.
_TOGETHER = {
    "Effusion": "Atelectasis", "Consolidation": "Effusion", "Edema": "Cardiomegaly", "Pneumonia": "Infiltration",
    "Pneumothorax": "Emphysema", "Fibrosis": "Pleural_Thickening", "Mass": "Nodule",
}  # fmt: skip
# The share of the findings of the table that the drawing does not show: no model ranks these above what has none, and
# none can have a greater area under the ROC curve than 1 - HIDDEN / 2.
HIDDEN = 0.1
TEST_SHARE = 0.23

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
_CHEXPERT = {
    "No Finding": None, "Enlarged Cardiomediastinum": None, "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Infiltration", "Lung Lesion": "Nodule", "Edema": "Edema", "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia", "Atelectasis": "Atelectasis", "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion", "Pleural Other": "Pleural_Thickening", "Fracture": None, "Support Devices": None,
}  # fmt: skip


class _View(NamedTuple):
    """One image (SIDE, SIDE) of a patient, and what its report says; numbers from 1 and from 0."""

    patient: int
    number: int
    findings: list[str]
    image: np.ndarray


def write(folder: Path, *, images: int = 1500, seed: int = 0) -> None:
    """Writes Data_Entry_2017.csv, train_val_list.txt, test_list.txt and images_001/images/*.png, ..."""
    rng = np.random.default_rng(seed)
    rows: list[str] = []
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for place, view in enumerate(_views(rng, images)):
        name = f"{view.patient:08d}_{view.number:03d}.png"
        path = folder / f"images_{1 + 2 * place // images:03d}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A few of the real images are RGBA.
        radiographs.save(path, view.image, width=80, height=80, mode="RGBA" if rng.random() < 0.01 else "L")
        # The same for all images of a patient.
        tests = np.random.default_rng([seed, view.patient]).random() < TEST_SHARE
        lists["test_list.txt" if tests else "train_val_list.txt"].append(name)
        found = "|".join(sorted(view.findings)) or "No Finding"
        rows.append(
            f"{name},{found},{view.number},{view.patient},{rng.integers(20, 90):03d}Y,M,PA,2682,2749,0.143,0.143,"
        )
    (folder / "Data_Entry_2017.csv").write_text("\n".join([_HEADER, *rows]) + "\n")
    for file, names in lists.items():
        (folder / file).write_text("\n".join(names))


def write_chexpert(folder: Path, *, train: int = 60, valid: int = 20, seed: int = 0) -> None:
    """Writes CheXpert-v1.0-small/{train,valid}.csv and {train,valid}/patient00001/study1/view1_frontal.jpg, ..."""
    rng = np.random.default_rng(seed)
    for part, count, first in [("train", train, 0), ("valid", valid, 64540)]:
        rows = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(_CHEXPERT)}"]
        for view in _views(rng, count):
            study = f"{part}/patient{first + view.patient:05d}/study{view.number + 1}"
            path = folder / "CheXpert-v1.0-small" / study / "view1_frontal.jpg"
            path.parent.mkdir(parents=True)
            radiographs.save(path, view.image, width=78, height=64)
            stated = [_stated(rng, name, view.findings, certain=part == "valid") for name in _CHEXPERT]
            rows.append(f"CheXpert-v1.0-small/{study}/view1_frontal.jpg,Female,68,Frontal,AP,{','.join(stated)}")
        (folder / "CheXpert-v1.0-small" / f"{part}.csv").write_text("\n".join(rows) + "\n")


def write_medmnist(folder: Path, *, train: int = 40, val: int = 10, test: int = 10, seed: int = 0) -> None:
    """Writes chestmnist.npz, images of 28 x 28."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for part, count in [("train", train), ("val", val), ("test", test)]:
        views = list(_views(rng, count))
        small = [Image.fromarray(view.image).resize((28, 28), Image.Resampling.BICUBIC) for view in views]
        arrays[f"{part}_images"] = np.stack([np.asarray(image) for image in small])
        arrays[f"{part}_labels"] = np.array([[name in view.findings for name in SHARES] for view in views], np.uint8)
    np.savez_compressed(folder / "chestmnist.npz", **arrays)


def _views(rng: np.random.Generator, count: int) -> Iterator[_View]:
    """So many images, patient by patient."""
    patient = 0
    while count:
        patient += 1
        person = radiographs.new_patient(rng)
        # Who is more ill has more images, and more to be seen on each.
        illness = rng.gamma(1.5, 1 / 1.5)
        lasting = _findings(rng, illness)
        for number in range(min(count, rng.geometric(1 / (1 + illness)))):
            findings = sorted({name for name in lasting if rng.random() < 0.6} | set(_findings(rng, 0.45 * illness)))
            visible = [name for name in findings if rng.random() >= HIDDEN]
            strengths = {name: float(np.exp(rng.normal(0, 0.3))) for name in visible}
            yield _View(patient, number, findings, radiographs.radiograph(rng, person, strengths))
            count -= 1


def _findings(rng: np.random.Generator, illness: float) -> list[str]:
    drawn = [name for name, share in SHARES.items() if rng.random() < 0.62 * share * illness]
    return [*drawn, *(_TOGETHER[name] for name in drawn if name in _TOGETHER and rng.random() < 0.3)]


def _stated(rng: np.random.Generator, column: str, findings: list[str], *, certain: bool) -> str:
    """What CheXpert's table says in a column."""
    if column == "No Finding":
        return "1.0" if not findings else "0.0" if certain else ""
    present = _CHEXPERT[column] in findings
    if certain:
        return "1.0" if present else "0.0"
    if rng.random() < (0.2 if present else 0.03):
        return "-1.0"
    return "1.0" if present else "0.0" if rng.random() < 0.1 else ""
