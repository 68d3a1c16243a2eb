"""What bfloat16 costs of test accuracy on Fashion-MNIST, and of calibration, over seeds.

    python experiments/bfloat16.py
    python experiments/bfloat16.py --models resnet --epochs 1

Each pair of runs is the default recipe of the task with another model and number of epochs, once with --dtype float32
and once with bfloat16: the same seed, and so the same initial weights, order, augmentation and dropout. Differences
are paired by seed, with the 95 % confidence interval of Student's t. Parameters, sums and the optimizer are float32
in both.

Adds its rows to experiments/bfloat16.md.
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
from typing import Any

import numpy as np

TABLE = Path(__file__).with_suffix(".md")
METRICS = ("accuracy", "log_loss")
HEAD = """# What bfloat16 costs

Written by `python experiments/bfloat16.py`: some epochs of the default recipe on the 60,000 images of Fashion-MNIST,
and the official 10,000 test images. Mean over the seeds; the difference is paired by seed, with its 95 % confidence
interval.

| model | epochs | seeds | metric | float32 | bfloat16 | difference | in bfloat16 | machine |
|---|---|---|---|---|---|---|---|---|
"""
# Of the record of a run: what it was computed by.
OPERATIONS = ("convolutions", "products in bfloat16")
# Two-sided 95 % quantiles of Student's t, by the degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cnn", "resnet"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    if not 2 <= len(options.seeds) <= len(STUDENT) + 1:
        parser.error(f"--seeds: give 2 to {len(STUDENT) + 1}; a confidence interval takes differences.")
    for model in options.models:
        exact, rough = (
            [train(model, seed, options.epochs, dtype) for seed in options.seeds] for dtype in ("float32", "bfloat16")
        )
        rows = []
        for metric in METRICS:
            one, other = (np.array([run[metric] for run in runs]) for runs in (exact, rough))
            cells = [model, str(options.epochs), ", ".join(map(str, options.seeds)), metric]
            cells += [f"{one.mean():.4f}", f"{other.mean():.4f}", interval(other - one)]
            by = "; ".join(f"{operation} by {rough[0][operation]}" for operation in OPERATIONS if operation in rough[0])
            cells += [by, f"{os.cpu_count()} cores ({platform.machine()}), jax {version('jax')}"]
            rows.append(f"| {' | '.join(cells)} |\n")
        # After each model, so that what was measured is kept if a later one is interrupted.
        if not TABLE.exists():
            TABLE.write_text(HEAD, encoding="utf-8")
        with TABLE.open("a", encoding="utf-8") as table:
            table.writelines(rows)
        print("".join(rows))


def interval(differences: np.ndarray) -> str:
    """The mean of paired differences and half of its confidence interval."""
    half = STUDENT[len(differences) - 1] * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.4f} ± {half:.4f}"


def train(model: str, seed: int, epochs: int, dtype: str) -> dict[str, Any]:
    """The test metrics of one run of the command, and the record of what it was computed by."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"model": model, "seed": seed, "epochs": epochs, "dtype": dtype, "run-dir": f"{folder}/run"}
        flags = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-m", "jaxcls.train", "--task", "fashion_mnist", *flags], check=True)
        results, environment = (
            json.loads(Path(folder, "run", f"{name}.json").read_text(encoding="utf-8"))
            for name in ("results", "environment")
        )
    if results["examples"] != 10_000:
        raise SystemExit("this experiment needs the real Fashion-MNIST: install Debian's dataset-fashion-mnist")
    print(model, seed, dtype, results["metrics"], flush=True)
    return results["metrics"] | {name: environment[name] for name in OPERATIONS if name in environment}


if __name__ == "__main__":
    main()
