"""Chest radiographs as their authors publish them: with or without pneumonia, or with the findings of their reports.

Pneumonia: Kermany et al. 2018, Cell 172. ChestX-ray14: Wang et al. 2017, arXiv 1705.02315. CheXpert: Irvin et al. 2019,
arXiv 1901.07031. MedMNIST has the first two as one .npz file each, with its own splits: Yang et al. 2023, arXiv
2110.14795.
"""

import functools
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data import sources, splits, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.datasets import image_folders
from jaxcls.data.formats import images, npz, reading, tables
from jaxcls.data.samples import disease_tagging

Uncertain: TypeAlias = Literal["ignore", "ones", "zeros"]

PNEUMONIA = ("NORMAL", "PNEUMONIA")
PNEUMONIA_SAMPLE = Path(__file__).parents[1] / "samples" / "chest_xray" / "pneumoniamnist.npz"
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
# The sizes of MedMNIST's images, in pixels, and the ends of the names of their files.
_MEDMNIST_SIZES = {28: "", 64: "_64", 128: "_128", 224: "_224"}
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
_PNEUMONIA_NEEDS = (
    "Set data_dir to a folder with Kaggle's chest_xray/{train,val,test}/{NORMAL,PNEUMONIA} "
    "(paultimothymooney/chest-xray-pneumonia) or with MedMNIST's pneumoniamnist.npz, or source to sample."
)
_FINDINGS_NEEDS = (
    "Set data_dir to a folder with ChestX-ray14 (Data_Entry_2017*.csv and images), with CheXpert-v1.0-small "
    "(train.csv, valid.csv and images), or with MedMNIST's chestmnist.npz; or source to sample."
)
# person12_bacteria_47.jpeg; IM-0115-0001.jpeg, NORMAL2-IM-0327-0001.jpeg
_PATIENT = re.compile(r"(person\d+)_|(?:NORMAL2-)?(IM-\d+)-")


def load_pneumonia(source: str, data_dir: str | Path | None, *, size: int) -> Dataset:
    """Loads gray images of this height and width, of Kaggle's folders or PneumoniaMNIST, or a part of the latter."""
    others = {"sample": functools.partial(_pneumonia_sample, size)}
    return sources.load("chest_xray", source, data_dir, _read_pneumonia, _PNEUMONIA_NEEDS, others=others, size=size)


def _pneumonia_sample(size: int) -> Dataset:
    dataset = read_medmnist(PNEUMONIA_SAMPLE, name="chest_xray", class_names=PNEUMONIA, size=size)
    note = f"28 x 28 pixels, a third of the training images; {dataset.provenance.note}"
    return sources.from_package(dataset, [PNEUMONIA_SAMPLE], note)


def load_findings(
    source: str, data_dir: str | Path | None, *, size: int, test_fraction: float, uncertain: Uncertain
) -> Dataset:
    """Loads ChestX-ray14, CheXpert or ChestMNIST, whichever a folder holds, or a sample in the layout of the first.

    In ChestX-ray14, a row with 'No Finding' has no label. The lists train_val_list.txt and test_list.txt define the
    splits; without them, `test_fraction` of the examples is held out, by patient.

    In CheXpert, a finding is 1.0 if the report affirms it, 0.0 if it denies it, -1.0 if it is uncertain, and blank if
    it does not mention it, which counts as 0. Frontal and lateral views are separate examples. valid.csv, which
    radiologists labeled, is the test split; an uncertain label there is not scored.

    Args:
      source, data_dir: as in :func:`jaxcls.data.sources.load`.
      size: the height and width that images are resized to.
      test_fraction: for ChestX-ray14 without the official lists.
      uncertain: what CheXpert's -1.0 becomes in training: unknown (NaN), 1, or 0.

    Raises:
      InputError: naming the file and the row (of the data, from 1): a column, an image or a patient is missing, an
        image occurs twice, or is in both lists or in none, a finding is unknown or combined with 'No Finding', a label
        is none of these, or a path leads out of the folder.
    """
    options: Any = {"size": size, "test_fraction": test_fraction, "uncertain": uncertain}
    sample = disease_tagging.write
    return sources.load("disease_tagging", source, data_dir, _read_findings, _FINDINGS_NEEDS, sample, **options)


def _read_pneumonia(folder: Path, size: int) -> Dataset:
    for root in (folder, folder / "chest_xray"):
        if (root / "train").is_dir():
            return _read_kaggle(root, folder, size=size)
    file = find_medmnist(folder, "pneumoniamnist", size, _PNEUMONIA_NEEDS)
    return read_medmnist(file, name="chest_xray", class_names=PNEUMONIA, size=size)


@images.with_fitted_white
def _read_kaggle(root: Path, folder: Path, **decoding: Any) -> Dataset:
    notes: list[str] = []
    train_paths, train_labels = _list_pneumonia(root / "train", notes)
    if (root / "val").is_dir():
        val_paths, val_labels = _list_pneumonia(root / "val", notes)
        train_paths, train_labels = train_paths + val_paths, np.append(train_labels, val_labels)
    listed = {"train": (train_paths, train_labels), "test": _list_pneumonia(root / "test", notes)}
    examples: list[Split] = []
    patients: list[np.ndarray] = []
    checksums: dict[str, str] = {}
    for name, (paths, labels) in listed.items():
        what = f"{name} radiographs"
        decoded = images.decode_all(paths, channels=1, root=root, what=what, inside=folder, later=True, **decoding)
        # An image without a patient in its name is its own group.
        matches = [(path.name, _PATIENT.match(path.name)) for path in paths]
        patients.append(np.array([match[1] or match[2] if match else file for file, match in matches]))
        examples.append(Split(decoded.images, labels, groups=patients[-1], deepest=decoded.deepest))
        checksums[name] = decoded.sha256
    numbers, shared = len(np.unique(patients[0])), len(np.intersect1d(patients[0], patients[1]))
    notes.append(
        f"the archive's validation images count as training images; {numbers:,} patients, of which the numbers of "
        f"{shared:,} also occur in the test split, for the same patient or another"
    )
    train, test = examples
    record = Provenance("files", str(root), checksums, note="; ".join(notes))
    return Dataset("chest_xray", train, test, PNEUMONIA, record)


def _list_pneumonia(folder: Path, notes: list[str]) -> tuple[list[Path], np.ndarray]:
    where = image_folders.layout(folder)
    if where.class_names != PNEUMONIA:
        classes, right = [*where.class_names], " and ".join(PNEUMONIA)
        raise InputError(f"{folder}: holds the folders {classes}; it must hold {right} only.")
    notes += where.notes
    return where.splits["train"].paths, where.splits["train"].labels


def _read_findings(folder: Path, size: int, test_fraction: float, uncertain: Uncertain) -> Dataset:
    if candidates := sorted(folder.glob("Data_Entry_2017*.csv")):
        return _read_chestxray14(folder, candidates, test_fraction, size=size)
    for root in (folder, *sorted(folder.glob("CheXpert-v1.0*"))):
        if (root / "train.csv").is_file():
            return _read_chexpert(root, folder, uncertain, size=size)
    file = find_medmnist(folder, "chestmnist", size, _FINDINGS_NEEDS)
    return read_medmnist(file, name="disease_tagging", class_names=CHESTXRAY14, size=size)


@images.with_fitted_white
def _read_chestxray14(folder: Path, candidates: list[Path], test_fraction: float, **decoding: Any) -> Dataset:
    if len(candidates) > 1:
        raise InputError(f"{folder}: holds {len(candidates)} tables Data_Entry_2017*.csv; it must hold one.")
    table = files.inside(folder, candidates[0])
    keys = ("Image Index", "Finding Labels", "Patient ID")
    columns = tables.read_csv(table, required=keys, text=keys)
    names, findings, patients = (columns[key] for key in keys)
    user_tables.check_unique(names, keys[0], table)
    user_tables.reject_first(patients == "", columns, keys[2], table, "but images are split by patient.")
    labels = np.stack([_findings(words, f"{table}: row {row}") for row, words in enumerate(findings, 1)])
    in_test = _in_test_list(names, folder, table)
    decoded = images.decode_all(
        _paths(names, folder, table), channels=1, root=folder, what="radiographs", later=True, **decoding
    )
    examples = Split(decoded.images, labels, groups=patients, deepest=decoded.deepest)
    read = [table]
    if in_test is None:
        train, test = user_tables.hold_out_test(examples, test_fraction, table, splits.grouped)
        note = f"no official lists, so {test_fraction:.0%} of the examples are held out for testing by patient"
    else:
        train, test = examples.take(~in_test), examples.take(in_test)
        read += [folder / TRAIN_LIST, folder / TEST_LIST]
        shared = np.intersect1d(patients[~in_test], patients[in_test])
        note = f"the official lists; {len(shared):,} patients are in both"
    checksums = sources.checksums(read) | {"images": decoded.sha256}
    return Dataset("disease_tagging", train, test, CHESTXRAY14, Provenance("files", str(folder), checksums, note=note))


def _findings(words: str, where: str) -> np.ndarray:
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
        if (other := there.setdefault(path.name, path)) != path:
            raise InputError(f"{path}: there is an image of this name at {other} too; remove one.")
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


@images.with_fitted_white
def _read_chexpert(root: Path, folder: Path, uncertain: Uncertain, **decoding: Any) -> Dataset:
    paths = [root / "train.csv", root / "valid.csv"]
    files.all_inside(folder, paths)
    checksums = sources.checksums(paths)
    # Both tables are checked before any image is decoded.
    contents = [_chexpert_table(path, value) for path, value in zip(paths, (uncertain, "ignore"), strict=True)]
    examples: list[Split] = []
    for name, (image_paths, labels, patients) in zip(("training", "test"), contents, strict=True):
        what = f"{name} radiographs"
        decoded = images.decode_all(
            image_paths, channels=1, root=root, what=what, inside=folder, later=True, **decoding
        )
        examples.append(Split(decoded.images, labels, groups=patients, deepest=decoded.deepest))
        checksums[f"{name} images"] = decoded.sha256
    shared = len(np.intersect1d(contents[0][2], contents[1][2]))
    note = f"uncertain labels: {uncertain}; not mentioned is negative; {shared:,} patients are in both splits"
    train, test = examples
    return Dataset("disease_tagging", train, test, CHEXPERT, Provenance("files", str(root), checksums, note=note))


def _chexpert_table(table: Path, uncertain: str) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """The images, their labels and their patients."""
    columns = tables.read_csv(table, required=("Path",), text=("Path",))
    user_tables.check_unique(columns["Path"], "Path", table)
    stated = [user_tables.coded_numbers(columns, finding, table, (1, 0, -1), missing=True) for finding in CHEXPERT]
    labels = np.nan_to_num(np.stack(stated, axis=1)).astype(np.float32)
    labels[labels == -1] = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}[uncertain]
    views = [_view(path, table.parent, f"{table}: row {row}") for row, path in enumerate(columns["Path"], 1)]
    return [path for path, _ in views], labels, np.array([patient for _, patient in views])


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


def find_medmnist(folder: Path, name: str, size: int, needs: str) -> Path:
    """Finds the file of a MedMNIST data set, such as pneumoniamnist.npz or pneumoniamnist_64.npz.

    Of several files, that with the smallest images of at least this size is chosen, else that with the largest.

    Raises:
      InputError: there is no file; the message ends with `needs`.
    """
    paths = {pixels: folder / f"{name}{end}.npz" for pixels, end in _MEDMNIST_SIZES.items()}
    there = [pixels for pixels, path in paths.items() if path.is_file()]
    if not there:
        raise InputError(f"{folder} holds none of the known data sets. {needs}")
    return files.inside(folder, paths[min((pixels for pixels in there if pixels >= size), default=there[-1])])


def read_medmnist(path: Path, *, name: str, class_names: tuple[str, ...], size: int) -> Dataset:
    """Reads a data set with yes-or-no labels: a binary problem if there are two classes, else a multi-label one.

    Args:
      path: the .npz file, with arrays train_images, train_labels, val_images, ...
      name: the name of the task.
      class_names: as in :class:`Dataset`.
      size: the height and width that images are resized to.

    Returns:
      A Dataset whose validation split is MedMNIST's.

    Raises:
      InputError: naming the file, the array and the row: it cannot be read, is damaged, lacks an array, or an array
        holds something else than uint8 images or labels 0 and 1.
    """
    num_labels = 1 if len(class_names) == 2 else len(class_names)
    with npz.opened(path) as archive:
        stored = [_medmnist_split(path, archive, split, num_labels) for split in ("train", "val", "test")]
    shapes = {split.inputs.shape[1:] for split in stored}
    if len(shapes) > 1:
        raise InputError(f"{path}: images of different shapes: {sorted(shapes)}; all splits must have the same.")
    train, validation, test = (split._replace(inputs=_resized(split.inputs, size)) for split in stored)
    note = "MedMNIST's splits; patients are not named, so some may be in several splits"
    record = Provenance("files", str(path.parent), sources.checksums([path]), note=note)
    return Dataset(name, train, test, class_names, record, validation)


def _medmnist_split(path: Path, archive: zipfile.ZipFile, split: str, num_labels: int) -> Split:
    pixels = npz.array(path, archive, f"{split}_images")
    square = pixels.ndim >= 3 and pixels.shape[1] == pixels.shape[2]
    if pixels.dtype != np.uint8 or not square or pixels.shape[3:] not in ((), (3,)) or not pixels.size:
        needed = "uint8 of shape (N, size, size) or (N, size, size, 3), with at least one"
        raise InputError(f"{path}: {split}_images: {pixels.dtype} of shape {pixels.shape}; images must be {needed}.")
    labels = npz.array(path, archive, f"{split}_labels")
    if labels.dtype.kind not in "biu" or labels.shape != (len(pixels), num_labels):
        needed = f"integers of shape ({len(pixels)}, {num_labels})"
        raise InputError(f"{path}: {split}_labels: {labels.dtype} of shape {labels.shape}; labels must be {needed}.")
    for row, column in np.argwhere((labels != 0) & (labels != 1))[:1]:
        raise InputError(f"{path}: {split}_labels: row {row} holds {labels[row, column]}; labels must be 0 or 1.")
    values = labels[:, 0].astype(np.int32) if num_labels == 1 else labels.astype(np.float32)
    return Split(pixels if pixels.ndim == 4 else pixels[..., None], values)


def _resized(stack: np.ndarray, size: int) -> np.ndarray:
    if stack.shape[1] == size:
        return stack
    from PIL import Image

    resized = np.empty((len(stack), size, size, stack.shape[3]), np.uint8)
    for row, pixels in enumerate(stack):
        # Pillow takes grayscale images without a channel axis.
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        smooth = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        resized[row] = smooth.reshape(resized.shape[1:])
    return resized
