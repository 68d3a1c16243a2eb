"""The interface of a problem."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.training.objective import Objective
from jaxcls.training.settings import Settings

PyTree = Any


class PredictionRequest(NamedTuple):
    """What ``jaxcls predict`` is asked to write.

    Attributes:
      input: the file or folder of the examples, for messages.
      output: the file to write.
      sample_submission: Kaggle's sample submission to fill in, or None.
      draw: a new folder for pictures of the detections, or None.
      say: takes lines for the user.
    """

    input: Path
    output: Path
    sample_submission: Path | None = None
    draw: Path | None = None
    say: Callable[[str], None] = print


class Problem(Protocol):
    """A problem. Labels, outputs and scores are arrays of N examples, or trees of them.

    ``class_names`` are a tuple, or a dict of tuples by output. Scores are what metrics take, such as probabilities.

    Attributes:
      scores: ``outputs -> scores`` of a batch; None stands for the probabilities of the problem.
    """

    @property
    def scores(self) -> Callable[[PyTree], PyTree] | None: ...

    def check_settings(self, settings: Settings) -> None:
        """Refuses settings that do not fit the problem, before the data is read."""

    def check_labels(self, split: Split, class_names: Any) -> None:
        """Refuses invalid labels, on the host, where the row can be named."""

    def check_learnable(self, train: Split, validation: Split) -> None:
        """Refuses examples that nothing can be learned from, or chosen by."""

    def objective(
        self, settings: Settings, *, class_names: Any, train_labels: PyTree, metrics: Sequence[str]
    ) -> Objective:
        """Returns the loss of the settings and the named metrics."""

    def thresholds(self, metric: str | None, scores: Callable[[], PyTree], validation: Split) -> Any:
        """Returns the decision thresholds, tuned on validation examples if a metric is given.

        Args:
          scores: returns the validation scores; called only if they are needed.
        """

    def report(self, scores: PyTree, split: Split, *, class_names: Any, thresholds: Any) -> dict[str, Any]:
        """Returns every metric that fits, as JSON values in the form of :func:`jaxcls.metrics.report`."""

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: PyTree,
        splits: Mapping[str, Split],
        *,
        class_names: Any,
        thresholds: Any,
    ) -> dict[str, Any]:
        """Returns what the HTML report shows of the test besides the metrics, as JSON values.

        Args:
          scores: of the test examples.
          splits: 'train', 'validation' and 'test'.
        """

    def write(
        self,
        request: PredictionRequest,
        examples: Unlabeled,
        scores: Callable[[], PyTree],
        *,
        class_names: Any,
        thresholds: Any,
    ) -> str:
        """Writes predictions, all of them or nothing, and returns what was written, such as '12 predictions'.

        Args:
          scores: returns the scores of the examples; called after everything else was checked.
        """
