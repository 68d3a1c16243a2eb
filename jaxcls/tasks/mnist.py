"""MNIST: 70,000 gray images of 28 x 28 of handwritten digits (LeCun et al. 1998).

    python -m jaxcls.train --task mnist

Pitfalls: digits are not mirrored, since a mirrored 2 is not a digit and a mirrored 5 nearly one, nor rotated much,
since a rotated 6 is a 9. No choice in a run depends on the test images.
"""

from jaxcls.data import augmentation
from jaxcls.data.datasets import idx_images
from jaxcls.data.preprocessing import images
from jaxcls.models import vision
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

IMAGES = idx_images.IdxImages(
    name="mnist",
    class_names=tuple("0123456789"),
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    torchvision="MNIST",
    tfds="mnist",
    sample="mnist",
)

TASK = Task(
    name="mnist",
    summary="handwritten digits, gray images of 28 x 28",
    problem="multiclass",
    load=lambda settings: idx_images.load(IMAGES, settings.source, settings.data_dir),
    read=lambda path, *_: idx_images.read_unlabeled(path),
    fit_preprocessor=lambda inputs, settings: images.fit(inputs),
    models={"mlp": vision.MLP, "cnn": vision.CNN, "resnet": vision.ResNet},
    presets={
        "default": Preset(
            Settings(
                model="cnn",
                epochs=20,
                batch_size=64,
                dropout=0.4,
                label_smoothing=0.1,
                learning_rate=2e-3,
                warmup=0.1,
                validation_fraction=0.05,
            ),
            augmentation.inputs_only(
                augmentation.chain(augmentation.affine(degrees=12, scale=0.12, shear=0.15), augmentation.shift(2))
            ),
        )
    },
    metrics=["accuracy"],
)
