"""Typical Keras scripts and their ports to jaxcls, run step by step from equal weights.

    python experiments/keras_side_by_side.py

Compares, between Keras (on its JAX backend) and jaxcls, the loss of every training step, the accuracy of every batch
before its step, and the loss and metrics of the test images at the end, from the same weights and on the same batches.
The images are the real ones of the Fashion-MNIST sample. Expected: no loss and no metric differs by more than 1e-5.
Writes experiments/keras_side_by_side.md.

Three differences are by design. A jaxcls model ends with logits, so its last layer has no activation. The metrics of
jaxcls are exact, whereas Keras's AUC uses 200 thresholds; it is not compared here. Class weights of a sigmoid loss
apply to its two terms, whereas Keras weights the example; they agree unless labels are soft or smoothed. A fourth
difference is Keras's: it computes the loss from probabilities and caps it at 16, with a gradient of 0 from there on.
No example comes near it here.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx

import jaxcls
from jaxcls import optimizers
from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import IMAGES
from jaxcls.training.experiment import Experiment

TABLE = Path(__file__).with_suffix(".md")
BATCH_SIZE = 128
TOLERANCE = 1e-5
GROUP_OF_ARTICLE = np.array([0, 1, 0, 2, 0, 3, 0, 3, 4, 3], np.int32)
BAG, FOOTWEAR = 8, 3
# Whether an article has sleeves, comes as a pair (of legs or shoes), has a sole.
ATTRIBUTES = np.array([
    [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 1],
], np.float32)  # fmt: skip
CLASS_WEIGHT = {0: 0.55, 1: 5.0}


# --- binary: is it footwear? ---


def keras_binary():
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    outputs = keras.layers.Dense(1, activation="sigmoid", name="outputs")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="binary_crossentropy",
        metrics=["accuracy", keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")],
    )
    return model


class Net(nnx.Module):
    def __init__(self, features, rngs):
        self.hidden = nnx.Linear(784, 64, rngs=rngs)
        self.outputs = nnx.Linear(64, features, rngs=rngs)

    def __call__(self, inputs):
        return self.outputs(nnx.relu(self.hidden(inputs)))


def jaxcls_binary():
    return jaxcls.compile(
        lambda rngs: Net(1, rngs),
        optimizer=optimizers.adam(1e-3, semantics="keras"),
        loss="binary_crossentropy",
        metrics=["accuracy", "precision", "recall"],
    )


# --- multiclass: which article? With indices, and one-hot ---


def keras_multiclass(loss="sparse_categorical_crossentropy"):
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    outputs = keras.layers.Dense(10, activation="softmax", name="outputs")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss=loss, metrics=["accuracy"])
    return model


def jaxcls_multiclass(loss="sparse_categorical_crossentropy"):
    return jaxcls.compile(
        lambda rngs: Net(10, rngs),
        optimizer=optimizers.sgd(0.01, momentum=0.9, semantics="keras"),
        loss=loss,
        metrics=["accuracy"],
    )


# --- multi-label: which attributes does it have? ---


def keras_multilabel():
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    outputs = keras.layers.Dense(3, activation="sigmoid", name="outputs")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.RMSprop(1e-3),
        loss="binary_crossentropy",
        metrics=["binary_accuracy", keras.metrics.F1Score(average="macro", threshold=0.5, name="f1")],
    )
    return model


def jaxcls_multilabel():
    return jaxcls.compile(
        lambda rngs: Net(3, rngs),
        optimizer=optimizers.rmsprop(1e-3, semantics="keras"),
        loss="binary_crossentropy",
        metrics=["accuracy", "f1"],
        problem="multilabel",
    )


# --- imbalanced: is it a bag? One of ten is ---


def keras_imbalanced():
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    outputs = keras.layers.Dense(1, activation="sigmoid", name="outputs")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01, global_clipnorm=1.0),
        loss="binary_crossentropy",
        metrics=["accuracy", keras.metrics.Recall(name="recall")],
    )
    return model  # fit takes class_weight=CLASS_WEIGHT


def jaxcls_imbalanced():
    return jaxcls.compile(
        lambda rngs: Net(1, rngs),
        optimizer=optimizers.adamw(1e-3, weight_decay=0.01, global_clipnorm=1.0, semantics="keras"),
        loss="binary_crossentropy",
        metrics=["accuracy", "recall"],
        class_weight=CLASS_WEIGHT,
    )


# --- two outputs: which article, and of which group? ---


def keras_two_outputs():
    inputs = keras.Input((784,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    article = keras.layers.Dense(10, activation="softmax", name="article")(hidden)
    group = keras.layers.Dense(5, activation="softmax", name="group")(hidden)
    model = keras.Model(inputs, {"article": article, "group": group})
    model.compile(
        optimizer=keras.optimizers.Nadam(1e-3),
        loss={"article": "sparse_categorical_crossentropy", "group": "sparse_categorical_crossentropy"},
        loss_weights={"article": 1.0, "group": 0.3},
        metrics={"article": ["accuracy"], "group": ["accuracy"]},
    )
    return model


class TwoOutputs(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(784, 64, rngs=rngs)
        self.article = nnx.Linear(64, 10, rngs=rngs)
        self.group = nnx.Linear(64, 5, rngs=rngs)

    def __call__(self, inputs):
        hidden = nnx.relu(self.hidden(inputs))
        return {"article": self.article(hidden), "group": self.group(hidden)}


def jaxcls_two_outputs():
    return jaxcls.compile(
        TwoOutputs,
        optimizer=optimizers.nadam(1e-3, semantics="keras"),
        loss={"article": "sparse_categorical_crossentropy", "group": "sparse_categorical_crossentropy"},
        loss_weights={"article": 1.0, "group": 0.3},
        metrics={"article": ["accuracy"], "group": ["accuracy"]},
    )


# --- the comparison ---


class Script(NamedTuple):
    """A Keras script, its port, their labels by article, and the class weights that Keras's fit takes."""

    keras: Callable[[], Any]
    jaxcls: Callable[[], Experiment]
    labels: Callable[[np.ndarray], Any]
    class_weight: dict[int, float] | None = None


class Comparison(NamedTuple):
    """The greatest differences over all steps and on the test images, and the test values."""

    steps: int
    loss: float
    accuracy: float
    test: float
    values: dict[str, float]


SCRIPTS = {
    "binary": Script(
        keras_binary, jaxcls_binary, lambda articles: (GROUP_OF_ARTICLE[articles] == FOOTWEAR).astype(int)
    ),
    "multiclass, sparse": Script(keras_multiclass, jaxcls_multiclass, lambda articles: articles),
    "multiclass, one-hot": Script(
        lambda: keras_multiclass("categorical_crossentropy"),
        lambda: jaxcls_multiclass("categorical_crossentropy"),
        lambda articles: np.eye(10, dtype=np.float32)[articles],
    ),
    "multi-label": Script(keras_multilabel, jaxcls_multilabel, lambda articles: ATTRIBUTES[articles]),
    "imbalanced, class weights": Script(
        keras_imbalanced, jaxcls_imbalanced, lambda articles: (articles == BAG).astype(int), CLASS_WEIGHT
    ),
    "two outputs": Script(
        keras_two_outputs,
        jaxcls_two_outputs,
        lambda articles: {"article": articles, "group": GROUP_OF_ARTICLE[articles]},
    ),
}
# Keras's names that differ from jaxcls's.
OUR_NAMES = {"binary_accuracy": "accuracy"}


def images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The images and articles of the sample: training and test."""
    sample = idx_images.load(IMAGES, "sample")
    train, test = (
        (split.inputs.reshape(len(split.labels), -1).astype(np.float32) / 255, split.labels)
        for split in (sample.train, sample.test)
    )
    return train, test


def compare(script: Script, steps: int) -> Comparison:
    """Trains both for ``steps`` steps."""
    (inputs, articles), (test_inputs, test_articles) = images()
    labels, test_labels = script.labels(articles), script.labels(test_articles)
    theirs, ours = script.keras(), script.jaxcls()
    state = ours.init(0)
    for name in state.params:
        layer = theirs.get_layer(name)
        # Copies, because Keras donates its arrays to its steps.
        state.params[name] = {"kernel": jnp.array(layer.kernel.value), "bias": jnp.array(layer.bias.value)}
    off_loss = off_accuracy = 0.0
    for step in range(steps):
        rows = np.arange(step * BATCH_SIZE, (step + 1) * BATCH_SIZE) % len(inputs)
        x, y = inputs[rows], jax.tree.map(lambda values, rows=rows: values[rows], labels)
        theirs.reset_metrics()  # or they would accumulate over batches
        expected = theirs.train_on_batch(x, y, class_weight=script.class_weight, return_dict=True)
        scores = ours.evaluate(state, (x, y))
        state, metrics = ours.train_step(state, jaxcls.batch(x, y))
        off_loss = max(off_loss, abs(float(metrics.loss) - float(expected["loss"])))
        off_accuracy = max(off_accuracy, *(abs(scores[ours] - value) for ours, value in _accuracies(expected)))
    weights = None if script.class_weight is None else np.array([*script.class_weight.values()])[test_labels]
    # With sample weights Keras weights only the loss; the loss of jaxcls includes the class weights.
    expected = theirs.evaluate(test_inputs, test_labels, sample_weight=weights, return_dict=True, verbose=0)
    values = ours.evaluate(state, (test_inputs, test_labels))
    off_test = max(abs(values[OUR_NAMES.get(name, name)] - value) for name, value in expected.items())
    return Comparison(steps, off_loss, off_accuracy, off_test, values)


def _accuracies(expected: dict[str, Any]) -> list[tuple[str, float]]:
    return [(OUR_NAMES.get(name, name), float(value)) for name, value in expected.items() if "accuracy" in name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    lines = []
    for name, script in SCRIPTS.items():
        result = compare(script, options.steps)
        values = ", ".join(f"{metric} {value:.4f}" for metric, value in result.values.items())
        lines.append(f"| {name} | {result.loss:.1e} | {result.accuracy:.1e} | {result.test:.1e} | {values} |\n")
        print(lines[-1], end="", flush=True)
        assert max(result.loss, result.accuracy, result.test) <= TOLERANCE, name
    TABLE.write_text(
        "# Keras side by side\n\nWritten by `python experiments/keras_side_by_side.py`: the greatest differences "
        f"between Keras {keras.__version__} and jaxcls\nover {options.steps} steps from equal weights on equal batches "
        f"of {BATCH_SIZE} real images, and on 2,000 test images afterwards.\n\n"
        "| script | training loss | batch accuracy | test loss and metrics | test values of jaxcls |\n"
        f"|---|---|---|---|---|\n{''.join(lines)}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
