"""Binary, multiclass and multi-label problems: an example has a class, or labels; its scores are probabilities."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls import losses, metrics
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, flag
from jaxcls._utils.labels import ProblemName
from jaxcls.data import predictions
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.data.formats import tables
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.metrics.thresholds import check_tunable
from jaxcls.reports import summary
from jaxcls.training import objective, settings
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems.base import Request
from jaxcls.training.settings import LossOptions, Settings

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Classification:
    """One of the three problems of classification.

    Attributes:
      problem: its name.
    """

    problem: ProblemName

    @property
    def ignored(self) -> float | None:
        """The label that is neither learned from nor scored: in a multi-label problem, the label that is not known."""
        return float("nan") if self.problem == "multilabel" else None

    def check_settings(self, resolved: Settings) -> None:
        for name in ("box_loss", "loss_weights"):
            if getattr(resolved, name) is not None:
                what = "several losses" if name == "loss_weights" else "detection"
                raise InputError(f"{flag(name)} is for {what}, and this is a {self.problem} problem.")
        if resolved.monitor != "loss":
            metrics.get(resolved.monitor, self.problem)
        if resolved.tune_threshold is not None:
            check_tunable(resolved.tune_threshold, self.problem)

    def check_labels(self, part: Split, class_names: Sequence[str]) -> None:
        labels.validate(part.labels, self.problem, len(class_names), ignore_label=self.ignored)

    def check_learnable(self, train: Split, validation: Split) -> None:
        self._check_differ("training", train)
        if self.problem == "binary":
            self._check_differ("validation", validation)

    def head(
        self,
        resolved: Settings,
        preprocessor: Preprocessor,
        *,
        class_names: Sequence[str],
        train_labels: np.ndarray,
        metrics: Sequence[str],
    ) -> OutputSpec:
        return OutputSpec(
            self.problem,
            self._loss(resolved, len(class_names), train_labels),
            {name: _metric(name, self.problem) for name in metrics},
            ignore_label=self.ignored,
        )

    def scores(self, preprocessor: Preprocessor, class_names: Sequence[str]) -> Callable[[PyTree], PyTree]:
        return objective.probabilities(self.problem)

    def thresholds(self, resolved: Settings, scores: Callable[[], np.ndarray], validation: Split) -> float | np.ndarray:
        if resolved.tune_threshold is None:
            return 0.5
        return metrics.tune_threshold(
            scores(),
            validation.labels,
            problem=self.problem,
            metric=resolved.tune_threshold,
            sample_weight=validation.sample_weight,
        )

    def report(self, scores: np.ndarray, part: Split, *, class_names: Sequence[str], thresholds: Any) -> dict[str, Any]:
        return metrics.report(
            scores,
            part.labels,
            problem=self.problem,
            class_names=class_names,
            threshold=thresholds,
            sample_weight=part.sample_weight,
        )

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: np.ndarray,
        parts: Mapping[str, Split],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> dict[str, Any]:
        return summary.summarize(
            report, scores, parts, problem=self.problem, class_names=class_names, thresholds=thresholds
        )

    def write(
        self,
        request: Request,
        queries: Unlabeled,
        scores: Callable[[], np.ndarray],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> str:
        if request.draw is not None:
            raise InputError("--draw shows what was found in images, and this run classifies; leave it out.")
        if request.sample_submission is None:
            columns = predictions.columns(queries.ids, scores(), thresholds, self.problem, class_names)
        else:
            sample, problem = request.sample_submission, self.problem
            form = predictions.read_sample_submission(sample, queries.ids, problem, class_names, source=request.input)
            columns = predictions.submission(form, scores(), problem, class_names)
        # A scorer compares ids; everything else may be opened as a spreadsheet.
        for_scorer = request.sample_submission is not None
        predictions.save(request.output, columns, for_spreadsheets=not for_scorer)
        if for_scorer and any(map(tables.is_formula, [*columns, *queries.ids])):
            request.say(
                "note: some ids or columns begin as a formula does: do not open this submission as a spreadsheet"
            )
        return f"{len(queries.ids):,} predictions"

    def _check_differ(self, name: str, part: Split) -> None:
        """Refuses examples that have nothing to tell apart."""
        # fmin and fmax leave out labels that are not known.
        if not np.any(np.fmin.reduce(part.labels) < np.fmax.reduce(part.labels)):
            what = "the same labels" if self.problem == "multilabel" else f"class {part.labels[0]}"
            raise InputError(
                f"all {len(part.labels):,} {name} examples have {what}; there must be two classes to tell apart. Give "
                "more examples, or another --validation-fraction."
            )

    def _loss(self, resolved: Settings, num_classes: int, train_labels: np.ndarray) -> Callable[..., Any]:
        chosen = settings.select(resolved, LossOptions)
        if resolved.loss == "weighted_crossentropy" and "pos_weight" not in chosen:
            chosen.setdefault("class_weight", "balanced")
        if "class_weight" in chosen:
            chosen["class_weight"] = labels.resolve_class_weight(
                chosen["class_weight"], self.problem, num_classes, labels=train_labels, ignore_label=self.ignored
            ).astype(np.float32)
        if losses.find(resolved.loss, self.problem) is losses.logit_adjusted_cross_entropy:
            chosen["prior"] = np.bincount(train_labels, minlength=num_classes) / len(train_labels)
        options = {"normalizer": "batch", "ignore_label": self.ignored, **chosen}
        return losses.get(resolved.loss, self.problem, **options)


def _metric(name: str, problem: ProblemName) -> Callable[..., float]:
    return metrics.get(name, problem)
