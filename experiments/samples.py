"""Trains every task from its sample: the whole-process time and the test metrics.

    python experiments/samples.py
    python experiments/samples.py --tasks mnist leaf

Writes experiments/samples.md. Expected: each process ends within 90 s on 2 cores, and detection within 10 minutes.
Nothing is cached: the synthetic samples are generated and everything is compiled again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxcls.tasks import TASKS
from jaxcls.tasks.task import Task

TABLE = Path(__file__).with_suffix(".md")


def measure(task: Task) -> tuple[float, dict]:
    """The seconds of the whole process, and its test results."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxcls.train", "--task", task.name, "--source", "sample"]
        began = time.perf_counter()
        subprocess.run(
            [*command, "--run-dir", f"{folder}/run"],
            env=os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds = time.perf_counter() - began
        return seconds, json.loads((Path(folder) / "run" / "results.json").read_text())


def row(task: Task, seconds: float, report: dict) -> str:
    data = "synthetic" if report["synthetic"] else "real"
    scores = ", ".join(f"{name} {report['metrics'][name]:.4f}" for name in task.metrics)
    return f"| `{task.name}` | {task.problem} | {data} | {report['examples']:,} | {scores} | {seconds:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), help="which tasks to train")
    names = parser.parse_args().tasks
    lines = [
        "# Samples",
        "",
        f"Written by `python experiments/samples.py --tasks {' '.join(names)}`, seed 0, {os.cpu_count()} cores.",
        "Scores on the test examples of each sample; those of synthetic samples say nothing about real data.",
        "",
        "| task | problem | sample | test examples | test scores | whole process, nothing cached |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        lines.append(row(TASKS[name], *measure(TASKS[name])))
        print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
