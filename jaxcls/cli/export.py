"""Export a finished run as StableHLO, ONNX or safetensors, to use without jaxcls.

Examples:
    jaxcls export --run-dir runs/fashion_mnist-1a2b3c4d --output model
    python model/loader.py --input images.npy --output predicted.csv
    jaxcls export --run-dir runs/fashion_mnist-1a2b3c4d --output model --format onnx
"""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxcls.cli import console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    run_dir: Path
    """folder of the run"""
    output: Path
    """new folder for the exported files and their SHA-256 checksums"""
    format: Literal["stablehlo", "safetensors", "onnx"] = "stablehlo"
    """stablehlo: programs for CPU, CUDA and TPU with a loader that needs only jax; safetensors: the weights; onnx: a
    program for ONNX runtimes (pip install 'jaxcls[onnx]')"""


def run(options: Options) -> None:
    from jaxcls.export import folder
    from jaxcls.tasks import predictor

    folder.check_output(options.output)
    learned = predictor.load(options.run_dir)
    size = folder.export(options.output, learned.exportable(), options.format)
    console.say(f"{learned.origin} as {options.format}, {size:,} bytes, saved in {options.output}")
