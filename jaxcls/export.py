"""python -m jaxcls.export: what a finished run learned, as a folder that needs no jaxcls.

python -m jaxcls.export --run-dir runs/fashion_mnist-1a2b3c4d --output model
python model/loader.py --input images.npy --output predicted.csv
python -m jaxcls.export --run-dir runs/fashion_mnist-1a2b3c4d --output model --format onnx
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxcls import environment, terminal


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
    return terminal.exit_status(lambda: _run(tyro.cli(Export, args=arguments, prog="python -m jaxcls.export")))


def _run(asked: Export) -> int:
    # From here on jax is needed, and --help is answered.
    environment.prepare()
    from jaxcls import predictor
    from jaxcls.artifact import folder

    folder.check_free(asked.output)
    learned = predictor.load(asked.run_dir)
    # Each format has packages of its own.
    match asked.format:
        case "stablehlo":
            from jaxcls.artifact import stablehlo

            files = stablehlo.files(learned)
        case "safetensors":
            from jaxcls.artifact import weights

            files = weights.files(learned)
        case "onnx":
            from jaxcls.artifact import onnx

            files = onnx.files(learned)
    folder.write(asked.output, files)
    synthetic = ", learned from SYNTHETIC examples" if learned.data["synthetic"] else ""
    size = sum(map(len, files.values()))
    terminal.say(f"{learned.task.name} as {asked.format}{synthetic}, {size:,} bytes, kept in {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
