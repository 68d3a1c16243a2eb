r"""Predict new examples with a finished run.

Examples:
    jaxcls predict --run-dir runs/leaf-1a2b3c4d --input test.csv --output predicted.csv
    jaxcls predict --run-dir runs/leaf-1a2b3c4d --input test.csv --output submission.csv \
        --sample-submission sample_submission.csv
    jaxcls predict --run-dir runs/detection-1a2b3c4d --input images --output boxes.json --draw drawn
"""

import dataclasses
import pkgutil
import sys
from pathlib import Path
from typing import Any

from jaxcls._utils.errors import InputError, flag
from jaxcls.cli import console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    run_dir: Path
    """folder of the run"""
    input: Path
    """examples in the format of the task's test examples, without labels; of a run of jaxcls.compile, an .npy or .npz
    file"""
    output: Path
    """CSV file to write: for every example its id, predicted class or labels, and the probability of each class; for a
    detector, a JSON file in the format of COCO results"""
    sample_submission: Path | None = None
    """sample submission of a Kaggle competition: the output takes over its header, ids, columns and their order"""
    model: str | None = None
    """of a run of jaxcls.compile, whose model code is yours: what builds the model, such as my_package.models:build"""
    draw: Path | None = None
    """new folder for the images with the detected boxes drawn on them"""
    overwrite: bool = False
    """replace the output if it exists"""


def run(options: Options) -> None:
    for name in ("input", "sample_submission"):
        path = getattr(options, name)
        if path is not None and path.resolve() == options.output.resolve():
            raise InputError(f"--output {options.output} would replace the {flag(name)}; name another file.")
    console.check_output(options.output, overwrite=options.overwrite)
    from jaxcls.tasks import predictor
    from jaxcls.training import problems
    from jaxcls.training.problems.base import PredictionRequest

    # Portable kernels, so that an export predicts the same.
    learned = predictor.load(options.run_dir, options.model and _imported(options.model), portable=True)
    examples = learned.read(options.input)
    written = problems.get(learned.problem).write(
        PredictionRequest(options.input, options.output, options.sample_submission, options.draw, console.say),
        examples,
        lambda: learned.predict(examples.inputs),
        class_names=learned.class_names,
        thresholds=learned.thresholds,
    )
    console.say(f"{written} by {learned.origin}, saved as {options.output}")


def _imported(name: str) -> Any:
    """Imports 'module:attribute', also from the current folder."""
    sys.path.insert(0, "")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--model {name}: {error}; give module:function, such as my_package.models:build.") from error
