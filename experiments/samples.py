"""Trains every task from its sample: the whole-process time and the test metrics.

    python experiments/samples.py
    python experiments/samples.py --tasks mnist leaf

Writes the rows of these tasks in experiments/samples.md. Expected: each process ends within 90 s on 2 cores, and
detection within 10 minutes. Nothing is cached: the synthetic samples are generated and everything is compiled again.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import processes

from jaxcls.tasks import TASKS
from jaxcls.tasks.task import Task

TABLE = Path(__file__).with_suffix(".md")


def measure(task: Task) -> tuple[float, float, dict]:
    """The seconds of the whole process, its processor seconds, and its test results."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxcls.train", "--task", task.name, "--source", "sample"]
        seconds, spent, _ = processes.run(
            [*command, "--run-dir", f"{folder}/run"],
            capture=True,
            env=os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"},
        )
        return seconds, spent, json.loads((Path(folder) / "run" / "results.json").read_text())


def row(task: Task, seconds: float, spent: float, report: dict) -> str:
    data = "synthetic" if report["synthetic"] else "real"
    scores = ", ".join(f"{name} {report['metrics'][name]:.4f}" for name in task.metrics)
    return (
        f"| `{task.name}` | {task.problem} | {data} | {report['examples']:,} | {scores} | {seconds:.0f} | {spent:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), help="which tasks to train")
    names = parser.parse_args().tasks
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else HEAD
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    for name in names:
        rows[name] = row(TASKS[name], *measure(TASKS[name]))
        print(rows[name], flush=True)
        TABLE.write_text("\n".join([*HEAD, *(rows[task] for task in TASKS if task in rows)]) + "\n", encoding="utf-8")


HEAD = [
    "# Samples",
    "",
    "Written by `python experiments/samples.py`, seed 0, on 2 cores. Scores are those of a sample's test examples,",
    "which say nothing about real data if it is synthetic. Nothing is cached, and seconds are those of the whole",
    "process; rows with processor seconds were measured while other programs ran.",
    "",
    "| task | problem | sample | test examples | test scores | seconds | processor seconds |",
    "|---|---|---|---|---|---|---|",
]


if __name__ == "__main__":
    main()
