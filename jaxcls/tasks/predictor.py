"""A finished run, or a saved experiment, as a function from inputs to probabilities."""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxcls import tasks
from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError, error_context
from jaxcls.checkpoints import CheckpointManager, Restored
from jaxcls.checkpoints.record import leaves_by_path
from jaxcls.data import adapters
from jaxcls.data.dataset import Unlabeled
from jaxcls.data.datasets import object_detection
from jaxcls.data.formats import images
from jaxcls.data.preprocessing import Preprocessor, from_record
from jaxcls.data.preprocessing.ensemble import EnsemblePreprocessor, first
from jaxcls.data.preprocessing.images import DetectionPreprocessor, ImagePreprocessor
from jaxcls.export.exportable import Exportable
from jaxcls.kernels import native
from jaxcls.reports import run_directory
from jaxcls.reports.run_directory import FinishedRun
from jaxcls.tasks import build, pretrained
from jaxcls.tasks.task import Task
from jaxcls.training import calibration, ensemble, mesh, problems
from jaxcls.training import objective as objectives
from jaxcls.training.compile import as_model
from jaxcls.training.experiment import ClassNames, Experiment, shaped_outputs
from jaxcls.training.objective import Objective, OutputSpec
from jaxcls.training.saving import exportable_of
from jaxcls.training.settings import Settings
from jaxcls.training.settings import from_record as settings_from_record
from jaxcls.training.steps import TrainState

PyTree = Any

# A run from elsewhere declares its batch size and its weights; neither takes more memory than this, or than its files
# justify.
_MAX_BATCH_BYTES = 1 << 32
_MIN_WEIGHT_BYTES, _MAX_EXPANSION = 1 << 26, 100


class Predictor(NamedTuple):
    """What a finished run learned.

    Attributes:
      experiment: that predicts; the one of a task has no loss.
      weights: its "params" and "model_state", on every device.
      thresholds: of decisions: a number, or one per label; of several outputs, a dict.
      class_names: a tuple, or a dict of them by output.
      data: the provenance of the training data.
      task, settings: of a task's run; None of an experiment that :func:`jaxcls.compile` made.
      portable: scores are computed as an exported program computes them, to the same bits.
      reference: what new examples are compared to, see :mod:`jaxcls.reports.shift`; or None.
    """

    experiment: Experiment
    weights: dict[str, PyTree]
    thresholds: Any
    class_names: ClassNames
    data: dict[str, Any]
    task: Task | None = None
    settings: Settings | None = None
    portable: bool = False
    reference: dict[str, Any] | None = None

    def predict(self, inputs: PyTree) -> PyTree:
        """Returns probabilities as NumPy arrays: (N,) of a binary problem, else (N, classes); a dict by output.

        Args:
          inputs: raw, as the task's preprocessor takes them, or arrays.
        """
        return self.score(self.experiment.transform(inputs))

    def score(self, arrays: PyTree) -> PyTree:
        """Returns the probabilities of arrays that the preprocessor returned, as :meth:`predict`."""
        with native.portable() if self.portable else contextlib.nullcontext():
            return self.experiment.scores(self.weights, arrays, shrink_batch=True)

    def sets(self, coverage: float, *, method: str = "lac", by_class: bool = False) -> Callable[[PyTree], PyTree]:
        """Returns the function from scores, of :meth:`predict`, to conformal sets.

        These are whether each class is in the set of each example, bool (N, classes); of several outputs, a dict.

        Args:
          coverage: the probability that the true class is in the set.
          method, by_class: see :mod:`jaxcls.metrics.conformal`.

        Raises:
          InputError: the run is not calibrated or of a multilabel problem, or the coverage is not between 0 and 1.
        """
        if self.experiment.calibration is None:
            raise InputError(
                "sets of classes need a calibrated run: repeat the command that trained it with --calibrate "
                "temperature, which does not train it again, or calibrate the experiment before it is saved."
            )
        return calibration.prediction_sets(self.experiment.calibration, coverage, method, by_class)

    def outputs(self, arrays: PyTree) -> PyTree:
        """Returns the outputs of the model, such as logits, for arrays that the preprocessor returned."""
        with native.portable() if self.portable else contextlib.nullcontext():
            return self.experiment.outputs(self.weights, arrays)

    @property
    def problem(self) -> Any:
        """The name of the problem, or a dict of names by output."""
        return objectives.problems(self.experiment.objective)

    @property
    def task_settings(self) -> Settings:
        """The settings of a task's run."""
        if self.settings is None:
            raise InputError("this run is of jaxcls.compile, not of a task: evaluate it in your program.")
        return self.settings

    @property
    def origin(self) -> str:
        """The task of the run, and whether its examples were synthetic."""
        return self.experiment.name + (", learned from SYNTHETIC examples" if self.data["synthetic"] else "")

    def read(self, path: Path) -> Unlabeled:
        """Reads examples to predict: image files if the run is of images, else in the format of the test examples.

        Without a task, these are NumPy's arrays.
        """
        read, preprocessor = self.task and self.task.read, first(self.experiment.preprocessor)
        match preprocessor:
            case DetectionPreprocessor(pixels=ImagePreprocessor(shape=(side, *_), white=white)):
                return object_detection.read_unlabeled(path, side, 3, white)
            case ImagePreprocessor(shape=(height, width, channels), white=white) if not read or images.is_image(path):
                return images.read_unlabeled(path, (height, width), channels, white)
        return read(path, self.task_settings, preprocessor) if read else adapters.read_arrays(path)

    def exportable(self, inputs: PyTree = None) -> Exportable:
        """Returns what is exported.

        Args:
          inputs: some inputs, for their shapes, where there is no preprocessor.
        """
        return exportable_of(self.experiment, self.weights, self.thresholds, self.class_names, self.data, inputs)


def load(path: Path | str, model: Any = None, *, portable: bool = False) -> Predictor:
    """Loads what a finished run learned, or what ``compiled.save`` wrote.

    Args:
      path: of the run directory.
      model: of an experiment that :func:`jaxcls.compile` made, that experiment, or what builds its model: its code is
        yours and is not saved. None for a task's run.
      portable: compute scores as an exported program does, to the same bits; see
        :func:`jaxcls.kernels.native.portable`.

    Raises:
      InputError: there is no finished run in the directory, or ``model`` is missing or of other shapes.
      CheckpointError: the weights are damaged.
    """
    path = Path(path)
    saved = run_directory.read(path)
    problem, class_names = saved.predictor["problem"], _class_names(saved)
    task = settings = None
    if saved.config.get("task") == "compile":
        experiment = _of_user_model(model, saved, path)
        if "ensemble" in saved.predictor and not isinstance(experiment.model, ensemble.EnsembleModel):
            experiment = _ensemble(saved, path, lambda index, changes: experiment)
    else:
        task, settings, experiment = _of_task(saved, path, optax.identity())
    shapes = dict(zip(("params", "model_state"), jax.eval_shape(experiment.model.init, jax.random.key(0)), strict=True))
    restored = _restored(path, saved.model, shapes, experiment)
    thresholds = _thresholds(restored.metadata, problem, class_names, str(saved.model))
    if saved.calibration is not None:
        experiment = calibration.calibrated(experiment, saved.calibration)
        tuned = saved.calibration["thresholds"]
        thresholds = np.asarray(tuned, np.float64) if isinstance(tuned, list) else tuned
    return Predictor(
        experiment, restored.state, thresholds, class_names, saved.data, task, settings, portable, saved.reference
    )


class LastState(NamedTuple):
    """What a finished or stopped run learned up to its last checkpoint.

    Attributes:
      state: of the last checkpoint.
      history: of its complete epochs.
      experiment: with the preprocessor and the optimizer of the run, and without a loss.
      settings, data: of the run.
    """

    state: TrainState
    history: list[dict[str, Any]]
    experiment: Experiment
    settings: Settings
    data: dict[str, Any]


def load_last(path: Path, source: pretrained.Source | None = None) -> LastState:
    """Loads the last state of a finished or stopped run of a task.

    Args:
      source: the checkpoint of a pretrained encoder, which has the weights that the run did not change.

    Raises:
      InputError: there is no run of a task in the directory, it has saved no state, or it is of another encoder.
      CheckpointError: the checkpoints are damaged.
    """
    saved = run_directory.read(path, finished=False)
    if "ensemble" in saved.predictor:
        raise InputError(
            f"{path} is an ensemble, which has no state of a training; give the run of one of its members."
        )
    settings = settings_from_record(saved.config, where=str(path / "config.toml"))
    # Its state has the same form at any rate.
    record = saved.predictor.get("pretrained")
    if record is not None and source is None:
        raise InputError(f"{path} is of a pretrained encoder: give it by --pretrained, as in that run.")
    optimizer = build.optimizer_of(settings, optax.constant_schedule(1.0), record)
    _, settings, experiment = _of_task(saved, path, optimizer, source if record else None)
    like = experiment.init(settings.seed) if experiment.constant_leaves else experiment.state_shapes
    restored = _restored(path, path / "checkpoints", like, experiment, experiment.constant_leaves)
    return LastState(restored.state, restored.metadata["history"], experiment, settings, saved.data)


def _of_task(
    saved: FinishedRun, path: Path, optimizer: optax.GradientTransformation, source: pretrained.Source | None = None
) -> tuple[Task, Settings, Experiment]:
    """Returns the task and the settings of a run, and an experiment that has its preprocessor and no loss."""
    where = str(path / "config.toml")
    problem = saved.predictor["problem"]
    settings = settings_from_record(saved.config, where=where)
    settings = dataclasses.replace(settings, mesh=mesh.usable(settings.mesh))
    task = dataclasses.replace(tasks.get(settings.task), problem=problem)
    with error_context(where):
        task.recipe(settings.preset)
        build.check(task, settings)
    with error_context(str(path / "predictor.json")):
        preprocessor = from_record(saved.predictor["preprocessor"])
    size = _bytes(preprocessor.shapes(settings.eval_batch_size))
    if size > _MAX_BATCH_BYTES:
        raise InputError(
            f"{where}: a batch of eval_batch_size {settings.eval_batch_size} would take {size:,} bytes, more than "
            f"{_MAX_BATCH_BYTES:,}; lower it."
        )

    def experiment(preprocessor: Preprocessor, settings: Settings) -> Experiment:
        return build.with_objective(
            task,
            settings,
            preprocessor,
            _class_names(saved),
            without_loss(problem),
            optimizer,
            saved.predictor.get("pretrained"),
            source,
        )

    if "ensemble" not in saved.predictor:
        return task, settings, experiment(preprocessor, settings)
    each = preprocessor.preprocessors if isinstance(preprocessor, EnsemblePreprocessor) else (preprocessor,)
    programs = [one.program for one in each]

    @functools.cache
    def built(program: Hashable, changes: str) -> Experiment:
        # None stands for a setting that only the others have.
        record = {name: value for name, value in (saved.config | json.loads(changes)).items() if value is not None}
        changed = settings_from_record(record, where="the members")
        task.recipe(changed.preset)
        build.check(task, changed)
        return experiment(each[programs.index(program)], changed)

    def member(index: int, changes: dict[str, Any]) -> Experiment:
        if not 0 <= index < len(each):
            raise InputError(f"the file is damaged: it has no preprocessor {index}.")
        # A model is built once for all preprocessors that it has in common.
        shared, of_member = built(programs[index], json.dumps(changes)), each[index]
        return dataclasses.replace(shared, preprocessor=of_member, preprocess=of_member.normalize)

    return task, settings, _ensemble(saved, path, member)


def _ensemble(saved: FinishedRun, path: Path, experiment: Callable[[int, dict[str, Any]], Experiment]) -> Experiment:
    """Returns the ensemble of a record of members.

    Args:
      experiment: the index of a preprocessor, and the settings that a member alone has -> its experiment.
    """
    members = saved.predictor["ensemble"]
    used = [(member["preprocessor"], json.dumps(member["settings"])) for member in members]
    distinct = [*dict.fromkeys(used)]
    with error_context(str(path / "predictor.json")):
        return ensemble.ensemble(
            [experiment(index, json.loads(changes)) for index, changes in distinct],
            [*map(distinct.index, used)],
            [member["weight"] for member in members],
            [member["name"] for member in members],
        )


def _of_user_model(model: Any, saved: FinishedRun, path: Path) -> Experiment:
    if isinstance(model, Experiment):
        return model
    if model is None:
        raise InputError(
            f"{path} is of a model that jaxcls.compile was given, whose code is yours: load it with "
            "jaxcls.load(path, model), or use an export, which needs no code."
        )
    problem = saved.predictor["problem"]
    return Experiment(
        model=shaped_outputs(as_model(model, None), problem),
        objective=without_loss(problem),
        optimizer=optax.identity(),
        class_names=_class_names(saved),
        settings=saved.config,
    )


def without_loss(problem: Any) -> Objective:
    """Returns an objective that scores and does not train: class weights need training labels."""
    if isinstance(problem, dict):
        return {name: OutputSpec(output, _no_loss) for name, output in problem.items()}
    return OutputSpec(problem, _no_loss, scores=problems.get(problem).scores)


def _no_loss(*arguments: Any, **options: Any) -> jax.Array:
    raise TypeError("the experiment of a finished run has no loss: class weights need training labels")


def _class_names(saved: FinishedRun) -> Any:
    names = saved.predictor["class_names"]
    if isinstance(names, dict):
        return {name: tuple(output_names) for name, output_names in names.items()}
    return tuple(names or ())


def _restored(
    path: Path, folder: Path, like: PyTree, experiment: Experiment, constant: Collection[str] = ()
) -> Restored:
    """Restores the newest checkpoint in a folder of a run, on all devices.

    Args:
      like: the shapes of the leaves, or a state with those that are constant.
    """
    _check_size(like, path, folder, constant)
    if not constant:
        like = mesh.placed(mesh.make(experiment.mesh), like)
    with CheckpointManager(folder, read_only=True, constant=constant) as checkpoints:
        restored = checkpoints.restore(like=like)
    if restored is None:
        raise InputError(f"{folder} holds no weights; train again into another --run-dir.")
    return restored


def _check_size(shapes: PyTree, path: Path, folder: Path, constant: Collection[str]) -> None:
    """Compares the size of the weight files with the declared shapes, before another library opens the files."""
    inside = [folder, *sorted(folder.rglob("*"))]
    files.all_inside(path, inside)
    saved = {name: leaf for name, leaf in leaves_by_path(shapes).items() if name not in constant}
    held, declared = sum(file.stat().st_size for file in inside), _bytes(saved)
    if declared > max(_MIN_WEIGHT_BYTES, _MAX_EXPANSION * held):
        raise InputError(
            f"{path} declares weights of {declared:,} bytes, and {folder} holds {held:,}; it is damaged. Give "
            "another --run-dir."
        )


def _bytes(shapes: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _thresholds(metadata: dict[str, Any], problem: Any, class_names: Any, where: str) -> Any:
    schema = jax.tree.map(lambda name: (float, [float]) if name == "multilabel" else float, problem)
    schemas.check(metadata, {"thresholds": schema}, f"the record of the weights in {where}")
    thresholds = metadata["thresholds"]
    if isinstance(thresholds, list):
        if len(thresholds) != len(class_names):
            raise InputError(
                f"{where} is damaged: it holds {len(thresholds)} thresholds for {len(class_names)} labels."
            )
        return np.asarray(thresholds, np.float64)
    return thresholds
