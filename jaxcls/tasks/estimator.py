"""The task csv as an estimator of scikit-learn, :class:`jaxcls.JaxClassifier`.

There is no ``partial_fit``: types of columns, scales, vocabularies and the schedule of the learning rate are those of
all rows.
"""

import dataclasses
import re
from collections.abc import Callable, Hashable
from typing import Any, Literal, Self

import jax
import numpy as np
import optax

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("JaxClassifier needs scikit-learn 1.6 or newer: pip install 'jaxcls[sklearn]'.") from error

from jaxcls._utils.errors import InputError
from jaxcls._utils.labels import ProblemName
from jaxcls.data.batching import Examples
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.data.preprocessing import from_record, tables
from jaxcls.tasks import build, csv
from jaxcls.tasks.predictor import without_loss
from jaxcls.training import settings as settings_module
from jaxcls.training import steps
from jaxcls.training.experiment import Experiment
from jaxcls.training.population import Member
from jaxcls.training.settings import Settings

# Experiments by all that their compiled programs depend on; the last ones are kept for the next fits.
_EXPERIMENTS: dict[Hashable, Experiment] = {}
_MOST_EXPERIMENTS = 16
# Settings that programs take as arguments, so that a search over them compiles once.
_TRACED = ("learning_rate", "weight_decay", "dropout")
_NO_LABELS = object()


class JaxClassifier(ClassifierMixin, BaseEstimator):
    """A network on a table, trained by the recipe of the task csv: ``pip install 'jaxcls[sklearn]'``.

    ``X`` is an array of numbers, in which NaN is a missing one, or a pandas DataFrame, whose columns may also hold
    categories, words, dates and texts. ``y`` are classes, or an indicator matrix (N, L) of several labels.

    Fits of similar tables, such as the folds of one, share compiled programs.

    Args:
      model: 'ensemble' of eight perceptrons, 'mlp' or 'linear'.
      epochs, batch_size, dropout, loss, label_smoothing, optimizer, learning_rate, weight_decay: None for what the
        recipe chooses by the number of rows; see ``jaxcls train --help``.
      class_weight: None, 'balanced', or a dict {class: weight}, in which others have weight 1. The classes of each of
        several labels are 0 and 1.
      random_state: a seed; or what it is drawn from, a RandomState, or None for NumPy's global one.
      verbose: print the types of the columns, and a line per epoch.

    Attributes:
      classes_: the classes, sorted; of several labels, the numbers of the columns of ``y``.
      n_features_in_, feature_names_in_: of the columns of ``X``.
      history_: an entry for each epoch; see :class:`jaxcls.training.loop.History`.

    >>> JaxClassifier(epochs=10).set_params(learning_rate=0.01)
    JaxClassifier(epochs=10, learning_rate=0.01)
    """

    def __init__(
        self,
        model: Literal["ensemble", "mlp", "linear"] = "ensemble",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        dropout: float | None = None,
        loss: str | None = None,
        label_smoothing: float | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        class_weight: Any = None,
        random_state: Any = 0,
        verbose: bool = False,
    ):
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.dropout = dropout
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains from the beginning, on all rows.

        Args:
          sample_weight: (N,), factors of the losses of the rows. In batches of several rows, a weight of 2 is not the
            same as a row that is given twice; a weight of 0 is the same as leaving the row out.
        """
        columns, y = self._validated(X, y)
        check_classification_targets(y)
        problem: ProblemName = "multilabel"
        if type_of_target(y) == "multilabel-indicator":
            self.classes_, labels = np.arange(y.shape[1]), y.astype(np.float32)
        else:
            self.classes_, labels = np.unique(column_or_1d(y, warn=True), return_inverse=True)
            problem, labels = "binary" if len(self.classes_) == 2 else "multiclass", labels.astype(np.int32)
            if len(self.classes_) < 2:
                raise InputError(f"y has only one class, {self.classes_[0]!r}; a classifier needs two or more.")
        weight = np.ones(len(labels))
        if sample_weight is not None:
            weight = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
            weight = column_or_1d(weight)
            check_consistent_length(weight, labels)
        rows = weight != 0
        if rows.sum() < 2:
            raise InputError("sample_weight, a weight of each row, is zero in all rows, or in all but one.")
        columns = {name: column[rows] for name, column in columns.items()}
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        names = ("model", "epochs", "batch_size", "dropout", "loss", "label_smoothing", "optimizer", "learning_rate")
        settings = Settings(
            task="csv", seed=int(seed), **{name: getattr(self, name) for name in (*names, "weight_decay")}
        )
        if self.class_weight is not None and problem == "multilabel":
            settings = dataclasses.replace(settings, class_weight=_as_setting(self.class_weight))
        elif self.class_weight is not None:
            unknown = set(self.class_weight).difference(self.classes_) if isinstance(self.class_weight, dict) else None
            if unknown:
                raise InputError(f"class_weight has {unknown.pop()!r}, which is no class of y.")
            # As factors of the rows, they are no constants of compiled programs.
            weight[rows] *= compute_sample_weight(self.class_weight, self.classes_[labels[rows]])
        split = Split(columns, labels[rows], weight[rows].astype(np.float32))
        try:
            self._learned, self.history_ = _train(settings, split, problem, len(self.classes_), verbose=self.verbose)
        except InputError as error:
            # It names the options of the command line.
            message = re.sub("--([a-z-]+)", lambda option: option[1].replace("-", "_"), str(error))
            raise InputError(message) from error
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns probabilities (N, classes); of several labels (N, L), those of each label."""
        check_is_fitted(self)
        columns, _ = self._validated(X)
        scores = _scores(self._learned, columns)
        return np.stack([1 - scores, scores], axis=1) if scores.ndim == 1 else scores

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Returns the logarithms of probabilities; of 0, that of the smallest positive float32."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float32).tiny))

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable classes (N,); of several labels 0 and 1 (N, L), at a threshold of 0.5."""
        scores = self.predict_proba(X)
        if self._learned["problem"] == "multilabel":
            return (scores >= 0.5).astype(int)
        predicted: np.ndarray = self.classes_[scores.argmax(axis=1)]
        return predicted

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_learned")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_label = True
        return tags

    def _validated(self, X: Any, y: Any = _NO_LABELS) -> tuple[dict[str, np.ndarray], Any]:
        """Returns columns by name, and labels as an array; with labels, the columns are those of the estimator."""
        fitting = y is not _NO_LABELS
        is_frame = hasattr(X, "iloc") and hasattr(X, "dtypes")
        if fitting:
            if is_frame and not X.columns.is_unique:
                raise InputError(f"X has several columns of the name {X.columns[X.columns.duplicated()][0]!r}.")
            is_mixed = is_frame and any(dtype.kind not in "biuf" for dtype in X.dtypes)
            # The name of each column, and whether it holds categories; None of a table of numbers alone.
            self._columns = [(str(name), hasattr(X[name], "cat")) for name in X.columns] if is_mixed else None
        if self._columns is None:
            options: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan", "reset": fitting}
            if fitting:
                X, y = validate_data(self, X, y, multi_output=True, ensure_min_samples=2, **options)
            else:
                X = validate_data(self, X, **options)
            names = getattr(self, "feature_names_in_", [f"x{index}" for index in range(X.shape[1])])
            return dict(zip(names, X.T, strict=True)), y
        if not is_frame:
            raise InputError(f"X is a {type(X).__name__}; the estimator was fitted to a DataFrame of mixed columns.")
        validate_data(self, X, y if fitting else "no_validation", reset=fitting, skip_check_array=True)
        if fitting:
            y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
            check_consistent_length(X, y)
        columns = enumerate(self._columns)
        return {name: _as_column(X.iloc[:, index], categorical=each) for index, (name, each) in columns}, y


def _train(
    settings: Settings, split: Split, problem: ProblemName, classes: int, *, verbose: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what the task csv learns from these rows, as plain values, which are pickled; and the history."""
    # The recipe depends on the number of rows. Rounded, folds that differ by a row share a program; so do tables of
    # up to 64 rows, which have the same noise.
    rows = max(64, int(float(f"{split.num_examples:.1e}")))
    task = csv.for_table(dataclasses.replace(csv.TASK, fit_preprocessor=_fit_rounded), settings, rows, problem)
    resolved = build.with_recipe(task, settings)
    dataset = Dataset("csv", split, split, _names(classes), Provenance("memory", "X", {}))
    say: Callable[[str], None] = print if verbose else lambda line: None
    data = build.preprocessed(task, resolved, dataset, build.Splits(split, split, split), say=say)
    traced = _traced(resolved)
    # Experiments stay in memory for the next fits, and rows do not.
    without_rows = Examples(None, data.train.labels, None)
    built = build.of_data(task, resolved, data._replace(train=without_rows), traced=traced)
    key = (
        *("fit", _compiled(resolved), problem, classes, data.preprocessor.program, rows),
        *(build.updates(resolved, len(data.train)), build.label_counts(resolved, split)),
    )
    experiment = _shared(key, lambda: built.experiment)
    constants = steps.initial_constants(built.experiment.model)
    values = {name: value for name, value in traced.items() if name != "dropout"}
    member = Member("", experiment, data.train, seed=resolved.seed, hyperparameters=values, constants=constants)
    state, history = experiment.fit(
        member.init(), data.train, resolved.epochs, batch_size=resolved.batch_size, verbose=verbose
    )
    learned = {
        "settings": settings_module.as_record(resolved),
        "preprocessor": data.preprocessor.as_record(),
        "problem": problem,
        "classes": classes,
        "weights": jax.tree.map(np.asarray, steps.evaluated_weights(state)),
    }
    return learned, list(history)


def _fit_rounded(inputs: tables.Columns, settings: Settings) -> tables.TablePreprocessor:
    return tables.fit(inputs).rounded()


def _scores(learned: dict[str, Any], columns: dict[str, np.ndarray]) -> np.ndarray:
    resolved = settings_module.from_record(learned["settings"], where="the estimator")
    preprocessor, problem, classes = from_record(learned["preprocessor"]), learned["problem"], learned["classes"]

    def make() -> Experiment:
        return build.with_objective(
            dataclasses.replace(csv.TASK, problem=problem),
            resolved,
            preprocessor,
            _names(classes),
            without_loss(problem),
            optax.identity(),
            variable_dropout="dropout" in _traced(resolved),
        )

    experiment = _shared(("predict", _compiled(resolved), problem, classes, preprocessor.program), make)
    scores: np.ndarray = experiment.scores(learned["weights"], preprocessor.transform(columns), shrink_batch=True)
    return scores


def _shared(key: Hashable, make: Callable[[], Experiment]) -> Experiment:
    """Returns the experiment of this key, which is made where it is not in memory."""
    experiment = _EXPERIMENTS.pop(key, None) or make()
    _EXPERIMENTS[key] = experiment
    while len(_EXPERIMENTS) > _MOST_EXPERIMENTS:
        _EXPERIMENTS.pop(next(iter(_EXPERIMENTS)), None)
    return experiment


def _traced(resolved: Settings) -> dict[str, float]:
    """Returns the settings that programs take as arguments, with their values."""
    values = {name: getattr(resolved, name) for name in _TRACED}
    # A network without dropout has no such layer.
    return {name: value for name, value in values.items() if value is not None and (value or name != "dropout")}


def _compiled(resolved: Settings) -> Settings:
    """Returns the settings that decide what is compiled."""
    arguments: dict[str, Any] = dict.fromkeys(_traced(resolved))
    return dataclasses.replace(resolved, seed=0, **arguments)


def _names(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def _as_setting(class_weight: Any) -> tuple[str, ...]:
    """Returns weights of the classes of each label as the setting has them."""
    if isinstance(class_weight, dict):
        return tuple(f"{label}:{weight}" for label, weight in class_weight.items())
    return (class_weight,)


def _as_column(series: Any, *, categorical: bool) -> np.ndarray:
    """Returns a column of a DataFrame as the preprocessor takes it."""
    if categorical:
        codes = series.astype("category").cat
        # Categories are no numbers, dates or texts, whatever their names are.
        words = ["=" + "_".join(str(category).split()) for category in codes.categories]
        return np.array([*words, ""], object)[codes.codes]
    if series.dtype.kind in "biuf":
        values: np.ndarray = series.to_numpy(np.float64, na_value=np.nan)
        assert_all_finite(values, allow_nan=True, input_name=f"column {series.name!r} of X")
        return values
    missing = series.isna()
    words_of_rows: np.ndarray = series.astype(object).where(~missing, "").map(str).to_numpy(object)
    return words_of_rows
