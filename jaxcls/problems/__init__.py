"""What follows from what the labels of a task are: one file a family of problems, and nothing of it elsewhere."""

from jaxcls.labels import AnyProblem
from jaxcls.problems.kind import Kind


def get(problem: AnyProblem) -> Kind:
    """What follows from a problem.

    >>> get("multiclass")
    Classification(problem='multiclass')
    """
    # Only the family that is asked for is imported.
    if problem == "detection":
        from jaxcls.problems.detection import Detection

        return Detection()
    if problem == "multioutput":
        from jaxcls.problems.multioutput import Multioutput

        return Multioutput()
    from jaxcls.problems.classification import Classification

    return Classification(problem)
