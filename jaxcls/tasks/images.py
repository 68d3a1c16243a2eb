"""What several tasks on images share: the recipe for Fashion-MNIST, and networks and settings for radiographs."""

import functools
from pathlib import Path

import jax
import numpy as np

from jaxcls.data import augmentation
from jaxcls.data.dataset import Unlabeled
from jaxcls.data.formats.images import read_unlabeled
from jaxcls.data.preprocessing import images
from jaxcls.models import vision
from jaxcls.tasks.task import Models, Preset, required
from jaxcls.training.settings import Settings


def fit_preprocessor(inputs: np.ndarray, settings: Settings) -> images.ImagePreprocessor:
    """Computes the statistics of the training images."""
    return images.fit(inputs)


def mirrored(batch: jax.Array) -> jax.Array:
    """Mirrors images from left to right."""
    return batch[:, :, ::-1]


FASHION = Preset(
    Settings(
        model="cnn",
        epochs=12,
        batch_size=128,
        dropout=0.3,
        label_smoothing=0.1,
        optimizer="adamw",
        learning_rate=4e-3,
        weight_decay=0.05,
        warmup=0.15,
        validation_fraction=0.05,
    ),
    augmentation.inputs_only(augmentation.chain(augmentation.horizontal_flip, augmentation.shift(1))),
    tta=[mirrored],
)

RADIOGRAPH_MODELS: Models = {
    "cnn": functools.partial(vision.CNN, channels=(16, 32, 64), dense=128),
    "resnet": functools.partial(vision.ResNet, widths=(16, 32, 64, 128), pooled_stem=True),
}
RADIOGRAPHS = Settings(
    image_size=64, model="resnet", epochs=12, batch_size=32, dropout=0.2, learning_rate=2e-3, warmup=0.1
)
# No mirroring: the heart is on one side.
RADIOGRAPH_AUGMENT = augmentation.inputs_only(augmentation.shift(4))


def read_radiographs(path: Path, settings: Settings) -> Unlabeled:
    """Reads radiographs to predict, from an image file or a folder."""
    return read_unlabeled(path, required(settings, "image_size"), 1)
