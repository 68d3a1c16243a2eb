"""What the tasks of chest radiographs share: networks, settings, and augmentation without mirroring."""

import functools
from collections.abc import Callable
from pathlib import Path

from flax import nnx

from jaxcls.data import augmentation
from jaxcls.data.dataset import Unlabeled
from jaxcls.data.formats import images
from jaxcls.models import vision
from jaxcls.tasks import user_data
from jaxcls.training.settings import Settings

MODELS: dict[str, Callable[..., nnx.Module]] = {
    "cnn": functools.partial(vision.CNN, channels=(16, 32, 64), dense=128),
    "resnet": functools.partial(vision.ResNet, widths=(16, 32, 64, 128), pooled_stem=True),
}

SETTINGS = Settings(
    image_size=64,
    model="resnet",
    epochs=12,
    batch_size=32,
    dropout=0.2,
    optimizer="adam",
    learning_rate=2e-3,
    schedule="cosine",
    warmup=0.1,
    monitor="roc_auc",
    # The rate ends at zero, and with rare labels the monitored value is noisy: keep the last epoch.
    restore_best=False,
)

# No mirroring: the heart is on one side.
AUGMENT = augmentation.inputs_only(augmentation.shift(4))


def read(path: Path, settings: Settings) -> Unlabeled:
    """Reads radiographs to predict, from an image file or a folder."""
    return images.read_unlabeled(path, user_data.required(settings, "image_size"), 1)
