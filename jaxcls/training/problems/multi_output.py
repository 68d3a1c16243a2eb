"""Several outputs of one model: labels, scores, class names and thresholds are dicts by output."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError, error_context, flag, unknown_name
from jaxcls.data import predictions
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems.base import PredictionRequest, Problem
from jaxcls.training.settings import Settings

PyTree = Any
_Names = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class MultiOutput:
    """Problems of the same examples, learned by one model that minimizes the weighted sum of their losses."""

    outputs: Mapping[str, Problem]

    @property
    def scores(self) -> None:
        return None

    def check_settings(self, settings: Settings) -> None:
        for name in ("box_loss", "tune_threshold"):
            if getattr(settings, name) is not None:
                raise InputError(f"{flag(name)} is not for several outputs; leave it out.")
        weights = settings.loss_weights
        if weights is not None and (len(weights) != len(self.outputs) or not min(weights) >= 0 < max(weights)):
            raise InputError(
                f"--loss-weights is {weights}; give {len(self.outputs)} numbers for {', '.join(self.outputs)}, not "
                "negative and one above 0."
            )
        shared = dataclasses.replace(settings, loss_weights=None)
        for name, problem in self.outputs.items():
            metric = self.split_metric(settings.monitor, name) or "loss"
            problem.check_settings(dataclasses.replace(shared, monitor=metric))
        if settings.monitor != "loss" and not any(self.split_metric(settings.monitor, name) for name in self.outputs):
            raise unknown_name("output in --monitor", settings.monitor, [f"{name}_accuracy" for name in self.outputs])

    def check_labels(self, split: Split, class_names: _Names) -> None:
        for name, problem in self.outputs.items():
            with error_context(f"output {name!r}"):
                problem.check_labels(_of(split, name), class_names[name])

    def check_learnable(self, train: Split, validation: Split) -> None:
        for name, problem in self.outputs.items():
            with error_context(f"output {name!r}"):
                problem.check_learnable(_of(train, name), _of(validation, name))

    def objective(
        self, settings: Settings, *, class_names: _Names, train_labels: PyTree, metrics: Sequence[str]
    ) -> dict[str, OutputSpec]:
        weights = settings.loss_weights or (1.0,) * len(self.outputs)
        specs = {}
        for (name, problem), weight in zip(self.outputs.items(), weights, strict=True):
            spec: Any = problem.objective(
                settings,
                class_names=class_names[name],
                train_labels=train_labels[name],
                metrics=[metric for full in metrics if (metric := self.split_metric(full, name))],
            )
            specs[name] = spec._replace(weight=weight)
        return specs

    def thresholds(self, metric: str | None, scores: Callable[[], PyTree], validation: Split) -> dict[str, Any]:
        def output_scores(name: str) -> Callable[[], PyTree]:
            return lambda: scores()[name]

        return {
            name: problem.thresholds(metric, output_scores(name), _of(validation, name))
            for name, problem in self.outputs.items()
        }

    def report(self, scores: PyTree, split: Split, *, class_names: _Names, thresholds: Any) -> dict[str, Any]:
        """Returns the report of each output in 'outputs', and all metrics as 'output_metric' in 'metrics'."""
        reports = {
            name: problem.report(
                scores[name], _of(split, name), class_names=class_names[name], thresholds=thresholds[name]
            )
            for name, problem in self.outputs.items()
        }
        metrics = {
            f"{name}_{metric}": value for name, report in reports.items() for metric, value in report["metrics"].items()
        }
        return {"problem": "multioutput", "examples": split.num_examples, "metrics": metrics, "outputs": reports}

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: PyTree,
        splits: Mapping[str, Split],
        *,
        class_names: _Names,
        thresholds: Any,
    ) -> dict[str, Any]:
        return {
            "outputs": {
                name: problem.summarize(
                    report["outputs"][name],
                    scores[name],
                    {role: _of(split, name) for role, split in splits.items()},
                    class_names=class_names[name],
                    thresholds=thresholds[name],
                )
                for name, problem in self.outputs.items()
            }
        }

    def write(
        self,
        request: PredictionRequest,
        examples: Unlabeled,
        scores: Callable[[], PyTree],
        *,
        class_names: _Names,
        thresholds: Any,
    ) -> str:
        for name in ("draw", "sample_submission"):
            if getattr(request, name) is not None:
                raise InputError(f"{flag(name)} is not for several outputs; leave it out.")
        columns: dict[str, np.ndarray] = {"id": examples.ids}
        probabilities: dict[str, np.ndarray] = {}
        all_scores = scores()
        for name, output in self.outputs.items():
            problem: Any = output
            one = predictions.columns(
                examples.ids, all_scores[name], thresholds[name], problem.problem, class_names[name]
            )
            columns[name] = one.pop("predicted")
            probabilities |= {f"{name}_{column}": values for column, values in one.items() if column != "id"}
        predictions.save(request.output, columns | probabilities)
        return f"{len(examples.ids):,} predictions"

    @staticmethod
    def split_metric(name: str, output: str) -> str | None:
        """Returns 'accuracy' for 'article_accuracy' of the output 'article', else None."""
        return name.removeprefix(f"{output}_") if name.startswith(f"{output}_") else None


def _of(split: Split, output: str) -> Split:
    weight: Any = split.sample_weight
    return split._replace(
        labels=split.labels[output], sample_weight=weight[output] if isinstance(weight, Mapping) else weight
    )
