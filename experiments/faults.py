"""What is done to jaxcls by its fault suite, and how it ends.

    pip install '.[test]'
    python experiments/faults.py

Runs tests/faults and tests/hostile, the long part too, and writes experiments/faults.md. It takes about an hour on two
cores. In parts, with a table of what was counted at the end:

    JAXCLS_TALLY=counts pytest -m '' tests/faults/test_stops.py
    python experiments/faults.py --counts counts

Each run that is killed is killed eleven times, at random moments or at those seen from outside (a checkpoint is being
written, an old one deleted, the history is ahead of the checkpoint), now and then with an empty cache, so that it is
killed while it compiles. Its end is compared with that of a run that nothing stopped: the scores, the hash of the
parameters, the history, and every bit of the last state, of the best one and of the weights that were tested. A flipped
bit may stand where nothing is read from; what is restored must be, to the bit, a state that was saved.

To expect: everything that was tried held.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

TABLE = Path(__file__).with_suffix(".md")
TESTS = Path(__file__).parents[1] / "tests"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, nargs="+", help="what was counted before, in place of running the suite")
    parser.add_argument("--note", default="", help="what has to be known of these counts")
    options = parser.parse_args()
    files, status = options.counts, 0
    with tempfile.TemporaryDirectory() as folder:
        if files is None:
            files = [Path(folder, "counts")]
            folders = [str(TESTS / name) for name in ("faults", "hostile") if (TESTS / name).is_dir()]
            status = subprocess.run(
                [sys.executable, "-m", "pytest", "-n", "2", "-q", "-m", "", *folders],
                env={**os.environ, "JAXCLS_TALLY": str(files[0])},
                cwd=TESTS.parent,
            ).returncode
        text = table(counted(files), options.note)
    print(text)
    TABLE.write_text(text, encoding="utf-8")
    return status


def counted(files: list[Path]) -> dict[str, tuple[int, int]]:
    """By kind, how often it was tried and how often it held."""
    sums: dict[str, tuple[int, int]] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            tried, held = sums.get(entry["kind"], (0, 0))
            sums[entry["kind"]] = tried + entry["tried"], held + entry["held"]
    return sums


def table(sums: dict[str, tuple[int, int]], note: str = "") -> str:
    """The table, with what belongs together by its first words under one heading, and its sum."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    for kind, numbers in sorted(sums.items()):
        group, _, rest = kind.partition(": ")
        groups.setdefault(group if rest else "faults", {})[rest or kind] = numbers
    explanation = (
        f"Written by `python experiments/faults.py`. Python {platform.python_version()}, jax {version('jax')}, "
        f"{platform.machine()}, {os.cpu_count()} cores. What was done, how often, and how often it ended as it must."
    )
    lines = ["# Faults", "", explanation, *(["", note] if note else [])]
    for group, kinds in groups.items():
        tried, held = (sum(column) for column in zip(*kinds.values(), strict=True))
        lines += ["", f"## {group}: {held:,} of {tried:,}", "", "| what | tried | held |", "|---|---|---|"]
        lines += [f"| {kind} | {one:,} | {other:,} |" for kind, (one, other) in kinds.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
