"""Two outputs on real images: the article of a Fashion-MNIST image, and its group (tops, footwear, ...).

    python experiments/fashion_mnist_groups.py

One network with two heads, through `jaxcls.compile` with dicts of losses, loss weights, metrics, labels and class
weights, beside the same network with the head of the articles alone: once with the articles of all training images,
once with those of 6,000 of them, where the others are known by their group only (their article is masked, as
`ignore_label`). The article alone then learns from the 6,000 images, for as many steps.

`python -m jaxcls.train --task fashion_mnist_groups` learns the same two outputs as a task, with its page.

Expected: with all articles known, the second head costs the first one nothing. With 6,000, the groups of the other
images do not make up for batches in which one article of ten is known: the network that learns from those 6,000 images
alone, for as many steps, knows articles better. Writes experiments/fashion_mnist_groups.md.
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


class TwoHeads(nnx.Module):
    """A small convolutional network, and a dense layer for each output."""

    def __init__(self, input_shape: tuple[int, ...], outputs: dict[str, int], *, rngs: nnx.Rngs):
        self.trunk = vision.CNN(input_shape, 128, dropout=0.3, rngs=rngs)
        self.heads = nnx.Dict({name: nnx.Linear(128, count, rngs=rngs) for name, count in outputs.items()})

    def __call__(self, pixels: jax.Array) -> dict[str, jax.Array]:
        features = nnx.relu(self.trunk(pixels))
        return {name: head(features) for name, head in self.heads.items()}


def compiled(
    preprocessor: images.ImagePreprocessor, heads: dict[str, int], groups: np.ndarray, steps: int
) -> Experiment:
    """The network with these heads, and what is asked of each."""
    chosen = {
        "article": losses.get("sparse_categorical_crossentropy", ignore_label=UNKNOWN, label_smoothing=0.1),
        "group": losses.get("sparse_categorical_crossentropy"),
    }
    metrics: dict[str, tuple[str, ...]] = {"article": ("accuracy",), "group": ("accuracy", "balanced_accuracy")}
    # Four of ten articles are tops, and one is a bag.
    class_weight = {"group": losses.class_weights(groups, len(GROUPS))}
    loss_weights = {"article": 1.0, "group": 0.3}

    def of(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in heads}

    return jaxcls.compile(
        functools.partial(TwoHeads, preprocessor.shape, heads),
        optimizers.adamw(optimizers.schedule("one_cycle", learning_rate=4e-3, total_steps=steps), weight_decay=0.05),
        of(chosen),
        metrics=of(metrics),
        loss_weights=of(loss_weights),
        class_weight=of(class_weight),
        preprocess=preprocessor.normalize,
        augment=horizontal_flip,
    )


def trained(
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    epochs: int,
    heads: tuple[str, ...],
) -> dict[str, float]:
    """The scores on the test images after so many epochs; where an article is unknown, its group is still known."""
    pixels, articles, groups = train
    sizes = {"article": len(GROUP_OF_ARTICLE), "group": len(GROUPS)}
    steps = epochs * -(-len(pixels) // BATCH_SIZE)
    made = compiled(images.fit(pixels), {name: sizes[name] for name in heads}, groups, steps)
    labels = {"article": articles, "group": groups}
    state, _ = made.fit(
        made.init(seed=0), (pixels, {name: labels[name] for name in heads}), epochs, batch_size=BATCH_SIZE
    )
    asked = {"article": test[1], "group": GROUP_OF_ARTICLE[test[1]]}
    return made.evaluate(state, (test[0], {name: asked[name] for name in heads}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--known", type=int, default=6000, help="articles that are known in the second half")
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
    for named, heads, train, epochs in (
        (len(articles), ("article",), (pixels, articles, groups), options.epochs),
        (len(articles), ("article", "group"), (pixels, articles, groups), options.epochs),
        (options.known, ("article",), (pixels[known], articles[known], groups[known]), longer),
        (options.known, ("article", "group"), (pixels, few, groups), options.epochs),
    ):
        found = trained(train, test, epochs, heads)
        of_groups = [found.get(f"group_{name}") for name in ("accuracy", "balanced_accuracy")]
        cells = [f"{value:.4f}" if value is not None else "" for value in (found["article_accuracy"], *of_groups)]
        rows.append(f"| {named:,} | {', '.join(heads)} | {len(train[0]):,} x {epochs} | {' | '.join(cells)} |\n")
        print(rows[-1])
    options.output.write_text(
        f"# Fashion-MNIST with two outputs\n\nWritten by `python experiments/fashion_mnist_groups.py`, one seed, of "
        f"{len(test[1]):,} test images.\nThe groups are {', '.join(GROUPS)}; their class weights are balanced, their "
        "loss counts 0.3.\n\n"
        "| articles known | outputs | images x epochs | article accuracy | group accuracy | group balanced accuracy |\n"
        f"|---|---|---|---|---|---|\n{''.join(rows)}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    environment.configure()
    main()
