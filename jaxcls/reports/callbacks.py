"""Callbacks, with which progress bars, loggers and user code follow training."""

from collections.abc import Sequence
from typing import Any


class Callback:
    """Follows training: override the methods that you need.

    Callbacks observe and cannot change the state. An exception that one raises ends training.
    """

    def on_train_begin(self, step: int) -> None:
        """Called before the first step of this process, with the step that training starts or resumes from."""

    def on_chunk_end(self, step: int, loss: float) -> None:
        """Called after each dispatch of up to 32 steps, with the number and the loss of its last step."""

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        """Called after the validation of each epoch, with the entries of all epochs so far."""

    def on_train_end(self, history: Sequence[dict[str, Any]]) -> None:
        """Called once after the last epoch."""
