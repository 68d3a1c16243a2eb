"""Score a finished run on one split of its data, or on other data.

Examples:
    jaxcls evaluate --run-dir runs/fashion_mnist-1a2b3c4d
    jaxcls evaluate --run-dir runs/fashion_mnist-1a2b3c4d --split validation
    jaxcls evaluate --run-dir runs/csv-1a2b3c4d --test-data new.csv
"""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.training.settings import UNSET, DataSource, Settings, select


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(DataSource):
    run_dir: Path
    """folder of the run"""
    split: Literal["test", "validation", "train"] = "test"
    """the split to score; validation examples decided the best epoch and the thresholds"""
    source: Literal["auto", "files", "tfds", "sample"] = UNSET
    """where to read a public data set from, as in training; data that is not given is that of the run"""


def run(options: Options) -> None:
    import jax

    from jaxcls.reports import run_directory
    from jaxcls.tasks import build, predictor
    from jaxcls.training import problems
    from jaxcls.training.saving import plain_thresholds

    learned = predictor.load(options.run_dir)
    task, settings = build.resolve(_with_data(learned.task_settings, options))
    dataset, splits = build.load(task, settings, say=console.say)
    if (task.problem, dataset.class_names) != (learned.problem, learned.class_names):
        here, there = (", ".join(jax.tree.leaves(names)) for names in (dataset.class_names, learned.class_names))
        raise InputError(
            f"{dataset.provenance.location} is a {task.problem} problem of {here}, but the run in {options.run_dir} "
            f"learned a {learned.problem} one of {there}; give data of the same classes."
        )
    before, now = learned.data["sha256"], dataset.provenance.sha256
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        console.say(
            f"note: this is not the data of the run, from {learned.data['location']}: {', '.join(differing)} differ"
        )
    split = getattr(splits, options.split)
    result = problems.get(task.problem).report(
        learned.predict(split.inputs), split, class_names=dataset.class_names, thresholds=learned.thresholds
    ) | {
        "split": options.split,
        "thresholds": plain_thresholds(learned.thresholds),
        "synthetic": dataset.provenance.synthetic,
        "data": dataclasses.asdict(dataset.provenance),
    }
    console.say(console.table(result, options.split))
    console.say(f"saved as {run_directory.write_evaluation(options.run_dir, options.split, result)}")


def _with_data(settings: Settings, options: Options) -> Settings:
    """The settings of the run with the data of the options."""
    replaced = select(options, DataSource)
    if "data_dir" in replaced or "source" in replaced:
        replaced = {"source": "auto", "data_dir": None, **replaced}
    if "data" in replaced:
        replaced = {"test_data": None, **replaced}
    return dataclasses.replace(settings, **replaced)
