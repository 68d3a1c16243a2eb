"""Saving and exporting an experiment: its weights, and the records that a prediction needs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data.batching import Examples
from jaxcls.data.dataset import Provenance
from jaxcls.data.preprocessing.ensemble import encoder
from jaxcls.export import folder
from jaxcls.export.exportable import Exportable
from jaxcls.kernels import native
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.training import objective as objectives
from jaxcls.training import problems
from jaxcls.training.ensemble import EnsembleModel
from jaxcls.training.experiment import ClassNames, Experiment
from jaxcls.training.objective import by_output
from jaxcls.training.steps import TrainState, evaluated_weights

PyTree = Any


def array_provenance(sha256: Mapping[str, str]) -> dict[str, Any]:
    """Returns the provenance of arrays in memory, as a run directory records it."""
    provenance = Provenance("memory", "arrays", sha256, synthetic=False, note="in memory")
    return dataclasses.asdict(provenance) | {"duplicates_in_test": 0}


def run_directory(
    experiment: Experiment,
    examples: Examples | None,
    path: Path,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    **options: Any,
) -> RunDirectory:
    """Returns a run directory with the environment, and with what a prediction needs besides settings and weights.

    Args:
      examples: some, from which the number of classes follows where the experiment does not name them.
      config, data, options: see :class:`jaxcls.reports.run_directory.RunDirectory`.
    """
    predictor = predictor_record(experiment, examples)
    versions = environment.record() | native.record()
    return RunDirectory(path, config, environment=versions, data=data, predictor=predictor, **options)


def predictor_record(experiment: Experiment, examples: Examples | None) -> dict[str, Any]:
    """Returns what a prediction needs besides settings and weights; see :func:`run_directory`."""
    predictor = {
        "problem": objectives.problems(experiment.objective),
        "class_names": class_names_of(experiment, examples),
        "preprocessor": None if experiment.preprocessor is None else experiment.preprocessor.as_record(),
    }
    if isinstance(experiment.model, EnsembleModel):
        predictor["ensemble"] = experiment.model.record()
    if (pretrained := pretrained_record(experiment)) is not None:
        predictor["pretrained"] = pretrained
    return predictor


def pretrained_record(experiment: Experiment) -> Any:
    """Returns the record of the checkpoint of an experiment's encoder, also of an ensemble's; None without one."""
    one = experiment.model.members[0].experiment if isinstance(experiment.model, EnsembleModel) else experiment
    return None if one.pretrained is None else one.pretrained.record


def save(experiment: Experiment, state: TrainState, path: Path) -> None:
    """Writes a directory with the weights that are evaluated, from which :func:`jaxcls.load` predicts."""
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty; give a new directory.")
    directory = run_directory(experiment, None, path.absolute(), experiment.settings, array_provenance({}))
    directory.begin()
    save_weights(directory.model, state, problems.default_thresholds(objectives.problems(experiment.objective)))
    directory.write_calibration(experiment.calibration)
    directory.write_checksums()


def export(
    experiment: Experiment, state: TrainState, path: Path, inputs: PyTree, format: str, weights: str = "float32"
) -> None:
    """Exports an experiment of arrays; see :meth:`jaxcls.training.experiment.Experiment.export`."""
    folder.check_output(path)
    arrays = experiment.transform(inputs)
    names = class_names_of(experiment, Examples(arrays, None, None))
    thresholds = problems.default_thresholds(objectives.problems(experiment.objective))
    data = array_provenance({})
    exportable = exportable_of(experiment, evaluated_weights(state), thresholds, names, data, arrays)
    folder.export(path, exportable, format, weights=weights)


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
    preprocessor = encoder(experiment.preprocessor)

    def shapes(count: Any) -> PyTree:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), arrays)

    record = {
        "task": experiment.name,
        "model": str(experiment.settings.get("model", "model")),
        "problem": objectives.problems(experiment.objective),
        "class_names": class_names,
        "id_column": experiment.settings.get("id_column"),
        "thresholds": plain_thresholds(thresholds),
        "synthetic": data["synthetic"],
        # Without the location, which may be a folder of the person who trained it.
        "data": {name: data[name] for name in ("source", "note", "sha256")},
        "dtype": str(experiment.settings.get("dtype", "float32")),
        # The programs contain it; of weights alone, logits are scaled and shifted before softmax or sigmoid.
        "calibration": plain_calibration(experiment.calibration),
    }
    return Exportable(
        record,
        weights=weights,
        prediction_step=experiment.prediction_step,
        input_shapes=shapes if preprocessor is None else preprocessor.shapes,
        batch_size=experiment.eval_batch_size,
        preprocessor=preprocessor,
        buckets=experiment.buckets,
        pretrained=experiment.pretrained,
    )


def save_weights(folder: Path, state: TrainState, thresholds: Any) -> None:
    """Saves the weights that are evaluated, without the optimizer's state, and their decision thresholds."""
    with CheckpointManager(folder, max_to_keep=1) as manager:
        manager.save(int(state.step), evaluated_weights(state), metadata={"thresholds": plain_thresholds(thresholds)})


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


def plain_calibration(record: Mapping[str, Any] | None) -> Any:
    """Returns the scale and the bias of a calibration, of several outputs by name; None without one."""
    if record is None:
        return None
    outputs = {name: {part: one[part] for part in ("scale", "bias")} for name, one in record["outputs"].items()}
    return outputs.get("", outputs)


def plain_thresholds(thresholds: Any) -> Any:
    """Returns thresholds as JSON values."""
    if isinstance(thresholds, Mapping):
        return {name: plain_thresholds(threshold) for name, threshold in thresholds.items()}
    return np.asarray(thresholds).tolist()
