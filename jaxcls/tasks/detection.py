"""Object detection with RetinaNet and focal loss (Lin et al. 2017, arXiv:1708.02002).

    python -m jaxcls.train --task detection
    python -m jaxcls.train --task detection --data FOLDER    # in COCO's layout, or Pascal VOC's
    python -m jaxcls.train --task detection --data FOLDER --image-size 512 --preset any_orientation
    jaxcls predict --run-dir RUN --input IMAGES --output found.json --draw PICTURES

Without FOLDER, the task trains on COCO or VOC as prepared by TFDS, or on a SYNTHETIC sample: scenes composed of real
Fashion-MNIST articles, gray, 128 x 128. On 2 cores (AMD Zen 5, native kernels) that took 465 s and reached a mAP of
0.569, and 0.823 at an IoU of 0.5, on 400 scenes of articles not used in training.

FOLDER may also hold train, valid and test with COCO's JSON or VOC's XML next to the images, as Roboflow writes them, or
one file of annotations, of which --test-fraction is held out. Annotations that are not as they should be, and images
that cannot be decoded, are repaired or left out, and counted in the first line of output; --strict-annotations refuses
them.

Pitfalls:
- Nearly all anchors are background. After three epochs, an initial probability of one half costs more than half of the
  mAP; focal loss with gamma 1 is ahead of cross-entropy, gamma 2 is not yet (experiments/focal_vs_cross_entropy.md).
- The loss is divided by the number of positive anchors, not of images or of all anchors.
- Images keep their aspect ratio on a square canvas, which is cropped to landscape or portrait if many images fit that;
  boxes are in pixels of the canvas until they are saved. Scores may differ slightly between canvases.
- Crowd and difficult objects are neither trained on nor scored, as in the evaluation of COCO and VOC.
- The anchors depend on the canvas size: from 32 pixels above 512, from 16 at 256 to 512, from 24 on smaller ones.
  Objects of less than half that size are hardly detected: choose a larger --image-size.
- Only --preset any_orientation also mirrors top to bottom, for images without an up (microscopes, satellites).
- The measure is mAP, not accuracy or the loss, and it needs many more epochs than a classifier.
"""

import functools

from jaxcls.data import augmentation, augmentation_boxes, splits
from jaxcls.data.dataset import Dataset
from jaxcls.data.datasets import object_detection
from jaxcls.data.preprocessing import images
from jaxcls.models.retinanet import RetinaNet
from jaxcls.tasks.task import Preset, Task, required
from jaxcls.training.settings import Settings


def load(settings: Settings) -> Dataset:
    size = required(settings, "image_size")
    return object_detection.load(
        settings.source,
        settings.data_dir,
        size=size,
        channels=3,
        test_fraction=required(settings, "test_fraction"),
        strict=bool(settings.strict_annotations),
    )


DEFAULT = Settings(
    image_size=128,
    test_fraction=0.2,
    model="retinanet",
    epochs=34,
    batch_size=16,
    loss="focal_loss",
    gamma=2.0,
    alpha=0.25,
    normalizer="positives",
    box_loss="giou",
    loss_weights=(1.0, 2.0),
    learning_rate=4e-3,
    global_clipnorm=10.0,
    warmup=0.1,
    validation_fraction=0.1,
    # Each batch is filled up to this size. Outputs of detectors are large: of 500 images of 512 pixels, over 16 GB.
    eval_batch_size=32,
)


def specialize(task: Task, settings: Settings) -> Task:
    """Photographs need larger canvases than the scenes of the sample, and have smaller batches."""
    if settings.data_dir is None:
        return task
    return task.with_settings(image_size=256, batch_size=8, learning_rate=2.5e-3)


_SCALE_AND_COLOR = (augmentation_boxes.scale_and_crop(min_scale=0.75, max_scale=1.3), augmentation_boxes.color_jitter())

TASK = Task(
    name="detection",
    summary="objects in images: COCO's layout, Pascal VOC's, or composed scenes",
    problem="detection",
    load=load,
    fit_preprocessor=lambda inputs, settings: images.fit_canvases(inputs),
    models={
        "retinanet": RetinaNet,
        # With initial probabilities of one half, to show the effect of the prior.
        "retinanet_even": functools.partial(RetinaNet, prior=None),
        "retinanet_50": functools.partial(
            RetinaNet, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), features=256, depth=4
        ),
    },
    presets={
        "default": Preset(DEFAULT, augmentation.chain(augmentation_boxes.horizontal_flip, *_SCALE_AND_COLOR)),
        # For images without an up, such as those from a microscope or from above.
        "any_orientation": Preset(
            DEFAULT,
            augmentation.chain(augmentation_boxes.horizontal_flip, augmentation_boxes.vertical_flip, *_SCALE_AND_COLOR),
        ),
    },
    metrics=["map", "map_50"],
    data_settings=("data_dir", "strict_annotations"),
    split=splits.random,
    specialize=specialize,
)
