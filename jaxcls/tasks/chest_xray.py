"""Pneumonia in chest radiographs of children (Kermany et al. 2018, Cell 172, 1122-1131).

    python -m jaxcls.train --task chest_xray
    python -m jaxcls.train --task chest_xray --data-dir FOLDER

FOLDER holds Kaggle's chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg, or MedMNIST's pneumoniamnist.npz. Without
it, the task trains on a third of PneumoniaMNIST's training images, of 28 x 28 pixels, and tests on all its test images.

Pitfalls:
- Kaggle's validation split has 16 images, too few to choose by. They count as training images, and validation images
  are split from these by patient (personN, or IM-N of a normal image): images of one patient look alike.
- 74 % of the training images show pneumonia, 62 % of the test images. So classes are weighted, which makes 0.5 the
  threshold of balanced accuracy, and plain accuracy is not a measure.
- The test images differ from the training images, as those of another clinic would: validation images are recognized
  almost without error, test images are not. So each image is standardized by itself, which removes its exposure, and
  training images vary in size, aspect ratio, angle, gamma and noise. A threshold that is tuned on validation images
  does not survive such a shift (experiments/chest_xray.md).
- Images have many sizes and two modes; only images with pneumonia have three channels, which are equal. All are decoded
  to gray images of --image-size.
- The unpacked archive holds a second copy of everything (chest_xray/chest_xray) and files of macOS (__MACOSX).
"""

import dataclasses

from jaxcls.data import augmentation, splits
from jaxcls.data.datasets.radiographs import load_pneumonia
from jaxcls.data.preprocessing import images
from jaxcls.tasks import radiographs
from jaxcls.tasks.task import Preset, Task, required

DEFAULT = dataclasses.replace(
    radiographs.SETTINGS, standardize="image", loss="weighted_crossentropy", validation_fraction=0.2
)
# No mirroring: the heart is on one side.
AUGMENT = augmentation.inputs_only(
    augmentation.chain(
        augmentation.affine(degrees=10, scale=0.25, fill="edge"),
        augmentation.shift(4),
        augmentation.exposure(gamma=0.5, noise=0.08),
    )
)

TASK = Task(
    name="chest_xray",
    summary="pneumonia in chest radiographs of children, imbalanced",
    problem="binary",
    load=lambda settings: load_pneumonia(settings.source, settings.data_dir, size=required(settings, "image_size")),
    fit_preprocessor=lambda inputs, settings: images.fit(inputs, per_image=settings.standardize == "image"),
    models=radiographs.MODELS,
    pretrained="images",
    presets={"default": Preset(DEFAULT, AUGMENT)},
    metrics=["roc_auc", "average_precision", "recall", "specificity", "balanced_accuracy"],
    split=splits.grouped,
)
