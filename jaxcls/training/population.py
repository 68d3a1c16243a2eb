"""A population: trainings that differ in their seed, their data or a hyper-parameter, and share compiled programs.

On a CPU, members train one after the other, and those of small networks on several threads. One more axis under
``vmap`` is slower there: XLA multiplies a batch of small matrices one by one, without the cores that a large one has.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls._utils.interruption import Interrupted
from jaxcls.checkpoints import CheckpointManager, Restored
from jaxcls.data.batching import Examples
from jaxcls.optimizers.hyperparameters import replace_values
from jaxcls.reports.callbacks import Callback
from jaxcls.training import loop
from jaxcls.training.experiment import Experiment, shardings
from jaxcls.training.loop import DivergedError, FitConfig, History
from jaxcls.training.steps import TrainState, evaluated_weights

PyTree = Any
Say = Callable[[str], None]

# Steps that take less use one core at a time: two threads train 1.1 to 2 times as fast as one.
SMALL_STEP_SECONDS = 0.01


# Orbax numbers the saves of a process, and mixes up two at a time.
_CHECKPOINTS = threading.Lock()


class _Checkpoints(CheckpointManager):
    """Checkpoints of a member, none of which is saved or restored while another is."""

    def save(self, *arguments: Any, **options: Any) -> None:
        with _CHECKPOINTS:
            super().save(*arguments, **options)
            self._finish_pending()

    def restore(self, *arguments: Any, **options: Any) -> Restored | None:
        with _CHECKPOINTS:
            return super().restore(*arguments, **options)


class Member(NamedTuple):
    """One training.

    Attributes:
      name: distinct; that of its folder.
      experiment: members of the same one share its compiled programs.
      train: its training examples.
      validation: examples whose loss and metrics are computed after each epoch, or None.
      seed: of its initial weights, its order of the examples, augmentation and dropout.
      hyperparameters: the values that an optimizer from :func:`jaxcls.optimizers.hyperparameters.with_hyperparameters`
        has.
      constants: leaves of the model in place of those of the experiment's; see
        :func:`jaxcls.training.steps.initial_constants`.
    """

    name: str
    experiment: Experiment
    train: Examples
    validation: Examples | None = None
    seed: int = 0
    hyperparameters: Mapping[str, float] = {}
    constants: Sequence[Any] = ()

    def init(self) -> TrainState:
        """Returns the state before the first step."""
        state = self.experiment.init(self.seed, self.constants)
        if self.hyperparameters:
            opt_state = replace_values(state.opt_state, self.hyperparameters)
            state = state._replace(opt_state=jax.device_put(opt_state, shardings()[0]))
        return state


class Trained(NamedTuple):
    """A member after its training.

    Attributes:
      name: of the member.
      weights: those that are evaluated, "params" and "model_state", on the host.
      history: an entry per epoch.
      step: the number of steps.
      diverged: why training was stopped; the weights are those of then.
    """

    name: str
    weights: dict[str, PyTree]
    history: History
    step: int
    diverged: str = ""


def train_members(
    members: Iterable[Member],
    config: FitConfig,
    *,
    folder: Path,
    identity: Mapping[str, Any] = {},
    restore_best: bool = False,
    allow_divergence: bool = False,
    callbacks: Sequence[Callback] = (),
    on_member: Callable[[Trained], None] = lambda trained: None,
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> list[Trained]:
    """Trains members, or resumes their training.

    Each member is saved in a subfolder of its name, and is what it would be if it were trained alone: one that has
    finished is not trained again, and ``config.epochs`` may be raised in a later call.

    Args:
      folder: for the checkpoints.
      identity: what decides the result of all members; checkpoints with another identity are refused.
      restore_best: return the weights of the epoch that is best by ``config.monitor``.
      allow_divergence: return a member that diverged, instead of raising its error.
      callbacks: follow the first member that is trained. It trains alone, and the time of its steps decides how many
        of the others train at a time.
      on_member: called after each member, in the thread that trained it.
      say: takes lines for the user.
      stop: polled between dispatches; all members that are training save and stop when it returns True.

    Raises:
      Interrupted: ``stop`` returned True.
      DivergedError, CheckpointError: see :func:`jaxcls.training.loop.train`.
    """
    lock = threading.Lock()

    def train(member: Member, followers: Sequence[Callback] = ()) -> Trained:
        if stop():
            raise Interrupted
        identified = {**identity, "seed": member.seed, **member.hyperparameters}
        best = config.monitor if restore_best else None
        diverged, state = "", member.init()
        checkpoints = _Checkpoints(
            folder / member.name,
            best_metric=best,
            best_mode=config.mode,
            identity=identified,
            constant=member.experiment.constant_leaves,
        )
        with checkpoints:
            try:
                state, history = loop.train(
                    member.experiment, state, member.train, member.validation, config, checkpoints=checkpoints,
                    callbacks=followers, say=lambda line: None, stop=stop,
                )  # fmt: skip
            except DivergedError as error:
                if not allow_divergence:
                    raise
                diverged = str(error)
                restored = checkpoints.restore(like=member.init())
                assert restored is not None  # it is saved before the error is raised
                state, history = restored.state, History(restored.metadata["history"])
            if best and not diverged and (restored := checkpoints.restore(like=state, best=True)):
                state = restored.state
        weights = jax.tree.map(np.asarray, evaluated_weights(state))
        trained = Trained(member.name, weights, history, int(state.step), diverged)
        with lock:
            on_member(trained)
        return trained

    waiting = iter(members)
    first = next(waiting, None)
    if first is None:
        return []
    results = [train(first, callbacks)]
    at_once = _members_at_once(results[0])
    if at_once == 1:
        return results + [train(member) for member in waiting]
    rest = list(waiting)
    if rest:
        say(f"the other {len(rest):,} members train {at_once} at a time: their steps are too small for all cores")
    with ThreadPoolExecutor(at_once) as threads:
        futures = [threads.submit(train, member) for member in rest]
        try:
            return results + [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _members_at_once(first: Trained) -> int:
    """Returns how many members train at a time, given the times of one."""
    epochs = first.history[1:] or first.history  # the first one starts the threads of XLA
    steps = first.step / len(first.history) * len(epochs) if first.history else 0
    seconds = sum(entry["seconds"] for entry in epochs)
    small = steps > 0 and seconds / steps < SMALL_STEP_SECONDS
    # Programs of several devices wait for each other, and two of them at a time would do so forever.
    alone = jax.default_backend() != "cpu" or jax.device_count() > 1
    return 1 if alone or not small else len(os.sched_getaffinity(0))
