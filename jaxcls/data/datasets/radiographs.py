"""ChestX-ray14 and CheXpert: radiographs with the findings that were read in their reports, as their authors give them.

ChestX-ray14: Wang et al. 2017, arXiv 1705.02315. CheXpert: Irvin et al. 2019, arXiv 1901.07031.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.formats import images, tables

# In MedMNIST's order.
CHESTXRAY14 = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
# Without the column 'No Finding', which says no more than that none of these was found.
CHEXPERT = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NO_FINDING = "No Finding"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"


def read_chestxray14(folder: Path, *, name: str, size: int, test_fraction: float) -> Dataset:
    """Reads ChestX-ray14: Data_Entry_2017*.csv, and the images that it names in any folder beside it.

    'No Finding' is no label, but a row without one. The examples of train_val_list.txt and of test_list.txt are the
    parts; without these files, `test_fraction` of the examples is set aside, by patient.

    Args:
      folder: that of the table.
      name: the task's.
      size: the height and width that the images are brought to.
      test_fraction: a share of the examples, used where there are no lists.

    Raises:
      InputError: naming the file and the row (of the data, from 1): a column, an image or a patient is missing, a
        finding is unknown or stands beside 'No Finding', an image stands twice, or in both lists, or in none.
    """
    found = sorted(folder.glob("Data_Entry_2017*.csv"))
    if len(found) != 1:
        raise InputError(f"{folder}: holds {len(found)} tables Data_Entry_2017*.csv; it must hold one.")
    table = files.inside(folder, found[0])
    keys = ("Image Index", "Finding Labels", "Patient ID")
    columns = tables.read_csv(table, required=keys, text=keys)
    names, findings, patients = (columns[key] for key in keys)
    user_tables.check_unique(names, keys[0], str(table))
    for row in np.flatnonzero(patients == "")[:1]:
        raise InputError(f"{table}: row {row + 1} of column {keys[2]!r} is empty; images are divided by patient.")
    labels = np.stack([_labels(words, f"{table}: row {row}") for row, words in enumerate(findings, 1)])
    tests = _listed_tests(names, folder, table)
    decoded = images.decode_all(_paths(names, folder, table), size=size, channels=1, root=folder, what="radiographs")
    part = Split(decoded.images, labels, groups=patients)
    if tests is None:
        train, test = user_tables.hold_out_test(part, test_fraction, str(table), splits.grouped)
        note = f"no official lists, so {test_fraction:.0%} of the examples are set aside for the test by patient"
    else:
        train, test = part.take(~tests), part.take(tests)
        note = f"the official lists; {_shared_patients(train, test):,} patients stand in both"
    lists = [folder / file for file in (TRAIN_LIST, TEST_LIST) if tests is not None]
    checksums = sources.checksums([table, *lists]) | {"images": decoded.sha256}
    record = Provenance("files", str(folder), checksums, synthetic=False, note=note)
    return Dataset(name, train, test, CHESTXRAY14, record)


def read_chexpert(
    folder: Path, *, name: str, size: int, uncertain: Literal["ignore", "ones", "zeros"], inside: Path | None = None
) -> Dataset:
    """Reads CheXpert: train.csv and valid.csv, and the images that they name.

    A finding is 1.0 where the report affirms it, 0.0 where it denies it, -1.0 where it is uncertain, and blank where
    it does not mention it, which counts as 0. Frontal and lateral views are examples alike. valid.csv, which
    radiologists labelled, is the test part; were a label uncertain there, it would not be scored.

    Args:
      folder: that of the tables.
      name: the task's.
      size: the height and width that the images are brought to.
      inside: the folder that no link may lead out of; without it, that of the tables.
      uncertain: what -1.0 counts as in training: as not known (NaN), as 1, or as 0.

    Raises:
      InputError: naming the file and the row (of the data, from 1): a column or an image is missing, a label is none
        of these, or a path names no patient or leads out of the folder.
    """
    # Both tables are checked before any image is decoded.
    files.all_inside(inside or folder, [folder / "train.csv", folder / "valid.csv"])
    contents = [_chexpert_table(folder / "train.csv", uncertain), _chexpert_table(folder / "valid.csv", "ignore")]
    parts: list[Split] = []
    checksums = sources.checksums([folder / "train.csv", folder / "valid.csv"])
    for what, (paths, labels, patients) in zip(("training", "test"), contents, strict=True):
        decoded = images.decode_all(
            paths, size=size, channels=1, root=folder, what=f"{what} radiographs", inside=inside
        )
        parts.append(Split(decoded.images, labels, groups=patients))
        checksums[f"{what} images"] = decoded.sha256
    train, test = parts
    note = (
        f"uncertain labels: {uncertain}; not mentioned is negative; {_shared_patients(train, test):,} patients stand "
        "in both parts"
    )
    record = Provenance("files", str(folder), checksums, synthetic=False, note=note)
    return Dataset(name, train, test, CHEXPERT, record)


def _labels(words: str, where: str) -> np.ndarray:
    """'Cardiomegaly|Effusion' as float32 (14,)."""
    findings = [word.strip() for word in words.split("|")]
    if findings == [NO_FINDING]:
        findings = []
    for finding in findings:
        if finding == NO_FINDING:
            raise InputError(f"{where}: {NO_FINDING!r} stands beside a finding: {words!r}.")
        if finding not in CHESTXRAY14:
            raise InputError(f"{where}: {unknown_name('finding', finding, [*CHESTXRAY14, NO_FINDING])}")
    return np.array([finding in findings for finding in CHESTXRAY14], np.float32)


def _paths(names: np.ndarray, folder: Path, table: Path) -> list[Path]:
    """Where the images of these names are: in images/, in images_001/images/, or wherever they were unpacked."""
    there: dict[str, Path] = {}
    for path in images.list_files(folder)[0]:
        if other := there.get(path.name):
            raise InputError(f"{path}: there is an image of this name at {other} too; remove one.")
        there[path.name] = path
    missing = [row for row, name in enumerate(names) if name not in there]
    if missing:
        raise InputError(
            f"{table}: row {missing[0] + 1}: there is no image {names[missing[0]]} in {folder}; {len(missing):,} of "
            f"{len(names):,} are missing. Fetch them, or take their rows out of the table."
        )
    return [there[name] for name in names]


def _listed_tests(names: np.ndarray, folder: Path, table: Path) -> np.ndarray | None:
    """Which images the official lists set aside for the test, bool (N,); None without lists."""
    there = [file for file in (TRAIN_LIST, TEST_LIST) if (folder / file).is_file()]
    if not there:
        return None
    if len(there) == 1:
        raise InputError(f"{folder}: holds {there[0]} alone; the parts follow from both lists, or from none.")
    train, test = (_lines(files.inside(folder, folder / file)) for file in there)
    for line, name in enumerate(test, 1):
        if name in train:
            raise InputError(f"{folder / TEST_LIST}: line {line}: {name} stands in {TRAIN_LIST} too.")
    for row, name in enumerate(names, 1):
        if name not in train and name not in test:
            raise InputError(f"{table}: row {row}: {name} stands neither in {TRAIN_LIST} nor in {TEST_LIST}.")
    return np.array([name in test for name in names])


def _shared_patients(train: Split, test: Split) -> int:
    assert train.groups is not None
    assert test.groups is not None
    return len(np.intersect1d(train.groups, test.groups))


def _lines(path: Path) -> dict[str, None]:
    try:
        return dict.fromkeys(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of image names ({error}).") from error


def _chexpert_table(table: Path, uncertain: str) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """The images, their labels and their patients."""
    columns = tables.read_csv(table, required=("Path", *CHEXPERT), text=("Path",))
    user_tables.check_unique(columns["Path"], "Path", str(table))
    labels = np.stack([_stated(columns[finding], finding, table) for finding in CHEXPERT], axis=1)
    labels[labels == -1] = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}[uncertain]
    views = [_view(path, table.parent, f"{table}: row {row}") for row, path in enumerate(columns["Path"], 1)]
    return [path for path, _ in views], labels, np.array([patient for _, patient in views])


def _stated(column: np.ndarray, finding: str, table: Path) -> np.ndarray:
    """1, 0 and -1 as they stand there, and 0 for a blank; float32 (N,)."""
    if column.dtype == object:
        known = np.isin(column, ("1.0", "0.0", "-1.0", "1", "0", "-1", ""))
    else:
        known = np.isin(column, (1, 0, -1)) | np.isnan(column)
    for row in np.flatnonzero(~known)[:1]:
        raise InputError(
            f"{table}: row {row + 1} of column {finding!r} is {str(column[row])!r}; it is 1.0, 0.0, -1.0 or blank."
        )
    return np.nan_to_num(column).astype(np.float32)


def _view(path: str, folder: Path, where: str) -> tuple[Path, str]:
    """The image of CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, and its patient."""
    # The first part names the folder of the tables, whatever it is called here.
    below = PurePosixPath(*PurePosixPath(path).parts[1:])
    patient = re.search(r"patient\d+", path)
    if patient is None or ".." in below.parts:
        raise InputError(
            f"{where}: {path!r} is not like CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg."
        )
    if not (folder / below).is_file():
        raise InputError(f"{where}: there is no image {folder / below}. Fetch it, or take the row out of the table.")
    return folder / below, patient[0]
