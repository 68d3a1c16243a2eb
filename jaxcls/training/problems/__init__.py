"""What follows from what the labels of a task are: one file a family of problems, and nothing of it elsewhere."""

from jaxcls._utils.labels import AnyProblemName
from jaxcls.training.problems.base import Problem


def get(problem: AnyProblemName) -> Problem:
    """What follows from a problem.

    >>> get("multiclass")
    Classification(problem='multiclass')
    """
    # Only the family that is asked for is imported.
    if problem == "detection":
        from jaxcls.training.problems.detection import Detection

        return Detection()
    if problem == "multioutput":
        from jaxcls.training.problems.multioutput import Multioutput

        return Multioutput()
    from jaxcls.training.problems.classification import Classification

    return Classification(problem)
