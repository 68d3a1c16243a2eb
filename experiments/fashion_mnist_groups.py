"""Two outputs on real images: the article of a Fashion-MNIST image, and its group (tops, footwear, ...).

    python experiments/fashion_mnist_groups.py

Compares one network with two outputs, trained through `jaxcls.compile` with dicts of losses, loss weights, metrics,
labels and class weights, to the same network with the article output only. First the articles of all training images
are known, then only those of 6,000 images; the network with two outputs still learns from the groups of the others,
whose articles are masked by `ignore_label`. The network with one output then learns from the 6,000 images, for the
same number of steps.

`python -m jaxcls.train --task fashion_mnist_groups` trains the same two outputs as a task, with a report.

Expected: with all articles known, the second output does not lower the accuracy of the first. With 6,000 known, the
groups of the other images do not make up for batches in which one article of ten is known: the network that learns from
the 6,000 images only is more accurate. Writes experiments/fashion_mnist_groups.md.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxcls
from jaxcls import losses, optimizers
from jaxcls._utils import environment
from jaxcls.data.augmentation import horizontal_flip
from jaxcls.data.dataset import describe
from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import GROUP_OF_ARTICLE, GROUPS, IMAGES
from jaxcls.data.preprocessing import images
from jaxcls.models import vision
from jaxcls.training.experiment import Experiment

UNKNOWN = -1
BATCH_SIZE = 128
TABLE = Path(__file__).with_suffix(".md")


class Network(nnx.Module):
    """A small convolutional network with a dense layer for each output."""

    def __init__(self, input_shape: tuple[int, ...], outputs: dict[str, int], *, rngs: nnx.Rngs):
        self.trunk = vision.CNN(input_shape, 128, dropout=0.3, rngs=rngs)
        self.heads = nnx.Dict({name: nnx.Linear(128, count, rngs=rngs) for name, count in outputs.items()})

    def __call__(self, pixels: jax.Array) -> dict[str, jax.Array]:
        features = nnx.relu(self.trunk(pixels))
        return {name: head(features) for name, head in self.heads.items()}


def compiled(
    preprocessor: images.ImagePreprocessor, outputs: dict[str, int], groups: np.ndarray, steps: int
) -> Experiment:
    """Compiles the network with these outputs (name to number of classes), and the loss and metrics of each."""
    loss = {
        "article": losses.get("sparse_categorical_crossentropy", ignore_label=UNKNOWN, label_smoothing=0.1),
        "group": losses.get("sparse_categorical_crossentropy"),
    }
    metrics: dict[str, tuple[str, ...]] = {"article": ("accuracy",), "group": ("accuracy", "balanced_accuracy")}
    # Four of ten articles are tops, and one is a bag.
    class_weight = {"group": losses.class_weights(groups, len(GROUPS))}
    loss_weights = {"article": 1.0, "group": 0.3}

    def selected(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in outputs}

    return jaxcls.compile(
        functools.partial(Network, preprocessor.shape, outputs),
        optimizers.adamw(optimizers.schedule("one_cycle", learning_rate=4e-3, total_steps=steps), weight_decay=0.05),
        selected(loss),
        metrics=selected(metrics),
        loss_weights=selected(loss_weights),
        class_weight=selected(class_weight),
        preprocess=preprocessor.normalize,
        augment=horizontal_flip,
    )


def trained(
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    epochs: int,
    outputs: tuple[str, ...],
) -> dict[str, float]:
    """The scores on the test images after training on images, articles and groups; articles may be UNKNOWN."""
    pixels, articles, groups = train
    sizes = {"article": len(GROUP_OF_ARTICLE), "group": len(GROUPS)}
    steps = epochs * -(-len(pixels) // BATCH_SIZE)
    model = compiled(images.fit(pixels), {name: sizes[name] for name in outputs}, groups, steps)
    labels = {"article": articles, "group": groups}
    state, _ = model.fit(
        model.init(seed=0), (pixels, {name: labels[name] for name in outputs}), epochs, batch_size=BATCH_SIZE
    )
    test_labels = {"article": test[1], "group": GROUP_OF_ARTICLE[test[1]]}
    return model.evaluate(state, (test[0], {name: test_labels[name] for name in outputs}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--known", type=int, default=6000, help="the number of known articles in the second comparison")
    parser.add_argument("--source", default="auto")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    dataset = idx_images.load(IMAGES, options.source)
    print(describe(dataset))
    test = (dataset.test.inputs, dataset.test.labels)
    pixels, articles = dataset.train.inputs, dataset.train.labels
    groups = GROUP_OF_ARTICLE[articles]
    known = np.random.default_rng(0).permutation(len(articles)) < options.known
    few = np.where(known, articles, UNKNOWN).astype(np.int32)
    longer = options.epochs * len(articles) // options.known
    rows = []
    for articles_known, outputs, train, epochs in (
        (len(articles), ("article",), (pixels, articles, groups), options.epochs),
        (len(articles), ("article", "group"), (pixels, articles, groups), options.epochs),
        (options.known, ("article",), (pixels[known], articles[known], groups[known]), longer),
        (options.known, ("article", "group"), (pixels, few, groups), options.epochs),
    ):
        scores = trained(train, test, epochs, outputs)
        group_scores = [scores.get(f"group_{name}") for name in ("accuracy", "balanced_accuracy")]
        cells = [f"{value:.4f}" if value is not None else "" for value in (scores["article_accuracy"], *group_scores)]
        rows.append(
            f"| {articles_known:,} | {', '.join(outputs)} | {len(train[0]):,} x {epochs} | {' | '.join(cells)} |\n"
        )
        print(rows[-1])
    options.output.write_text(
        f"# Fashion-MNIST with two outputs\n\nWritten by `python experiments/fashion_mnist_groups.py`, one seed, "
        f"scored on {len(test[1]):,} test images.\nThe groups are {', '.join(GROUPS)}; their class "
        "weights are balanced, and their loss has a weight of 0.3.\n\n"
        "| articles known | outputs | images x epochs | article accuracy | group accuracy | group balanced accuracy |\n"
        f"|---|---|---|---|---|---|\n{''.join(rows)}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    environment.configure()
    main()
