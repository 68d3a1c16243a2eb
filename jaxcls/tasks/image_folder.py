"""Your own images, in a folder for each class.

    python -m jaxcls.train --task image_folder --data FOLDER
    python -m jaxcls.train --task image_folder

FOLDER holds a folder of images for each class; or train/, test/ and, if you like, val/, which do. Two classes are a
binary problem, of which the second in the alphabet is the positive one; more are a multiclass one. Without FOLDER,
a synthetic sample of drawn shapes is learned.

Traps:
- Images of any size, mode and depth are decoded to three channels of --image-size, once.
- Without a test part, --test-fraction is set aside by class: of images that belong together (frames of one video,
  photographs of one patient), give a test part that shares none with train.
- The same image in two classes is counted and named, and so are test images that were trained on.
- Images are moved and turned a little in training, not mirrored: what a mirror image of yours means is not known here.
"""

import functools

from jaxcls import augment
from jaxcls.data import image_folders, sources
from jaxcls.data.dataset import Dataset
from jaxcls.data.formats import images
from jaxcls.data.preparation import images as prepared
from jaxcls.errors import InputError
from jaxcls.models import vision
from jaxcls.settings import Settings
from jaxcls.tasks import own
from jaxcls.tasks.task import Preset, Task


def load(settings: Settings) -> Dataset:
    assert settings.image_size is not None
    assert settings.test_fraction is not None
    read = functools.partial(
        image_folders.read, settings.task, size=settings.image_size, test_fraction=settings.test_fraction
    )
    if settings.data is not None:
        return read(image_folders.layout(settings.data, settings.test_data))
    from jaxcls.data.samples import image_folder

    return sources.generated(image_folder.write, lambda folder: read(image_folders.layout(folder)))


def specialise(task: Task, settings: Settings) -> Task:
    if settings.data_dir is not None:
        raise InputError("--task image_folder takes your images as --data; --data-dir is for the named tasks.")
    if settings.data is None:
        if settings.source not in ("auto", "sample") or settings.test_data is not None:
            raise InputError("--task image_folder needs --data, a folder with a folder of images for each class.")
        return task
    if settings.source not in ("auto", "files"):
        raise InputError(f"--data is your own: leave out --source {settings.source}.")
    classes = image_folders.layout(settings.data, settings.test_data).class_names
    return own.specialise(task, "binary" if len(classes) == 2 else "multiclass")


TASK = Task(
    name="image_folder",
    summary="your own images, in a folder for each class",
    problem="multiclass",
    load=load,
    read=lambda path, settings: images.queries(path, settings.image_size or 64, 3),
    prepare=lambda inputs, settings: prepared.fit(inputs),
    models={
        "mlp": vision.MLP,
        "cnn": vision.CNN,
        "resnet": functools.partial(vision.ResNet, pooled_stem=True),
    },
    presets={
        "default": Preset(
            Settings(
                image_size=64,
                test_fraction=0.2,
                model="resnet",
                epochs=30,
                batch_size=32,
                loss="sparse_categorical_crossentropy",
                dropout=0.2,
                optimizer="adamw",
                learning_rate=3e-3,
                weight_decay=0.05,
                schedule="cosine",
                warmup=0.15,
                validation_fraction=0.1,
                monitor="accuracy",
                # The rate ends at zero, so the last epoch is the one to keep.
                restore_best=False,
            ),
            augment.chain(augment.affine(degrees=10, scale=0.1), augment.shift(4)),
        ),
    },
    metrics=["accuracy"],
    specialise=specialise,
)
