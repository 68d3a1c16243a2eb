"""ChestX-ray14 and CheXpert: radiographs with the findings of their reports, as their authors publish them.

ChestX-ray14: Wang et al. 2017, arXiv 1705.02315. CheXpert: Irvin et al. 2019, arXiv 1901.07031.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.datasets import medmnist
from jaxcls.data.formats import images, reading, tables
from jaxcls.data.samples import disease_tagging

Uncertain: TypeAlias = Literal["ignore", "ones", "zeros"]

# In MedMNIST's order.
CHESTXRAY14 = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
# Without the column 'No Finding', which only says that there is none of these.
CHEXPERT = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NO_FINDING = "No Finding"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
_NEEDS = (
    "Set data_dir to a folder with ChestX-ray14 (Data_Entry_2017*.csv and images), with CheXpert-v1.0-small "
    "(train.csv, "
    "valid.csv and images), or with MedMNIST's chestmnist.npz; or source to sample."
)


def load_findings(
    source: str, data_dir: str | os.PathLike[str] | None, *, size: int, test_fraction: float, uncertain: Uncertain
) -> Dataset:
    """Loads ChestX-ray14, CheXpert or ChestMNIST, whichever a folder holds, or a sample in the layout of the first.

    Args:
      source, data_dir: as in :func:`jaxcls.data.sources.load`.
      size: the height and width that images are resized to.
      test_fraction: for ChestX-ray14 without the official lists.
      uncertain: for CheXpert; see :func:`read_chexpert`.
    """
    name = "disease_tagging"

    def read(folder: Path) -> Dataset:
        if any(folder.glob("Data_Entry_2017*.csv")):
            return read_chestxray14(folder, name=name, size=size, test_fraction=test_fraction)
        for root in (folder, *sorted(folder.glob("CheXpert-v1.0*"))):
            if (root / "train.csv").is_file():
                return read_chexpert(root, name=name, size=size, uncertain=uncertain, inside=folder)
        file = medmnist.find(folder, "chestmnist", size)
        if file is None:
            raise InputError(f"{folder}: holds neither Data_Entry_2017*.csv nor train.csv nor chestmnist.npz. {_NEEDS}")
        return medmnist.read(file, name=name, class_names=CHESTXRAY14, num_labels=len(CHESTXRAY14), size=size)

    return sources.load(name, source, data_dir, read=read, needs=_NEEDS, write_sample=disease_tagging.write)


def read_chestxray14(folder: Path, *, name: str, size: int, test_fraction: float) -> Dataset:
    """Reads ChestX-ray14: Data_Entry_2017*.csv, and the images that it names, in any folders next to it.

    A row with 'No Finding' has no label. The lists train_val_list.txt and test_list.txt define the splits; without
    them, `test_fraction` of the examples is held out, by patient.

    Args:
      folder: the one that holds the table.
      name: the name of the task.
      size: the height and width that images are resized to.
      test_fraction: the fraction of examples for the test split if there are no lists.

    Raises:
      InputError: naming the file and the row (of the data, from 1): a column, an image or a patient is missing, a
        finding is unknown or combined with 'No Finding', an image occurs twice, or is in both lists or in none.
    """
    candidates = sorted(folder.glob("Data_Entry_2017*.csv"))
    if len(candidates) != 1:
        raise InputError(f"{folder}: holds {len(candidates)} tables Data_Entry_2017*.csv; it must hold one.")
    table = files.inside(folder, candidates[0])
    keys = ("Image Index", "Finding Labels", "Patient ID")
    columns = tables.read_csv(table, required=keys, text=keys)
    names, findings, patients = (columns[key] for key in keys)
    user_tables.check_unique(names, keys[0], str(table))
    for row in np.flatnonzero(patients == "")[:1]:
        raise InputError(f"{table}: row {row + 1} of column {keys[2]!r} is empty; images are split by patient.")
    labels = np.stack([_labels(words, f"{table}: row {row}") for row, words in enumerate(findings, 1)])
    in_test = _in_test_list(names, folder, table)
    decoded = images.decode_all(_paths(names, folder, table), size=size, channels=1, root=folder, what="radiographs")
    examples = Split(decoded.images, labels, groups=patients)
    lists: list[Path] = []
    if in_test is None:
        train, test = user_tables.hold_out_test(examples, test_fraction, str(table), splits.grouped)
        note = f"no official lists, so {test_fraction:.0%} of the examples are held out for testing by patient"
    else:
        train, test = examples.take(~in_test), examples.take(in_test)
        lists = [folder / TRAIN_LIST, folder / TEST_LIST]
        note = f"the official lists; {_shared_patients(train, test):,} patients are in both"
    checksums = sources.checksums([table, *lists]) | {"images": decoded.sha256}
    record = Provenance("files", str(folder), checksums, synthetic=False, note=note)
    return Dataset(name, train, test, CHESTXRAY14, record)


def read_chexpert(folder: Path, *, name: str, size: int, uncertain: Uncertain, inside: Path | None = None) -> Dataset:
    """Reads CheXpert: train.csv and valid.csv, and the images that they name.

    A finding is 1.0 if the report affirms it, 0.0 if it denies it, -1.0 if it is uncertain, and blank if it does not
    mention it, which counts as 0. Frontal and lateral views are separate examples. valid.csv, which radiologists
    labeled, is the test split; an uncertain label there is not scored.

    Args:
      folder: the one that holds the tables.
      name: the name of the task.
      size: the height and width that images are resized to.
      uncertain: what -1.0 becomes in training: unknown (NaN), 1, or 0.
      inside: the folder that no link may lead out of; `folder` by default.

    Raises:
      InputError: naming the file and the row (of the data, from 1): a column or an image is missing, a label is none
        of these, or a path names no patient or leads out of the folder.
    """
    paths = [folder / "train.csv", folder / "valid.csv"]
    files.all_inside(inside or folder, paths)
    checksums = sources.checksums(paths)
    # Both tables are checked before any image is decoded.
    contents = [_chexpert_table(path, value) for path, value in zip(paths, (uncertain, "ignore"), strict=True)]
    examples: list[Split] = []
    for what, (image_paths, labels, patients) in zip(("training", "test"), contents, strict=True):
        decoded = images.decode_all(
            image_paths, size=size, channels=1, root=folder, what=f"{what} radiographs", inside=inside
        )
        examples.append(Split(decoded.images, labels, groups=patients))
        checksums[f"{what} images"] = decoded.sha256
    train, test = examples
    note = (
        f"uncertain labels: {uncertain}; not mentioned is negative; {_shared_patients(train, test):,} patients are in "
        "both splits"
    )
    record = Provenance("files", str(folder), checksums, synthetic=False, note=note)
    return Dataset(name, train, test, CHEXPERT, record)


def _labels(words: str, where: str) -> np.ndarray:
    """Encodes 'Cardiomegaly|Effusion' as float32 (14,)."""
    findings = [word.strip() for word in words.split("|")]
    if NO_FINDING in findings and len(findings) > 1:
        raise InputError(f"{where}: {NO_FINDING!r} is combined with a finding: {words!r}.")
    for finding in findings:
        if finding not in (*CHESTXRAY14, NO_FINDING):
            raise InputError(f"{where}: {unknown_name('finding', finding, [*CHESTXRAY14, NO_FINDING])}")
    return np.array([finding in findings for finding in CHESTXRAY14], np.float32)


def _paths(names: np.ndarray, folder: Path, table: Path) -> list[Path]:
    """Finds the images in images/, in images_001/images/, or wherever they were unpacked."""
    there: dict[str, Path] = {}
    for path in images.list_files(folder)[0]:
        if other := there.get(path.name):
            raise InputError(f"{path}: there is an image of this name at {other} too; remove one.")
        there[path.name] = path
    if missing := [name for name in names if name not in there]:
        raise images.missing(table, missing, len(names))
    return [there[name] for name in names]


def _in_test_list(names: np.ndarray, folder: Path, table: Path) -> np.ndarray | None:
    """Whether each image is in the official test list, bool (N,); None without lists."""
    there = [file for file in (TRAIN_LIST, TEST_LIST) if (folder / file).is_file()]
    if not there:
        return None
    if len(there) == 1:
        raise InputError(f"{folder}: holds {there[0]} alone; give both official lists, or none.")
    train, test = (dict.fromkeys(reading.read_text(files.inside(folder, folder / file)).split()) for file in there)
    for line, name in enumerate(test, 1):
        if name in train:
            raise InputError(f"{folder / TEST_LIST}: line {line}: {name} is in {TRAIN_LIST} too.")
    for row, name in enumerate(names, 1):
        if name not in train and name not in test:
            raise InputError(f"{table}: row {row}: {name} is in neither {TRAIN_LIST} nor {TEST_LIST}.")
    return np.array([name in test for name in names])


def _shared_patients(train: Split, test: Split) -> int:
    assert train.groups is not None
    assert test.groups is not None
    return len(np.intersect1d(train.groups, test.groups))


def _chexpert_table(table: Path, uncertain: str) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """The images, their labels and their patients."""
    columns = tables.read_csv(table, required=("Path", *CHEXPERT), text=("Path",))
    user_tables.check_unique(columns["Path"], "Path", str(table))
    labels = np.stack([_checked_labels(columns, finding, table) for finding in CHEXPERT], axis=1)
    labels[labels == -1] = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}[uncertain]
    views = [_view(path, table.parent, f"{table}: row {row}") for row, path in enumerate(columns["Path"], 1)]
    return [path for path, _ in views], labels, np.array([patient for _, patient in views])


def _checked_labels(columns: tables.Table, finding: str, table: Path) -> np.ndarray:
    """1, 0 and -1, and 0 for a blank; float32 (N,)."""
    values = tables.numbers(columns, finding, table, missing=True)
    for row in np.flatnonzero(~np.isin(values, (1, 0, -1)) & ~np.isnan(values))[:1]:
        where = f"{table}: row {row + 1} of column {finding!r}"
        raise InputError(f"{where} is {values[row]:g}; it must be 1.0, 0.0, -1.0 or blank.")
    return np.nan_to_num(values).astype(np.float32)


def _view(path: str, folder: Path, where: str) -> tuple[Path, str]:
    """The image CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, and its patient."""
    # The first component is the folder of the tables, whatever its name is here.
    below = PurePosixPath(*PurePosixPath(path).parts[1:])
    patient = re.search(r"patient\d+", path)
    if patient is None or ".." in below.parts:
        example = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
        raise InputError(f"{where}: {path!r} is not like {example}.")
    if not (folder / below).is_file():
        raise InputError(f"{where}: there is no image {folder / below}. Fetch it, or remove the row from the table.")
    return folder / below, patient[0]
