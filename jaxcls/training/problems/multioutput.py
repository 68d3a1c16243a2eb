"""Several outputs: an example has a class of each, and its scores are the probabilities of the classes of all of them.

The outputs stand in the names of the classes, as 'article: Coat' and 'group: tops' say; labels are (N, outputs), the
places of the classes in these names, and a model gives as many logits as there are names. A layer that gives all of
them is a layer for each output, on the features that they share.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls import metrics
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, flag, unknown_name
from jaxcls.data import predictions
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.metrics.by_name import split_output_name
from jaxcls.reports import summary
from jaxcls.training import objective
from jaxcls.training.objective import OutputSpec
from jaxcls.training.problems.base import Request
from jaxcls.training.problems.classification import Classification
from jaxcls.training.settings import Settings

PyTree = Any

_OF_EACH = Classification("multiclass")


@dataclasses.dataclass(frozen=True)
class Multioutput:
    """Several multiclass problems of the same examples, learned by one model from the weighted sum of their losses."""

    def check_settings(self, resolved: Settings) -> None:
        for name in ("box_loss", "tune_threshold"):
            if getattr(resolved, name) is not None:
                raise InputError(f"{flag(name)} says nothing to several outputs of classes; leave it out.")
        if resolved.monitor != "loss":
            _, metric = split_output_name(resolved.monitor)
            metrics.get(metric, "multiclass")

    def check_labels(self, part: Split, class_names: Sequence[str]) -> None:
        outputs = labels.outputs(class_names)
        if part.labels.ndim != 2 or part.labels.shape[1] != len(outputs):
            raise InputError(f"labels {part.labels.shape} must be (N, {len(outputs)}): one for each output.")
        for column, (name, classes) in enumerate(outputs.items()):
            of_output = part.labels[:, column]
            wrong = (of_output < classes.start) | (of_output >= classes.stop)
            if of_output.dtype.kind not in "iu" or wrong.any():
                row = int(wrong.argmax())
                raise InputError(
                    f"labels: row {row}, output {name!r} holds {of_output[row]}; its classes are the integers "
                    f"{classes.start} to {classes.stop - 1}."
                )

    def check_learnable(self, train: Split, validation: Split) -> None:
        for column in range(train.labels.shape[1]):
            _OF_EACH.check_learnable(*(part._replace(labels=part.labels[:, column]) for part in (train, validation)))

    def head(
        self,
        resolved: Settings,
        preprocessor: Preprocessor,
        *,
        class_names: Sequence[str],
        train_labels: np.ndarray,
        metrics: Sequence[str],
    ) -> OutputSpec:
        outputs = labels.outputs(class_names)
        weights = resolved.loss_weights or (1.0,) * len(outputs)
        if len(weights) != len(outputs) or not min(weights) >= 0 < max(weights):
            raise InputError(
                f"--loss-weights is {weights}; give {len(outputs)} numbers for {', '.join(outputs)}, not negative, one "
                "above 0."
            )
        known = _of_each(outputs, train_labels)
        each = {
            name: _OF_EACH.head(
                resolved, preprocessor, class_names=class_names[classes], train_labels=known[name], metrics=()
            )._replace(weight=weight)
            for (name, classes), weight in zip(outputs.items(), weights, strict=True)
        }
        total = objective.total_loss(each)

        def loss(logits: jax.Array, truth: jax.Array, **options: Any) -> jax.Array:
            return total(
                {name: logits[..., classes] for name, classes in outputs.items()},
                _of_each(outputs, truth),
                **{"sample_weight": None, "mask": None, **options},
            )

        return OutputSpec(
            "multioutput",
            loss,
            {name: _metric(name, outputs) for name in metrics},
            scores=self.scores(preprocessor, class_names),
        )

    def scores(self, preprocessor: Preprocessor, class_names: Sequence[str]) -> Callable[[PyTree], PyTree]:
        outputs = labels.outputs(class_names)

        def probabilities(logits: jax.Array) -> jax.Array:
            each = [objective.probabilities("multiclass")(logits[..., classes]) for classes in outputs.values()]
            return jnp.concatenate(each, axis=-1)

        return probabilities

    def thresholds(self, resolved: Settings, scores: Callable[[], PyTree], validation: Split) -> float:
        return 0.5

    def report(self, scores: np.ndarray, part: Split, *, class_names: Sequence[str], thresholds: Any) -> dict[str, Any]:
        """That of each output; its metrics as 'output_metric', its labels by their whole names."""
        outputs = labels.outputs(class_names)
        each = {
            name: _OF_EACH.report(
                scores[:, outputs[name]], own, class_names=class_names[outputs[name]], thresholds=thresholds
            )
            for name, own in _parts(outputs, part).items()
        }
        return {
            "problem": "multioutput",
            "examples": part.num_examples,
            "metrics": _prefixed(each, "metrics"),
            "labels": _together(each, "labels"),
            "undefined_labels": _prefixed(each, "undefined_labels"),
        }

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: np.ndarray,
        parts: Mapping[str, Split],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> dict[str, Any]:
        outputs = labels.outputs(class_names)
        by_role = {role: _parts(outputs, part) for role, part in parts.items()}
        each = {
            name: _OF_EACH.summarize(
                _report_of(name, class_names[classes], report),
                scores[:, classes],
                {role: of_outputs[name] for role, of_outputs in by_role.items()},
                class_names=class_names[classes],
                thresholds=thresholds,
            )
            for name, classes in outputs.items()
        }
        intervals = {name: own["intervals"] for name, own in each.items()}
        mistakes = [{**mistake, "label": name} for name, own in each.items() for mistake in own["mistakes"]]
        return {
            "class_names": [*class_names],
            "intervals": {"metrics": _prefixed(intervals, "metrics"), "labels": _together(intervals, "labels")},
            "confusion": [
                [classes.start + true, classes.start + predicted, weight]
                for name, classes in outputs.items()
                for true, predicted, weight in each[name]["confusion"]
            ],
            "curves": _together(each, "curves"),
            "reliability": _pooled([own["reliability"] for own in each.values()]),
            "mistakes": sorted(mistakes, key=lambda mistake: -mistake["confidence"])[: summary.MOST_MISTAKES],
            "balance": {
                role: {
                    "examples": part.num_examples,
                    "counts": np.bincount(part.labels.ravel(), minlength=len(class_names)).tolist(),
                }
                for role, part in parts.items()
            },
        }

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
        if request.sample_submission is not None:
            raise InputError("--sample-submission is for one output, and this run has several; leave it out.")
        predictions.save(request.output, predictions.multi_output_columns(queries.ids, scores(), class_names))
        return f"{len(queries.ids):,} predictions"


def _of_each(outputs: Mapping[str, slice], truth: Any) -> dict[str, Any]:
    """By output its labels (N,), from 0 on; of labels (N, outputs), of NumPy or JAX."""
    return {name: truth[:, column] - classes.start for column, (name, classes) in enumerate(outputs.items())}


def _parts(outputs: Mapping[str, slice], part: Split) -> dict[str, Split]:
    return {name: part._replace(labels=own) for name, own in _of_each(outputs, part.labels).items()}


def _report_of(output: str, class_names: Sequence[str], report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the report of all outputs the scores of one, as if it were the only one."""
    named = {split_output_name(name): value for name, value in report["metrics"].items()}
    return {
        "metrics": {metric: value for (owner, metric), value in named.items() if owner == output},
        "labels": {name: report["labels"][name] for name in class_names},
    }


def _metric(name: str, outputs: Mapping[str, slice]) -> Callable[..., float]:
    output, metric = split_output_name(name)
    if output not in outputs:
        raise unknown_name("output", output, outputs)
    function, column, classes = metrics.get(metric, "multiclass"), [*outputs].index(output), outputs[output]

    def of_output(scores: np.ndarray, truth: np.ndarray, **rows: Any) -> float:
        return function(scores[:, classes], truth[:, column] - classes.start, **rows)

    return of_output


def _prefixed(each: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, Any]:
    return {f"{name}_{metric}": value for name, own in each.items() for metric, value in own[field].items()}


def _together(each: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, Any]:
    return {label: value for own in each.values() for label, value in own[field].items()}


def _pooled(bins: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, list[float | None]]:
    """The bins of the decisions of all outputs: their weights, and the means of what is in them."""
    weights = np.array([own["weight"] for own in bins], np.float64)
    total = weights.sum(axis=0)
    pooled: dict[str, list[float | None]] = {"weight": total.tolist()}
    for field in ("confidence", "accuracy"):
        # None where a bin of an output is empty.
        sums = np.nansum(weights * np.array([own[field] for own in bins], np.float64), axis=0)
        pooled[field] = [
            round(value / weight, 4) if weight else None for value, weight in zip(sums, total, strict=True)
        ]
    return pooled
