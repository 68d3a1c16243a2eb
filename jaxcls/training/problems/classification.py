"""Binary, multiclass and multi-label classification: an example has one class, or several labels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls import losses
from jaxcls import metrics as metric_functions
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, flag, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.data import predictions
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.metrics.decisions import check_tunable
from jaxcls.reports import summary
from jaxcls.training import settings as settings_module
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems import Problem, Record, Request
from jaxcls.training.settings import LossOptions, Settings


@dataclasses.dataclass(frozen=True)
class Classification(Problem):
    """One of the three problems of classification; its scores are probabilities."""

    problem: ProblemName
    class_names: Sequence[str]

    @property
    def ignore_label(self) -> float | None:
        """Labels of this value are neither learned from nor scored: NaN marks unknown multi-label ones."""
        return float("nan") if self.problem == "multilabel" else None

    def check_settings(self, settings: Settings) -> None:
        for name, where in (("box_loss", "detection"), ("loss_weights", "several losses")):
            if getattr(settings, name) is not None:
                raise InputError(f"{flag(name)} is for {where}, and this is a {self.problem} problem; leave it out.")
        if settings.monitor != "loss":
            metric_functions.get(settings.monitor, self.problem)
        if settings.class_weight is not None:
            _class_weight(settings.class_weight)
        if settings.tune_threshold is not None:
            check_tunable(settings.tune_threshold, self.problem)

    def check_labels(self, split: Split) -> None:
        labels.validate(split.labels, self.problem, len(self.class_names), ignore_label=self.ignore_label)

    def check_learnable(self, train: Split, validation: Split) -> None:
        splits = {"training": train} | ({"validation": validation} if self.problem == "binary" else {})
        for name, split in splits.items():
            # fmin and fmax leave out unknown labels.
            if not np.any(np.fmin.reduce(split.labels) < np.fmax.reduce(split.labels)):
                what = "the same labels" if self.problem == "multilabel" else f"class {split.labels[0]}"
                raise InputError(
                    f"all {len(split.labels):,} {name} examples have {what}; there must be two classes to "
                    "distinguish. Give more examples, or another --validation-fraction."
                )

    def objective(self, settings: Settings, train_labels: np.ndarray, metrics: Sequence[str]) -> OutputSpec:
        options: dict[str, Any] = {"normalizer": "batch", "ignore_label": self.ignore_label}
        options |= settings_module.select(settings, LossOptions)
        if settings.loss == "weighted_crossentropy" and "pos_weight" not in options:
            options.setdefault("class_weight", ("balanced",))
        count = len(self.class_names)
        if "class_weight" in options:
            # The classes of a multilabel problem are 0 and 1 of each label.
            names = ("0", "1") if self.problem == "multilabel" else self.class_names
            weights = _class_weight(options["class_weight"], names)
            options["class_weight"] = labels.resolve_class_weight(
                weights, self.problem, count, labels=train_labels, ignore_label=self.ignore_label
            ).astype(np.float32)
        if losses.find(settings.loss, self.problem) is losses.logit_adjusted_cross_entropy:
            options["prior"] = np.bincount(train_labels, minlength=count) / len(train_labels)
        return OutputSpec(
            self.problem,
            losses.get(settings.loss, self.problem, **options),
            {name: metric_functions.get(name, self.problem) for name in metrics},
            ignore_label=self.ignore_label,
        )

    def report(self, scores: np.ndarray, split: Split, thresholds: Any) -> Record:
        return metric_functions.report(
            scores,
            split.labels,
            problem=self.problem,
            class_names=self.class_names,
            threshold=thresholds,
            sample_weight=split.sample_weight,
        )

    def summarize(self, report: Record, scores: np.ndarray, splits: Mapping[str, Split], thresholds: Any) -> Record:
        return summary.summarize(
            report, scores, splits, problem=self.problem, class_names=self.class_names, thresholds=thresholds
        )

    def write(self, request: Request, examples: Unlabeled, scores: Callable[[], np.ndarray], thresholds: Any) -> str:
        if request.draw is not None:
            raise InputError("--draw shows detections in images, and this run classifies; leave it out.")
        sample, ids, problem, names = request.sample_submission, examples.ids, self.problem, self.class_names
        if sample is None:
            values = scores()
            sets = None if request.sets is None else {request.set_column: request.sets(values)}
            columns = predictions.columns(ids, values, thresholds, problem, names, sets)
        else:
            if request.sets is not None:
                raise InputError("--sample-submission has no column for the sets of --coverage; leave one out.")
            form = predictions.read_sample_submission(sample, ids, problem, names, source=request.input)
            columns = predictions.submission(form, scores(), problem, names, thresholds)
            request.say(f"as in {sample}, {form}")
        # A scorer compares ids exactly; any other file may be opened as a spreadsheet.
        predictions.save(request.output, columns, request.say, for_spreadsheets=sample is None)
        return f"{len(ids):,} predictions"


def _class_weight(words: Sequence[str], class_names: Sequence[str] | None = None) -> str | dict[int, float]:
    """Returns --class-weight as a method's name or weights by index; without class names, it is only checked.

    >>> _class_weight(["1:3", "cat:0.5"], ["cat", "dog", "owl"])
    {0: 0.5, 1: 3.0, 2: 1.0}
    """
    if len(words) == 1 and words[0] in ("balanced", "effective"):
        return words[0]
    weights = dict.fromkeys(range(len(class_names or ())), 1.0)
    for word in words:
        name, _, number = word.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not name or not 0 <= weight < np.inf:
            raise InputError(
                f"--class-weight {word!r}: give balanced, effective, or a weight for each class, such as 0:1 1:3."
            )
        if class_names is None:
            continue
        if name in class_names:
            weights[class_names.index(name)] = weight
        elif name.isdecimal() and int(name) in weights:
            weights[int(name)] = weight
        else:
            raise InputError(f"--class-weight {word}: {unknown_name('class', name, class_names)}")
    return weights
