"""Saving and exporting an experiment: its weights, and the records that a prediction needs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls import optimizers
from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data.batching import Examples
from jaxcls.data.dataset import Provenance, Split
from jaxcls.export import folder
from jaxcls.export.exportable import Exportable
from jaxcls.kernels import native
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.training import objective as objectives
from jaxcls.training import problems
from jaxcls.training.experiment import ClassNames, Experiment
from jaxcls.training.objective import by_output
from jaxcls.training.steps import TrainState

PyTree = Any


def array_provenance(sha256: Mapping[str, str]) -> dict[str, Any]:
    """Returns the provenance of arrays in memory, as a run directory records it."""
    provenance = Provenance("memory", "arrays", sha256, synthetic=False, note="in memory")
    return dataclasses.asdict(provenance) | {"duplicates_in_test": 0}


def save(experiment: Experiment, state: TrainState, path: Path) -> None:
    """Writes a directory with the weights that are evaluated, from which :func:`jaxcls.load` predicts."""
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty; give a new directory.")
    path.mkdir(parents=True, exist_ok=True)
    problem = problems.get(objectives.problems(experiment.objective))
    directory = RunDirectory(
        path.absolute(),
        experiment.settings,
        environment=environment.record() | native.record(),
        data=array_provenance({}),
        predictor=predictor_record(experiment, None),
    )
    directory.begin()
    thresholds = problem.thresholds(None, lambda: None, Split(None, None))
    save_weights(directory.model, experiment, state, thresholds)
    directory.write_checksums()


def export(experiment: Experiment, state: TrainState, path: Path, inputs: PyTree, format: str) -> None:
    """Exports an experiment of arrays; see :meth:`jaxcls.training.experiment.Experiment.export`."""
    folder.check_output(path)
    weights = evaluated_weights(state)
    arrays = experiment.transform(inputs)
    names = class_names_of(experiment, Examples(arrays, None, None))
    problem = problems.get(objectives.problems(experiment.objective))
    thresholds = problem.thresholds(None, lambda: None, Split(None, None))
    exportable = exportable_of(experiment, weights, thresholds, names, array_provenance({}), arrays)
    folder.export(path, exportable, format)


def exportable_of(
    experiment: Experiment,
    weights: PyTree,
    thresholds: Any,
    class_names: ClassNames,
    data: Mapping[str, Any],
    arrays: PyTree = None,
) -> Exportable:
    """Returns what is exported of an experiment.

    Args:
      arrays: some input arrays, for their shapes, where there is no preprocessor.
    """
    preprocessor = experiment.preprocessor

    def shapes(count: Any) -> PyTree:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), arrays)

    record = {
        "task": experiment.name,
        "model": str(experiment.settings.get("model", "model")),
        "problem": objectives.problems(experiment.objective),
        "class_names": class_names,
        "thresholds": plain_thresholds(thresholds),
        "synthetic": data["synthetic"],
        # Without the location, which may be a folder of the person who trained it.
        "data": {name: data[name] for name in ("source", "note", "sha256")},
        "dtype": str(experiment.settings.get("dtype", "float32")),
    }
    return Exportable(
        record,
        weights=weights,
        prediction_step=experiment.prediction_step,
        input_shapes=shapes if preprocessor is None else preprocessor.shapes,
        batch_size=experiment.eval_batch_size,
        preprocessor=preprocessor,
        buckets=experiment.buckets,
    )


def evaluated_weights(state: TrainState) -> dict[str, PyTree]:
    """Returns the weights that are evaluated, without the optimizer's state."""
    return {
        "params": optimizers.evaluation_params(state.opt_state, state.params),
        "model_state": state.model_state,
    }


def save_weights(folder: Path, experiment: Experiment, state: TrainState, thresholds: Any) -> None:
    """Saves the weights that are evaluated, without the optimizer's state, and their decision thresholds."""
    with CheckpointManager(folder, max_to_keep=1) as manager:
        manager.save(int(state.step), evaluated_weights(state), metadata={"thresholds": plain_thresholds(thresholds)})


def predictor_record(experiment: Experiment, examples: Examples | None) -> dict[str, Any]:
    """Returns what a prediction needs besides settings and weights, as JSON values."""
    preprocessor = experiment.preprocessor
    return {
        "problem": objectives.problems(experiment.objective),
        "class_names": class_names_of(experiment, examples),
        "preprocessor": None if preprocessor is None else preprocessor.as_record(),
    }


def class_names_of(experiment: Experiment, examples: Examples | None) -> Any:
    """Returns the class names of the experiment, or '0', '1', ... as many as its outputs have."""
    if experiment.class_names is not None:
        return experiment.class_names
    if examples is None:
        return None
    outputs = experiment.output_shapes(examples.inputs)
    names: dict[Any, tuple[str, ...]] = {
        name: tuple(map(str, range(2 if spec.problem == "binary" else logits.shape[1])))
        for name, spec, logits, _, _ in by_output(experiment.objective, outputs, outputs, None)
    }
    return names.get(None, names)


def plain_thresholds(thresholds: Any) -> Any:
    """Returns thresholds as JSON values."""
    if isinstance(thresholds, Mapping):
        return {name: plain_thresholds(threshold) for name, threshold in thresholds.items()}
    return np.asarray(thresholds).tolist()
