"""The loop: epochs of compiled steps, validation, stopping, checkpoints, and going on where a run stopped."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import jax
import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data.batching import Batch, Examples, Feed, chunk_length, device_feed, steps_per_epoch
from jaxcls.training import memory
from jaxcls.training.steps import StepMetrics, TrainState, TrainStep, epoch_order, make_train_chunk

# Steps in one dispatch at the most: long enough to hide the cost of a dispatch, short enough for a progress
# bar that moves and a run that stops soon after it is told to.
MOST_STEPS_A_CHUNK = 32
# The batches of a dispatch lie on the device together; of large examples, there are fewer to a dispatch.
MOST_BYTES_A_CHUNK = 1 << 26


class Interrupted(Exception):
    """The run was told to stop, and its state is saved.

    Attributes:
      step: the one that the saved state is at.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}; the state is saved")
        self.step = step


class DivergedError(RuntimeError):
    """So many steps in a row had a loss, gradient or update that is not finite that training was stopped."""


class Reporter(Protocol):
    """Who wants to hear how a run goes."""

    def chunk(self, step: int, loss: float) -> None:
        """After each dispatch: the step that the run is at, and the loss of that step."""

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """After each epoch: the entries of all epochs."""


@dataclasses.dataclass
class Progress:
    """Where a run is, beside its state: what is saved with a checkpoint and continued from.

    Attributes:
      history: an entry for each epoch that is complete.
      loss_sum, examples: over the steps of the epoch under way whose update was applied.
      skipped: steps of the epoch under way whose update was not finite, and so was not applied.
      skipped_in_row: such steps since the last one that was applied.
      most_in_row: the most of them in a row so far.
      seconds: spent training in the epoch under way.
    """

    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    loss_sum: float = 0.0
    examples: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    most_in_row: int = 0
    seconds: float = 0.0

    def count(self, metrics: StepMetrics) -> None:
        """Adds the steps of one dispatch."""
        applied = metrics.applied
        self.loss_sum += float(np.sum(metrics.loss * metrics.examples, where=applied, dtype=np.float64))
        self.examples += int(np.sum(metrics.examples, where=applied))
        self.skipped += int(np.sum(~applied))
        for was_applied in applied:
            self.skipped_in_row = 0 if was_applied else self.skipped_in_row + 1
            self.most_in_row = max(self.most_in_row, self.skipped_in_row)

    def close_epoch(self, step: int, examples: int, validation: Mapping[str, float]) -> dict[str, Any]:
        """Turns the epoch under way into an entry of the history."""
        entry = {
            "epoch": len(self.history) + 1,
            "step": step,
            "loss": self.loss_sum / self.examples if self.examples else None,
            **{f"val_{name}": value for name, value in validation.items()},
            "skipped_steps": self.skipped,
            "seconds": round(self.seconds, 3),
            "examples_per_second": round(examples / self.seconds, 1) if self.seconds else 0.0,
        }
        self.history.append(entry)
        self.loss_sum, self.examples, self.skipped, self.seconds = 0.0, 0, 0, 0.0
        return entry


def fit(
    state: TrainState,
    train_step: TrainStep,
    data: Examples,
    *,
    epochs: int,
    batch_size: int,
    validate: Callable[[TrainState], Mapping[str, float]],
    order: Callable[[jax.Array, int], jax.Array] | None = None,
    feed: Callable[..., Feed] = device_feed,
    monitor: str | None = None,
    mode: Literal["max", "min"] = "max",
    patience: int | None = None,
    max_skipped_steps: int = 20,
    checkpoints: CheckpointManager | None = None,
    checkpoint_seconds: float = 60.0,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    sharding: jax.sharding.NamedSharding | None = None,
    make_chunk: Callable[[TrainStep], Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]] = make_train_chunk,
    examine: Callable[[TrainState, Batch], str] | None = None,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains for so many epochs, going on from the newest checkpoint if there is one.

    The state that comes out, and the history but for its times, are the same bit for bit however often the
    run was interrupted and continued.

    Args:
      state: before the first step of this call; it is donated.
      data: the training examples, where ``feed`` wants them.
      validate: ``state -> {name: value}``, called after each epoch.
      order: ``(key, epoch) -> the rows of the examples, in the order of the epoch``; without it, any order is as
        likely as another.
      feed: how they come to the step: `batching.device_feed`, of examples on the device, or `streaming.host_feed`, of
        examples on the host. The bits are the same.
      monitor: the name of the value by which ``patience`` and the best checkpoint are decided, greater being
        better if ``mode`` is 'max'.
      patience: stop after so many epochs without a better value.
      max_skipped_steps: stop with an error after so many steps in a row that are not finite.
      checkpoint_seconds: save within an epoch when so much time has passed since the last save.
      stop: asked between two dispatches whether to save and stop here.
      sharding: how a batch lies on several devices.
      make_chunk: how the steps of a dispatch are made; `debugging.make_chunk` looks at each of them.
      examine: given the state and the batch of the last step that was not finite when training stops for it; what it
        returns is said in the error.

    Returns:
      The last state, and an entry for each epoch.

    Raises:
      InputError: the checkpoint is of a run with another seed; or the steps do not fit into the device's memory.
      Interrupted: ``stop`` said so; the state was saved.
      DivergedError: the loss, gradient or update stayed non-finite.
      CheckpointError: see :mod:`jaxcls.checkpoints`.
    """
    steps = steps_per_epoch(len(data), batch_size)
    length, chunks_of = chunked_epochs(data, batch_size=batch_size, order=order, feed=feed, sharding=sharding)
    train_chunk = memory.checked(make_chunk(train_step))
    progress = Progress()
    # A state that has been trained before goes on; its epochs have other orders than those that it has seen.
    started = int(state.step)
    if checkpoints is not None and (restored := checkpoints.restore(like=state)):
        if not np.array_equal(jax.random.key_data(restored.state.key), jax.random.key_data(state.key)):
            raise InputError(
                f"the checkpoint of step {restored.step} is of a run with another seed; give that seed, or another "
                "directory."
            )
        state, progress = restored.state, Progress(**restored.metadata)
        if progress.most_in_row >= max_skipped_steps:
            raise DivergedError(_diverged(progress, restored.step))

    def save(metrics: Mapping[str, float] | None = None, *, wait: bool = False) -> None:
        if checkpoints is not None:
            metadata = dataclasses.asdict(progress)
            checkpoints.save(int(state.step), state, metadata=metadata, metrics=metrics, wait=wait)

    saved_at = time.monotonic()
    while len(progress.history) < epochs and not _exhausted(progress.history, monitor, mode, patience):
        epoch = len(progress.history)
        begun = int(state.step) - started - epoch * steps
        chunks = chunks_of(state.key, started // steps + epoch, begun)
        for first in range(begun, steps, length):
            began = time.monotonic()
            # No name keeps what was computed with: its memory is free for the next.
            state, metrics = train_chunk(state, next(chunks))
            # Those past the end of the epoch are dropped.
            metrics = jax.tree.map(lambda values, left=steps - first: np.asarray(values)[:left], metrics)
            progress.seconds += time.monotonic() - began
            progress.count(metrics)
            if reporter is not None:
                reporter.chunk(int(state.step), float(metrics.loss[-1]))
            if progress.most_in_row >= max_skipped_steps:
                save(wait=True)
                said = ""
                # Where a later step was applied, the weights are not those that the last bad one met.
                if examine is not None and not metrics.applied[-1]:
                    at = first + len(metrics.applied) - 1
                    batch = jax.tree.map(lambda leaf: leaf[0], next(chunks_of(state.key, started // steps + epoch, at)))
                    said = f" {examine(state._replace(step=state.step - 1), batch)}"
                raise DivergedError(_diverged(progress, int(state.step)) + said)
            within = first + length < steps
            if within and stop():
                save(wait=True)
                raise Interrupted(int(state.step))
            if within and time.monotonic() - saved_at > checkpoint_seconds:
                save()
                saved_at = time.monotonic()
        entry = progress.close_epoch(int(state.step), len(data), validate(state))
        if reporter is not None:
            reporter.epoch(progress.history)
        stopping = stop() and len(progress.history) < epochs
        save({monitor: entry[f"val_{monitor}"]} if monitor else None, wait=stopping)
        saved_at = time.monotonic()
        if stopping:
            raise Interrupted(int(state.step))
    return state, progress.history


def chunked_epochs(
    data: Examples,
    *,
    batch_size: int,
    order: Callable[[jax.Array, int], jax.Array] | None = None,
    feed: Callable[..., Feed] = device_feed,
    sharding: jax.sharding.NamedSharding | None = None,
) -> tuple[int, Callable[[jax.Array, int, int], Iterator[Batch]]]:
    """How many batches there are to a dispatch, and ``(key, epoch, first) -> chunks`` of an epoch from a batch on.

    The arguments are those of :func:`fit`; ``first`` is the number of a batch.
    """
    batch_bytes = batch_size * sum(array.nbytes for array in jax.tree.leaves(tuple(data))) // len(data)
    most = max(1, min(MOST_STEPS_A_CHUNK, MOST_BYTES_A_CHUNK // batch_bytes))
    length = chunk_length(steps_per_epoch(len(data), batch_size), most)
    chunks_of = feed(data, batch_size=batch_size, length=length, sharding=sharding)
    order_of = order or functools.partial(jax.jit(epoch_order, static_argnames="count"), count=len(data))
    return length, lambda key, epoch, first: chunks_of(order_of(key, epoch), first)


def _exhausted(history: list[dict[str, Any]], monitor: str | None, mode: str, patience: int | None) -> bool:
    if patience is None or monitor is None or not history:
        return False
    sign = 1 if mode == "max" else -1
    values = [sign * entry[f"val_{monitor}"] for entry in history]
    # A NaN is worse than everything, and compares with nothing.
    scores = [value if np.isfinite(value) else -np.inf for value in values]
    return len(scores) - 1 - int(np.argmax(scores)) >= patience


def _diverged(progress: Progress, step: int) -> str:
    return (
        f"the loss, its gradient or the update was not finite in {progress.most_in_row} steps in a row, up to about "
        f"step {step}. None of them changed the weights, and the checkpoint holds the last good ones. A lower "
        "learning rate or gradient clipping (--learning-rate, --global-clipnorm) is the usual cure; else look for NaN "
        "in the data."
    )
