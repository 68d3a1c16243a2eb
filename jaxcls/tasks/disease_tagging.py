"""Which findings a chest radiograph shows (Wang et al. 2017, arXiv 1705.02315; Irvin et al. 2019, arXiv 1901.07031).

    python -m jaxcls.train --task disease_tagging
    python -m jaxcls.train --task disease_tagging --data-dir FOLDER

FOLDER holds ChestX-ray14 (Data_Entry_2017*.csv, its images in any folders, train_val_list.txt, test_list.txt), or
CheXpert-v1.0-small (train.csv, valid.csv, train/, valid/), or MedMNIST's chestmnist.npz. Without it, a synthetic sample
in the layout of the first is learned; its scores say nothing of radiographs.

Traps:
- Images of one patient look alike and show the same findings: the official lists part patients, and so do the
  validation examples that are cut from the training ones. An image in both lists is an error; patients in both are
  counted. MedMNIST names no patients, and brings its own validation part.
- 'No Finding' is the absence of labels, no label: neither in ChestX-ray14 nor in CheXpert, which has a column for it.
- CheXpert's uncertain labels count as --uncertain says: ignore (the recipe), ones or zeros. What a report does not
  mention is negative.
- Half of the images have no label, and a hernia is one in five hundred: accuracy says nothing. What counts is the area
  under the ROC curve of each label, and their mean over the labels that have both positives and negatives.
- No mirroring: the heart is on one side.
"""

import functools
from pathlib import Path

from jaxcls._utils.errors import InputError
from jaxcls.data import augmentation, sources, splits
from jaxcls.data.dataset import Dataset
from jaxcls.data.datasets import medmnist, radiographs
from jaxcls.data.formats import images
from jaxcls.data.preprocessing import images as prepared
from jaxcls.data.samples import disease_tagging as sample
from jaxcls.models import vision
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

NEEDS = (
    "Give --data-dir with ChestX-ray14 (Data_Entry_2017*.csv and images), with CheXpert-v1.0-small (train.csv, "
    "valid.csv and images), or with MedMNIST's chestmnist.npz, or --source sample."
)


def load(settings: Settings) -> Dataset:
    read = functools.partial(_read_folder, settings=settings)
    others = {"sample": lambda: sources.load_sample(sample.write, read)}
    return sources.load("disease_tagging", settings.source, settings.data_dir, read=read, others=others, needs=NEEDS)


def _read_folder(folder: Path, settings: Settings) -> Dataset:
    name, size = "disease_tagging", user_data.required(settings, "image_size")
    if any(folder.glob("Data_Entry_2017*.csv")):
        test_fraction = user_data.required(settings, "test_fraction")
        return radiographs.read_chestxray14(folder, name=name, size=size, test_fraction=test_fraction)
    for root in (folder, *sorted(folder.glob("CheXpert-v1.0*"))):
        if (root / "train.csv").is_file():
            uncertain = user_data.required(settings, "uncertain")
            return radiographs.read_chexpert(root, name=name, size=size, uncertain=uncertain, inside=folder)
    file = medmnist.find(folder, "chestmnist", size)
    if file is None:
        raise InputError(f"{folder}: holds neither Data_Entry_2017*.csv nor train.csv nor chestmnist.npz. {NEEDS}")
    findings = radiographs.CHESTXRAY14
    return medmnist.read(file, name=name, class_names=findings, num_labels=len(findings), size=size)


DEFAULT = Settings(
    image_size=64,
    uncertain="ignore",
    test_fraction=0.2,
    model="resnet",
    epochs=12,
    batch_size=32,
    dropout=0.2,
    loss="binary_crossentropy",
    optimizer="adam",
    learning_rate=2e-3,
    schedule="cosine",
    warmup=0.1,
    validation_fraction=0.15,
    monitor="roc_auc",
    # The rate ends at zero, and the mean over rare labels is too noisy to pick an epoch by.
    restore_best=False,
    tune_threshold="f1",
)

TASK = Task(
    name="disease_tagging",
    summary="14 findings in chest radiographs, several or none in each",
    problem="multilabel",
    load=load,
    read=lambda path, settings: images.read_unlabeled(path, user_data.required(settings, "image_size"), 1),
    fit_preprocessor=lambda inputs, settings: prepared.fit(inputs),
    models={
        "cnn": functools.partial(vision.CNN, channels=(16, 32, 64), dense=128),
        "resnet": functools.partial(vision.ResNet, widths=(16, 32, 64, 128), pooled_stem=True),
    },
    presets={"default": Preset(DEFAULT, augmentation.inputs_only(augmentation.shift(4)))},
    metrics=["roc_auc", "average_precision"],
    split=splits.grouped,
)
