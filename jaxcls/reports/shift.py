"""How examples differ from those of the training: for the report of a run, and where new ones are predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcls.data import descriptions
from jaxcls.metrics import shift
from jaxcls.metrics.shift import Shift

PyTree = Any
_MOST_NAMED = 3


def reference(inputs: PyTree, preprocessor: Any = None) -> dict[str, Any]:
    """Returns the record of the training inputs, with which others are compared; it has no scores yet."""
    columns = descriptions.columns(inputs, descriptions.sampled_rows(inputs), preprocessor)
    return {"inputs": shift.reference(columns), "scores": {}}


def compare(
    record: Mapping[str, Any],
    inputs: PyTree,
    scores: PyTree,
    problem: Any,
    class_names: Any = None,
    preprocessor: Any = None,
) -> list[Shift]:
    """Returns how examples differ from a :func:`reference`, in their inputs and in their scores."""
    rows = descriptions.sampled_rows(inputs)
    columns = descriptions.columns(inputs, rows, preprocessor) if record["inputs"] else {}
    of_scores = shift.score_columns(scores, problem, class_names) if record["scores"] else {}
    # Together, since p values are corrected for their number.
    prefix = "prediction: "
    before = record["inputs"] | {prefix + name: column for name, column in record["scores"].items()}
    return shift.compare(before, columns | {prefix + name: values for name, values in of_scores.items()})


def line(shifts: Sequence[Shift]) -> str | None:
    """Returns a sentence about large differences, or None."""
    large = [f"{one.column} ({one.before} before, {one.now} now)" for one in shifts if one.is_large]
    if not large:
        return None
    more = f" and {len(large) - _MOST_NAMED} more" if len(large) > _MOST_NAMED else ""
    return f"the examples differ from those of the training: {', '.join(large[:_MOST_NAMED])}{more}"


def summary(shifts: Sequence[Shift]) -> list[dict[str, Any]]:
    """Returns what the report shows."""
    return [one._asdict() | {"difference": round(one.difference, 4), "large": one.is_large} for one in shifts]
