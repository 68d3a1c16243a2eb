"""Test accuracy and whole-process time of the recipes for Fashion-MNIST, over seeds.

    python experiments/fashion_mnist.py --preset default --seeds 0 1 2

Expected: the default recipe reaches at least 0.930 (mean of three seeds) in less than 5 minutes on 2 cores. Each run is
the README's command in a separate process, on the official 60,000 and 10,000 images; the test images decide nothing.
Adds its rows to experiments/fashion_mnist.md. For the other presets see experiments/time_to_accuracy.py.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

TABLE = Path(__file__).with_suffix(".md")
HEAD = """# Fashion-MNIST

Written by `python experiments/fashion_mnist.py` on the official test images. Times are of
the whole process: start, data, compilation, training, validation, test.

| preset | seeds | test accuracy | mean | seconds | machine |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    accuracies, seconds = zip(*(train(options.preset, seed) for seed in options.seeds), strict=True)
    row = (
        f"| {options.preset} | {', '.join(map(str, options.seeds))} | {', '.join(f'{a:.4f}' for a in accuracies)} "
        f"| {statistics.mean(accuracies):.4f} | {', '.join(f'{s:.0f}' for s in seconds)} "
        f"| {os.cpu_count()} cores ({platform.machine()}), jax {version('jax')} |\n"
    )
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else HEAD
    TABLE.write_text(text + row, encoding="utf-8")
    print(row)


def train(preset: str, seed: int) -> tuple[float, float]:
    """Test accuracy and seconds of one run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxcls.train", "--task", "fashion_mnist", "--preset", preset]
        began = time.perf_counter()
        subprocess.run([*command, "--seed", str(seed), "--run-dir", f"{folder}/run"], check=True)
        seconds = time.perf_counter() - began
        report = json.loads(Path(folder, "run", "results.json").read_text(encoding="utf-8"))
    if report["examples"] != 10_000:
        raise SystemExit("this experiment needs the real Fashion-MNIST: install Debian's dataset-fashion-mnist")
    return report["metrics"]["accuracy"], seconds


if __name__ == "__main__":
    main()
