"""The training loop: epochs of compiled steps, validation, early stopping, checkpoints, and resuming."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import processes
from jaxcls._utils.errors import InputError, RunError
from jaxcls._utils.interruption import Interrupted, made_progress
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data import batching
from jaxcls.data.batching import Batch, Examples
from jaxcls.data.rows import in_memory, window
from jaxcls.reports.callbacks import Callback, ProgressBar
from jaxcls.training import memory, mesh
from jaxcls.training.debugging import StepSaver
from jaxcls.training.experiment import Experiment
from jaxcls.training.objective import loss_of_sums
from jaxcls.training.steps import StepMetrics, TrainState, TrainStep

Say = Callable[[str], None]

# The most steps in one dispatch: long enough to hide the cost of a dispatch, short enough for a progress bar that
# moves and for a run that stops soon after a signal.
MAX_CHUNK_STEPS = 32
# All batches of a dispatch are on the device at once, so a dispatch of large examples has fewer of them.
MAX_CHUNK_BYTES = 1 << 26
# Of batches from the host, up to four dispatches are there at once. Where the device is the host, they take its memory
# twice, and a dispatch takes little time.
MAX_HOST_CHUNK_BYTES = 1 << 24
# Epochs that follow each other faster are not all saved: even a small checkpoint takes about 0.05 s of computing.
MIN_CHECKPOINT_SECONDS = 1.0


class History(list[dict[str, Any]]):
    """A list with one entry per epoch: 'epoch', 'step', 'loss', 'val_loss', metrics such as 'val_accuracy', 'seconds'.

    >>> History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]).as_dict()
    {'epoch': [1, 2], 'loss': [0.5, 0.25]}
    """

    def as_dict(self) -> dict[str, list[Any]]:
        """Returns Keras's form, a list of values by name."""
        return {name: [entry.get(name) for entry in self] for name in (self[-1] if self else ())}


class DivergedError(RunError):
    """Training was stopped because too many consecutive steps had a non-finite loss, gradient or update."""


class FitConfig(NamedTuple):
    """How long and by what rules to train.

    Attributes:
      epochs: in total, those of an interrupted process included, but not those of an earlier run.
      batch_size: examples per step; with gradient accumulation, per micro-batch.
      monitor: the validation value that decides the best checkpoint and ``patience``.
      mode: whether a greater ('max') or a smaller value of ``monitor`` is better.
      patience: stop after this many epochs without a better value.
      max_skipped_steps: stop with an error after this many consecutive non-finite steps.
      checkpoint_seconds: save within an epoch when this much time has passed since the last save. Epochs are saved at
        their end, but those shorter than a second not each, unless this is 0 or the best one is restored.
      data_on: where the training examples are kept; 'auto' keeps them on the devices if they take at most half of the
        free memory. The result is the same.
      train_metrics: also compute the metrics of the training examples after each epoch.
    """

    epochs: int
    batch_size: int
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    patience: int | None = None
    max_skipped_steps: int = 20
    checkpoint_seconds: float = 60.0
    data_on: Literal["auto", "device", "host"] = "auto"
    train_metrics: bool = False


class Chunks(NamedTuple):
    """The batches of all epochs, several to a chunk.

    Attributes:
      steps: per epoch.
      length: batches per chunk.
      micro_batches: per batch; see :func:`jaxcls.training.steps.make_train_step`.
      epoch_chunks: ``(key, epoch, first) -> chunks``, from the batch number ``first`` of the epoch.
    """

    steps: int
    length: int
    micro_batches: int
    epoch_chunks: Callable[[jax.Array, int, int], Iterator[Batch]]


def chunks(
    experiment: Experiment,
    data: Examples,
    batch_size: int,
    *,
    data_on: Literal["auto", "device", "host"] = "auto",
    say: Say = print,
) -> Chunks:
    """Divides epochs of training examples into chunks of as many batches as one dispatch runs.

    Args:
      data_on: see :class:`FitConfig`.
      say: takes a line if the examples stay on the host, or if batches are padded.
    """
    replicated, sharded = experiment.shardings
    fits = memory.fits(data, [*replicated.addressable_devices])
    (on_host,) = processes.agreed(data_on == "host" or (data_on == "auto" and not fits))
    if on_host:
        say("the training examples stay on the host, and batches are sent to the device ahead of their use")
    if (ahead := window(tuple(data))) is not None:
        say(
            f"the first epoch shuffles within windows of {ahead:,} examples, as they come in a sequence; later ones all"
        )
    step_size = experiment.step_size(batch_size)
    micro_batches, steps = step_size // batch_size, batching.steps_per_epoch(len(data), step_size)
    padding = mesh.padding(step_size, mesh.make(experiment.mesh), micro_batches)
    if padding:
        say(f"{sharded.mesh.size} devices share a batch of {step_size} and {padding} masked rows, which do not count")
    step_bytes = step_size * sum(array.nbytes for array in jax.tree.leaves(tuple(data))) // len(data)
    most_bytes = MAX_HOST_CHUNK_BYTES if on_host and jax.default_backend() == "cpu" else MAX_CHUNK_BYTES
    most = max(1, min(MAX_CHUNK_STEPS // micro_batches, most_bytes // step_bytes))
    length, order = batching.chunk_length(steps, most), experiment.epoch_order(data, step_size)
    feed = batching.host_feed if on_host else batching.device_feed
    placed = data if on_host else processes.put(in_memory(data), replicated)
    chunks_of = feed(placed, batch_size=step_size, length=length, padding=padding, sharding=sharded)
    return Chunks(steps, length, micro_batches, lambda key, epoch, first: chunks_of(order(key, epoch), first))


@dataclasses.dataclass
class Progress:
    """The progress of training besides its state: saved with each checkpoint.

    Attributes:
      history: an entry for each complete epoch.
      numerators, denominators: of the loss of each output, summed over the applied steps of the current epoch.
      skipped: non-finite steps of the current epoch.
      skipped_in_row: consecutive non-finite steps up to now.
      most_in_row: the most consecutive non-finite steps so far.
      seconds: of training in the current epoch.
    """

    history: History = dataclasses.field(default_factory=History)
    numerators: list[float] = dataclasses.field(default_factory=list)
    denominators: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0
    skipped_in_row: int = 0
    most_in_row: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.history = History(self.history)  # a plain list in a checkpoint

    def count(self, metrics: StepMetrics) -> None:
        """Adds the steps of one dispatch."""
        applied = metrics.applied
        sums = [values[applied].sum(axis=0, dtype=np.float64) for values in (metrics.numerators, metrics.denominators)]
        self.numerators = np.add(self.numerators or 0.0, sums[0]).tolist()
        self.denominators = np.add(self.denominators or 0.0, sums[1]).tolist()
        self.skipped += int(np.sum(~applied))
        for was_applied in applied:
            self.skipped_in_row = 0 if was_applied else self.skipped_in_row + 1
            self.most_in_row = max(self.most_in_row, self.skipped_in_row)

    def close_epoch(self, step: int, examples: int, scores: Mapping[str, float]) -> dict[str, Any]:
        """Turns the current epoch into an entry of the history."""
        loss = loss_of_sums(self.numerators, self.denominators)
        entry = {
            "epoch": len(self.history) + 1,
            "step": step,
            "loss": None if math.isnan(loss) else loss,
            **scores,
            "skipped_steps": self.skipped,
            "seconds": round(self.seconds, 3),
            "examples_per_second": round(examples / self.seconds, 1) if self.seconds else 0.0,
        }
        self.history.append(entry)
        self.numerators, self.denominators, self.skipped, self.seconds = [], [], 0, 0.0
        return entry


def train(
    experiment: Experiment,
    state: TrainState,
    data: Examples,
    validation: Examples | None,
    config: FitConfig,
    *,
    checkpoints: CheckpointManager | None = None,
    callbacks: Sequence[Callback] = (),
    debug: Path | None = None,
    history: Sequence[dict[str, Any]] = (),
    train_chunk: TrainStep | None = None,
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[TrainState, History]:
    """Trains for ``config.epochs`` epochs after those of ``history``, or resumes from the newest checkpoint.

    The final state, and the history except for its times, are the same bit for bit however often training was
    interrupted and resumed.

    Args:
      state: before the first step of this call; it is donated.
      validation: examples whose loss and metrics are computed after each epoch.
      debug: a folder for the last of too many non-finite steps; without one, only an experiment that runs eagerly
        saves such steps.
      history: of an earlier run whose weights the state has.
      train_chunk: in place of that of the experiment.
      say: takes lines for the user.
      stop: polled between dispatches; training saves and stops when it returns True.

    Returns:
      The last state and the history.

    Raises:
      InputError: the checkpoint is of a run with another seed; or the steps do not fit into the device's memory.
      Interrupted: ``stop`` returned True; the state is saved.
      DivergedError: loss, gradient or update stayed non-finite.
      NonFiniteError: the experiment runs eagerly, and something was not finite.
      CheckpointError: see :mod:`jaxcls.checkpoints`.
    """
    if experiment.run_eagerly and processes.count() > 1:
        raise InputError("steps are examined in one process: leave out --debug (run_eagerly), or train in one.")
    batches = chunks(experiment, data, config.batch_size, data_on=config.data_on, say=say)
    steps, length = batches.steps, batches.length
    saver = StepSaver(experiment, debug or Path("debug"), data, experiment.step_size(config.batch_size))
    if train_chunk is None:
        train_chunk = saver.train_chunk if experiment.run_eagerly else experiment.train_chunk
    progress, earlier = Progress(History(history)), len(history)
    compiled = False
    # A state that was trained before continues with the orders of later epochs.
    started = int(state.step)
    if checkpoints is not None and (restored := checkpoints.restore(like=state)):
        if not np.array_equal(jax.random.key_data(restored.state.key), jax.random.key_data(state.key)):
            raise InputError(
                f"the checkpoint of step {restored.step} is of a run with another seed; give that seed, or another "
                "directory."
            )
        state, progress = restored.state, Progress(**restored.metadata)
        if (done := len(progress.history) - earlier) > config.epochs:
            raise InputError(
                f"the run has {done} epochs already, more than epochs={config.epochs}; give at least as many, or "
                "another directory."
            )
        if progress.most_in_row >= config.max_skipped_steps:
            raise DivergedError(_diverged(progress, restored.step))
    for callback in callbacks:
        callback.on_train_begin(int(state.step))

    # The best epoch, until it is saved.
    unsaved: dict[str, Any] = {}

    def save(metrics: Mapping[str, float] | None = None, *, wait: bool = False) -> None:
        if checkpoints is not None:
            if unsaved:
                checkpoints.save(**unsaved)
                unsaved.clear()
            metadata = dataclasses.asdict(progress)
            checkpoints.save(int(state.step), state, metadata=metadata, metrics=metrics, wait=wait)

    def on_compile(seconds: float) -> None:
        for callback in callbacks:
            callback.on_compile_begin(seconds)

    saved_at = time.monotonic()
    while not _ended(progress.history[earlier:], config):
        epoch = len(progress.history) - earlier
        done = int(state.step) - started - epoch * steps
        chunks_left = batches.epoch_chunks(state.key, started // steps + epoch, done)
        for first in range(done, steps, length):
            began = time.monotonic()
            chunk = next(chunks_left)
            if not compiled:
                memory.compile_checked(train_chunk, state, chunk, on_compile, batches.micro_batches)
                # The time of compiling is not that of training.
                began, compiled = time.monotonic(), True
            state, metrics = train_chunk(state, chunk)
            del chunk  # its memory is free for the next one
            # Steps past the end of the epoch are dropped.
            metrics = jax.tree.map(lambda values, left=steps - first: values[:left], processes.whole(metrics))
            progress.seconds += time.monotonic() - began
            progress.count(metrics)
            made_progress()
            for callback in callbacks:
                callback.on_chunk_end(int(state.step), float(metrics.loss[-1]))
            if progress.most_in_row >= config.max_skipped_steps:
                save(wait=True)
                message = ""
                # If a later step was applied, the weights are no longer those of the last non-finite step.
                if debug is not None and processes.count() == 1 and not metrics.applied[-1]:
                    last = first + len(metrics.applied) - 1
                    again = next(batches.epoch_chunks(state.key, started // steps + epoch, last))
                    batch = jax.tree.map(lambda leaf: leaf[0], again)
                    message = f" {saver.examine(state._replace(step=state.step - 1), batch)}"
                raise DivergedError(_diverged(progress, int(state.step)) + message)
            within = first + length < steps
            if not within:
                continue
            stopping, due = processes.agreed(stop(), time.monotonic() - saved_at > config.checkpoint_seconds)
            if stopping:
                save(wait=True)
                raise Interrupted(int(state.step))
            if due:
                save()
                saved_at = time.monotonic()
        scores = {}
        if config.train_metrics:
            trained = experiment.loss_and_metrics(state, data)
            scores = {name: trained[name] for name in experiment.metric_names}
        if validation is not None:
            values = experiment.loss_and_metrics(state, validation)
            scores |= {f"val_{name}": value for name, value in values.items()}
        entry = progress.close_epoch(int(state.step), len(data), scores)
        for callback in callbacks:
            callback.on_epoch_end(progress.history)
        due = time.monotonic() - saved_at > min(config.checkpoint_seconds, MIN_CHECKPOINT_SECONDS)
        stopping, ended, due = processes.agreed(stop(), _ended(progress.history[earlier:], config), due)
        monitored = {config.monitor: entry[f"val_{config.monitor}"]} if config.monitor else {}
        if stopping or ended or due:
            save(monitored, wait=stopping)
            saved_at = time.monotonic()
        elif config.monitor and checkpoints is not None and checkpoints.best_metric is not None:
            since_earlier = progress.history[earlier:]
            if _best(since_earlier, config) == len(since_earlier) - 1:
                # A copy: the next step takes the memory of the state.
                unsaved |= {"step": int(state.step), "state": jax.tree.map(jnp.copy, state), "metrics": monitored}
                unsaved["metadata"] = dataclasses.asdict(progress)
        if stopping:
            raise Interrupted(int(state.step))
    for callback in callbacks:
        callback.on_train_end(progress.history)
    return state, progress.history


def progress_bar(
    experiment: Experiment,
    state: TrainState,
    data: Examples,
    config: FitConfig,
    *,
    history: Sequence[dict[str, Any]] = (),
    say: Say = print,
) -> ProgressBar:
    """Returns a callback for :func:`train` with these arguments, which prints a line for each epoch."""
    step_size = experiment.step_size(config.batch_size)
    steps = int(state.step) + config.epochs * batching.steps_per_epoch(len(data), step_size)
    return ProgressBar(steps, epochs=len(history) + config.epochs, batch_size=step_size, say=say)


def _ended(history: Sequence[dict[str, Any]], config: FitConfig) -> bool:
    """Whether training ends with these epochs: they are all, or the patience is exhausted."""
    if len(history) >= config.epochs:
        return True
    if config.patience is None or config.monitor is None or not history:
        return False
    return len(history) - 1 - _best(history, config) >= config.patience


def _best(history: Sequence[dict[str, Any]], config: FitConfig) -> int:
    """Returns the index of the epoch with the best monitored value, the first of equal ones."""
    sign = 1 if config.mode == "max" else -1
    values = [sign * entry[f"val_{config.monitor}"] for entry in history]
    # NaN is worse than any value, and compares with none.
    return int(np.argmax([value if np.isfinite(value) else -np.inf for value in values]))


def _diverged(progress: Progress, step: int) -> str:
    return (
        f"the loss, its gradient or the update was not finite in {progress.most_in_row} consecutive steps, up to about "
        f"step {step}. None of them changed the weights, and the checkpoint holds the last good ones. A lower "
        "learning rate or gradient clipping (--learning-rate, --global-clipnorm) is the usual cure; otherwise look for "
        "NaN in the data."
    )
