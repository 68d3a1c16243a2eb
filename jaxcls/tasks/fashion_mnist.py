"""Fashion-MNIST: 70,000 gray images of 28 x 28 of ten kinds of clothing (Xiao et al. 2017, arXiv 1708.07747).

    python -m jaxcls.train --task fashion_mnist
    python -m jaxcls.train --task fashion_mnist --preset best
    python -m jaxcls.train --task fashion_mnist --preset fast92

Pitfalls: make choices on held-out training images, as a run does, never on the test images. A mirrored article is still
that article, so flipping is valid here (unlike for digits).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxcls.data import augmentation
from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import IMAGES
from jaxcls.data.preprocessing import images
from jaxcls.models import vision
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

_flip = augmentation.inputs_only(augmentation.horizontal_flip)
_flip_and_shift = augmentation.inputs_only(augmentation.chain(augmentation.horizontal_flip, augmentation.shift(1)))
_flip_shift_and_cutout = augmentation.inputs_only(
    augmentation.chain(augmentation.horizontal_flip, augmentation.shift(2), augmentation.cutout(10))
)


def _mirrored(batch: jax.Array) -> jax.Array:
    """Mirrors images from left to right."""
    return batch[:, :, ::-1]


def _shifted(batch: jax.Array, *, pixels: int) -> jax.Array:
    """Shifts images down and right, or up and left where ``pixels`` is negative; the border is filled with zeros."""
    _, height, width, _ = batch.shape
    # Negative padding would crop as well, but ONNX does not support it.
    margin = abs(pixels)
    padded = jnp.pad(batch, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    first = margin - pixels
    return padded[:, first : first + height, first : first + width]


# For test-time augmentation, in addition to the images themselves.
_down_right, _up_left = (functools.partial(_shifted, pixels=pixels) for pixels in (1, -1))
_mirrored_and_shifted = (
    _mirrored,
    _down_right,
    _up_left,
    lambda batch: _mirrored(_down_right(batch)),
    lambda batch: _mirrored(_up_left(batch)),
)

DEFAULT = Preset(
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
    _flip_and_shift,
    tta=[_mirrored],
)
# The presets fast90 to fast94 reach the test accuracy in their name in the least time on a CPU; `best` takes longer for
# more. Their results and other experiments are in experiments/time_to_accuracy.md.
FAST = Settings(
    model="vgg",
    epochs=4,
    batch_size=256,
    label_smoothing=0.1,
    optimizer="muon",
    learning_rate=0.03,
    schedule="one_cycle",
    warmup=0.2,
    # Nothing is chosen, so few validation examples suffice.
    validation_fraction=0.02,
)

TASK = Task(
    name="fashion_mnist",
    summary="ten kinds of clothing, gray images of 28 x 28",
    problem="multiclass",
    load=lambda settings: idx_images.load(IMAGES, settings.source, settings.data_dir),
    read=lambda path, *_: idx_images.read_unlabeled(path),
    fit_preprocessor=lambda inputs, settings: images.fit(inputs),
    models={
        "mlp": vision.MLP,
        "cnn": vision.CNN,
        "resnet": functools.partial(vision.ResNet, widths=(48, 96, 192), blocks=2, pooled_stem=True),
        "vgg": functools.partial(vision.VGG, stages=((16,), (32, 64), (64,))),
        "vgg_small": functools.partial(vision.VGG, stages=((8,), (32,))),
        "vgg_wide": functools.partial(vision.VGG, stages=((32,), (64, 128), (128,))),
        "vgg_large": functools.partial(vision.VGG, stages=((32, 64), (128, 128), (256, 256))),
    },
    presets={
        "default": DEFAULT,
        "best": Preset(
            dataclasses.replace(FAST, model="vgg_large", epochs=32), _flip_shift_and_cutout, tta=_mirrored_and_shifted
        ),
        "fast90": Preset(dataclasses.replace(FAST, model="vgg_small", epochs=2), _flip, tta=[_mirrored]),
        "fast92": Preset(dataclasses.replace(FAST, epochs=3), _flip, tta=[_mirrored]),
        "fast93": Preset(dataclasses.replace(FAST, epochs=10), _flip_and_shift, tta=[_mirrored]),
        "fast94": Preset(dataclasses.replace(FAST, model="vgg_wide", epochs=16), _flip_and_shift, tta=[_mirrored]),
    },
    metrics=["accuracy"],
)
