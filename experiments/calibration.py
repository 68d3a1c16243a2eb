"""Calibration and conformal sets on real data: before and after, by --calibrate temperature and vector.

    python experiments/calibration.py --fashion-mnist FOLDER --data-dir FOLDER

The first FOLDER holds the files of Fashion-MNIST (Debian's package dataset-fashion-mnist), the second
pneumoniamnist.npz and the tables of own_tables.py as CSV files. Each model is trained once for each seed, uncalibrated,
and the same run is then calibrated by both methods, on its validation examples or, with folds, on its out-of-fold
predictions. Nothing is chosen by the test examples. Expected: on Fashion-MNIST, the calibration error is at least
halved by a temperature at equal accuracy, and sets of 90 % cover 0.90 +- 0.01 of the 10,000 test images. Every result
is added to results.jsonl in --work: the same command continues where it was stopped. Writes calibration.md.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import processes

from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.tasks.train import train_task

TABLE = Path(__file__).with_suffix(".md")
METHODS = ("temperature", "vector")
FASHION = ["--task", "fashion_mnist", "--data-dir", "{fashion}", "--validation-fraction", "0.15", "--model", "mlp"]
CSV = ["--task", "csv", "--folds", "5", "--label-column"]
# Name -> words of the command; {fashion} and {data} are the folders.
RUNS = {
    "Fashion-MNIST, MLP": [*FASHION, "--epochs", "5", "--batch-size", "512"],
    "Fashion-MNIST, MLP without label smoothing": [
        *FASHION, "--epochs", "20", "--label-smoothing", "0", "--dropout", "0",
    ],
    "sentiment, the sample": ["--task", "sentiment", "--source", "sample", "--validation-fraction", "0.2"],
    "PneumoniaMNIST": ["--task", "chest_xray", "--data-dir", "{data}", "--validation-fraction", "0.2"],
    "lending_club, 5 folds": [*CSV, "Class", "--data", "{data}/lending_club.csv"],
    "credit_data, 5 folds": [*CSV, "Status", "--data", "{data}/credit_data.csv", "--drop-column", "rownames"],
    "leaf_flavia, 5 folds": [*CSV, "species", "--data", "{data}/leaf_flavia.csv"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion-mnist", type=Path, required=True, help="the folder of Fashion-MNIST's files")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of pneumoniamnist.npz and the tables")
    parser.add_argument("--work", type=Path, default=Path("calibration-work"), help="a folder for runs and results")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    log = options.work / "results.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for name in options.runs:
        for seed in options.seeds:
            if any((one["name"], one["seed"]) == (name, seed) for one in results):
                continue
            words = [
                word.format(fashion=options.fashion_mnist, data=options.data_dir)
                for word in [*RUNS[name], "--seed", str(seed)]
            ]
            results.append({"name": name, "seed": seed} | measured(words, options.work / f"run{len(results)}"))
            with log.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
        write(results)


def measured(words: list[str], directory: Path) -> dict[str, Any]:
    """Trains a run, and calibrates it by each method."""
    words = [*words, "--run-dir", str(directory), "--quiet"]
    plain = train_task(parse(Train, words)).report["metrics"]
    record: dict[str, Any] = {"plain": _saved(plain)}
    for method in METHODS:
        report = train_task(parse(Train, [*words, "--calibrate", method])).report
        record[method] = _saved(report["metrics"]) | {"sets": report["calibration"]["sets"]}
        record |= {"examples": report["examples"], "fitted_on": report["calibration"]["examples"]}
    return record


def _saved(metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("accuracy", "ece", "log_loss")}


def write(results: list[dict[str, Any]]) -> None:
    rows, sets = [], []
    for name in dict.fromkeys(one["name"] for one in results):
        runs = [one for one in results if one["name"] == name]
        cells = [name, f"{runs[0]['fitted_on']:,}", f"{runs[0]['examples']:,}"]
        for value in ("accuracy", "ece", "log_loss"):
            means = [statistics.mean(one[kind][value] for one in runs) for kind in ("plain", *METHODS)]
            cells += [f"{mean:.4f}" for mean in means]
        rows.append(f"| {' | '.join(cells)} |")
        for kind, by_class in (("lac", False), ("lac", True), ("aps", False)):
            at_90 = [
                row
                for one in runs
                for row in one["temperature"]["sets"]
                if (row["method"], row["by_class"], row["stated"]) == (kind, by_class, 0.9)
            ]
            each = ", ".join(f"{row['coverage']:.4f}" for row in at_90)
            means = [
                f"{statistics.mean(row[part] for row in at_90):.3f}"
                for part in ("coverage", "worst_class", "mean_size", "empty")
            ]
            method = f"{kind.upper()}{', by class' if by_class else ''}"
            sets.append(f"| {name} | {method} | {each} | {' | '.join(means)} |")
    TABLE.write_text("\n".join([HEAD.format(machine=processes.machine()), *rows, SETS, *sets, END]), encoding="utf-8")


HEAD = """# Calibration and conformal sets

Written by `python experiments/calibration.py` on {machine}; `RUNS` in it has the command of each line. Means over seeds
0, 1 and 2, which decide the split of the validation examples (of a table also the test rows) as well as the weights.
Fitted on: validation examples, or of five folds the out-of-fold predictions.

| run | fitted on | tested on | accuracy | temperature | vector | calibration error | temperature | vector | \
log loss | temperature | vector |
|---|---|---|---|---|---|---|---|---|---|---|---|"""
SETS = """
## Conformal sets of 90 %

Of the runs that are calibrated by a temperature, on the same examples. The coverage of each seed, and means of the
coverage, of its least value of a class, of the number of classes in a set, and of the share of empty sets.

| run | sets | coverage of each seed | mean | least of a class | size | empty |
|---|---|---|---|---|---|---|"""
END = """
The calibration error is that of 15 bins, which is never 0 for few examples: of 600 perfectly calibrated predictions it
is about 0.02 to 0.03.
"""

if __name__ == "__main__":
    main()
