"""What the tasks on radiographs share: networks and settings."""

import functools

from jaxcls.data import augmentation
from jaxcls.models import vision
from jaxcls.tasks.task import Models
from jaxcls.training.settings import Settings

MODELS: Models = {
    "cnn": functools.partial(vision.CNN, channels=(16, 32, 64), dense=128),
    "resnet": functools.partial(vision.ResNet, widths=(16, 32, 64, 128), pooled_stem=True),
}
SETTINGS = Settings(
    image_size=64, model="resnet", epochs=12, batch_size=32, dropout=0.2, learning_rate=2e-3, warmup=0.1
)
# No mirroring: the heart is on one side.
AUGMENT = augmentation.inputs_only(augmentation.shift(4))
