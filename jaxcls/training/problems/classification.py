"""Binary, multiclass and multi-label classification: an example has one class, or several labels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls import losses
from jaxcls import metrics as metric_functions
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, flag
from jaxcls._utils.labels import ProblemName
from jaxcls.data import predictions
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.data.formats import tables
from jaxcls.metrics.decisions import check_tunable
from jaxcls.reports import summary
from jaxcls.training import settings as settings_module
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems.base import PredictionRequest
from jaxcls.training.settings import LossOptions, Settings

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Classification:
    """One of the three problems of classification; its scores are probabilities."""

    problem: ProblemName

    @property
    def ignore_label(self) -> float | None:
        """Labels of this value are neither learned from nor scored: NaN marks unknown multi-label ones."""
        return float("nan") if self.problem == "multilabel" else None

    @property
    def scores(self) -> None:
        return None

    def check_settings(self, settings: Settings) -> None:
        for name, where in (("box_loss", "detection"), ("loss_weights", "several losses")):
            if getattr(settings, name) is not None:
                raise InputError(f"{flag(name)} is for {where}, and this is a {self.problem} problem; leave it out.")
        if settings.monitor != "loss":
            metric_functions.get(settings.monitor, self.problem)
        if settings.tune_threshold is not None:
            check_tunable(settings.tune_threshold, self.problem)

    def check_labels(self, split: Split, class_names: Sequence[str]) -> None:
        labels.validate(split.labels, self.problem, len(class_names), ignore_label=self.ignore_label)

    def check_learnable(self, train: Split, validation: Split) -> None:
        self._check_differ("training", train)
        if self.problem == "binary":
            self._check_differ("validation", validation)

    def objective(
        self, settings: Settings, *, class_names: Sequence[str], train_labels: np.ndarray, metrics: Sequence[str]
    ) -> OutputSpec:
        return OutputSpec(
            self.problem,
            self._loss(settings, len(class_names), train_labels),
            {name: metric_functions.get(name, self.problem) for name in metrics},
            ignore_label=self.ignore_label,
        )

    def thresholds(self, metric: str | None, scores: Callable[[], np.ndarray], validation: Split) -> float | np.ndarray:
        if metric is None:
            return 0.5
        return metric_functions.tune_threshold(
            scores(), validation.labels, problem=self.problem, metric=metric, sample_weight=validation.sample_weight
        )

    def report(
        self, scores: np.ndarray, split: Split, *, class_names: Sequence[str], thresholds: Any
    ) -> dict[str, Any]:
        return metric_functions.report(
            scores,
            split.labels,
            problem=self.problem,
            class_names=class_names,
            threshold=thresholds,
            sample_weight=split.sample_weight,
        )

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: np.ndarray,
        splits: Mapping[str, Split],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> dict[str, Any]:
        return summary.summarize(
            report, scores, splits, problem=self.problem, class_names=class_names, thresholds=thresholds
        )

    def write(
        self,
        request: PredictionRequest,
        examples: Unlabeled,
        scores: Callable[[], np.ndarray],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> str:
        if request.draw is not None:
            raise InputError("--draw shows detections in images, and this run classifies; leave it out.")
        sample = request.sample_submission
        if sample is None:
            columns = predictions.columns(examples.ids, scores(), thresholds, self.problem, class_names)
        else:
            form = predictions.read_sample_submission(
                sample, examples.ids, self.problem, class_names, source=request.input
            )
            columns = predictions.submission(form, scores(), self.problem, class_names)
        # A scorer compares ids exactly; any other file may be opened as a spreadsheet.
        predictions.save(request.output, columns, for_spreadsheets=sample is None)
        if sample is not None and any(map(tables.is_formula, [*columns, *examples.ids])):
            request.say("note: some ids or columns begin like a formula: do not open this submission as a spreadsheet")
        return f"{len(examples.ids):,} predictions"

    def _check_differ(self, name: str, split: Split) -> None:
        """Refuses examples that all have the same label."""
        # fmin and fmax leave out unknown labels.
        if not np.any(np.fmin.reduce(split.labels) < np.fmax.reduce(split.labels)):
            what = "the same labels" if self.problem == "multilabel" else f"class {split.labels[0]}"
            raise InputError(
                f"all {len(split.labels):,} {name} examples have {what}; there must be two classes to distinguish. "
                f"Give "
                "more examples, or another --validation-fraction."
            )

    def _loss(self, settings: Settings, num_classes: int, train_labels: np.ndarray) -> Callable[..., Any]:
        options = settings_module.select(settings, LossOptions)
        if settings.loss == "weighted_crossentropy" and "pos_weight" not in options:
            options.setdefault("class_weight", "balanced")
        if "class_weight" in options:
            options["class_weight"] = labels.resolve_class_weight(
                options["class_weight"], self.problem, num_classes, labels=train_labels, ignore_label=self.ignore_label
            ).astype(np.float32)
        if losses.find(settings.loss, self.problem) is losses.logit_adjusted_cross_entropy:
            options["prior"] = np.bincount(train_labels, minlength=num_classes) / len(train_labels)
        return losses.get(
            settings.loss, self.problem, **{"normalizer": "batch", "ignore_label": self.ignore_label, **options}
        )
