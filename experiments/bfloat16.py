"""The test accuracy and log loss of bfloat16 against float32 on Fashion-MNIST, over seeds.

    python experiments/bfloat16.py
    python experiments/bfloat16.py --models resnet --epochs 1

Each pair of runs has the default recipe of the task with the given model and number of epochs, once with --dtype
float32 and once with --dtype bfloat16. Both have the same seed, and so the same initial weights, order, augmentation
and dropout. Differences are paired by seed, with the 95 % confidence interval of Student's t. Parameters, sums and
the optimizer are float32 in both.

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
import paired

TABLE = Path(__file__).with_suffix(".md")
METRICS = ("accuracy", "log_loss")
HEAD = """# bfloat16 against float32

Written by `python experiments/bfloat16.py`: a few epochs of the default recipe on the 60,000 images of Fashion-MNIST,
scored on the official 10,000 test images. Means over the seeds; the difference is paired by seed, with its 95 %
confidence interval.

| model | epochs | seeds | metric | float32 | bfloat16 | difference | in bfloat16 | machine |
|---|---|---|---|---|---|---|---|---|
"""
# Fields of environment.json that name the implementation of an operation.
OPERATIONS = ("convolutions", "products in bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cnn", "resnet"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    paired.check_seeds(parser, options.seeds)
    for model in options.models:
        single, half = (
            [train(model, seed, options.epochs, dtype) for seed in options.seeds] for dtype in ("float32", "bfloat16")
        )
        rows = []
        for metric in METRICS:
            one, other = (np.array([run[metric] for run in runs]) for runs in (single, half))
            cells = [model, str(options.epochs), ", ".join(map(str, options.seeds)), metric]
            cells += [f"{one.mean():.4f}", f"{other.mean():.4f}", interval(other - one)]
            by = "; ".join(f"{operation} by {half[0][operation]}" for operation in OPERATIONS if operation in half[0])
            cells += [by, f"{os.cpu_count()} cores ({platform.machine()}), jax {version('jax')}"]
            rows.append(f"| {' | '.join(cells)} |\n")
        # After each model, so that an interruption loses nothing.
        if not TABLE.exists():
            TABLE.write_text(HEAD, encoding="utf-8")
        with TABLE.open("a", encoding="utf-8") as table:
            table.writelines(rows)
        print("".join(rows))


def interval(differences: np.ndarray) -> str:
    """The mean of paired differences and half the width of its confidence interval."""
    return f"{differences.mean():+.4f} ± {paired.half_width(differences):.4f}"


def train(model: str, seed: int, epochs: int, dtype: str) -> dict[str, Any]:
    """The test metrics of one run of the command, and the implementations that it used."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"model": model, "seed": seed, "epochs": epochs, "dtype": dtype, "run-dir": f"{folder}/run"}
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
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
