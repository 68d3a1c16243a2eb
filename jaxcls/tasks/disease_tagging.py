"""Findings in chest radiographs (Wang et al. 2017, arXiv 1705.02315; Irvin et al. 2019, arXiv 1901.07031).

    python -m jaxcls.train --task disease_tagging
    python -m jaxcls.train --task disease_tagging --data-dir FOLDER

FOLDER holds ChestX-ray14 (Data_Entry_2017*.csv, its images in any folders, train_val_list.txt, test_list.txt), or
CheXpert-v1.0-small (train.csv, valid.csv, train/, valid/), or MedMNIST's chestmnist.npz. Without it, the task trains on
a synthetic sample in the layout of ChestX-ray14, whose scores say nothing about radiographs.

Pitfalls:
- Images of one patient look alike and show the same findings: the official lists separate patients, and so does the
  split into training and validation images. An image in both lists is an error; patients in both are counted. MedMNIST
  has no patients, and has its own validation split.
- 'No Finding' is the absence of labels, not a label, also in CheXpert, which has a column for it.
- CheXpert's uncertain labels are treated as --uncertain says: ignore (the default), ones or zeros. A finding that the
  report does not mention is negative.
- Half of the images have no label, and one in five hundred shows a hernia: accuracy says nothing. The measure is the
  area under the ROC curve of each label, and its mean over the labels with positives and negatives.
"""

import dataclasses

from jaxcls.data import splits
from jaxcls.data.dataset import Dataset
from jaxcls.data.datasets.radiographs import load_findings
from jaxcls.data.preprocessing import images
from jaxcls.tasks import radiographs
from jaxcls.tasks.task import Preset, Task, required
from jaxcls.training.settings import Settings


def load(settings: Settings) -> Dataset:
    return load_findings(
        settings.source,
        settings.data_dir,
        size=required(settings, "image_size"),
        test_fraction=required(settings, "test_fraction"),
        uncertain=required(settings, "uncertain"),
    )


DEFAULT = dataclasses.replace(
    radiographs.SETTINGS, uncertain="ignore", test_fraction=0.2, validation_fraction=0.15, tune_threshold="f1"
)

TASK = Task(
    name="disease_tagging",
    summary="14 findings in chest radiographs, several or none in each",
    problem="multilabel",
    load=load,
    fit_preprocessor=lambda inputs, settings: images.fit(inputs, per_image=settings.standardize == "image"),
    models=radiographs.MODELS,
    pretrained="images",
    presets={"default": Preset(DEFAULT, radiographs.AUGMENT)},
    metrics=["roc_auc", "average_precision"],
    split=splits.grouped,
    data_settings=("data_dir", "standardize"),
)
