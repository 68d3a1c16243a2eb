"""A synthetic ChestX-ray14: drawings of chests with some of 14 faint findings, in the layout of the real files.

It has what makes the real set hard: more than half of the images show nothing, the findings are as rare as in the real
set (a hernia is in one image of five hundred), some occur together, patients with several images keep most of their
findings, and the labels were read in reports, not in the images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


class View(NamedTuple):
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
    for index, view in enumerate(draw_views(rng, images)):
        name = f"{view.patient:08d}_{view.number:03d}.png"
        path = folder / f"images_{1 + 2 * index // images:03d}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A few of the real images are RGBA.
        radiographs.save(path, view.image, width=80, height=80, mode="RGBA" if rng.random() < 0.01 else "L")
        # The same for all images of a patient; the fraction of patients is that of the real test list.
        in_test = np.random.default_rng([seed, view.patient]).random() < 0.23
        lists["test_list.txt" if in_test else "train_val_list.txt"].append(name)
        findings, age = "|".join(sorted(view.findings)) or "No Finding", rng.integers(20, 90)
        rows.append(f"{name},{findings},{view.number},{view.patient},{age:03d}Y,M,PA,2682,2749,0.143,0.143,")
    (folder / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    for file, names in lists.items():
        (folder / file).write_text("\n".join(names))


def draw_views(rng: np.random.Generator, count: int) -> Iterator[View]:
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
            yield View(number, image, findings, radiographs.radiograph(rng, patient, strengths))
            count -= 1


def _findings(rng: np.random.Generator, illness: float) -> list[str]:
    drawn = [name for name, frequency in FREQUENCIES.items() if rng.random() < 0.62 * frequency * illness]
    return [*drawn, *(_TOGETHER[name] for name in drawn if name in _TOGETHER and rng.random() < 0.3)]
