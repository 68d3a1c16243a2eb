"""What a program asks of a problem."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxcls.data.dataset import Split, Unlabeled
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.training.objective import OutputSpec
from jaxcls.training.settings import Settings

PyTree = Any


class Request(NamedTuple):
    """What `predict` was asked to write, beside the predictions.

    Attributes:
      input: what the examples were read from, for messages.
      output: the file to write.
      sample_submission: Kaggle's form to fill in, or None.
      draw: the folder for pictures of what was found, or None.
      say: takes a line that the user should know beside.
    """

    input: Path
    output: Path
    sample_submission: Path | None = None
    draw: Path | None = None
    say: Callable[[str], None] = print


class Problem(Protocol):
    """A problem. Labels, outputs and scores are arrays or trees of them, of N examples each; scores are what metrics
    take, such as probabilities."""

    def check_settings(self, resolved: Settings) -> None:
        """Refuses settings that do not fit the problem, before the data is read."""

    def check_labels(self, part: Split, class_names: Sequence[str]) -> None:
        """Refuses labels that are not what the problem says, on the host, where the row can be named."""

    def check_learnable(self, train: Split, validation: Split) -> None:
        """Refuses examples that there is nothing to learn from, or to choose by."""

    def head(
        self,
        resolved: Settings,
        preprocessor: Preprocessor,
        *,
        class_names: Sequence[str],
        train_labels: PyTree,
        metrics: Sequence[str],
    ) -> OutputSpec:
        """The loss and the metrics of the names that are given, and how scores follow from outputs."""

    def scores(self, preprocessor: Preprocessor, class_names: Sequence[str]) -> Callable[[PyTree], PyTree]:
        """How the scores follow from the outputs of a batch, as in the head."""

    def thresholds(self, resolved: Settings, scores: Callable[[], PyTree], validation: Split) -> Any:
        """Where a score becomes a decision: one or several numbers, chosen by validation examples.

        Args:
          scores: gives those of the validation examples, where they are needed.
        """

    def report(self, scores: PyTree, part: Split, *, class_names: Sequence[str], thresholds: Any) -> dict[str, Any]:
        """Every metric that fits, as a dict that JSON can hold, of the form of :func:`jaxcls.metrics.report`."""

    def summarize(
        self,
        report: Mapping[str, Any],
        scores: PyTree,
        parts: Mapping[str, Split],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> dict[str, Any]:
        """What a page shows of the test beside its report, as plain JSON values.

        Args:
          scores: of the test examples.
          parts: 'train', 'validation' and 'test'.
        """

    def write(
        self,
        request: Request,
        queries: Unlabeled,
        scores: Callable[[], PyTree],
        *,
        class_names: Sequence[str],
        thresholds: Any,
    ) -> str:
        """Writes predictions, all of them or nothing, and gives what is to be said of it, such as '12 predictions'.

        Args:
          scores: gives those of the queries; asked when everything else is known to be right.
        """
