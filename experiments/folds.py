"""Five folds of the task csv as one run, on real tables: its time, and the ensemble next to its members.

    python experiments/folds.py --data-dir FOLDER

FOLDER holds the tables of own_tables.py as CSV files. A fifth of the rows is the test; the others are divided into five
folds. The time is that of a whole process, with the compilation cache as the run before left it. Writes folds.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import processes
from own_tables import LEFT_OUT, TABLES

import jaxcls
from jaxcls import metrics
from jaxcls.tasks import build

TABLE = Path(__file__).with_suffix(".md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of the tables")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    arguments = parser.parse_args()
    rows = []
    for table in arguments.tables:
        rows.append(
            f"| {table} | {' | '.join(measured(arguments.data_dir.resolve() / f'{table}.csv', TABLES[table]))} |"
        )
        TABLE.write_text("\n".join([*HEAD, *rows]) + "\n", encoding="utf-8")
        print(rows[-1])


def measured(path: Path, label: str) -> list[str]:
    names = path.open(encoding="utf-8").readline().replace('"', "").strip().split(",")
    left_out = [name for name in names if name in LEFT_OUT]
    words = ["train", "--task", "csv", "--data", str(path), "--label-column", label, "--folds", "5", "--quiet"]
    words += ["--drop-column", *left_out] if left_out else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxcls", *words, "--run-dir", "run"]
        # The first fills the compilation cache.
        cold = processes.run(command, cwd=folder)
        Path(folder, "run").rename(Path(folder, "first"))
        warm = processes.run(command, cwd=folder)
        results = json.loads(Path(folder, "run", "results.json").read_text())
        each = losses_of_members(Path(folder, "run"))
    ensemble = results["metrics"]["log_loss"]
    better = "better" if ensemble < np.mean(each) else "**worse**"
    return [
        f"{warm.seconds:.1f}", f"{warm.processor_seconds:.1f}", f"{cold.seconds:.1f}",
        f"{results['out_of_fold']['metrics']['log_loss']:.4f}", f"{np.mean(each):.4f}",
        f"{min(each):.4f} to {max(each):.4f}", f"{ensemble:.4f}", better,
    ]  # fmt: skip


def losses_of_members(directory: Path) -> list[float]:
    """Returns the log loss of each member on the test examples, which decide nothing."""
    learned = jaxcls.load(directory)
    task, settings = build.resolve(learned.task_settings)
    test = task.load(settings).test
    model: Any = learned.experiment.model
    return [
        metrics.log_loss(
            member.experiment.scores(weights, member.experiment.transform(test.inputs)),
            test.labels,
            problem=learned.problem,
        )
        for member, weights in zip(model.members, model.unstack(learned.weights), strict=True)
    ]


HEAD = [
    "# Five folds of real tables",
    "",
    f"Written by `python experiments/folds.py` on {processes.machine()}. Seconds of a whole process, compilation cache",
    "warm, those of its cores, and cold; log loss of the out-of-fold predictions, and of the test rows: the mean of",
    "the five members, the least and the greatest, and their ensemble.",
    "",
    "| table | seconds | processor seconds | cold | out of fold | members, test | range | ensemble, test | |",
    "|---|---|---|---|---|---|---|---|---|",
]


if __name__ == "__main__":
    main()
