"""The same run on one device, on several, and in two processes: how far its losses and its results differ.

    python experiments/distributed.py

Each task trains two epochs of its sample with every arrangement below, from the same seed. Shown is the largest
relative difference of the losses of all epochs, and of the metrics of the test, from those of one process with one
device: sums are added in another order, and nothing else may differ. A last run is trained for one epoch by two
processes; copies of it are then continued to the second epoch on 1, 4 and 8 devices. Devices are simulated, processes
meet on loopback. Writes distributed.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from processes import machine

TABLE = Path(__file__).with_suffix(".md")
TASKS = {
    "fashion_mnist": "--task fashion_mnist --source sample --model mlp",
    "csv": "--task csv --source sample",
    "sentiment": "--task sentiment --source sample --max-examples 2000",
}


class Arrangement(NamedTuple):
    """Processes, the devices of each, and the mesh of all."""

    processes: int = 1
    devices: int = 1
    mesh: str = ""

    def __str__(self) -> str:
        words = f"{self.processes} process{'es' if self.processes > 1 else ''}, {self.devices} device"
        return words + ("s" if self.devices > 1 else "") + (" each" if self.processes > 1 else "") + (
            f", `--mesh {self.mesh}`" if self.mesh else ""
        )  # fmt: skip


ALONE = Arrangement()
ARRANGEMENTS = [
    Arrangement(1, 2), Arrangement(2, 1), Arrangement(1, 4, "data=2,fsdp=2"), Arrangement(2, 2, "data=2,fsdp=2"),
]  # fmt: skip
CONTINUED = [Arrangement(1, 1), Arrangement(1, 4), Arrangement(1, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["fashion_mnist", "csv"])
    options = parser.parse_args()
    lines = [HEAD.format(machine=machine())]
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            alone = train(task, Path(folder, task), ALONE)
            for number, arrangement in enumerate(ARRANGEMENTS):
                result = train(task, Path(folder, f"{task}-{number}"), arrangement)
                lines.append(row(task, str(arrangement), result, alone))
                print(lines[-1], flush=True)
            begun = Path(folder, f"{task}-begun")
            train(task, begun, Arrangement(2, 1), epochs=1)
            for arrangement in CONTINUED:
                there = Path(shutil.copytree(begun, Path(folder, f"{task}-on-{arrangement.devices}")))
                result = train(task, there, arrangement)
                lines.append(row(task, f"2 processes, then {arrangement}", result, alone))
                print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(task: str, run: Path, arrangement: Arrangement, epochs: int = 2) -> dict[str, Any]:
    """Trains, and returns the losses and the results."""
    words = [
        "train",
        *TASKS[task].split(),
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--epochs",
        str(epochs),
        "--run-dir",
        str(run),
        "--quiet",
    ]
    if arrangement.mesh:
        words += ["--mesh", arrangement.mesh]
    if arrangement.processes > 1:
        words = ["launch", "--processes", str(arrangement.processes), "--", *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(arrangement.devices)}
    subprocess.run([sys.executable, "-m", "jaxcls", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((run / "results.json").read_text())
    losses = {f"{one['epoch']} {name}": one[name] for one in history for name in ("loss", "val_loss") if name in one}
    return {"losses": losses, "metrics": results["metrics"], "sha256": results["params_sha256"]}


def row(task: str, arrangement: str, result: dict[str, Any], alone: dict[str, Any]) -> str:
    """Returns a line of the table."""
    losses, metrics = (most_different(result[name], alone[name]) for name in ("losses", "metrics"))
    return f"| {task} | {arrangement} | {losses:.1e} | {metrics:.1e} | {result['sha256'][:8]} |"


def most_different(values: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest relative difference of numbers of the same names."""
    assert values.keys() == expected.keys(), (values, expected)
    numbers = [name for name, value in expected.items() if isinstance(value, float)]
    return max(abs(values[name] - expected[name]) / max(abs(expected[name]), 1e-9) for name in numbers)


HEAD = """# One run, however many processes and devices

Written by `python experiments/distributed.py`, whose help tells what is compared, on {machine}.

| task | arrangement | losses differ by | metrics of the test by | SHA-256 of the parameters |
|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
