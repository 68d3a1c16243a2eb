"""A run of several models: one for each fold of the training examples, each seed, or both. Their mean predicts."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcls import metrics
from jaxcls._utils.clock import clock
from jaxcls._utils.errors import InputError, error_context, flag
from jaxcls._utils.interruption import watched
from jaxcls._utils.text_table import text_table
from jaxcls.checkpoints.directory import open_directory
from jaxcls.data import duplicates, predictions, splits
from jaxcls.data.batching import Examples
from jaxcls.data.dataset import Dataset, Split, Unlabeled, describe
from jaxcls.data.preprocessing.tables import TablePreprocessor
from jaxcls.metrics import selection
from jaxcls.metrics.intervals import mean_interval
from jaxcls.reports import label_errors, shift, summary
from jaxcls.reports.callbacks import Callback
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.tasks import build, pretrained
from jaxcls.tasks.build import Built, Splits
from jaxcls.tasks.task import Task
from jaxcls.training import calibration, ensemble, problems, saving, settings, steps
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import FitConfig
from jaxcls.training.objective import monitor_mode
from jaxcls.training.population import Member, Trained, ensemble_state, member_name, train_members
from jaxcls.training.problems.classification import Classification
from jaxcls.training.run import Reported, Result, RunData, save_ensemble
from jaxcls.training.settings import Settings

PyTree = Any
Say = Callable[[str], None]

# What belongs to the epochs of one model.
_REFUSED = ("continue_from", "debug", "profile", "tensorboard", "wandb", "train_metrics")
OUT_OF_FOLD, LABEL_ERRORS = "out_of_fold.csv", "label_errors.csv"
# More models are not listed one by one; all are in the report.
_MOST_ROWS = 20


class Fold(NamedTuple):
    """The examples that the members of a fold learn from, or all members where there are no folds.

    Attributes:
      built: on the training examples of the fold, with its own preprocessor.
      learner: the experiment that trains; folds with the same program share it.
      train, validation: preprocessed.
      rows: of the validation examples among all training examples of the data set; None without folds.
      constants: of the model of the fold; see :func:`jaxcls.training.steps.initial_constants`.
    """

    built: Built
    learner: Experiment
    train: Examples
    validation: Examples
    rows: np.ndarray | None
    constants: Sequence[np.ndarray | None]


def train_population(
    user_settings: Settings,
    *,
    callbacks: Sequence[Callback] = (),
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains the models of ``folds`` and ``seeds``, or resumes their training, and tests their ensemble.

    Each model is what it would be if it were trained alone. The same call continues after an interruption.

    Args:
      user_settings, callbacks, say, stop: see :func:`jaxcls.tasks.train.train_task`.

    Raises:
      InputError: something given is wrong; nothing was compiled or written yet.
      Interrupted, DivergedError: see :func:`jaxcls.training.loop.train`.
    """
    task, resolved = build.resolve(user_settings)
    _check(task, resolved)
    with clock(f"reading the data of {task.name}", say):
        dataset = task.load(resolved)
    say(describe(dataset))
    seeds = resolved.seeds or (resolved.seed,)
    folds = [*_folds(task, resolved, dataset, say)]
    # Validation examples are needed in training only to choose by them.
    chooses = resolved.restore_best or resolved.patience is not None
    members = [
        Member(
            member_name(number if resolved.folds else None, seed),
            fold.learner,
            fold.train,
            fold.validation if chooses else None,
            seed,
            constants=fold.constants,
        )
        for number, fold in enumerate(folds, 1)
        for seed in seeds
    ]
    join = functools.partial(
        ensemble.ensemble,
        [fold.built.experiment for fold in folds],
        np.repeat(np.arange(len(folds)), len(seeds)).tolist(),
        names=[member.name for member in members],
    )
    experiment = join()
    with error_context(dataset.provenance.location), clock("preprocessing the test examples", say):
        assert experiment.preprocessor is not None
        test = build.preprocess(experiment.preprocessor, dataset.test)
    copies = duplicates.shared(dataset.train.inputs, dataset.test.inputs)
    if copies:
        say(f"warning: {copies:,} of {dataset.test.num_examples:,} test examples are also training examples")
    directory = _directory(task, resolved, dataset, experiment, copies)
    mode = monitor_mode(experiment.objective, resolved.monitor, resolved.patience, has_validation=True)
    values = vars(resolved) | {"mode": mode, "monitor": resolved.monitor if chooses else None}
    with _locked(directory), watched(resolved.stall_seconds):
        directory.begin()
        say(
            f"{len(members):,} models: {resolved.model}, {resolved.dtype}, on {jax.device_count()} "
            f"{jax.devices()[0].device_kind}; {len(folds[0].train):,} training and {len(folds[0].validation):,} "
            "validation examples"
        )
        say(f"{'resuming' if directory.continued else 'saving'} this run in {directory.path}")
        trained = train_members(
            members,
            FitConfig(**{name: values[name] for name in FitConfig._fields}),
            folder=directory.checkpoints,
            identity=settings.identity(resolved) | {"data": dict(dataset.provenance.sha256)},
            restore_best=bool(resolved.restore_best),
            callbacks=callbacks,
            progress_bar=not resolved.quiet,
            on_member=_Counted(len(members), say),
            say=say,
            stop=stop,
        )
        for callback in callbacks:
            callback.on_train_end(trained[-1].history)
        validated = _validated(task, resolved, dataset, folds, trained, say)
        experiment = join(np.tile(validated.shares / len(folds), len(folds)))
        reported = Reported(
            {"train": dataset.train._replace(inputs=None), "validation": validated.split, "test": dataset.test},
            dataset.provenance.synthetic,
            copies,
            headline=task.metrics,
            differs_from_preset=build.differs_from_preset(task, resolved),
            records={"members": validated.members, validated.name: validated.report},
            reference=shift.reference(dataset.train.inputs, experiment.preprocessor),
        )
        if resolved.folds:
            _write_out_of_fold(directory.path / OUT_OF_FOLD, validated, dataset, folds, say)
            problem: Any = problems.get(task.problem, dataset.class_names)
            if isinstance(problem, Classification):
                errors = label_errors.find(
                    validated.scores, validated.split.labels, problem.problem, problem.class_names
                )
                label_errors.save(directory.path / LABEL_ERRORS, errors, validated.rows, say)
                shown = label_errors.summary(errors, validated.rows, dataset.train.inputs)
                all_validated = len(validated.rows) == dataset.train.num_examples
                scored = dataset.train if all_validated else dataset.train.take(validated.rows)
                worst = summary.slices(
                    validated.scores, scored, problem.problem, problem.class_names, validated.thresholds
                )
                of_folds = {"label_errors": shown, "slices": worst, "slices_of": "out-of-fold"}
                reported = reported._replace(summary=of_folds)
        state, histories = ensemble_state(experiment, trained), [one.history for one in trained]
        calibrated = None
        if resolved.calibrate is not None:
            calibrated = calibration.fit(
                task.problem,
                calibration.logits_of(task.problem, validated.scores),
                validated.split,
                resolved.calibrate,
                split_name=validated.name,
                tune_threshold=resolved.tune_threshold,
            )
        result = save_ensemble(
            experiment, state, test, validated.thresholds, directory, reported, histories, calibrated, say
        )
        say(_table(validated, result.report["metrics"], task.metrics))
    return result


class _Counted:
    """Prints a line for each member."""

    def __init__(self, total: int, say: Say):
        self._done, self._total, self._say = 0, total, say

    def __call__(self, trained: Trained) -> None:
        self._done += 1
        seconds = sum(entry["seconds"] for entry in trained.history)
        loss = trained.history[-1]["loss"]
        shown = "no finite loss" if loss is None else f"loss {loss:.4f}"
        self._say(f"{trained.name}: {shown}, {seconds:.1f} s ({self._done} of {self._total})")


def _check(task: Task, resolved: Settings) -> None:
    option = "--folds" if resolved.folds else "--seeds"
    for name in _REFUSED:
        if getattr(resolved, name):
            raise InputError(f"{flag(name)} is for a run of one model: leave it out, or {option}.")
    if task.problem == "detection":
        raise InputError(f"{option} is not for detection: boxes of several models have no mean.")
    if resolved.folds and resolved.validation_data is not None:
        raise InputError("--folds divides the training examples for validation: leave out --validation-data.")
    if resolved.ensemble == "greedy" and (len(resolved.seeds or ()) < 2 or isinstance(task.problem, Mapping)):
        raise InputError("--ensemble greedy chooses weights of the models of --seeds, of one output: give two or more.")
    if resolved.folds and resolved.tune_threshold and isinstance(task.problem, Mapping):
        raise InputError("--tune-threshold is not for several outputs; leave it out.")


def _folds(task: Task, resolved: Settings, dataset: Dataset, say: Say) -> Iterator[Fold]:
    """Builds the experiment of each fold; without folds, that of the one split."""
    problem = build.check_labels(task, dataset)
    every, base = dataset.train, None
    learners: dict[Any, Experiment] = {}
    divided: list[tuple[Splits, np.ndarray | None]] = []
    if resolved.folds:
        if dataset.validation is not None:
            say("note: the folds are of the training examples; the validation examples of the data are not used")
        with error_context(dataset.provenance.location):
            for train_rows, rows in splits.folds(task.split, every, resolved.folds, seed=build.split_seed(resolved)):
                parts = Splits(every.take(train_rows), every.take(rows), dataset.test)
                problem.check_learnable(parts.train, parts.validation)
                divided.append((parts, rows))
        with error_context(dataset.provenance.location):
            fitted = None if resolved.pretrained else task.fit_preprocessor(every.inputs, resolved)
        base = fitted if isinstance(fitted, TablePreprocessor) else None
    else:
        divided.append((build.split(task, resolved, dataset), None))
    for number, (parts, of_fold) in enumerate(divided):
        # Of the folds, tables have the same columns and so one program; their statistics are those of a fold's rows.
        preprocessor = None if base is None else base.refit(parts.train.inputs)
        tell = say if number == 0 else _nothing
        built = build.of_splits(task, resolved, dataset, parts, preprocessor=preprocessor, say=tell)
        fitted = built.experiment.preprocessor
        assert fitted is not None
        with error_context(dataset.provenance.location):
            validation = build.preprocess(fitted, parts.validation)
        key = (fitted.program, build.updates(resolved, len(built.train)), build.label_counts(resolved, parts.train))
        train, learner = built.train, learners.get(key)
        if learner is None:
            build.check_step(built)
            learner = built.experiment
        if resolved.freeze == "backbone":
            data = RunData(train, validation)
            encoder = built.experiment
            on_features, data = pretrained.on_features(encoder, encoder.init(resolved.seed), data, resolved, say)
            assert data.validation is not None
            train, validation, learner = data.train, data.validation, learners.get(key, on_features)
        learners[key] = learner
        # What was read is needed no more.
        slim = built._replace(splits=Splits(*(one._replace(inputs=None) for one in parts)))
        yield Fold(slim, learner, train, validation, of_fold, steps.initial_constants(built.experiment.model))
    if len(learners) > 1:
        say(f"the steps of the folds are {len(learners)} different programs, which are compiled one after the other")


def _directory(task: Task, resolved: Settings, dataset: Dataset, experiment: Experiment, copies: int) -> RunDirectory:
    identity, record = settings.identity(resolved), settings.as_record(resolved)
    digest = settings.digest(resolved, dataset.provenance.sha256)
    return saving.run_directory(
        experiment,
        None,
        resolved.run_dir or Path("runs") / f"{task.name}-{digest}",
        {name: value for name, value in record.items() if name not in settings.names(settings.CommandSettings)},
        dataclasses.asdict(dataset.provenance) | {"duplicates_in_test": copies},
        identity=identity,
        replaceable=["calibrate"],
        resume=resolved.resume,
    )


@contextlib.contextmanager
def _locked(directory: RunDirectory) -> Iterator[None]:
    """Keeps other runs out of the directory."""
    _, lock, _ = open_directory(directory.checkpoints, create=True, lock=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


class _Validated(NamedTuple):
    """Scores of examples that the models have not seen.

    Attributes:
      name: 'out_of_fold' or 'validation'.
      split: the examples that were scored; without those that no fold validates on.
      scores: of each, the mean of the models that have not seen it.
      shares: of the seeds in the ensemble.
      thresholds: of decisions, tuned on these scores with --tune-threshold.
      members: a record of each model.
      report: 'examples' and 'metrics'.
    """

    name: str
    split: Split
    scores: PyTree
    rows: np.ndarray
    shares: np.ndarray
    thresholds: Any
    members: list[dict[str, Any]]
    report: dict[str, Any]


def _nothing(line: str) -> None:
    pass


def _validated(
    task: Task, resolved: Settings, dataset: Dataset, folds: Sequence[Fold], trained: Sequence[Trained], say: Say
) -> _Validated:
    problem = problems.get(task.problem, dataset.class_names)
    seeds = len(trained) // len(folds)
    scores = [
        fold.learner.scores(one.weights, fold.validation.inputs)
        for number, fold in enumerate(folds)
        for one in trained[number * seeds : (number + 1) * seeds]
    ]
    if resolved.folds:
        by_fold = np.concatenate([fold.rows for fold in folds if fold.rows is not None])
        order, rows = np.argsort(by_fold), np.sort(by_fold)
        split = dataset.train._replace(inputs=None).take(rows)
    else:
        split = folds[0].built.splits.validation
        order = rows = np.arange(split.num_examples)
    by_seed = [jax.tree.map(lambda *parts: np.concatenate(parts)[order], *scores[seed::seeds]) for seed in range(seeds)]
    known: Any = {"problem": task.problem, "sample_weight": split.sample_weight}
    shares = np.full(seeds, 1 / seeds)
    if resolved.ensemble == "greedy":
        shares = selection.greedy_selection(by_seed, split.labels, **known)
        gain, interval = selection.selection_gain(by_seed, split.labels, **known)
        say(
            f"greedy selection: weights {', '.join(f'{share:.2f}' for share in shares)} of the seeds; log loss "
            f"{gain:.4f} lower than that of their mean ({interval.low:.4f} to {interval.high:.4f})"
        )
    mean = jax.tree.map(lambda *each: np.average(each, axis=0, weights=shares).astype(each[0].dtype), *by_seed)
    thresholds = problems.default_thresholds(task.problem)
    if resolved.tune_threshold is not None:
        thresholds = metrics.tune_threshold(mean, split.labels, metric=resolved.tune_threshold, **known)
    members = []
    for number, (one, predicted) in enumerate(zip(trained, scores, strict=True)):
        fold, of_fold = folds[number // seeds], folds[number // seeds].built.splits.validation
        report = problem.report(predicted, of_fold, thresholds)
        members.append(
            {
                "name": one.name,
                "weight": float(shares[number % seeds]) / len(folds),
                "training_examples": len(fold.train),
                "examples": report["examples"],
                "metrics": report["metrics"],
            }
        )
    report = problem.report(mean, split, thresholds)
    return _Validated(
        "out_of_fold" if resolved.folds else "validation",
        split,
        mean,
        rows,
        shares,
        thresholds,
        members,
        {"examples": report["examples"], "metrics": report["metrics"]},
    )


def _write_out_of_fold(path: Path, validated: _Validated, dataset: Dataset, folds: Sequence[Fold], say: Say) -> None:
    """Writes the out-of-fold predictions, in the order of the training examples, which are counted from 0."""
    ids = validated.rows.astype(str).astype(object)
    problem = problems.get(folds[0].built.task.problem, dataset.class_names)
    if not isinstance(problem, Classification):
        problem.write(
            problems.Request(path, path, say=say),
            Unlabeled(ids, None),
            lambda: validated.scores,
            validated.thresholds,
        )
        return
    columns = predictions.columns(ids, validated.scores, validated.thresholds, problem.problem, problem.class_names)
    fold_of = np.empty(dataset.train.num_examples, int)
    for number, fold in enumerate(folds, 1):
        fold_of[fold.rows] = number
    labels, names = validated.split.labels, np.array(problem.class_names, object)
    if problem.problem == "multilabel":
        truth = np.array(["|".join(names[row == 1]) for row in labels], object)
    else:
        truth = names[labels]
    known = {"row": columns.pop("id"), "fold": fold_of[validated.rows], "label": truth}
    predictions.save(path, known | columns, say)


def _table(validated: _Validated, test: dict[str, Any], headline: Sequence[str]) -> str:
    """Returns the scores of the models, their mean with a 95 % interval, and those of the ensemble."""
    names = [name for name in dict.fromkeys([*headline, "log_loss"]) if test.get(name) is not None][:4]
    each = {one["name"]: one["metrics"] for one in validated.members}
    rows = [["", *names]]
    if len(each) <= _MOST_ROWS:
        rows += [[name, *(_shown(scores.get(metric)) for metric in names)] for name, scores in each.items()]
    intervals = [mean_interval([scores.get(metric) for scores in each.values()]) for metric in names]
    rows.append([f"mean of {len(each)} models", *(f"{mean:.4f} ± {half:.4f}" for mean, half in intervals)])
    of_ensemble = f"ensemble, {validated.name.replace('_', ' ')}"
    rows.append([of_ensemble, *(_shown(validated.report["metrics"].get(metric)) for metric in names)])
    rows.append(["ensemble, test", *(_shown(test[metric]) for metric in names)])
    return f"\n{text_table(rows)}\n"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
