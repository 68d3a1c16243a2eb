"""The task csv next to boosted trees and logistic regression, on real tables, in 5-fold cross-validation.

    python experiments/own_tables.py --data-dir FOLDER --peers-python PYTHON --out experiments/own_tables.md

FOLDER holds the tables of TABLES as CSV files, from R's packages modeldata, ISLR and carData; PYTHON has lightgbm,
xgboost, catboost, scikit-learn and pandas. Every contender has its default settings and the same folds, stratified with
seed 0, and is a process of its own that reads one CSV file for training and one for the test; its time is that of the
whole process. Columns of row names, and `case` of cells, which divides it, are left out.

The recipe of csv is chosen on a fifth of the training rows of a fold, never on the test rows. Every result is added
to results.jsonl in --work at once: the same command continues where it was stopped, and the table shows what there
is.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import processes
from peers.tables import PEERS
from sklearn.model_selection import StratifiedKFold

TABLES = {
    "attrition": "Attrition", "caravan": "Purchase", "cells": "class", "churn": "churn", "credit_data": "Status",
    "default": "default", "leaf_flavia": "species", "lending_club": "Class", "titanic": "survived",
}  # fmt: skip
LEFT_OUT = {"rownames", "case"}
FOLDS = 5
CONTENDERS = ["jaxcls", *PEERS]


def write_folds(data: Path, table: str, folder: Path) -> None:
    """Writes FOLD/train.csv and FOLD/test.csv."""
    with (data / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = [index for index, name in enumerate(header) if name not in LEFT_OUT]
    cells = np.array(rows, object)[:, columns]
    names = [header[index] for index in columns]
    labels = cells[:, names.index(TABLES[table])].astype(str)
    for fold, parts in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(cells, labels)):
        (folder / str(fold)).mkdir(parents=True, exist_ok=True)
        for name, chosen in zip(("train", "test"), parts, strict=True):
            with (folder / str(fold) / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([names, *cells[chosen].tolist()])


def run(contender: str, folder: Path, label: str, python: str) -> dict[str, float]:
    """Trains and tests in a new process; returns its log loss, its seconds and its seconds of computing."""
    train, test = str(folder / "train.csv"), str(folder / "test.csv")
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        if contender == "jaxcls":
            words = ["train", "--task", "csv", "--data", train, "--test-data", test, "--label-column", label]
            command = [sys.executable, "-m", "jaxcls", *words, "--run-dir", str(run_dir), "--quiet"]
        else:
            command = [python, str(Path(__file__).parent / "peers" / "tables.py"), contender, train, test, label]
        seconds, cpu, output = processes.run(command, capture=True)
        scores = (
            json.loads((run_dir / "results.json").read_text())["metrics"]
            if contender == "jaxcls"
            else json.loads(output)
        )
    return {"log_loss": scores["log_loss"], "seconds": seconds, "cpu": cpu}


def table_of(results: dict[tuple[str, str, int], dict[str, float]]) -> list[str]:
    """The means over the folds that all contenders have, and the mean rank over the tables."""
    contenders = [name for name in CONTENDERS if any(key[1] == name for key in results)]
    rows, ranks, seconds = [], [], []
    for table in TABLES:
        folds = [fold for fold in range(FOLDS) if all((table, name, fold) in results for name in contenders)]
        if not folds:
            continue
        runs = [[results[table, name, fold] for fold in folds] for name in contenders]
        losses = [float(np.mean([run["log_loss"] for run in of_one])) for of_one in runs]
        seconds.append([float(np.median([run["cpu"] for run in of_one])) for of_one in runs])
        ranks.append([1 + sum(other < loss for other in losses) for loss in losses])
        best = min(losses)
        shown = (f"**{loss:.4f}**" if loss == best else f"{loss:.4f}" for loss in losses)
        rows.append(f"| {table} | {len(folds)} | {' | '.join(shown)} |")
    return [
        f"| table | folds | {' | '.join(contenders)} |",
        "|---|---" + "|---" * len(contenders) + "|",
        *rows,
        f"| mean rank | | {' | '.join(f'{rank:.2f}' for rank in np.mean(ranks, axis=0))} |",
        f"| CPU seconds, median | | {' | '.join(f'{value:.1f}' for value in np.median(seconds, axis=0))} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of the tables")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python with the other libraries")
    parser.add_argument("--work", type=Path, default=Path("runs/own_tables"), help="for the folds and results.jsonl")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    log = options.work / "results.jsonl"
    results: dict[tuple[str, str, int], Any] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        record = json.loads(line)
        results[record["table"], record["contender"], record["fold"]] = record
    for table in options.tables:
        write_folds(options.data_dir, table, options.work / table)
    for fold in options.folds:
        for table in options.tables:
            for contender in options.contenders:
                if (table, contender, fold) not in results:
                    record = {"table": table, "contender": contender, "fold": fold}
                    record |= run(contender, options.work / table / str(fold), TABLES[table], options.peers_python)
                    results[table, contender, fold] = record
                    with log.open("a") as file:
                        file.write(json.dumps(record) + "\n")
    text = "\n".join(["Mean log loss of the test rows, the best of a table in bold.", "", *table_of(results)]) + "\n"
    print(text)
    if options.out:
        options.out.write_text(f"# The task csv next to boosted trees\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
