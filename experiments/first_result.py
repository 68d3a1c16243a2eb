"""Seconds from the command to the end of the first epoch, with an empty cache of compiled programs and a full one.

    pip install keras torch
    python experiments/first_result.py
    python experiments/first_result.py --tasks csv leaf --models mlp --work scratch

The first table has every task of jaxcls on its sample or generated data, with its default recipe: until the line of the
first epoch is printed, and until the process ends, with the report. The second one has the models of throughput.py, one
epoch of 1,280 examples, in processes of their own, next to Keras on JAX and PyTorch.
A framework that is not installed is named; --torch-python is another Python that has torch.

Seconds of the processor include those of the C++ compiler, and are what counts on a machine with other load: there, the
seconds of the clock are longer for all.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import processes
from peers import CONTENDERS, workloads

TASKS = (
    "mnist", "fashion_mnist", "fashion_mnist_groups", "csv", "fraud", "leaf", "sentiment", "text_csv", "toxic_comment",
    "disease_tagging", "chest_xray", "image_folder", "detection",
)  # fmt: skip
MODELS = {"mlp": 128, "cnn": 128, "resnet": 128, "transformer": 32}
FRAMEWORKS = ("jaxcls", "jaxcls-pure", "keras-jax", "torch")
EXAMPLES = 1280


class Seconds(NamedTuple):
    """Of the clock and of the processor, until the first epoch ended and until the process ended."""

    epoch: float
    epoch_processor: float
    end: float
    end_processor: float

    def __str__(self) -> str:
        return f"{self.epoch_processor:.1f} ({self.epoch:.1f}) | {self.end_processor:.1f} ({self.end:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=[*TASKS])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=[*MODELS])
    parser.add_argument("--torch-python", default=sys.executable, help="the Python that has torch")
    parser.add_argument("--work", type=Path, help="folder for runs and caches (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="the table to write")
    parser.add_argument("--worker", nargs=2, metavar=("FRAMEWORK", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train_once(*options.worker)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        write(options, Path(scratch))


def write(options: argparse.Namespace, scratch: Path) -> None:
    """Measures, and writes the tables after each row, since all rows take long."""
    arguments = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    lines = [
        "# Time to the first result",
        "",
        f"Written by `python experiments/{arguments}`",
        f"on {processes.machine()}.",
        "Seconds of the processor, with those of the clock in parentheses, until the end of the first epoch and of the",
        "process. Cold: with an empty cache, in which native kernels are compiled too. Warm: the same command again.",
        "",
    ]
    if options.tasks:
        lines += [
            "| task | cold, first epoch | whole process | warm, first epoch | whole process |",
            "|---|---|---|---|---|",
        ]
    for task in options.tasks:
        command = [sys.executable, "-m", "jaxcls", "train", "--task", task, "--source", "sample", "--epochs", "1"]
        cold, warm = twice([*command, "--run-dir", str(scratch / "run")], scratch / task)
        lines.append(f"| {task} | {cold} | {warm} |")
        save(lines, options.out)
    if options.models:
        lines += [
            "",
            f"Training alone, on {EXAMPLES:,} examples:",
            "",
            "| model | framework | cold, first epoch | whole process | warm, first epoch | whole process |",
            "|---|---|---|---|---|---|",
        ]
    for model in options.models:
        for framework in FRAMEWORKS:
            python = options.torch_python if framework == "torch" else sys.executable
            try:
                cold, warm = twice([python, __file__, "--worker", framework, model], scratch / f"{model}-{framework}")
            except subprocess.CalledProcessError as failure:
                lines.append(f"| {model} | {CONTENDERS[framework].title} | {failure} | | | |")
            else:
                lines.append(f"| {model} | {CONTENDERS[framework].title} | {cold} | {warm} |")
            save(lines, options.out)


def save(lines: Sequence[str], out: Path) -> None:
    print(lines[-1], flush=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def twice(command: Sequence[str], cache: Path) -> tuple[Seconds, Seconds]:
    """Runs a command with an empty cache, and again with what it left there."""
    variables = {"XDG_CACHE_HOME": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch")}
    runs = []
    for _ in range(2):
        shutil.rmtree(cache.parent / "run", ignore_errors=True)
        runs.append(measured(command, os.environ | variables))
    return runs[0], runs[1]


def measured(command: Sequence[str], environment: dict[str, str]) -> Seconds:
    """Runs a command that prints a line which starts with 'epoch 1' when its first epoch ends."""
    start, before = time.perf_counter(), os.times()
    epoch = epoch_processor = float("nan")
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1"):
                epoch, epoch_processor = time.perf_counter() - start, processor_seconds(process.pid)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[-2:])
    end, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(epoch, epoch_processor, end, spent)


def processor_seconds(process: int) -> float:
    """Of a running process and of its children that have ended, as Linux counts them."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def train_once(framework: str, model: str) -> None:
    """Trains one epoch, as throughput.py does."""
    if framework.startswith("jaxcls"):
        from jaxcls._utils import environment

        environment.configure()
    # Also of Keras, which else compiles in every process.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["XDG_CACHE_HOME"] + "/jax")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    workload = workloads.load(model, MODELS[model])
    module, function = CONTENDERS[framework].function.split(".")
    parameters, train = getattr(importlib.import_module(f"peers.{module}"), function)(workload)
    train(EXAMPLES, 1, lambda: print("epoch 1", flush=True))
    print(json.dumps(parameters))


if __name__ == "__main__":
    main()
