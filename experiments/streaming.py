"""Training on examples that stay on the host against training on examples in device memory.

    pip install matplotlib
    python experiments/streaming.py
    python experiments/streaming.py --models mlp    # quick; writes nothing

Writes experiments/streaming.md (the table) and streaming.svg (the timeline of a second of each model).

Both train on real Fashion-MNIST in batches of 128 with Adam. They take turns for several rounds of two epochs; the
first epoch compiles and is not counted. The rate is the median over the rounds, the ratio the median of the ratios of
each round. The wait is the time that the loop is blocked on the next chunk of batches, while the device has nothing to
compute.

Expected: a ratio of about 1, and more for an MLP on a CPU, where threads gather batches that the device would gather
between its steps. The loop waits at the start of an epoch, mostly for the order of the epoch, which the device draws in
both cases. On a CPU, host and device share the cores, so that gathering slows the computation down.
"""

import argparse
import functools
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

TABLE = Path(__file__).with_suffix(".md")
PICTURE = Path(__file__).with_suffix(".svg")
EXAMPLES = {"mlp": 51_200, "cnn": 12_800}
BATCH_SIZE = 128
GATHER, SEND, WAIT, STEPS = "host: gather", "host: send", "device: wait", "device: steps"
COLORS = {GATHER: "tab:blue", SEND: "tab:orange", WAIT: "tab:red", STEPS: "tab:green"}


class Span(NamedTuple):
    """An activity with its start and end, in seconds."""

    activity: str
    begin: float
    end: float


class Turn(NamedTuple):
    """An epoch: examples per second, the share of time that the loop waited, also for the first chunk, and spans."""

    rate: float
    wait: float
    first_wait: float
    spans: list[Span]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=EXAMPLES, help="only these; nothing is written")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from jaxcls._utils import environment

    environment.configure()
    measured = {model: measure(model, options.rounds) for model in options.models or EXAMPLES}
    text = table(measured)
    print(text)
    if not options.models:
        TABLE.write_text(text, encoding="utf-8")
        draw(measured)


def measure(model: str, rounds: int) -> list[tuple[Turn, Turn]]:
    """For each round, the epoch with examples on the device and the one with examples on the host."""
    import jax

    from jaxcls import losses, optimizers, tasks
    from jaxcls.data import batching
    from jaxcls.data.preprocessing import images
    from jaxcls.models import functional
    from jaxcls.reports.callbacks import Callback
    from jaxcls.tasks import build as building
    from jaxcls.training.experiment import Experiment
    from jaxcls.training.loop import FitConfig, train
    from jaxcls.training.objective import OutputSpec
    from jaxcls.training.settings import Settings

    task = tasks.get("fashion_mnist")
    split = task.load(building.with_recipe(task, Settings())).train
    build = functools.partial(task.models[model], split.inputs.shape[1:], 10, dropout=0.0)
    experiment = Experiment(
        model=functional(lambda rngs: build(rngs=rngs)),
        objective=OutputSpec("multiclass", losses.get("sparse_categorical_crossentropy", normalizer="batch")),
        optimizer=optimizers.adam(1e-3),
        preprocess=images.fit(split.inputs).normalize,
    )
    count = EXAMPLES[model]
    data = batching.examples(split.inputs[:count], split.labels[:count])

    def turn(data_on: Literal["device", "host"]) -> Turn:
        spans: list[Span] = []
        ends: list[float] = []

        class Clock(Callback):
            def on_epoch_end(self, history: Any) -> None:
                ends.append(time.perf_counter())

        feed = f"{data_on}_feed"
        original = getattr(batching, feed)
        # The original functions, timed.
        gathered = mock.patch.object(batching, "gather_chunk", timed(GATHER, batching.gather_chunk, spans))
        sent = mock.patch.object(jax, "device_put", timed(SEND, jax.device_put, spans))
        waited = mock.patch.object(batching, feed, lambda *a, **options: watched(original(*a, **options), spans))
        with gathered, sent, waited:
            config = FitConfig(epochs=2, batch_size=BATCH_SIZE, data_on=data_on)
            train(experiment, experiment.init(), data, None, config, callbacks=[Clock()])
        begin, end = ends
        within = sorted((span for span in spans if span.end > begin), key=lambda span: span.begin)
        waits = [span.end - span.begin for span in within if span.activity == WAIT]
        length = end - begin
        return Turn(count / length, sum(waits) / length, waits[0] / length, within)

    return [(turn("device"), turn("host")) for _ in range(rounds)]


def timed(activity: str, function: Callable[..., Any], spans: list[Span]) -> Callable[..., Any]:
    """The function, timed in Grain's threads until its result is ready."""

    def call(*arguments: Any, **options: Any) -> Any:
        import jax

        if not threading.current_thread().name.startswith("grain"):
            return function(*arguments, **options)
        begin = time.perf_counter()
        result = jax.block_until_ready(function(*arguments, **options))
        spans.append(Span(activity, begin, time.perf_counter()))
        return result

    return call


def watched(feed: Callable[..., Iterator[Any]], spans: list[Span]) -> Callable[..., Iterator[Any]]:
    """The feed, with the time that the loop waits for a chunk and the time until it requests the next."""

    def chunks(*arguments: Any) -> Iterator[Any]:
        inner = feed(*arguments)
        while True:
            begin = time.perf_counter()
            try:
                chunk = next(inner)
            except StopIteration:
                return
            got = time.perf_counter()
            spans.append(Span(WAIT, begin, got))
            # The loop requests a chunk when the metrics of the previous one are ready.
            yield chunk
            spans.append(Span(STEPS, got, time.perf_counter()))

    return chunks


def table(measured: dict[str, list[tuple[Turn, Turn]]]) -> str:
    count = len(next(iter(measured.values())))
    explanation = (
        "Written by `python experiments/streaming.py`, with the timeline [streaming.svg](streaming.svg). "
        f"{os.cpu_count()} cores ({platform.machine()}), for both host and device; Python {platform.python_version()}, "
        f"jax {version('jax')}, Grain {version('grain')}. Real Fashion-MNIST, batch size {BATCH_SIZE}, Adam, float32; "
        f"medians of {count} rounds, with the range in parentheses."
    )
    columns = (
        "model", "on the device, examples/s", "streamed from the host, examples/s", "ratio", "wait of the loop",
        "of which for the first chunk of the epoch",
    )  # fmt: skip
    lines = ["# Streaming", "", explanation, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for model, rounds in measured.items():
        resident, streamed = ([turn[index].rate for turn in rounds] for index in (0, 1))
        ratios = [after.rate / before.rate for before, after in rounds]
        waits, first_waits = ([getattr(turn, name) for _, turn in rounds] for name in ("wait", "first_wait"))
        lines.append(
            f"| {model} | {_spread(resident, ',.0f')} | {_spread(streamed, ',.0f')} | {_spread(ratios, '.2f')} | "
            f"{_spread(waits, '.2%')} | {_spread(first_waits, '.2%')} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def draw(measured: dict[str, list[tuple[Turn, Turn]]]) -> None:
    """Draws the first second of a streamed epoch."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "streaming"  # reproducible
    figure, axes = plt.subplots(
        len(measured), 1, figsize=(10, 2.2 * len(measured)), layout="constrained", squeeze=False
    )
    for axis, (model, rounds) in zip(axes[:, 0], measured.items(), strict=True):
        spans = rounds[-1][1].spans
        origin = next(span.begin for span in spans if span.activity == WAIT)
        for row, activity in enumerate(reversed(COLORS)):
            bars = [(span.begin - origin, span.end - span.begin) for span in spans if span.activity == activity]
            axis.broken_barh(bars, (row - 0.4, 0.8), color=COLORS[activity], edgecolor="white", linewidth=0.3)
        axis.set(title=f"{model}, streamed", xlim=(0, 1), yticks=range(len(COLORS)))
        axis.set_yticklabels(reversed(COLORS))
    axes[-1, 0].set_xlabel("seconds from the start of an epoch")
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
