"""Fashion-MNIST: 70,000 grey images of 28 x 28 of ten kinds of articles (Xiao et al. 2017, arXiv 1708.07747).

    python -m jaxcls.train --task fashion_mnist
    python -m jaxcls.train --task fashion_mnist --preset best

Traps: the test images decide nothing, neither the epoch nor the recipe; both were chosen on training images
that were held out. A mirrored article is still that article, so flipping is fine here (unlike for digits).
"""

import dataclasses
import functools

from jaxcls import augment
from jaxcls.data import sources
from jaxcls.data.normalise import standardise
from jaxcls.models import vision
from jaxcls.settings import Settings
from jaxcls.tasks.task import Task

DEFAULT = Settings(
    model="cnn",
    epochs=12,
    batch_size=128,
    dropout=0.3,
    loss="sparse_categorical_crossentropy",
    label_smoothing=0.1,
    optimizer="adamw",
    learning_rate=4e-3,
    weight_decay=0.05,
    schedule="warmup_cosine",
    warmup=0.15,
    validation_fraction=0.05,
    monitor="accuracy",
    # The rate ends at zero, so the last epoch is the one to keep; picking by validation accuracy adds noise.
    restore_best=False,
)

TASK = Task(
    name="fashion_mnist",
    summary="ten kinds of articles of clothing, grey images of 28 x 28",
    problem="multiclass",
    load=lambda source, data_dir: sources.load_idx_images(sources.FASHION_MNIST, source, data_dir),
    models={
        "mlp": vision.MLP,
        "cnn": vision.CNN,
        "resnet": functools.partial(vision.ResNet, widths=(48, 96, 192), blocks=2, pooled_stem=True),
    },
    presets={
        "default": DEFAULT,
        "best": dataclasses.replace(DEFAULT, model="resnet", epochs=24, dropout=0.0),
    },
    prepare=standardise,
    augment={
        "default": augment.chain(augment.horizontal_flip, augment.shift(1)),
        "best": augment.chain(augment.horizontal_flip, augment.shift(2), augment.cutout(8)),
    },
    views=[lambda images: images[:, :, ::-1]],
    metrics=["accuracy"],
)
