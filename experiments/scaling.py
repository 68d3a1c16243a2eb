"""How the time and the memory of training grow with the data, the batch, the width of the model and the labels.

    pip install matplotlib
    python experiments/scaling.py

Expected: straight lines on logarithmic axes, of slope 1 or less; the table explains deviations. Writes
experiments/scaling.md (the table) and .svg (the chart). Takes about three minutes on 2 cores.

Every point is measured in a separate process, which has a peak memory. Times are the minimum of several repetitions
after one that compiles, because other load on the machine can only add to them. The examples are random (SYNTHETIC).
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls.reports.callbacks import Callback

CLASSES = 10
PIXELS = (28, 28, 1)


class Axis(NamedTuple):
    """A quantity that grows.

    Attributes:
      title: the label of the horizontal axis.
      measured: what is timed.
      values: the measured values of the quantity.
      seconds: ``value -> seconds`` of each repetition.
      remark: why the line is not straight, where it is not.
    """

    title: str
    measured: str
    values: tuple[int, ...]
    seconds: Callable[[int], list[float]]
    remark: str


def by_examples(count: int) -> list[float]:
    return _epochs(count=count, batch_size=128, hidden=(512, 256))


def by_batch(batch_size: int) -> list[float]:
    return _epochs(count=16_384, batch_size=batch_size, hidden=(512, 256))


def by_width(width: int) -> list[float]:
    return _epochs(count=4_096, batch_size=128, hidden=(width, width))


def by_channels(channels: int) -> list[float]:
    return _epochs(count=512, batch_size=64, channels=channels)


def by_labels(labels: int) -> list[float]:
    return _epochs(count=4_096, batch_size=128, hidden=(512, 256), labels=labels)


def metrics_by_examples(count: int) -> list[float]:
    return _reports(count=count, labels=10)


def metrics_by_labels(labels: int) -> list[float]:
    return _reports(count=2_000, labels=labels)


MLP, CNN, METRICS = "an epoch of the MLP", "an epoch of the CNN", "all metrics"
AXES = {
    "examples": Axis(
        "training examples", MLP, (4_096, 8_192, 16_384, 32_768, 65_536), by_examples,
        "straight",
    ),
    "batch": Axis(
        "batch size", MLP, (32, 64, 128, 256, 512, 1_024), by_batch,
        "falls: fewer steps, each with one update of 535,818 parameters and one start of each operation, and larger "
        "matrix products are closer to the peak rate",
    ),
    "width": Axis(
        "width of both hidden layers", MLP, (128, 256, 512, 1_024, 2_048), by_width,
        "bends from 1 to 2: the first layer has 784 weights per unit, the second as many as it has units",
    ),
    "channels": Axis(
        "channels of each convolution", CNN, (8, 16, 32, 64, 128), by_channels,
        "bends from 1 to 2: the second convolution goes from all channels to all channels",
    ),
    "labels": Axis(
        "labels, multi-label", MLP, (10, 100, 1_000, 10_000), by_labels,
        "bends from 0 to 1: the cost of the hidden layers does not depend on the labels",
    ),
    "metrics_examples": Axis(
        "examples, 10 labels", METRICS, (1_000, 4_000, 16_000, 64_000), metrics_by_examples,
        "straight, although scores are sorted",
    ),
    "metrics_labels": Axis(
        "labels, 2,000 examples", METRICS, (1, 10, 100, 1_000), metrics_by_labels,
        "straight, except for the constant cost of a report",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="only these")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker[0], int(options.worker[1]))))
        return
    points: dict[str, list[tuple[int, float, float]]] = {name: [] for name in options.axes}
    for name in options.axes:
        for value in AXES[name].values:
            command = [sys.executable, __file__, "--worker", name, str(value)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            points[name].append((value, *json.loads(output)))
            print(name, *points[name][-1], file=sys.stderr, flush=True)
    table = report(points)
    print(table)
    Path(__file__).with_suffix(".md").write_text(table, encoding="utf-8")
    draw(points)


def measure(axis: str, value: int) -> tuple[float, float]:
    """Seconds, and the peak memory of this process in MiB."""
    from jaxcls._utils import environment

    environment.configure()
    seconds = AXES[axis].seconds(value)
    return min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Times(Callback):
    """Ends the training after enough epochs, not counting the first, which compiles."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = self._last = time.perf_counter()

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now

    def enough(self) -> bool:
        return len(self.seconds) > 3 and time.perf_counter() - self._began - self.seconds[0] > 2


def _epochs(
    *,
    count: int,
    batch_size: int,
    hidden: tuple[int, ...] = (),
    channels: int | None = None,
    labels: int | None = None,
) -> list[float]:
    """Seconds of epochs in the training loop of the command."""
    import jax.numpy as jnp

    from jaxcls import losses, optimizers
    from jaxcls._utils.interruption import Interrupted
    from jaxcls.data import batching
    from jaxcls.models import functional, vision
    from jaxcls.training.experiment import Experiment
    from jaxcls.training.loop import FitConfig, train
    from jaxcls.training.objective import OutputSpec

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *PIXELS), dtype=np.uint8)
    outputs = labels or CLASSES
    answers: np.ndarray
    if labels:
        answers = generator.integers(0, 2, (count, labels), dtype=np.int8).astype(np.float32)
    else:
        answers = generator.integers(0, CLASSES, count, dtype=np.int32)

    def build(rngs: Any) -> Any:
        if channels is None:
            return vision.MLP(PIXELS, outputs, hidden=hidden, rngs=rngs)
        return vision.CNN(PIXELS, outputs, channels=(channels, channels), dropout=0.0, rngs=rngs)

    loss = losses.get("binary_crossentropy" if labels else "sparse_categorical_crossentropy", normalizer="batch")
    experiment = Experiment(
        model=functional(build),
        objective=OutputSpec("multilabel" if labels else "multiclass", loss),
        optimizer=optimizers.adam(1e-3),
        preprocess=lambda images: images.astype(jnp.float32) / 255,
    )
    times = _Times()
    with contextlib.suppress(Interrupted):
        train(
            experiment,
            experiment.init(),
            batching.examples(images, answers),
            None,
            FitConfig(epochs=1_000_000, batch_size=batch_size),
            callbacks=[times],
            stop=times.enough,
        )
    return times.seconds[1:]


def _reports(*, count: int, labels: int) -> list[float]:
    """Seconds of all metrics of a multi-label problem, as reported at the end of a run."""
    from jaxcls import metrics

    generator = np.random.default_rng(0)
    scores = generator.random((count, labels), dtype=np.float32)
    answers = (generator.random((count, labels)) < 0.3).astype(np.float32)
    names = tuple(f"label {number}" for number in range(labels))
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        metrics.report(scores, answers, problem="multilabel", class_names=names)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def slope(values: list[float], results: list[float]) -> float:
    """Of the straight line through the logarithms."""
    return float(np.polyfit(np.log(values), np.log(results), 1)[0])


def report(points: dict[str, list[tuple[int, float, float]]]) -> str:
    lines = [
        "# How cost grows",
        "",
        "Written by `python experiments/scaling.py`, with scaling.svg; the examples are SYNTHETIC.",
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, jax {version('jax')}.",
        "",
        "A slope of 1 means that twice the value takes twice the time. Memory is the peak of the whole process.",
        "",
        "| quantity | measured | range | seconds | slope | slope of the upper half | memory, MiB | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, measurements in points.items():
        axis = AXES[name]
        values, seconds, memory = (list(column) for column in zip(*measurements, strict=True))
        half = len(values) // 2
        lines.append(
            f"| {axis.title} | {axis.measured} | {values[0]:,} to {values[-1]:,} "
            f"| {', '.join(f'{value:.3g}' for value in seconds)} "
            f"| {slope(values, seconds):.2f} | {slope(values[half:], seconds[half:]):.2f} "
            f"| {', '.join(f'{value:,.0f}' for value in memory)} | {axis.remark} |"
        )
    return "\n".join(lines) + "\n"


def draw(points: dict[str, list[tuple[int, float, float]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(points), figsize=(3.1 * len(points), 5.6), squeeze=False, sharex="col")
    for column, (name, measurements) in enumerate(points.items()):
        values, *results = zip(*measurements, strict=True)
        for row, (label, result) in enumerate(zip(("seconds", "peak memory, MiB"), results, strict=True)):
            plot = rows[row][column]
            plot.loglog(values, result, "o-", color="C0" if row == 0 else "C1")
            if row == 0:
                straight = [result[-1] * value / values[-1] for value in values]
                plot.loglog(values, straight, ":", color="grey", label="slope 1")
                plot.set_title(AXES[name].measured, fontsize=10)
                plot.legend(fontsize=8)
            else:
                plot.set_xlabel(AXES[name].title)
                plot.set_ylim(10, 10 ** np.ceil(np.log10(max(result) * 1.5)))
            if column == 0:
                plot.set_ylabel(label)
            plot.set_xticks([values[0], values[-1]], [f"{values[0]:,}", f"{values[-1]:,}"])
            plot.minorticks_off()
            plot.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
