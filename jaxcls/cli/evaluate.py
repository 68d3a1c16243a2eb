"""jaxcls evaluate: judges a finished run by the examples of one split.

jaxcls evaluate --run-dir runs/fashion_mnist-1a2b3c4d
jaxcls evaluate --run-dir runs/fashion_mnist-1a2b3c4d --split validation
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.training.settings import Maybe, Settings

if TYPE_CHECKING:
    from jaxcls.data.dataset import Dataset
    from jaxcls.export.predictor import Predictor
    from jaxcls.tasks.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Judge what a finished run learned. The data is that of the run, unless other data is given."""

    run_dir: Path
    """The directory of the run, as training named it."""
    split: Literal["test", "validation", "train"] = "test"
    """Whose examples: those of validation have chosen the epoch and the thresholds, those of train were learned."""
    source: Maybe[Literal["auto", "files", "tfds", "sample"] | None] = None
    """Where the data comes from, as in training."""
    data_dir: Maybe[Path | None] = None
    """The folder that holds the data's own files."""
    data: Maybe[Path | None] = None
    """Your own data: a CSV file, or a folder with a folder of images for each class. Its test part, or what is set
    aside of it, is the test split unless --test-data is given."""
    test_data: Maybe[Path | None] = None
    """Your own test examples, in the same form."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    return console.exit_status(lambda: _run(tyro.cli(Evaluation, args=arguments, prog="jaxcls evaluate")))


def _run(asked: Evaluation) -> int:
    # From here on jax is needed, and --help is answered.
    environment.configure()
    from jaxcls.data.dataset import describe
    from jaxcls.export import predictor
    from jaxcls.reports import run_directory
    from jaxcls.training import problems, program

    learned = predictor.load(asked.run_dir)
    settings = _with_data(learned.settings, asked)
    task = program.specialise(settings)
    dataset = task.load(settings)
    console.say(describe(dataset))
    _compare(asked, learned, task, dataset)
    part = getattr(program.split(task, settings, dataset), asked.split)
    result = problems.get(task.problem).report(
        learned.scores(part.inputs), part, class_names=dataset.class_names, thresholds=learned.thresholds
    )
    result |= {
        "split": asked.split,
        "thresholds": learned.thresholds if isinstance(learned.thresholds, float) else learned.thresholds.tolist(),
        "synthetic": dataset.provenance.synthetic,
        "data": dataclasses.asdict(dataset.provenance),
    }
    console.say(console.table(result, asked.split))
    console.say(f"kept in {run_directory.write_evaluation(asked.run_dir, asked.split, result)}")
    return 0


def _with_data(settings: Settings, asked: Evaluation) -> Settings:
    """The settings of the run, but the data is that which was asked for."""
    given = {name: getattr(asked, name) for name in ("source", "data_dir", "data", "test_data")}
    given = {name: value for name, value in given.items() if value is not None}
    if "data_dir" in given or "source" in given:
        given = {"source": "auto", "data_dir": None, **given}
    if "data" in given:
        given = {"test_data": None, **given}
    return dataclasses.replace(settings, **given)


def _compare(asked: Evaluation, learned: "Predictor", task: "Task", dataset: "Dataset") -> None:
    """Refuses data of other classes than those that were learned, and says where data is not that of the run."""
    if (task.problem, tuple(dataset.class_names)) != (learned.task.problem, learned.class_names):
        raise InputError(
            f"{dataset.provenance.location} is a {task.problem} problem of {', '.join(dataset.class_names)}, but the "
            f"run in {asked.run_dir} learned a {learned.task.problem} one of {', '.join(learned.class_names)}; give "
            "data of the same classes."
        )
    before, now = learned.data["sha256"], dataset.provenance.sha256
    others = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if others:
        console.say(
            f"note: this is not the data of the run, from {learned.data['location']}: {', '.join(others)} differ"
        )
