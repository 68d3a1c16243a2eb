"""What follows from the problem that the labels pose, one module per family of problems."""

from collections.abc import Mapping
from typing import Any

from jaxcls.training.problems.base import Problem


def get(problem: str | Mapping[str, Any]) -> Problem:
    """Returns the problem of that name; of a dict of names by output, the problem of all outputs.

    >>> get("multiclass")
    Classification(problem='multiclass')
    """
    # Only the family that is needed is imported.
    if isinstance(problem, Mapping):
        from jaxcls.training.problems.multi_output import MultiOutput

        return MultiOutput({name: get(output) for name, output in problem.items()})
    if problem == "detection":
        from jaxcls.training.problems.detection import Detection

        return Detection()
    from jaxcls.training.problems.classification import Classification

    return Classification(problem)  # type: ignore[arg-type]
