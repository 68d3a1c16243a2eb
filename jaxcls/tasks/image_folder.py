"""User-supplied images, in one folder per class.

    python -m jaxcls.train --task image_folder --data FOLDER
    python -m jaxcls.train --task image_folder

FOLDER holds one folder of images per class; or folders of splits with such folders: train/, test/ and optionally val/,
in any spelling. Two classes are a binary problem, with the second in alphabetical order as the positive class; more
are a multiclass problem. Without FOLDER, the task trains on a synthetic sample of drawn shapes.

Pitfalls:
- Images of any size, mode and depth are decoded once, to three channels of --image-size.
- Without a test split, --test-fraction of each class is held out: for images that belong together (frames of one video,
  photographs of one patient), supply a test split that shares none with train.
- The same image in two classes is reported, and so are test images that also occur in training.
- Images are shifted and rotated a little in training, but not mirrored: mirroring may change their meaning.
"""

import functools

from jaxcls.data import augmentation, sources
from jaxcls.data.dataset import Dataset
from jaxcls.data.datasets import image_folders
from jaxcls.data.preprocessing import images as image_preprocessing
from jaxcls.data.samples import image_folder as sample
from jaxcls.models import vision
from jaxcls.tasks import user_data
from jaxcls.tasks.task import Preset, Task, required
from jaxcls.training.settings import Settings


def load(settings: Settings) -> Dataset:
    read = functools.partial(
        image_folders.read,
        size=required(settings, "image_size"),
        test_fraction=required(settings, "test_fraction"),
        skip_damaged=bool(settings.skip_damaged),
    )
    if user_data.uses_sample(settings):
        return sources.load_sample(sample.write, lambda folder: read(image_folders.layout(folder)))
    return read(_layout(settings))


def _layout(settings: Settings) -> image_folders.Layout:
    return image_folders.layout(required(settings, "data"), settings.validation_data, settings.test_data)


def specialize(task: Task, settings: Settings) -> Task:
    if user_data.uses_sample(settings):
        return task
    classes = _layout(settings).class_names
    return user_data.for_problem(task, "binary" if len(classes) == 2 else "multiclass")


TASK = Task(
    name="image_folder",
    summary="your images, in one folder per class",
    problem="multiclass",
    load=load,
    fit_preprocessor=lambda inputs, settings: image_preprocessing.fit(
        inputs, per_image=settings.standardize == "image"
    ),
    models={"mlp": vision.MLP, "cnn": vision.CNN, "resnet": functools.partial(vision.ResNet, pooled_stem=True)},
    pretrained="images",
    presets={
        "default": Preset(
            Settings(
                image_size=64,
                test_fraction=0.2,
                model="resnet",
                epochs=16,
                batch_size=32,
                dropout=0.2,
                optimizer="adamw",
                learning_rate=3e-3,
                weight_decay=0.05,
                warmup=0.15,
                validation_fraction=0.1,
                monitor="accuracy",
            ),
            augmentation.inputs_only(
                augmentation.chain(augmentation.affine(degrees=10, scale=0.1), augmentation.shift(4))
            ),
        )
    },
    metrics=["accuracy"],
    data_settings=("data", "validation_data", "test_data", "skip_damaged", "standardize"),
    specialize=specialize,
)
