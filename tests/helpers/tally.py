"""Counts injected faults and bad inputs for experiments/faults.py; does nothing where JAXCLS_TALLY is not set."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

# Names the file to which the counts are appended.
VARIABLE = "JAXCLS_TALLY"


def record(case: str, *, tried: int = 0, passed: int = 0, outcome: str = "") -> None:
    """Appends a count. What was tried is recorded before it can fail; what passed, after its assertions.

    Args:
      case: What was done, as "group: case".
      tried: How many attempts begin.
      passed: How many of them ended as they must.
      outcome: Which of several correct outcomes the passed ones had.
    """
    if name := os.environ.get(VARIABLE):
        # One write of one line in append mode: several processes may share the file.
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"case": case, "tried": tried, "passed": passed, "outcome": outcome}) + "\n")


@contextlib.contextmanager
def trial(case: str, count: int = 1) -> Iterator[None]:
    """Counts what runs inside, or the decorated test, as passed only if it raises nothing."""
    record(case, tried=count)
    yield
    record(case, passed=count)
