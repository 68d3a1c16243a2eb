"""A population: trainings that differ in their seed, their data or a hyper-parameter, and share compiled programs.

Each member trains on one device, and as many at a time as there are devices. On a single CPU, members train one after
the other, and those of small networks on several threads; on an accelerator, several may be one program
(:mod:`jaxcls.training.together`).
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls._utils import processes
from jaxcls._utils.interruption import Interrupted
from jaxcls.checkpoints import CheckpointManager, Restored
from jaxcls.data import splits
from jaxcls.data.batching import Examples
from jaxcls.data.dataset import Split
from jaxcls.data.rows import in_memory, select
from jaxcls.optimizers.hyperparameters import replace_values
from jaxcls.reports.callbacks import Callback
from jaxcls.training import ensemble, loop, together
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import DivergedError, FitConfig, History
from jaxcls.training.mesh import on_devices
from jaxcls.training.run import sha256
from jaxcls.training.steps import TrainState, TrainStep, evaluated_weights

PyTree = Any
Say = Callable[[str], None]

# The devices of a member; None is all.
_Devices = Sequence[jax.Device] | None

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
            state = self.experiment.put(state._replace(opt_state=opt_state))
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
    folder: Path | None,
    identity: Mapping[str, Any] = {},
    restore_best: bool = False,
    allow_divergence: bool = False,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = False,
    on_member: Callable[[Trained], None] = lambda trained: None,
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> list[Trained]:
    """Trains members, or resumes their training.

    Each member is saved in a subfolder of its name, and is what it would be if it were trained alone on one device: one
    that has finished is not trained again, and ``config.epochs`` may be raised in a later call.

    Args:
      folder: for the checkpoints; without one, nothing is saved, and no epoch but the last can be chosen.
      identity: what decides the result of all members; checkpoints with another identity are refused.
      restore_best: return the weights of the epoch that is best by ``config.monitor``.
      allow_divergence: return a member that diverged, instead of raising its error.
      callbacks: their ``on_chunk_end`` is called for all members, by the threads that train them.
      progress_bar: show one, and a line for each epoch, of members that train alone.
      on_member: called after each member.
      say: takes lines for the user. On a single CPU, the first member trains alone, and the time of its steps decides
        how many of the others train at a time.
      stop: polled between dispatches; all members that are training save and stop when it returns True.

    Raises:
      Interrupted: ``stop`` returned True.
      DivergedError, CheckpointError: see :func:`jaxcls.training.loop.train`.
    """
    lock = threading.Lock()

    def train(
        member: Member, devices: _Devices = None, *, is_alone: bool = True, train_chunk: TrainStep | None = None
    ) -> Trained:
        if stop():
            raise Interrupted
        best = config.monitor if restore_best else None
        diverged = ""
        followers: list[Callback] = [_Steps(callbacks)]
        with contextlib.ExitStack() as stack:
            stack.enter_context(on_devices(devices))
            state, checkpoints = member.init(), None
            if folder is not None:
                checkpoints = _Checkpoints(
                    folder / member.name,
                    best_metric=best,
                    best_mode=config.mode,
                    identity={**identity, "seed": member.seed, **member.hyperparameters},
                    constant=member.experiment.constant_leaves,
                )
                stack.enter_context(checkpoints)
            if progress_bar and is_alone:
                bar = loop.progress_bar(member.experiment, state, member.train, config, say=say)
                followers.append(stack.enter_context(bar))
            try:
                state, history = loop.train(
                    member.experiment, state, member.train, member.validation, config, checkpoints=checkpoints,
                    callbacks=followers, train_chunk=train_chunk, say=lambda line: None, stop=stop,
                )  # fmt: skip
            except DivergedError as error:
                if not allow_divergence or checkpoints is None:
                    raise
                diverged = str(error)
                restored = checkpoints.restore(like=member.init())
                assert restored is not None  # it is saved before the error is raised
                state, history = restored.state, History(restored.metadata["history"])
            if best and checkpoints and not diverged and (restored := checkpoints.restore(like=state, best=True)):
                state = restored.state
        weights = processes.whole(evaluated_weights(state))
        trained = Trained(member.name, weights, history, int(state.step), diverged)
        with lock:
            on_member(trained)
        return trained

    everyone = [*members]
    for experiment in {id(member.experiment): member.experiment for member in everyone}.values():
        experiment.make_steps()
    device_sets, results = _device_sets(everyone), list[Trained]()
    groups = _groups(everyone, config, device_sets, folder, say)
    if len(device_sets) == 1 and jax.default_backend() == "cpu" and all(len(group.members) == 1 for group in groups):
        results = [train(group.members[0], device_sets[0]) for group in groups[:1]]
        del groups[:1]
        device_sets = device_sets * (1 if device_sets[0] is None else _members_at_once(results))
    if len(device_sets) == 1 and not any(group.together for group in groups):
        return results + [train(group.members[0], device_sets[0]) for group in groups]
    if groups and len(device_sets) > 1:
        why = "each on a device" if device_sets[0] != device_sets[1] else "since their steps use one core each"
        say(f"{'the others train' if results else 'members train'} {len(device_sets)} at a time, {why}")
    free: queue.SimpleQueue[_Devices] = queue.SimpleQueue()
    for devices in device_sets:
        free.put(devices)

    def train_group(group: _Group) -> list[Trained]:
        devices = free.get()
        try:
            if not group.together:
                return [train(group.members[0], devices, is_alone=False)]
            with on_devices(devices):
                on_device = together.on_device(member.train for member in group.members)
            meeting = together.Meeting(group.members[0].experiment.train_chunks, len(group.members))

            def train_row(row: int, member: Member) -> Trained:
                member = member._replace(train=on_device[id(member.train)])
                try:
                    return train(member, devices, is_alone=False, train_chunk=meeting.chunk_of(row))
                finally:
                    meeting.leave(row)

            with ThreadPoolExecutor(len(group.members)) as threads:
                return [*threads.map(train_row, range(together.SIZE), group.members)]
        finally:
            free.put(devices)

    with ThreadPoolExecutor(len(device_sets)) as threads:
        futures = [threads.submit(train_group, group) for group in groups]
        try:
            results += [one for future in futures for one in future.result()]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    by_name = {trained.name: trained for trained in results}
    return [by_name[member.name] for member in everyone]


class _Steps(Callback):
    """Forwards the steps of members: a training has not ended when one of them has."""

    def __init__(self, callbacks: Sequence[Callback]):
        self._callbacks = callbacks

    def on_chunk_end(self, step: int, loss: float) -> None:
        for callback in self._callbacks:
            callback.on_chunk_end(step, loss)


def _device_sets(members: Sequence[Member]) -> list[_Devices]:
    """Returns what each of the members that train at a time trains on."""
    # Of several processes, or on a mesh that is given, members train in turn, on all devices.
    in_turn = jax.process_count() > 1 or any(member.experiment.mesh for member in members)
    return [None] if in_turn else [(device,) for device in jax.devices()]


class _Group(NamedTuple):
    """Members that one program trains together, or one that trains by itself."""

    members: list[Member]
    together: bool = False


def _groups(
    members: Sequence[Member], config: FitConfig, device_sets: Sequence[_Devices], folder: Path | None, say: Say
) -> list[_Group]:
    """Divides members into groups, of those that train together where that is faster."""
    if jax.default_backend() not in together.BACKENDS or device_sets[0] is None:
        return [_Group([member]) for member in members]
    alike: dict[Any, list[Member]] = {}
    for member in members:
        shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tuple(member.train))]
        alike.setdefault((id(member.experiment), str(shapes)), []).append(member)
    groups = []
    for of_one_program in alike.values():
        parts = together.divided(of_one_program, len(device_sets))
        with on_devices(device_sets[0]):
            chosen = together.is_faster(
                parts[0][0].experiment,
                [member.init() for member in parts[0]],
                [member.train for member in parts[0]],
                config,
                folder and folder / "together.json",
                say,
            )
        groups += [_Group(part, True) for part in parts] if chosen else [_Group([one]) for one in of_one_program]
    return groups


def _members_at_once(trained: Sequence[Trained]) -> int:
    """Returns how many members train at a time on a CPU, given the times of one."""
    history = trained[0].history if trained else []
    epochs = history[1:] or history  # the first one starts the threads of XLA
    steps = trained[0].step / len(history) * len(epochs) if history else 0
    seconds = sum(entry["seconds"] for entry in epochs)
    small = steps > 0 and seconds / steps < SMALL_STEP_SECONDS
    return len(os.sched_getaffinity(0)) if small else 1


def member_name(fold: int | None, seed: int) -> str:
    """Returns the name of the member of a fold, numbered from 1, and a seed.

    >>> member_name(2, 0), member_name(None, 0)
    ('fold2-seed0', 'seed0')
    """
    return f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}"


def ensemble_state(experiment: Experiment, trained: Sequence[Trained]) -> TrainState:
    """Returns the state of the ensemble of these members."""
    step = max(one.step for one in trained)
    return ensemble.state_of_weights(experiment, [one.weights for one in trained], step)


class Population(NamedTuple):
    """What :meth:`jaxcls.training.experiment.Experiment.fit_population` returns.

    Attributes:
      experiment: the ensemble, whose probabilities are the mean of those of the members.
      state: of the ensemble.
      members: their weights and histories, by fold and then by seed.
      out_of_fold: the probabilities of each example, in their order, by the members that have not seen it, the mean
        over the seeds; with several outputs, a dict; None without folds.
    """

    experiment: Experiment
    state: TrainState
    members: list[Trained]
    out_of_fold: PyTree = None

    def predict(self, inputs: PyTree) -> PyTree:
        """Returns the probabilities of the ensemble; see :meth:`jaxcls.training.experiment.Experiment.predict`."""
        return self.experiment.predict(self.state, inputs)


def fit_population(
    experiment: Experiment,
    train: Examples,
    config: FitConfig,
    *,
    seeds: Sequence[int],
    folds: int | None,
    folder: Path | None,
    verbose: bool,
) -> Population:
    """See :meth:`jaxcls.training.experiment.Experiment.fit_population`."""
    divided, data = [], [train]
    if folds is not None:
        split = Split(None, jax.tree.map(np.asarray, in_memory(train.labels)))
        divided = splits.folds(splits.stratified, split, folds, seed=0)
        data = [Examples(*select(tuple(train), rows)) for rows, _ in divided]
    members = [
        Member(member_name(number if folds else None, seed), experiment, one, seed=seed)
        for number, one in enumerate(data, 1)
        for seed in seeds
    ]
    identity = {"data": sha256(tuple(train)), "folds": folds, "batch_size": config.batch_size}
    trained = train_members(
        members,
        config,
        folder=folder,
        identity=identity,
        progress_bar=verbose,
        say=print if verbose else lambda line: None,
    )
    joined = ensemble.ensemble([experiment], [0] * len(members), names=[member.name for member in members])
    state = ensemble_state(joined, trained)
    if folds is None:
        return Population(joined, state, trained)
    scores_of_folds = []
    for number, (_, rows) in enumerate(divided):
        inputs = select(train.inputs, rows)
        members_of_fold = trained[number * len(seeds) : (number + 1) * len(seeds)]
        scores = [experiment.scores(one.weights, inputs) for one in members_of_fold]
        scores_of_folds.append(jax.tree.map(lambda *each: np.mean(each, axis=0), *scores))
    order = np.argsort(np.concatenate([rows for _, rows in divided]))
    out_of_fold = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *scores_of_folds)
    return Population(joined, state, trained, out_of_fold)
