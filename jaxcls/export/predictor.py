"""A finished run as a function: inputs as they are read in, probabilities out."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls import tasks
from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError, error_context
from jaxcls._utils.labels import AnyProblemName
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data.preprocessing import Preprocessor, from_record
from jaxcls.kernels import native
from jaxcls.models.functional import Model
from jaxcls.reports import run_directory
from jaxcls.tasks.task import Task
from jaxcls.training import assembly, program
from jaxcls.training.settings import Settings
from jaxcls.training.settings import from_record as settings_from_record

PyTree = Any

# A run from elsewhere says how large a batch and how large the weights are; neither takes more memory than this, or
# than its files give reason for.
_MOST_OF_A_BATCH = 1 << 32
_MOST_WEIGHTS, _MOST_PACKED = 1 << 26, 100


class Predictor(NamedTuple):
    """What a finished run learned.

    Attributes:
      task: with its problem.
      settings: those that it was trained with, resolved.
      class_names: as in :class:`jaxcls.data.dataset.Dataset`.
      preprocessor: as it was fitted on the training inputs.
      thresholds: where a score becomes a decision: one, or one a label.
      data: the provenance of the data that it was trained on.
      model: that was trained.
      weights: its "params" and "model_state", on every device.
      scores: inputs as :class:`jaxcls.data.dataset.Split` has them -> scores, such as probabilities (N,) or
        (N, classes).
    """

    task: Task
    settings: Settings
    class_names: tuple[str, ...]
    preprocessor: Preprocessor
    thresholds: float | np.ndarray
    data: dict[str, Any]
    model: Model
    weights: dict[str, PyTree]
    scores: Callable[[PyTree], PyTree]


def load(run_dir: Path, *, portable: bool = False) -> Predictor:
    """Loads what a finished run learned.

    Args:
      portable: scores are computed as an exported program computes them, to the same bits, and not as the run itself
        computed those of its test; see :func:`jaxcls.kernels.native.portable`.

    Raises:
      InputError: there is no finished run in the directory.
      CheckpointError: its weights are damaged.
    """
    kept = run_directory.read(run_dir)
    settings = settings_from_record(kept.config, where=f"--config {run_dir / 'config.toml'}")
    class_names = tuple(kept.predictor["class_names"])
    task = dataclasses.replace(tasks.get(settings.task), problem=kept.predictor["problem"])
    program.check_finished(task, settings, str(run_dir / "config.toml"))
    with error_context(str(run_dir / "predictor.json")):
        preprocessor = from_record(kept.predictor["preprocessor"])
    _check_batch(settings, preprocessor, run_dir)
    model = program.build_model(task, settings, preprocessor, class_names)
    replicated, _ = assembly.shardings()
    weights = dict(zip(("params", "model_state"), jax.eval_shape(model.init, jax.random.key(0)), strict=True))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), weights)
    _check_weights(weights, run_dir, kept.model)
    with CheckpointManager(kept.model, read_only=True) as checkpoints:
        restored = checkpoints.restore(like=like)
    if restored is None:
        raise InputError(f"{kept.model} holds no weights; train again into another --run-dir.")
    thresholds = _thresholds(restored.metadata, task.problem, len(class_names), str(kept.model))
    predict = program.build_predict(task, settings, preprocessor, model, class_names)

    def scores(inputs: PyTree) -> PyTree:
        with native.portable() if portable else contextlib.nullcontext():
            return predict(restored.state["params"], restored.state["model_state"], preprocessor.transform(inputs))

    return Predictor(
        task=task,
        settings=settings,
        class_names=class_names,
        preprocessor=preprocessor,
        thresholds=thresholds if thresholds.ndim else float(thresholds),
        data=kept.data,
        model=model,
        weights=restored.state,
        scores=scores,
    )


def _check_batch(settings: Settings, preprocessor: Preprocessor, run_dir: Path) -> None:
    size = _bytes(preprocessor.shapes(settings.eval_batch_size))
    if size > _MOST_OF_A_BATCH:
        raise InputError(
            f"{run_dir / 'config.toml'}: a batch of eval_batch_size {settings.eval_batch_size} would take {size:,} "
            f"bytes, more than {_MOST_OF_A_BATCH:,}; lower it."
        )


def _check_weights(weights: PyTree, run_dir: Path, folder: Path) -> None:
    """Looks at the files of the weights, which another library opens, and compares them with what is declared."""
    inside = [folder, *sorted(folder.rglob("*"))]
    files.all_inside(run_dir, inside)
    held, declared = sum(path.stat().st_size for path in inside), _bytes(weights)
    if declared > max(_MOST_WEIGHTS, _MOST_PACKED * held):
        raise InputError(
            f"{run_dir} declares weights of {declared:,} bytes, and {folder} holds {held:,}; it is damaged. Give "
            "another --run-dir."
        )


def _bytes(shapes: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _thresholds(metadata: dict[str, Any], problem: AnyProblemName, count: int, where: str) -> np.ndarray:
    form = {"thresholds": (float, [float]) if problem == "multilabel" else float}
    schemas.check(metadata, form, f"the record of the weights in {where}")
    thresholds = np.asarray(metadata["thresholds"], np.float64)
    if thresholds.ndim and len(thresholds) != count:
        raise InputError(f"{where} is damaged: it holds {len(thresholds)} thresholds for {count} labels.")
    return thresholds
