"""What follows from the problem that the labels pose: the interface, several outputs, and a module per family."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from jaxcls._utils.errors import InputError, error_context, flag, unknown_name
from jaxcls.data import predictions
from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.training.objective import Objective
from jaxcls.training.settings import Settings

PyTree = Any
Record = dict[str, Any]


class Request(NamedTuple):
    """What ``jaxcls predict`` is asked to write.

    Attributes:
      input: the file or folder of the examples, for messages.
      output: the file to write.
      sample_submission: Kaggle's sample submission to fill in, or None.
      draw: a new folder for pictures of the detections, or None.
      say: takes lines for the user.
      sets: scores -> the conformal sets of the examples, by output if there are several; None without --coverage.
      coverage: of the sets.
    """

    input: Path
    output: Path
    sample_submission: Path | None = None
    draw: Path | None = None
    say: Callable[[str], None] = print
    sets: Callable[[PyTree], PyTree] | None = None
    coverage: float | None = None

    @property
    def set_column(self) -> str:
        """The name of the column of sets."""
        return f"set_{self.coverage}"


class Problem(Protocol):
    """A problem. Labels, outputs and scores are arrays of N examples, or trees of them.

    Scores are what metrics take, such as probabilities. JSON values are returned as a record.

    Attributes:
      scores: ``outputs -> scores`` of a batch; None stands for the probabilities of the problem.
    """

    scores: ClassVar[Any] = None

    def check_settings(self, settings: Settings) -> None:
        """Refuses settings that do not fit the problem, before the data is read."""

    def check_labels(self, split: Split) -> None:
        """Refuses invalid labels, on the host, where the row can be named."""

    def check_learnable(self, train: Split, validation: Split) -> None:
        """Refuses examples that nothing can be learned from, or chosen by."""

    def objective(self, settings: Settings, train_labels: PyTree, metrics: Sequence[str]) -> Objective:
        """Returns the loss of the settings and the named metrics."""

    def report(self, scores: PyTree, split: Split, thresholds: Any) -> Record:
        """Returns every metric that fits, in the form of :func:`jaxcls.metrics.report`."""

    def summarize(self, report: Record, scores: PyTree, splits: Mapping[str, Split], thresholds: Any) -> Record:
        """Returns what the HTML report shows of the test besides the metrics.

        Args:
          scores: of the test examples.
          splits: 'train', 'validation' and 'test'.
        """

    def write(self, request: Request, examples: Unlabeled, scores: Callable[[], PyTree], thresholds: Any) -> str:
        """Writes predictions, all of them or nothing, and returns what was written, such as '12 predictions'.

        Args:
          scores: returns the scores of the examples; called after everything else was checked.
        """


def get(problem: str | Mapping[str, Any], class_names: Any = None) -> Problem:
    """Returns the problem of that name; of a dict of names by output, the problem of all outputs.

    Args:
      class_names: a tuple, or a dict of tuples by output; only the settings can be checked without them.

    >>> get("multiclass", ("cat", "dog"))
    Classification(problem='multiclass', class_names=('cat', 'dog'))
    """
    if isinstance(problem, Mapping):
        return MultiOutput({name: get(output, (class_names or {}).get(name)) for name, output in problem.items()})
    # Only the family that is needed is imported.
    if problem == "detection":
        from jaxcls.training.problems.detection import Detection

        return Detection(class_names)
    from jaxcls.training.problems.classification import Classification

    return Classification(problem, class_names)  # type: ignore[arg-type]


def default_thresholds(problem: str | Mapping[str, Any]) -> Any:
    """Returns the decision threshold without tuning, of several outputs a dict."""
    return dict.fromkeys(problem, 0.5) if isinstance(problem, Mapping) else 0.5


@dataclasses.dataclass(frozen=True)
class MultiOutput(Problem):
    """Problems of the same examples, learned by one model that minimizes the weighted sum of their losses.

    Labels, scores and thresholds are dicts by output.
    """

    outputs: Mapping[str, Problem]

    def check_settings(self, settings: Settings) -> None:
        for name in ("box_loss", "tune_threshold"):
            if getattr(settings, name) is not None:
                raise InputError(f"{flag(name)} is not for several outputs; leave it out.")
        weights = settings.loss_weights
        if weights is not None and (len(weights) != len(self.outputs) or not min(weights) >= 0 < max(weights)):
            raise InputError(
                f"--loss-weights is {weights}; give {len(self.outputs)} numbers for {', '.join(self.outputs)}, not "
                "negative and one above 0."
            )
        monitored = {name: _output_metrics([settings.monitor], name) for name in self.outputs}
        for name, problem in self.outputs.items():
            [metric] = monitored[name] or ["loss"]
            problem.check_settings(dataclasses.replace(settings, loss_weights=None, monitor=metric))
        if settings.monitor != "loss" and not any(monitored.values()):
            raise unknown_name("output in --monitor", settings.monitor, [f"{name}_accuracy" for name in self.outputs])

    def check_labels(self, split: Split) -> None:
        for name, problem in self.outputs.items():
            with error_context(f"output {name!r}"):
                problem.check_labels(_of(split, name))

    def check_learnable(self, train: Split, validation: Split) -> None:
        for name, problem in self.outputs.items():
            with error_context(f"output {name!r}"):
                problem.check_learnable(_of(train, name), _of(validation, name))

    def objective(self, settings: Settings, train_labels: PyTree, metrics: Sequence[str]) -> Objective:
        weights = settings.loss_weights or (1.0,) * len(self.outputs)
        specs = {}
        for (name, problem), weight in zip(self.outputs.items(), weights, strict=True):
            spec: Any = problem.objective(settings, train_labels[name], _output_metrics(metrics, name))
            specs[name] = spec._replace(weight=weight)
        return specs

    def report(self, scores: PyTree, split: Split, thresholds: Any) -> Record:
        """Returns the report of each output in 'outputs', and all metrics as 'output_metric' in 'metrics'."""
        reports = {
            name: problem.report(scores[name], _of(split, name), thresholds[name])
            for name, problem in self.outputs.items()
        }
        metrics = {
            f"{name}_{metric}": value for name, report in reports.items() for metric, value in report["metrics"].items()
        }
        return {"problem": "multioutput", "examples": split.num_examples, "metrics": metrics, "outputs": reports}

    def summarize(self, report: Record, scores: PyTree, splits: Mapping[str, Split], thresholds: Any) -> Record:
        summaries = {}
        for name, problem in self.outputs.items():
            output_splits = {role: _of(split, name) for role, split in splits.items()}
            summaries[name] = problem.summarize(report["outputs"][name], scores[name], output_splits, thresholds[name])
        return {"outputs": summaries}

    def write(self, request: Request, examples: Unlabeled, scores: Callable[[], PyTree], thresholds: Any) -> str:
        for name in ("draw", "sample_submission"):
            if getattr(request, name) is not None:
                raise InputError(f"{flag(name)} is not for several outputs; leave it out.")
        columns: dict[str, np.ndarray] = {"id": examples.ids}
        probabilities: dict[str, np.ndarray] = {}
        all_scores = scores()
        sets = None if request.sets is None else request.sets(all_scores)
        for name, output in self.outputs.items():
            classification: Any = output
            one = predictions.columns(
                examples.ids,
                all_scores[name],
                thresholds[name],
                classification.problem,
                classification.class_names,
                None if sets is None else {request.set_column: sets[name]},
            )
            del one["id"]
            columns[name] = one.pop("predicted")
            probabilities |= {f"{name}_{column}": values for column, values in one.items()}
        predictions.save(request.output, columns | probabilities, request.say)
        return f"{len(examples.ids):,} predictions"


def _output_metrics(names: Sequence[str], output: str) -> list[str]:
    """Returns ['accuracy'] for ['article_accuracy', 'group_accuracy'] and the output 'article'."""
    return [name.removeprefix(f"{output}_") for name in names if name.startswith(f"{output}_")]


def _of(split: Split, output: str) -> Split:
    weight: Any = split.sample_weight
    return split._replace(
        labels=split.labels[output], sample_weight=weight[output] if isinstance(weight, Mapping) else weight
    )
