"""The checkpoint manager of one run."""

import contextlib
import copy
import itertools
import json
import logging
import math
import operator
import os
import re
import resource
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from jaxcls._utils import processes
from jaxcls._utils.errors import InputError, RunError, unknown_name
from jaxcls.checkpoints.directory import Damaged, open_directory, read, steps_in, summary, write_lock
from jaxcls.checkpoints.record import Record, abstract_leaf, check_compatible, hashed, leaves_by_path, pack, unpack

logger = logging.getLogger(__name__)

PyTree = Any

# A save opens dozens of files at a time.
_MIN_OPEN_FILES = 64

# The directory of the state in a checkpoint. It marks a checkpoint of jaxcls, however damaged.
_STATE = "jaxcls_state"

# What Orbax and TensorStore raise when a write fails: a full disk is an OSError or a ValueError, by version.
_WRITE_ERRORS = (OSError, ValueError, RuntimeError)


class CheckpointError(RunError):
    """A checkpoint could not be saved, or no checkpoint of the directory can be restored."""


class Quarantined(NamedTuple):
    """A damaged checkpoint: the path that it was moved to, and what is wrong with it."""

    path: str
    reason: str


class Restored(NamedTuple):
    """A restored state with what was saved with it, and the damaged checkpoints that were skipped."""

    step: int
    state: PyTree
    metadata: dict[str, Any]
    metrics: dict[str, float]
    quarantined: tuple[Quarantined, ...]


class CheckpointManager:
    """Saves and restores the checkpoints of one run, in a directory that no other run uses at the same time.

    It keeps the newest `max_to_keep` checkpoints and, if `best_metric` is named, the one where that metric is best:
    the earliest of equals, and never one where the metric is not finite.

    A state is a pytree of jax arrays, none of them empty; typed keys are allowed. `save` returns as soon as the state
    is copied: its buffers may be donated at once. A save that fails does not stop training: it is logged, and the
    next save replaces it; `wait_until_finished` and `close` raise if the last save failed.

    A checkpoint that cannot be loaded, or whose bits are not those that were saved, is renamed to
    `<step>.damaged-<n>`, never deleted, and the next one is tried. An error that may pass (permission, I/O,
    memory) is raised unchanged and moves nothing.

    A directory whose checkpoints are all lost or damaged does not count as new: `restore` raises.

    Args:
      directory: in a local or mounted file system; created if it is missing.
      max_to_keep: how many of the newest checkpoints to keep, at least 1.
      best_metric: the metric, among those passed to `save`, that decides which checkpoint is best.
      best_mode: 'max' if greater values of that metric are better, 'min' if smaller ones are.
      identity: JSON values by name that identify the run, such as its seed. They are saved with each checkpoint, and
        a checkpoint with other values is refused; a name that it lacks is not compared.
      constant: the paths of leaves that never change, such as frozen weights. Their hashes alone are saved: `restore`
        takes the leaves from `like`, and refuses others than those of the run.
      read_only: only restore; the directory is neither locked nor changed, and damaged checkpoints are not moved.

    Raises:
      InputError: an argument is invalid, another run uses the directory, it cannot be written to, or it holds
        checkpoints that jaxcls did not write.

    >>> import tempfile
    >>> state = {"w": jnp.ones(3), "key": jax.random.key(0)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with CheckpointManager(directory, best_metric="accuracy") as checkpoints:
    ...         checkpoints.save(10, state, metadata={"epoch": 1}, metrics={"accuracy": 0.9})
    ...         checkpoints.wait_until_finished()
    ...         restored = checkpoints.restore(like=state)
    >>> restored.step, restored.metadata, restored.state["w"]
    (10, {'epoch': 1}, Array([1., 1., 1.], dtype=float32))
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int = 2,
        best_metric: str | None = None,
        best_mode: str = "max",
        identity: Mapping[str, Any] | None = None,
        constant: Collection[str] = (),
        read_only: bool = False,
    ) -> None:
        if max_to_keep < 1:
            raise InputError(f"max_to_keep={max_to_keep} would delete every checkpoint; give 1 or more.")
        if best_mode not in ("max", "min"):
            raise unknown_name("best_mode", best_mode, ("max", "min"))
        self._max_to_keep = max_to_keep
        self.best_metric = best_metric
        self._sign = -1 if best_mode == "max" else 1
        # Through JSON, so that it compares with an identity that was read from a checkpoint.
        self._identity: dict[str, Any] = json.loads(json.dumps(dict(identity or {})))
        self._constant = constant
        self._records: dict[int, Record] = {}
        self._quarantined: list[Quarantined] = []
        self._pending: tuple[Record, Any] | None = None
        self._failure: CheckpointError | None = None
        self._read_only = read_only
        # Of the processes that train together, the first renames and deletes.
        self._changes = not read_only and jax.process_index() == 0
        self._directory, self._lock, self._newest = open_directory(directory, create=not read_only, lock=self._changes)
        try:
            self._remove_leftovers()
            for step in steps_in(self._directory):
                self._read_record(step)
        except BaseException:
            self._release()
            raise
        known = self._newest in {None, *self._records} or any(self._directory.glob(f"{self._newest}.damaged-*"))
        if self._records and not known:
            logger.warning("the newest checkpoint of %s, of step %d, is missing", self._directory, self._newest)

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return max(self._records, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the best complete checkpoint, or None if none has a finite `best_metric`."""
        best = min(self._records, key=self._best_first, default=None)
        return None if best is None or self._best_first(best)[0] == math.inf else best

    def describe_latest(self) -> str:
        """Says where the newest complete checkpoint is, for an error message."""
        if self.latest_step is None:
            return "no state was saved"
        return f"the last saved state is that of step {self.latest_step}, in {self._path(self.latest_step)}"

    def check_resources(self, state: PyTree) -> None:
        """Checks that the disk has space for all checkpoints that exist at a time, and that enough files can be opened.

        Args:
          state: a state like those that will be saved.

        Raises:
          InputError: there is too little space, or this process may open too few files.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != soft < _MIN_OPEN_FILES:
            raise InputError(f"this process may open only {soft} files at a time; allow it 1024 (ulimit -n).")
        # The newest, the best, and the one that is written before an old one is deleted.
        count = self._max_to_keep + (self.best_metric is not None) + 1
        needed = count * sum(leaf.nbytes for leaf in self._varying(leaves_by_path(state)).values())
        used = sum(path.lstat().st_size for step in self._records for path in self._path(step).rglob("*"))
        available = used + shutil.disk_usage(self._directory).free
        if needed > available:
            raise InputError(
                f"{self._directory}: {count} checkpoints of a run take {needed / 1e6:,.1f} MB, and the disk has "
                f"{available / 1e6:,.1f} MB for them; free some space, or give another directory."
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
        """Copies the state and writes it in the background.

        Saving the same state at the same step again, as a resumed run may do, has no effect.

        Args:
          step: the step of the state, not negative and greater than that of every other checkpoint.
          state: a pytree of jax arrays.
          metadata: JSON values by name, returned by `restore`.
          metrics: numbers by name; unless empty, they must include `best_metric`.
          wait: return when the checkpoint is on the disk, and raise if it could not be written.

        Raises:
          InputError: an argument is invalid, or there is a newer checkpoint or another state of this step.
          CheckpointError: only with `wait`: the checkpoint could not be written.
        """
        from orbax.checkpoint import v1 as ocp

        step = operator.index(step)
        if self._read_only:
            raise InputError(f"{self._directory} was opened with read_only=True; nothing can be saved there.")
        if step < 0:
            raise InputError(f"step is {step}; it must be 0 or more.")
        if metrics and self.best_metric is not None and self.best_metric not in metrics:
            raise unknown_name("best_metric", self.best_metric, metrics)
        leaves = leaves_by_path(state)
        packed = pack(Record(step, hashed(leaves), dict(metadata or {}), dict(metrics or {}), self._identity))
        record = unpack(step, packed)

        self._finish_pending()
        if self._records and step <= max(self._records):
            if step in self._records and self._records[step].leaves == record.leaves:
                return
            raise InputError(
                f"{self._directory} already holds a checkpoint of step {max(self._records)}, and step {step} "
                "is not that state: restore it and continue from there, or give another directory."
            )
        try:
            # A flat list: Orbax joins nested names with dots, and so confuses {"a.b": x} with {"a": {"b": x}}.
            response = ocp.save_async(
                self._path(step),
                list(self._varying(leaves).values()),
                checkpointable_name=_STATE,
                custom_metadata=packed,
            )
        except _WRITE_ERRORS as error:
            self._save_failed(step, error)
        else:
            self._pending = record, response
        if wait:
            self.wait_until_finished()

    def restore(self, like: PyTree, *, best: bool = False) -> Restored | None:
        """Restores the newest checkpoint that loads and verifies; returns None if the directory never had one.

        Args:
          like: a state of the same structure, of arrays or `jax.ShapeDtypeStruct`. Each leaf is restored with the
            sharding of its counterpart, or to the first device if that has none. Constant leaves must be arrays.
          best: restore the one with the best `best_metric` instead.

        Raises:
          InputError: the checkpoint is of another model, optimizer or run; the message names the leaves or settings
            that differ.
          CheckpointError: all checkpoints are damaged or lost.
        """
        if best and self.best_metric is None:
            raise InputError("restore(best=True) needs CheckpointManager(..., best_metric=NAME).")
        self._finish_pending()
        leaves = leaves_by_path(like)
        for step in sorted(self._records, key=self._best_first if best else operator.neg):
            record = self._records[step]
            check_compatible(self._path(step), record, self._identity, leaves)
            try:
                loaded = self._load(record, leaves)
            except Damaged as damage:
                self._quarantine(step, str(damage))
            else:
                state = jax.tree.unflatten(jax.tree.structure(like), [loaded[path] for path in leaves])
                # Copies, which the caller may change.
                metadata, metrics = copy.deepcopy((record.metadata, record.metrics))
                return Restored(step, state, metadata, metrics, tuple(self._quarantined))
        if self._quarantined or any(self._directory.glob("*.damaged-*")):
            reasons = "".join(f"\n  {path}: {reason}" for path, reason in self._quarantined)
            raise CheckpointError(
                f"every checkpoint in {self._directory} is damaged; to start again, give another directory "
                f"or delete them.{reasons}"
            )
        if self._newest is not None:
            raise CheckpointError(
                f"{self._directory} holds no checkpoint any more, and one of step {self._newest} was saved there: "
                f"bring it back; to start again, give another directory or delete {self._directory}."
            )
        return None

    def wait_until_finished(self) -> None:
        """Blocks until the last save is on the disk.

        Raises:
          CheckpointError: it could not be written.
        """
        self._finish_pending()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Waits for the last save and unlocks the directory; raises like `wait_until_finished`."""
        try:
            self.wait_until_finished()
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *details: object) -> None:
        if kind is not None and processes.count() > 1:
            # The others may not come to the end of a save. What an interruption saves is on the disk already.
            self._release()
            return
        # A failed save was logged, and must not hide an error that is being raised already.
        with contextlib.suppress(*([] if kind is None else [CheckpointError])):
            self.close()

    def _varying(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        return {path: leaf for path, leaf in leaves.items() if path not in self._constant}

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _best_first(self, step: int) -> tuple[float, int]:
        """A sort key; scores that are missing or not finite come last."""
        score = self._records[step].metrics.get(self.best_metric or "", math.nan)
        return self._sign * score if math.isfinite(score) else math.inf, step

    def _finish_pending(self) -> None:
        if self._pending is None:
            return
        record, response = self._pending
        failure: Exception | None = None
        try:
            response.result()
        except _WRITE_ERRORS as error:
            failure = error
        # All or none of the processes that save together know the checkpoint.
        if any(processes.agreed(failure is not None)):
            self._save_failed(record.step, failure or OSError("another process could not write it"))
            return
        self._pending = self._failure = None
        self._records[record.step] = record
        self._newest = record.step
        if self._lock is not None:
            # The step in the lock file matters only if all checkpoints are lost.
            with contextlib.suppress(OSError):
                write_lock(self._lock, record.step)
        self._delete_old()

    def _save_failed(self, step: int, error: Exception) -> None:
        self._pending = None
        self._failure = CheckpointError(
            f"the checkpoint of step {step} could not be saved ({summary(error)}); {self.describe_latest()}"
        )
        self._failure.__cause__ = error
        logger.error("%s", self._failure)
        # On a full disk they would take the space of the next save.
        self._remove_leftovers()

    def _delete_old(self) -> None:
        for step in set(self._records) - {*sorted(self._records)[-self._max_to_keep :], self.best_step}:
            del self._records[step]
            # Renamed first: a kill in the middle must not leave what looks like a damaged checkpoint.
            try:
                if self._changes:
                    self._path(step).rename(self._directory / f"{step}.deleted")
            except FileNotFoundError:
                pass  # the user deleted it
            except OSError as error:
                logger.warning("the checkpoint of step %d could not be deleted: %s", step, error)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Removes what a killed or failed save, or a killed deletion, left behind."""
        # Listing them fails if no more files can be opened.
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir() if self._changes else []:
                if re.match(r"\d+\.(orbax-checkpoint-tmp|deleted)", path.name):
                    shutil.rmtree(path, ignore_errors=True)

    def _read_record(self, step: int) -> None:
        from orbax.checkpoint import v1 as ocp

        path = self._path(step)
        if not (path / _STATE).is_dir():
            raise InputError(f"jaxcls did not write {path}; move it away, or give another directory.")
        try:
            self._records[step] = unpack(step, read(path, lambda: ocp.checkpointables_metadata(path).custom_metadata))
        except Damaged as damage:
            self._quarantine(step, str(damage))

    def _load(self, record: Record, like: Mapping[str, Any]) -> dict[str, jax.Array]:
        from orbax.checkpoint import v1 as ocp

        path, saved = self._path(record.step), self._varying(record.leaves)
        constant = {name: leaf for name, leaf in like.items() if name not in saved}
        foreign = [name for name, type_and_hash in hashed(constant).items() if type_and_hash != record.leaves[name]]
        if foreign:
            raise InputError(
                f"checkpoint {path} is of other frozen weights ({len(foreign)} of {len(constant)} leaves differ: "
                f"{foreign[0]} first); give the pretrained encoder that it was trained with, or another directory."
            )
        abstract = [abstract_leaf(name, like[name]) for name in saved]
        arrays = read(path, lambda: ocp.load(path, abstract, checkpointable_name=_STATE))
        # Orbax gives a key the sharding of its data, which has one axis more than the key and fits no other call.
        loaded = {
            name: jax.device_put(array, spec.sharding) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
            for name, array, spec in zip(saved, arrays, abstract, strict=True)
        }
        changed = [name for name, type_and_hash in hashed(loaded).items() if type_and_hash != saved[name]]
        if changed:
            raise Damaged(f"the bits of {len(changed)} of {len(saved)} leaves have changed: {changed[0]} first")
        return loaded | constant

    def _quarantine(self, step: int, reason: str) -> None:
        names = (self._directory / f"{step}.damaged-{n}" for n in itertools.count(1))
        target = self._path(step) if self._read_only else next(path for path in names if not path.exists())
        if self._changes:
            self._path(step).rename(target)
        self._records.pop(step, None)
        self._quarantined.append(Quarantined(str(target), reason))
        logger.warning("the checkpoint of step %d is damaged (%s); it is in %s", step, reason, target)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
