"""jaxcls predict: what a finished run says of new examples, as a CSV file; of a detector, as JSON.

jaxcls predict --run-dir runs/leaf-1a2b3c4d --input test.csv --output predicted.csv
jaxcls predict --run-dir runs/leaf-1a2b3c4d --input test.csv --output submission.csv \\
    --sample-submission sample_submission.csv
jaxcls predict --run-dir runs/detection-1a2b3c4d --input images --output found.json --draw pictures
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError, flag
from jaxcls.cli import console
from jaxcls.training.settings import Maybe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predict new examples with what a finished run learned."""

    run_dir: Path
    """The directory of the run, as training named it."""
    input: Path
    """The examples, in the form of the task's test examples; labels are not needed."""
    output: Path
    """The CSV file to write: for each example its id, what is predicted, and the probability of each class. Of a
    detector, a JSON file in the format of COCO's results."""
    sample_submission: Maybe[Path | None] = None
    """Kaggle's sample submission: the output gets its header, its ids and its columns, in its order."""
    draw: Maybe[Path | None] = None
    """Of a detector, a new folder for each image with the boxes that were found."""
    overwrite: bool = False
    """Replace the output if it is there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return console.exit_status(lambda: _run(tyro.cli(Prediction, args=arguments, prog="jaxcls predict")))


def _run(asked: Prediction) -> int:
    _check_output(asked)
    # From here on jax is needed, and --help is answered.
    environment.configure()
    from jaxcls.export import predictor
    from jaxcls.training import problems
    from jaxcls.training.problems.base import Request

    # So that what is exported predicts the same.
    learned = predictor.load(asked.run_dir, portable=True)
    queries = learned.task.read(asked.input, learned.settings)
    written = problems.get(learned.task.problem).write(
        Request(asked.input, asked.output, asked.sample_submission, asked.draw, console.say),
        queries,
        lambda: learned.scores(queries.inputs),
        class_names=learned.class_names,
        thresholds=learned.thresholds,
    )
    synthetic = ", learned from SYNTHETIC examples" if learned.data["synthetic"] else ""
    console.say(f"{written} of {learned.task.name}{synthetic}, kept in {asked.output}")
    return 0


def _check_output(asked: Prediction) -> None:
    """Refuses what cannot be written, before there is anything to lose."""
    if asked.output.is_dir() or not asked.output.absolute().parent.is_dir():
        raise InputError(f"--output {asked.output}: give the name of a file, in a folder that is there.")
    for name in ("input", "sample_submission"):
        path = getattr(asked, name)
        if path is not None and path.resolve() == asked.output.resolve():
            raise InputError(f"--output {asked.output} would replace the {flag(name)}; name another file.")
    if asked.output.exists() and not asked.overwrite:
        raise InputError(f"--output {asked.output} is there already; name another file, or give --overwrite.")
