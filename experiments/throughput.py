"""Training examples a second, side by side with the peers: the same models on the same real images.

    python experiments/throughput.py

Expected: jaxcls trains the MLP at 1.2 times the rate of Keras 3 on JAX or more, the small CNN at twice or more.
Writes experiments/throughput.md. Takes about four minutes on 2 cores.

Every contender runs in a process of its own, as its users would run it, and trains on the Fashion-MNIST images
with Adam at batch size 128, shuffling and feeding included. The first epoch, with starting and compiling, is
reported beside. Then the contenders take turns, one epoch each, for several rounds: what slows the machine slows
all of them. The rate is the median over the rounds; a ratio is the median of the ratios of each round.
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcls import environment

Turn = Callable[[], None]
# Epochs without end: the contender stops when its input does.
MANY = 1_000_000
# Images in one measurement: a few seconds of work for the slowest contender.
IMAGES = {"mlp": 60_000, "cnn": 12_800}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.models[0], options.batch_size)
        return
    rows = []
    for model in options.models:
        rows += compare(model, options.batch_size, options.rounds)
    table = report(rows, options)
    print(table)
    Path(__file__).with_suffix(".md").write_text(table, encoding="utf-8")


@dataclasses.dataclass
class Row:
    model: str
    contender: str
    rates: list[float]
    first_epoch_seconds: float
    ratios: list[float]


def compare(model: str, batch_size: int, rounds: int) -> list[Row]:
    """Lets the contenders take turns on one model."""
    workers = {name: Worker(name, model, batch_size) for name in CONTENDERS}
    rows = {name: Row(model, name, [], worker.first_epoch_seconds, []) for name, worker in workers.items()}
    for number in range(rounds):
        print(f"{model}: round {number + 1} of {rounds}", file=sys.stderr)
        for name, worker in workers.items():
            rows[name].rates.append(worker.measure())
    for worker in workers.values():
        worker.close()
    for row in rows.values():
        row.ratios = [rate / base for rate, base in zip(row.rates, rows["keras-jax"].rates, strict=True)]
    return list(rows.values())


class Worker:
    """A contender in a process of its own, which measures when it is told to."""

    def __init__(self, contender: str, model: str, batch_size: int):
        command = [sys.executable, __file__, "--worker", contender, "--models", model, "--batch-size", str(batch_size)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first_epoch_seconds = self._answer()

    def measure(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("measure\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the contender ended with status {self._process.wait()}")
        return json.loads(line)


def work(contender: str, model: str, batch_size: int) -> None:
    """The other end of :class:`Worker`: the first epoch's seconds, then a rate for each line of input."""
    images = IMAGES[model]
    began = time.perf_counter()
    first = True

    def turn() -> None:
        """Called after each epoch: answers, and waits until it is told to go on."""
        nonlocal began, first
        seconds = time.perf_counter() - began
        print(json.dumps(seconds if first else images / seconds), flush=True)
        first = False
        if not sys.stdin.readline():
            sys.exit()
        began = time.perf_counter()

    CONTENDERS[contender](model, batch_size, images, turn)


def load(images: int):
    from jaxcls.data import idx_images
    from jaxcls.tasks.fashion_mnist import IMAGES as FASHION_MNIST

    train = idx_images.load(FASHION_MNIST).train
    if len(train.labels) < images:
        raise SystemExit("this experiment needs the real Fashion-MNIST: install Debian's dataset-fashion-mnist")
    return train.inputs[:images], train.labels[:images]


def jaxcls_contender(model: str, batch_size: int, images: int, turn: Turn) -> None:
    """The loop that the command line trains with."""
    environment.prepare()
    import jax

    from jaxcls import losses, optimizers, steps
    from jaxcls.data import pipeline
    from jaxcls.data.preparation import images as prepared
    from jaxcls.fit import fit
    from jaxcls.models import vision
    from jaxcls.models.functional import functional

    class Turns:
        def chunk(self, step, loss):
            pass

        def epoch(self, history):
            turn()

    inputs, labels = load(images)
    builders: dict[str, Callable[..., Any]] = {
        "mlp": vision.MLP,
        "cnn": functools.partial(vision.CNN, channels=(32, 64)),
    }
    build = builders[model]
    network = functional(lambda rngs: build((28, 28, 1), 10, dropout=0.0, rngs=rngs))
    optimizer = optimizers.adam(1e-3)
    loss = losses.get("sparse_categorical_crossentropy", normalizer="batch")
    fit(
        steps.init_state(network, optimizer, seed=0),
        steps.make_train_step(network, loss, optimizer, prepare=prepared.fit(inputs).normalise),
        jax.device_put(pipeline.examples(inputs, labels)),
        epochs=MANY,
        batch_size=batch_size,
        validate=lambda state: {},
        reporter=Turns(),
    )


def keras_contender(model: str, batch_size: int, images: int, turn: Turn) -> None:
    """Keras 3 on JAX, as its guides train on arrays: model.compile and model.fit."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers

    inputs, labels = load(images)
    inputs = (inputs.astype("float32") - inputs.mean()) / inputs.std()
    stacks = {
        "mlp": [
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(256, activation="relu"),
        ],
        "cnn": [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
        ],
    }
    network = keras.Sequential([keras.Input((28, 28, 1)), *stacks[model], layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: turn())
    network.fit(inputs, labels, batch_size=batch_size, epochs=MANY, shuffle=True, verbose=0, callbacks=[callback])


CONTENDERS: dict[str, Callable[[str, int, int, Turn], None]] = {
    "jaxcls": jaxcls_contender,
    "keras-jax": keras_contender,
}


def report(rows: list[Row], options: argparse.Namespace) -> str:
    from importlib.metadata import version

    setting = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, jax {version('jax')}, "
        f"Keras {version('keras')}. Real Fashion-MNIST, batch size {options.batch_size}, Adam, float32; medians of "
        f"{options.rounds} rounds, in brackets the least and the most."
    )
    lines = [
        "# Throughput",
        "",
        f"Written by `python {' '.join(sys.argv)}`.",
        setting,
        "",
        "| model | contender | examples a second | against Keras on JAX | start to end of the first epoch, s |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = min(row.rates), max(row.rates)
        lines.append(
            f"| {row.model} | {row.contender} | {statistics.median(row.rates):,.0f} ({low:,.0f} to {high:,.0f}) "
            f"| {statistics.median(row.ratios):.2f} | {row.first_epoch_seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
