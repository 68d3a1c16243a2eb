"""Counts injected faults and bad inputs, and how many of them ended as they must.

    pip install '.[test]'
    python experiments/faults.py

Runs tests/faults and tests/hostile with their long tests and writes experiments/faults.md: about an hour on two cores.
To run the suite in several steps and write the table at the end:

    JAXCLS_TALLY=counts pytest -m '' tests/faults/test_stops.py
    python experiments/faults.py --counts counts

Each killed run is killed up to eleven times: at random moments, or at events that are visible from outside (a
checkpoint is being written, an old one is being deleted, the history is ahead of the checkpoint), and sometimes with
an empty compilation cache, so that it is killed while it compiles. Its result is compared with that of an uninterrupted
run: the scores, the hash of the parameters, the history, and every bit of the last state, the best state and the tested
weights. A flipped bit may have no effect where nothing is read; what is restored must equal a saved state bit for bit.

A case is counted as tried before it runs and as passed after its assertions, so a failure shows. Expected: everything
that was tried passed. The exit status is 1 otherwise.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

TABLE = Path(__file__).with_suffix(".md")
TESTS = Path(__file__).parents[1] / "tests"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, nargs="+", help="files with counts; the suite is not run")
    parser.add_argument("--note", default="", help="a remark about these counts for the table")
    options = parser.parse_args()
    files, status = options.counts, 0
    with tempfile.TemporaryDirectory() as folder:
        if files is None:
            files = [Path(folder, "counts")]
            folders = [str(TESTS / name) for name in ("faults", "hostile")]
            status = subprocess.run(
                [sys.executable, "-m", "pytest", "-n", "2", "-q", "-m", "", *folders],
                env={**os.environ, "JAXCLS_TALLY": str(files[0])},
                cwd=TESTS.parent,
            ).returncode
        cases = counted(files)
    note = options.note
    if status:
        note = f"{note} pytest ended with status {status}: a test failed or did not run.".strip()
    text = table(cases, note)
    print(text)
    TABLE.write_text(text, encoding="utf-8")
    return int(bool(status) or any(case.passed != case.tried for case in cases.values()))


@dataclasses.dataclass
class Case:
    """The counts of one case, and of the passed attempts by outcome where several outcomes are correct."""

    tried: int = 0
    passed: int = 0
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)


def counted(files: list[Path]) -> dict[str, Case]:
    """Adds up the counts that `tests/helpers/tally.py` wrote, by case."""
    cases: dict[str, Case] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            case = cases.setdefault(entry["case"], Case())
            case.tried += entry["tried"]
            case.passed += entry["passed"]
            if entry["outcome"]:
                case.outcomes[entry["outcome"]] += entry["passed"]
    return cases


def table(cases: dict[str, Case], note: str = "") -> str:
    """A Markdown table with a section and a sum for each group, the text before the colon of a case."""
    groups: dict[str, dict[str, Case]] = {}
    for name, case in sorted(cases.items()):
        group, _, rest = name.partition(": ")
        groups.setdefault(group if rest else "faults", {})[rest or name] = case
    explanation = (
        f"Written by `python experiments/faults.py`. Python {platform.python_version()}, jax {version('jax')}, "
        f"{platform.machine()}, {os.cpu_count()} cores. How often each case was tried, and how often it passed."
    )
    lines = ["# Faults", "", explanation, *(["", note] if note else [])]
    for group, members in groups.items():
        tried, passed = (sum(getattr(case, name) for case in members.values()) for name in ("tried", "passed"))
        lines += ["", f"## {group}: {passed:,} of {tried:,}", "", "| case | tried | passed |", "|---|---|---|"]
        for name, case in members.items():
            outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(case.outcomes.items()))
            lines.append(f"| {name}{outcomes and f' ({outcomes})'} | {case.tried:,} | {case.passed:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
