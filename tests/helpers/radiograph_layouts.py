"""The drawings of the disease_tagging sample in the layouts of CheXpert and of MedMNIST."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxcls.data.samples import radiographs
from jaxcls.data.samples.disease_tagging import FREQUENCIES, draw_views

# The columns of CheXpert, and the finding that each corresponds to.
_CHEXPERT = {
    "No Finding": None, "Enlarged Cardiomediastinum": None, "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Infiltration", "Lung Lesion": "Nodule", "Edema": "Edema", "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia", "Atelectasis": "Atelectasis", "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion", "Pleural Other": "Pleural_Thickening", "Fracture": None, "Support Devices": None,
}  # fmt: skip


def write_chexpert(folder: Path, *, train: int = 60, valid: int = 20, seed: int = 0) -> None:
    """Writes CheXpert-v1.0-small/{train,valid}.csv and {train,valid}/patient00001/study1/view1_frontal.jpg, ..."""
    rng = np.random.default_rng(seed)
    for split, count, first in [("train", train, 0), ("valid", valid, 64540)]:
        rows = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(_CHEXPERT)}"]
        for view in draw_views(rng, count):
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
        views = list(draw_views(rng, count))
        small = [Image.fromarray(view.image).resize((28, 28), Image.Resampling.BICUBIC) for view in views]
        arrays[f"{split}_images"] = np.stack([np.asarray(image) for image in small])
        labels = [[name in view.findings for name in FREQUENCIES] for view in views]
        arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    np.savez_compressed(folder / "chestmnist.npz", **arrays)


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
