"""Counts what was injected, for experiments/faults.py; it writes nothing where nobody counts."""

import json
import os
from pathlib import Path

# Names the file that the counts go to.
VARIABLE = "JAXCLS_TALLY"


def record(kind: str, tried: int, held: int) -> None:
    """Appends a count: of so many faults or bad inputs of this kind, so many ended as they must."""
    if name := os.environ.get(VARIABLE):
        # One write of one line, opened for appending: several processes may count into the same file.
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "tried": tried, "held": held}) + "\n")
