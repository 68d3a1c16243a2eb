"""A synthetic ChestX-ray14: drawings of chests with some of 14 faint findings, in the layout of the real files.

It has what makes the real set hard: more than half of the images show nothing, the findings are as rare as in the real
set (a hernia is in one image of five hundred), some occur together, patients with several images keep most of their
findings, and the labels were read in reports, not in the images. `write_chexpert` and `write_medmnist` write the same
drawings in the layouts of CheXpert and of MedMNIST.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls.data.samples import radiographs

# The fraction of the images of ChestX-ray14 with each finding.
FREQUENCIES = {
    "Atelectasis": 0.103, "Cardiomegaly": 0.025, "Effusion": 0.119, "Infiltration": 0.177, "Mass": 0.052,
    "Nodule": 0.056, "Pneumonia": 0.013, "Pneumothorax": 0.047, "Consolidation": 0.042, "Edema": 0.021,
    "Emphysema": 0.022, "Fibrosis": 0.015, "Pleural_Thickening": 0.030, "Hernia": 0.002,
}  # fmt: skip
# A finding that often occurs with another.
_TOGETHER = {
    "Effusion": "Atelectasis", "Consolidation": "Effusion", "Edema": "Cardiomegaly", "Pneumonia": "Infiltration",
    "Pneumothorax": "Emphysema", "Fibrosis": "Pleural_Thickening", "Mass": "Nodule",
}  # fmt: skip
# The fraction of findings that the drawing does not show, which bounds the area under the ROC curve by 1 - HIDDEN / 2.
HIDDEN = 0.1
TEST_FRACTION = 0.23

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
# The columns of CheXpert, and the finding that each corresponds to.
_CHEXPERT = {
    "No Finding": None, "Enlarged Cardiomediastinum": None, "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Infiltration", "Lung Lesion": "Nodule", "Edema": "Edema", "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia", "Atelectasis": "Atelectasis", "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion", "Pleural Other": "Pleural_Thickening", "Fracture": None, "Support Devices": None,
}  # fmt: skip


class _View(NamedTuple):
    """An image (SIDE, SIDE) and the findings of its report; patients are numbered from 1, their images from 0."""

    patient: int
    number: int
    findings: list[str]
    image: np.ndarray


def write(folder: Path, *, images: int = 1500, seed: int = 0) -> None:
    """Writes Data_Entry_2017.csv, train_val_list.txt, test_list.txt and images_001/images/*.png, ..."""
    rng = np.random.default_rng(seed)
    rows = [_HEADER]
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for index, view in enumerate(_views(rng, images)):
        name = f"{view.patient:08d}_{view.number:03d}.png"
        path = folder / f"images_{1 + 2 * index // images:03d}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A few of the real images are RGBA.
        radiographs.save(path, view.image, width=80, height=80, mode="RGBA" if rng.random() < 0.01 else "L")
        # The same for all images of a patient.
        in_test = np.random.default_rng([seed, view.patient]).random() < TEST_FRACTION
        lists["test_list.txt" if in_test else "train_val_list.txt"].append(name)
        findings, age = "|".join(sorted(view.findings)) or "No Finding", rng.integers(20, 90)
        rows.append(f"{name},{findings},{view.number},{view.patient},{age:03d}Y,M,PA,2682,2749,0.143,0.143,")
    (folder / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    for file, names in lists.items():
        (folder / file).write_text("\n".join(names))


def write_chexpert(folder: Path, *, train: int = 60, valid: int = 20, seed: int = 0) -> None:
    """Writes CheXpert-v1.0-small/{train,valid}.csv and {train,valid}/patient00001/study1/view1_frontal.jpg, ..."""
    rng = np.random.default_rng(seed)
    for split, count, first in [("train", train, 0), ("valid", valid, 64540)]:
        rows = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(_CHEXPERT)}"]
        for view in _views(rng, count):
            study = f"CheXpert-v1.0-small/{split}/patient{first + view.patient:05d}/study{view.number + 1}"
            (folder / study).mkdir(parents=True)
            radiographs.save(folder / study / "view1_frontal.jpg", view.image, width=78, height=64)
            labels = [_chexpert_label(rng, name, view.findings, certain=split == "valid") for name in _CHEXPERT]
            rows.append(f"{study}/view1_frontal.jpg,Female,68,Frontal,AP,{','.join(labels)}")
        (folder / "CheXpert-v1.0-small" / f"{split}.csv").write_text("\n".join(rows) + "\n")


def write_medmnist(folder: Path, *, train: int = 40, val: int = 10, test: int = 10, seed: int = 0) -> None:
    """Writes chestmnist.npz, images of 28 x 28."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, count in [("train", train), ("val", val), ("test", test)]:
        views = list(_views(rng, count))
        small = [Image.fromarray(view.image).resize((28, 28), Image.Resampling.BICUBIC) for view in views]
        arrays[f"{split}_images"] = np.stack([np.asarray(image) for image in small])
        labels = [[name in view.findings for name in FREQUENCIES] for view in views]
        arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    np.savez_compressed(folder / "chestmnist.npz", **arrays)


def _views(rng: np.random.Generator, count: int) -> Iterator[_View]:
    """Draws this many images, patient by patient."""
    number = 0
    while count:
        number += 1
        patient = radiographs.new_patient(rng)
        # More severe illness means more images, and more findings in each.
        illness = rng.gamma(1.5, 1 / 1.5)
        lasting = _findings(rng, illness)
        for image in range(min(count, rng.geometric(1 / (1 + illness)))):
            findings = sorted({name for name in lasting if rng.random() < 0.6} | set(_findings(rng, 0.45 * illness)))
            visible = [name for name in findings if rng.random() >= HIDDEN]
            strengths = {name: float(np.exp(rng.normal(0, 0.3))) for name in visible}
            yield _View(number, image, findings, radiographs.radiograph(rng, patient, strengths))
            count -= 1


def _findings(rng: np.random.Generator, illness: float) -> list[str]:
    drawn = [name for name, frequency in FREQUENCIES.items() if rng.random() < 0.62 * frequency * illness]
    return [*drawn, *(_TOGETHER[name] for name in drawn if name in _TOGETHER and rng.random() < 0.3)]


def _chexpert_label(rng: np.random.Generator, column: str, findings: list[str], *, certain: bool) -> str:
    """The value of a column: '1.0', '0.0', '-1.0' for uncertain, or '' for not mentioned."""
    if column == "No Finding":
        present, mentioned = not findings, certain
    else:
        present = _CHEXPERT[column] in findings
        if not certain and rng.random() < (0.2 if present else 0.03):
            return "-1.0"
        mentioned = certain or present or rng.random() < 0.1
    return "1.0" if present else "0.0" if mentioned else ""
