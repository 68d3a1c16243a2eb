"""jaxcls export: what a finished run learned, as a folder that needs no jaxcls.

jaxcls export --run-dir runs/fashion_mnist-1a2b3c4d --output model
python model/loader.py --input images.npy --output predicted.csv
jaxcls export --run-dir runs/fashion_mnist-1a2b3c4d --output model --format onnx
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxcls._utils import environment
from jaxcls.cli import console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write what a finished run learned as a folder, with the SHA-256 of every file."""

    run_dir: Path
    """The directory of the run, as training named it."""
    output: Path
    """The folder to write, which must not be there."""
    format: Literal["stablehlo", "safetensors", "onnx"] = "stablehlo"
    """stablehlo: programs for CPU, CUDA and TPU with a loader that runs them with jax alone. safetensors: the weights.
    onnx: a program for ONNX runtimes (pip install 'jaxcls[onnx]')."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return console.exit_status(lambda: _run(tyro.cli(Export, args=arguments, prog="jaxcls export")))


def _run(asked: Export) -> int:
    # From here on jax is needed, and --help is answered.
    environment.configure()
    from jaxcls.export import folder, predictor

    folder.check_free(asked.output)
    learned = predictor.load(asked.run_dir)
    # Each format has packages of its own.
    match asked.format:
        case "stablehlo":
            from jaxcls.export import stablehlo

            files = stablehlo.files(learned)
        case "safetensors":
            from jaxcls.export import safetensors

            files = safetensors.files(learned)
        case "onnx":
            from jaxcls.export import onnx

            files = onnx.files(learned)
    folder.write(asked.output, files)
    synthetic = ", learned from SYNTHETIC examples" if learned.data["synthetic"] else ""
    size = sum(map(len, files.values()))
    console.say(f"{learned.task.name} as {asked.format}{synthetic}, {size:,} bytes, kept in {asked.output}")
    return 0
