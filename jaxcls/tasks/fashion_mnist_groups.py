"""Fashion-MNIST with two outputs: the article of an image, and its group (tops, trousers, dresses, footwear, bags).

    python -m jaxcls.train --task fashion_mnist_groups
    python -m jaxcls.train --task fashion_mnist_groups --loss-weights 1 0 --class-weight balanced

One network learns both by minimizing the weighted sum of their losses; each output has its own metrics and class
weights. The same for your model is a dict of losses for `jaxcls.compile`: experiments/fashion_mnist_groups.py.

Traps:
- A group follows from its article, so the second output teaches the network little: it costs the first one nothing.
- The two outputs are decided independently: an image may be predicted as a coat and as of the group of bags.
- Loss weights are not learning rates: under Adam, multiplying all of them by ten changes next to nothing.
"""

import dataclasses

import numpy as np

from jaxcls.data.dataset import Dataset, Split
from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import GROUP_OF_ARTICLE, GROUPS, IMAGES
from jaxcls.data.preprocessing import images
from jaxcls.models import vision
from jaxcls.tasks import fashion_mnist
from jaxcls.tasks.task import Task
from jaxcls.training.settings import Settings


def load(settings: Settings) -> Dataset:
    """Loads Fashion-MNIST with a dict of labels and of class names."""
    articles = idx_images.load(IMAGES, settings.source, settings.data_dir)

    def with_groups(split: Split) -> Split:
        groups = GROUP_OF_ARTICLE[split.labels].astype(np.int32)
        return split._replace(labels={"article": split.labels, "group": groups})

    return articles._replace(
        name=TASK.name,
        train=with_groups(articles.train),
        test=with_groups(articles.test),
        class_names={"article": IMAGES.class_names, "group": GROUPS},
    )


SETTINGS = dataclasses.replace(fashion_mnist.DEFAULT.settings, loss_weights=(1.0, 0.3))

TASK = Task(
    name="fashion_mnist_groups",
    summary="two outputs: the article of a 28 x 28 image, and its group",
    problem={"article": "multiclass", "group": "multiclass"},
    load=load,
    read=lambda path, *_: idx_images.read_unlabeled(path),
    fit_preprocessor=lambda inputs, settings: images.fit(inputs),
    models={"mlp": vision.MLP, "cnn": vision.CNN, "resnet": vision.ResNet},
    presets={"default": fashion_mnist.DEFAULT._replace(settings=SETTINGS)},
    metrics=["article_accuracy", "group_accuracy"],
)
