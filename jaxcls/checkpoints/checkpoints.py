"""The checkpoints of one run."""

import contextlib
import copy
import itertools
import json
import logging
import math
import operator
import os
import resource
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.checkpoints.directory import own_directory, steps_in, take_lock, write_lock
from jaxcls.checkpoints.leaves import abstract_leaf, check_same_model, check_storable, described, leaves_by_path
from jaxcls.checkpoints.processes import is_first_process
from jaxcls.checkpoints.reading import Damaged, read, summary
from jaxcls.checkpoints.record import Record, check_same_run, pack, unpack

logger = logging.getLogger(__name__)

PyTree = Any

# A save opens dozens at a time.
_FEWEST_OPEN_FILES = 64

# The directory of the state in a checkpoint: it tells our checkpoints from others, however damaged.
_STATE = "jaxcls_state"

# What Orbax and TensorStore raise when a write fails: a full disk is an OSError or a ValueError, by version.
_WRITE_ERRORS = (OSError, ValueError, RuntimeError)


class CheckpointError(RuntimeError):
    """A checkpoint could not be saved, or none of those there are can be restored."""


class SetAside(NamedTuple):
    """A damaged checkpoint: where it was moved to, and what is wrong with it."""

    path: str
    reason: str


class Restored(NamedTuple):
    """A state as it was saved, and the damaged checkpoints that were passed over on the way to it."""

    step: int
    state: PyTree
    metadata: dict[str, Any]
    metrics: dict[str, float]
    set_aside: tuple[SetAside, ...]


class Checkpoints:
    """The checkpoints of one run, in one directory that no other run uses at the same time.

    Kept are the newest `keep` checkpoints and, if `best_metric` is named, the one where that metric is best:
    the earliest of equals, and never one where it is not finite.

    A state is any pytree of jax arrays with at least one element each, typed keys among them. `save` returns
    as soon as the state is copied: its buffers may be donated at once. A save that fails does not stop
    training: it is logged, and the next takes its place; `wait` and `close` raise if the last one failed.

    A checkpoint that cannot be loaded, or whose bits are not those that were saved, is renamed to
    `<step>.damaged-<n>`, never deleted, and the next one is tried. An error that may pass (permission, I/O,
    memory) is raised as it is and moves nothing.

    A directory whose checkpoints are all gone, or damaged, is no new one: `restore` raises.

    Args:
      directory: where the checkpoints are, on a local or mounted file system; created if it is missing.
      keep: how many of the newest checkpoints to keep, at least 1.
      best_metric: the metric, of those given to `save`, that says which checkpoint is best.
      mode: 'max' if a greater metric is better, 'min' if a smaller one is.
      identity: what makes the states those of this run, such as its seed: values that JSON can hold, by name. They
        are saved with each, and a checkpoint with others is refused; a name that it lacks is not compared.
      read_only: only restore, and change nothing in the directory: it is not locked, and what is damaged stays there.

    Raises:
      InputError: an argument is wrong, another run uses the directory, it cannot be written to, or it holds
        checkpoints that jaxcls did not write.

    >>> import tempfile
    >>> state = {"w": jnp.ones(3), "key": jax.random.key(0)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with Checkpoints(directory, best_metric="accuracy") as checkpoints:
    ...         checkpoints.save(10, state, metadata={"epoch": 1}, metrics={"accuracy": 0.9})
    ...         checkpoints.wait()
    ...         restored = checkpoints.restore(like=state)
    >>> restored.step, restored.metadata, restored.state["w"]
    (10, {'epoch': 1}, Array([1., 1., 1.], dtype=float32))
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 2,
        best_metric: str | None = None,
        mode: str = "max",
        identity: Mapping[str, Any] | None = None,
        read_only: bool = False,
    ) -> None:
        if "://" in str(directory):
            raise InputError(
                f"checkpoint directory {str(directory)!r} is an address; give a path of a local or mounted "
                "file system (a lock on it keeps two runs apart)."
            )
        if keep < 1:
            raise InputError(f"keep={keep} would delete every checkpoint; give 1 or more.")
        if mode not in ("max", "min"):
            raise unknown_name("mode", mode, ("max", "min"))
        self._keep = keep
        self._best_metric = best_metric
        self._sign = 1 if mode == "max" else -1
        # As it is when it is read again.
        self._identity: dict[str, Any] = json.loads(json.dumps(dict(identity or {})))
        self._records: dict[int, Record] = {}
        self._set_aside: list[SetAside] = []
        self._pending: tuple[int, Record, Any] | None = None
        self._failure: CheckpointError | None = None
        self._changes = not read_only and is_first_process()
        self._read_only = read_only
        self._directory = own_directory(directory, create=not read_only)
        self._lock: int | None = None
        self._newest: int | None = None
        if self._changes:
            self._lock, self._newest = take_lock(self._directory)
        try:
            self._remove_leftovers()
            for step in steps_in(self._directory):
                self._read_record(step)
            self._say_if_newest_is_gone()
        except BaseException:
            self._release()
            raise

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint that is complete, or None."""
        return max(self._records, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the best complete checkpoint, or None where none has a finite `best_metric`."""
        best = min(self._records, key=self._worst_last, default=None)
        return None if best is None or self._score(best) == -math.inf else best

    @property
    def last_good(self) -> str:
        """What to say of the newest complete checkpoint where something went wrong."""
        if self.latest_step is None:
            return "no state was saved"
        return f"the last good state is that of step {self.latest_step}, in {self._path(self.latest_step)}"

    def check_room(self, state: PyTree) -> None:
        """Sees whether the disk has room for as many checkpoints as there will be at a time, and files may be opened.

        Args:
          state: as it will be saved.

        Raises:
          InputError: there is less, or this process may open too few files.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != soft < _FEWEST_OPEN_FILES:
            raise InputError(
                f"this process may open {soft} files at a time, which is too few; allow it 1024 (ulimit -n)."
            )
        # Those that are kept, and the one that is written before an old one is deleted.
        count = self._keep + (self._best_metric is not None) + 1
        needed = count * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        there = sum(path.lstat().st_size for step in self._records for path in self._path(step).rglob("*"))
        free = shutil.disk_usage(self._directory).free
        if needed > there + free:
            raise InputError(
                f"{self._directory}: {count} checkpoints of a run take {needed / 1e6:,.1f} MB, and the disk has "
                f"{(there + free) / 1e6:,.1f} MB for them; make room, or give another directory."
            )

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        metadata: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Starts to save the state; what of it takes time is done in the background.

        A step that is there already, with the same state, is left as it is: a resumed run may save it again.

        Args:
          step: the step that the state is at, not negative and greater than that of every other checkpoint.
          state: a pytree of jax arrays.
          metadata: anything that JSON can hold, given back by `restore`.
          metrics: numbers by name; `best_metric`, if there are any, must be among them.
          wait: return when the checkpoint is on the disk, and raise if it could not be written.

        Raises:
          InputError: an argument is wrong, or a newer checkpoint or another state of this step is there.
          CheckpointError: only if `wait`: the checkpoint could not be written.
        """
        from orbax.checkpoint import v1 as ocp

        step = operator.index(step)
        if self._read_only:
            raise InputError(f"{self._directory} was opened to be read; nothing is saved there.")
        if step < 0:
            raise InputError(f"step is {step}; it must be 0 or more.")
        if metrics and self._best_metric is not None and self._best_metric not in metrics:
            raise unknown_name("best_metric", self._best_metric, metrics)
        leaves = leaves_by_path(state)
        check_storable(leaves)
        custom_metadata = pack(step, described(leaves), metadata or {}, metrics or {}, self._identity)
        record = unpack(step, custom_metadata)

        self._finish_pending()
        if self._records and step <= max(self._records):
            if step in self._records and self._records[step].leaves == record.leaves:
                return
            raise InputError(
                f"{self._directory} already holds a checkpoint of step {max(self._records)}, and step {step} "
                "is not that state: restore it and go on from there, or give another directory."
            )
        try:
            # A flat list: Orbax joins nested names by dots, and so confuses {"a.b": x} with {"a": {"b": x}}.
            response = ocp.save_async(
                self._path(step),
                list(leaves.values()),
                checkpointable_name=_STATE,
                custom_metadata=custom_metadata,
            )
        except _WRITE_ERRORS as error:
            self._save_failed(step, error)
        else:
            self._pending = (step, record, response)
        if wait:
            self.wait()

    def restore(self, like: PyTree) -> Restored | None:
        """The newest checkpoint that loads and verifies, or None where there never was one.

        Args:
          like: a state of the same structure: arrays, or `jax.ShapeDtypeStruct`. A leaf goes to the sharding
            that it names here, and without one to the first device.

        Raises:
          InputError: the checkpoint is of another model, optimizer or run; the leaves or settings that differ are
            named.
          CheckpointError: there are checkpoints, and every one is damaged; or there were some, and they are gone.
        """
        return self._restore(like, order=operator.neg)

    def restore_best(self, like: PyTree) -> Restored | None:
        """The best checkpoint that loads and verifies, else the next best; otherwise as `restore`."""
        if self._best_metric is None:
            raise InputError("restore_best needs Checkpoints(..., best_metric=NAME) to know which one is best.")
        return self._restore(like, order=self._worst_last)

    def wait(self) -> None:
        """Blocks until the last save is on the disk.

        Raises:
          CheckpointError: it could not be written.
        """
        self._finish_pending()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Waits for the last save, and leaves the directory to other runs. Raises as `wait` does."""
        try:
            self.wait()
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointError:
            # It is in the log. An error that is on its way already is the one to show.
            if kind is None:
                raise

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _score(self, step: int) -> float:
        # A NaN compares with nothing: as the worst of all scores it cannot displace the best checkpoint.
        value = self._records[step].metrics.get(self._best_metric or "", math.nan)
        return self._sign * value if math.isfinite(value) else -math.inf

    def _worst_last(self, step: int) -> tuple[float, int]:
        return -self._score(step), step

    def _finish_pending(self) -> None:
        if self._pending is None:
            return
        step, record, response = self._pending
        try:
            response.result()
        except _WRITE_ERRORS as error:
            self._save_failed(step, error)
        else:
            self._pending = None
            self._failure = None
            self._records[step] = record
            self._note_newest(step)
            self._delete_old()

    def _save_failed(self, step: int, error: Exception) -> None:
        self._pending = None
        self._failure = CheckpointError(
            f"the checkpoint of step {step} could not be saved ({summary(error)}); {self.last_good}"
        )
        self._failure.__cause__ = error
        logger.error("%s", self._failure)
        # On a full disk they would be in the way of the next save; where files cannot be opened, they stay.
        with contextlib.suppress(OSError):
            self._remove_leftovers()

    def _note_newest(self, step: int) -> None:
        self._newest = step
        if self._lock is not None:
            # What cannot be written there is missed only if all checkpoints are lost as well.
            with contextlib.suppress(OSError):
                write_lock(self._lock, step)

    def _delete_old(self) -> None:
        kept = {*sorted(self._records)[-self._keep :], self.best_step}
        for step in set(self._records) - kept:
            del self._records[step]
            try:
                if self._changes:
                    # Renamed first: a kill in the middle must not leave what looks like a damaged checkpoint.
                    dying = self._path(step).rename(self._directory / f"{step}.deleted")
                    shutil.rmtree(dying, ignore_errors=True)
            except FileNotFoundError:
                pass  # someone deleted it by hand
            except OSError as error:
                logger.warning("the checkpoint of step %d could not be deleted: %s", step, error)

    def _remove_leftovers(self) -> None:
        """Removes what a killed or failed save, or a killed deletion, left behind."""
        if self._changes:
            for path in self._directory.iterdir():
                number, _, rest = path.name.partition(".")
                if number.isdecimal() and rest.startswith(("orbax-checkpoint-tmp", "deleted")):
                    shutil.rmtree(path, ignore_errors=True)

    def _say_if_newest_is_gone(self) -> None:
        newest = self._newest
        known = newest is None or newest in self._records or any(self._directory.glob(f"{newest}.damaged-*"))
        if self._records and not known:
            logger.warning("the checkpoint of step %d, the newest of %s, is gone", newest, self._directory)

    def _read_record(self, step: int) -> None:
        from orbax.checkpoint import v1 as ocp

        path = self._path(step)
        if not (path / _STATE).is_dir():
            raise InputError(f"jaxcls did not write {path}; move it away, or give another directory.")
        try:
            custom_metadata = read(path, lambda: ocp.checkpointables_metadata(path).custom_metadata)
            self._records[step] = unpack(step, custom_metadata)
        except Damaged as damage:
            self._move_aside(step, str(damage))

    def _restore(self, like: PyTree, order: Callable[[int], Any]) -> Restored | None:
        self._finish_pending()
        leaves = leaves_by_path(like)
        for step in sorted(self._records, key=order):
            record = self._records[step]
            # A setting says more than the leaves that follow from it.
            check_same_run(self._path(step), record.identity, self._identity)
            check_same_model(self._path(step), record.leaves, leaves)
            try:
                loaded = self._load(step, leaves)
            except Damaged as damage:
                self._move_aside(step, str(damage))
            else:
                state = jax.tree.unflatten(jax.tree.structure(like), [loaded[path] for path in leaves])
                # Copies: what the caller changes in them is not what the next call gives.
                metadata, metrics = copy.deepcopy((record.metadata, record.metrics))
                return Restored(step, state, metadata, metrics, tuple(self._set_aside))
        if self._set_aside or any(self._directory.glob("*.damaged-*")):
            reasons = "".join(f"\n  {path}: {reason}" for path, reason in self._set_aside)
            raise CheckpointError(
                f"every checkpoint in {self._directory} is damaged; to start afresh, give another directory "
                f"or delete them.{reasons}"
            )
        if self._newest is not None:
            raise CheckpointError(
                f"{self._directory} holds no checkpoint any more, and one of step {self._newest} was saved there: "
                f"bring it back; to start afresh, give another directory or delete {self._directory}."
            )
        return None

    def _load(self, step: int, like: dict[str, Any]) -> dict[str, jax.Array]:
        from orbax.checkpoint import v1 as ocp

        path, saved = self._path(step), self._records[step].leaves
        abstract = [abstract_leaf(name, like[name]) for name in saved]
        arrays = read(path, lambda: ocp.load(path, abstract, checkpointable_name=_STATE))
        # Orbax gives a key the sharding of its data, which has an axis more; no other call takes it.
        loaded = {
            name: jax.device_put(array, spec.sharding) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
            for name, array, spec in zip(saved, arrays, abstract, strict=True)
        }
        changed = [name for name, description in described(loaded).items() if description != saved[name]]
        if changed:
            raise Damaged(f"the bits of {len(changed)} of {len(saved)} leaves have changed: {changed[0]} first")
        return loaded

    def _move_aside(self, step: int, reason: str) -> None:
        names = (self._directory / f"{step}.damaged-{n}" for n in itertools.count(1))
        target = self._path(step) if self._read_only else next(path for path in names if not path.exists())
        if self._changes:
            self._path(step).rename(target)
        self._records.pop(step, None)
        self._set_aside.append(SetAside(str(target), reason))
        logger.warning("the checkpoint of step %d is damaged (%s); it is %s", step, reason, target)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
