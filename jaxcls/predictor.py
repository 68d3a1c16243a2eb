"""A finished run as a function: inputs as they are read in, probabilities out."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls import assembly, native, program, run_directory, tasks
from jaxcls.checkpoints import Checkpoints
from jaxcls.data.preparation import Preparation, from_record
from jaxcls.errors import InputError
from jaxcls.models.functional import Model
from jaxcls.settings import Settings
from jaxcls.tasks.task import Task

PyTree = Any


class Predictor(NamedTuple):
    """What a finished run learned.

    Attributes:
      task: with its problem.
      settings: those that it was trained with, resolved.
      class_names: as in :class:`jaxcls.data.dataset.Dataset`.
      preparation: as it was fitted on the training inputs.
      thresholds: where a score becomes a decision: one, or one a label.
      data: the provenance of the data that it was trained on.
      model: that was trained.
      weights: its "params" and "model_state", on every device.
      scores: inputs as :class:`jaxcls.data.dataset.Part` has them -> probabilities, (N,) or (N, classes).
    """

    task: Task
    settings: Settings
    class_names: tuple[str, ...]
    preparation: Preparation
    thresholds: float | np.ndarray
    data: dict[str, Any]
    model: Model
    weights: dict[str, PyTree]
    scores: Callable[[PyTree], np.ndarray]


def load(run_dir: Path, *, portable: bool = False) -> Predictor:
    """Loads what a finished run learned.

    Args:
      portable: scores are computed as an exported program computes them, to the same bits, and not as the run itself
        computed those of its test; see :func:`jaxcls.native.portable`.

    Raises:
      InputError: there is no finished run in the directory.
      CheckpointError: its weights are damaged.
    """
    kept = run_directory.read(run_dir)
    settings, class_names = kept.settings, tuple(kept.predictor["class_names"])
    task = dataclasses.replace(tasks.get(settings.task), problem=kept.predictor["problem"])
    preparation = from_record(kept.predictor["preparation"])
    model = program.build_model(task, settings, preparation, class_names)
    replicated, _ = assembly.shardings()
    weights = dict(zip(("params", "model_state"), jax.eval_shape(model.init, jax.random.key(0)), strict=True))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), weights)
    with Checkpoints(kept.model, keep=1) as checkpoints:
        restored = checkpoints.restore(like=like)
    if restored is None:
        raise InputError(f"{kept.model} holds no weights; train again into another --run-dir.")
    thresholds = np.asarray(restored.metadata["thresholds"], np.float64)
    predict = program.build_predict(task, settings, preparation, model)

    def scores(inputs: PyTree) -> np.ndarray:
        with native.portable() if portable else contextlib.nullcontext():
            return predict(restored.state["params"], restored.state["model_state"], preparation.encode(inputs))[0]

    return Predictor(
        task=task,
        settings=settings,
        class_names=class_names,
        preparation=preparation,
        thresholds=thresholds if thresholds.ndim else float(thresholds),
        data=kept.data,
        model=model,
        weights=restored.state,
        scores=scores,
    )
