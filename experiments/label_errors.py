"""How many of the labels that a run with folds calls probably wrong were in fact changed.

    python experiments/label_errors.py
    python experiments/label_errors.py --share 0.05 --seeds 0 1 2

A share of the training labels of the samples of Fashion-MNIST and of leaves is replaced by another class, drawn at
random; models of five folds then predict every example, and `label_errors.csv` is compared with what was changed. The
examples that are wrong in the published data count as false alarms. Writes label_errors.md.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import processes

from jaxcls import tasks
from jaxcls.data.dataset import Dataset
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

TABLE = Path(__file__).with_suffix(".md")
# The settings that are not those of the preset: few minutes of computing.
RUNS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"source": "sample", "model": "cnn", "epochs": 5},
    "leaf": {"source": "sample"},
}


def changed_rows(labels: np.ndarray, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels with a share of them changed, and the changed rows."""
    random = np.random.default_rng(seed)
    rows = random.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[rows] = (labels[rows] + random.integers(1, classes, len(rows))) % classes
    return changed, rows


def measure(name: str, share: float, seed: int) -> list[str]:
    original = tasks.TASKS[name]
    rows = np.zeros(0, int)
    count = 0

    def load(settings: Settings) -> Dataset:
        nonlocal rows, count
        dataset = original.load(settings)
        labels, rows = changed_rows(np.asarray(dataset.train.labels), len(dataset.class_names), share, seed)
        count = len(labels)
        return dataset._replace(train=dataset.train._replace(labels=labels))

    tasks.TASKS[name] = dataclasses.replace(original, load=load)
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(task=name, folds=5, seed=seed, quiet=True, run_dir=Path(folder) / "run", **RUNS[name])
            result = train_task(settings, say=lambda line: None)
            lines = (result.directory / "label_errors.csv").read_text().splitlines()
            listed = np.array([int(line.split(",")[0]) for line in lines[1:]])
    finally:
        tasks.TASKS[name] = original
    most = round(share * count)
    top = np.isin(listed[:most], rows)
    accuracy = result.report["out_of_fold"]["metrics"]["accuracy"]
    return [
        name, str(seed), f"{count:,}", f"{accuracy:.3f}", f"{len(listed):,}", f"{top.sum() / most:.3f}",
        f"{np.isin(rows, listed).mean():.3f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=RUNS, default=[*RUNS])
    arguments = parser.parse_args()
    lines = [HEAD.format(share=arguments.share, machine=processes.machine())]
    for name in arguments.tasks:
        for seed in arguments.seeds:
            lines.append(f"| {' | '.join(measure(name, arguments.share, seed))} |")
            print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


HEAD = """# Label errors that are found

Written by `python experiments/label_errors.py`, whose help tells what it does, on {machine}. {share:.0%} of the labels
were changed, at random. Precision is that of as many of the first in the list as were changed; recall is the share of
those that were changed which the list has at all.

| sample | seed | labels | out-of-fold accuracy | listed | precision of the first | recall of the list |
|---|---|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
