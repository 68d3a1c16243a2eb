"""Pneumonia in chest radiographs of children (Kermany et al. 2018, Cell 172, 1122-1131).

    python -m jaxcls.train --task chest_xray
    python -m jaxcls.train --task chest_xray --data-dir FOLDER

FOLDER holds Kaggle's chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg, or MedMNIST's pneumoniamnist.npz.
Without it, a synthetic sample is learned; its scores say nothing of radiographs.

Traps:
- Kaggle's validation split has 16 images, too few to choose by. They count as training images, and validation images
  are cut from all of these by patient (personN, or IM-N of a normal image): images of one patient look alike.
- 74 % of the training images show pneumonia, 62 % of the test images. So classes are weighed, the threshold is tuned
  for balanced accuracy on validation images, and plain accuracy is no measure.
- Images have many sizes and two modes; some of those with pneumonia, and no others, have three equal channels. All are
  decoded to grey ones of --image-size.
- The unpacked archive holds a second copy of everything (chest_xray/chest_xray) and what macOS leaves (__MACOSX).
- No mirroring: the heart is on one side.
"""

import functools
import re
from pathlib import Path

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data import augmentation, sources, splits
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.datasets import medmnist
from jaxcls.data.formats import images
from jaxcls.data.preprocessing import images as prepared
from jaxcls.data.samples import chest_xray as sample
from jaxcls.models import vision
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

CLASSES = ("NORMAL", "PNEUMONIA")
NEEDS = (
    "Give --data-dir with Kaggle's chest_xray/{train,val,test}/{NORMAL,PNEUMONIA} "
    "(paultimothymooney/chest-xray-pneumonia) or with MedMNIST's pneumoniamnist.npz, or --source sample."
)
# person12_bacteria_47.jpeg; IM-0115-0001.jpeg, NORMAL2-IM-0327-0001.jpeg
_PATIENT = re.compile(r"(person\d+)_|(?:NORMAL2-)?(IM-\d+)-")


def load(settings: Settings) -> Dataset:
    read = functools.partial(_read_folder, size=user_data.required(settings, "image_size"))
    others = {"sample": lambda: sources.load_sample(sample.write, read)}
    return sources.load("chest_xray", settings.source, settings.data_dir, read=read, others=others, needs=NEEDS)


def _read_folder(folder: Path, size: int) -> Dataset:
    """Kaggle's folders, or MedMNIST's file, with images of that height and width."""
    for root in (folder, folder / "chest_xray"):
        if (root / "train").is_dir():
            return _from_kaggle(root, size, folder)
    file = medmnist.find(folder, "pneumoniamnist", size)
    if file is None:
        raise InputError(f"{folder}: holds neither chest_xray/train nor pneumoniamnist.npz. {NEEDS}")
    return medmnist.read(file, name="chest_xray", class_names=CLASSES, num_labels=1, size=size)


def _from_kaggle(root: Path, size: int, folder: Path) -> Dataset:
    train_paths, train_labels = _listed(root / "train")
    if (root / "val").is_dir():
        more_paths, more_labels = _listed(root / "val")
        train_paths, train_labels = train_paths + more_paths, train_labels + more_labels
    test_paths, test_labels = _listed(root / "test")
    train, test = (
        images.decode_all(paths, size=size, channels=1, root=root, what=f"{what} radiographs", inside=folder)
        for paths, what in [(train_paths, "training"), (test_paths, "test")]
    )
    patients, test_patients = _patients(train_paths), _patients(test_paths)
    both = np.intersect1d(patients, test_patients)
    note = (
        f"the archive's validation images count as training images; {len(np.unique(patients)):,} patients; the numbers "
        f"of {len(both):,} of them stand in the test part too, for others or the same"
    )
    return Dataset(
        "chest_xray",
        Split(train.images, np.array(train_labels, np.int32), groups=patients),
        Split(test.images, np.array(test_labels, np.int32), groups=test_patients),
        CLASSES,
        Provenance("files", str(root), {"train": train.sha256, "test": test.sha256}, synthetic=False, note=note),
    )


def _listed(part: Path) -> tuple[list[Path], list[int]]:
    """The images of a part, and their labels."""
    if not part.is_dir():
        raise InputError(f"{part}: there is no such folder. {NEEDS}")
    there = {path.name for path in part.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))}
    if there != {*CLASSES}:
        raise InputError(
            f"{part}: holds the folders {sorted(there)}; it must hold {' and '.join(CLASSES)}, and no other."
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, kind in enumerate(CLASSES):
        found, others = images.list_files(part / kind)
        if others:
            raise InputError(f"{others[0]}: is no image by its name; remove or rename it.")
        if not found:
            raise InputError(f"{part / kind}: holds no images.")
        paths += found
        labels += [label] * len(found)
    return paths, labels


def _patients(paths: list[Path]) -> np.ndarray:
    """Who each image is of; an image whose name does not say it is alone."""
    matches = [(path.name, _PATIENT.match(path.name)) for path in paths]
    return np.array([match[1] or match[2] if match else name for name, match in matches])


DEFAULT = Settings(
    image_size=64,
    model="resnet",
    epochs=12,
    batch_size=32,
    dropout=0.2,
    loss="weighted_crossentropy",
    optimizer="adam",
    learning_rate=2e-3,
    schedule="cosine",
    warmup=0.1,
    validation_fraction=0.2,
    monitor="roc_auc",
    # The rate ends at zero, so the last epoch is the one to keep.
    restore_best=False,
    tune_threshold="balanced_accuracy",
)

TASK = Task(
    name="chest_xray",
    summary="pneumonia in chest radiographs of children, imbalanced",
    problem="binary",
    load=load,
    read=lambda path, settings: images.read_unlabeled(path, user_data.required(settings, "image_size"), 1),
    fit_preprocessor=lambda inputs, settings: prepared.fit(inputs),
    models={
        "cnn": functools.partial(vision.CNN, channels=(16, 32, 64), dense=128),
        "resnet": functools.partial(vision.ResNet, widths=(16, 32, 64, 128), pooled_stem=True),
    },
    presets={"default": Preset(DEFAULT, augmentation.inputs_only(augmentation.shift(4)))},
    metrics=["roc_auc", "average_precision", "recall", "specificity", "balanced_accuracy"],
    split=splits.grouped,
)
