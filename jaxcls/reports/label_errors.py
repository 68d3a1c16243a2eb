"""Probable label errors as a file and for the report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls import metrics
from jaxcls._utils.labels import ProblemName
from jaxcls.data import predictions
from jaxcls.metrics import LabelErrors
from jaxcls.reports.summary import MOST_MISTAKES, example


class Named(NamedTuple):
    """Probable label errors with the names of their classes.

    Attributes:
      errors: of the scored examples.
      labels: the number of labels that were examined.
      names: of the labels of a multilabel problem, else None for each; of the current and of the suggested class.
    """

    errors: LabelErrors
    labels: int
    names: list[tuple[str | None, str, str]]


def find(scores: np.ndarray, labels: np.ndarray, problem: ProblemName, class_names: Sequence[str]) -> Named:
    """Finds the probable label errors among examples that were scored by models that have not seen them."""
    errors = metrics.find_label_errors(scores, labels, problem=problem)
    classes = ("no", "yes") if problem == "multilabel" else class_names
    names = [
        (class_names[column] if problem == "multilabel" else None, classes[current], classes[suggested])
        for column, current, suggested in zip(errors.columns, errors.current, errors.suggested, strict=True)
    ]
    return Named(errors, int(np.isfinite(labels).sum()), names)


def save(path: Path, named: Named, rows: np.ndarray, say: Callable[[str], None]) -> None:
    """Writes all as a CSV file, the most probable first, and says how many there are.

    Args:
      rows: of the scored examples among all training examples.
    """
    errors, count = named.errors, len(named.names)
    labels, current, suggested = (np.array([name[part] for name in named.names], object) for part in range(3))
    columns = {
        "row": rows[errors.rows].astype(str).astype(object),
        **({"label": labels} if count and labels[0] is not None else {}),
        "current": current,
        "suggested": suggested,
        "probability_current": errors.current_probability,
        "probability_suggested": errors.suggested_probability,
    }
    predictions.save(path, columns, say)
    say(f"{count:,} of {named.labels:,} training labels are probably wrong; they are listed in {path}")


def summary(named: Named, rows: np.ndarray, inputs: Any) -> dict[str, Any]:
    """Returns what the report shows: the most probable ones with their examples.

    Args:
      rows: of the scored examples among all training examples.
      inputs: of all training examples.
    """
    errors, first = named.errors, slice(MOST_MISTAKES)
    parts = rows[errors.rows[first]], named.names[first], errors.current_probability[first]
    listed = [
        {
            "row": int(row),
            "label": label,
            "current": current,
            "suggested": suggested,
            "current_probability": float(low),
            "suggested_probability": float(high),
            "example": example(inputs, int(row)),
        }
        for row, (label, current, suggested), low, high in zip(*parts, errors.suggested_probability[first], strict=True)
    ]
    return {"labels": named.labels, "errors": len(named.names), "listed": listed}
