"""The history of a training run."""

from typing import Any


class History(list[dict[str, Any]]):
    """A list with one entry per epoch: 'epoch', 'step', 'loss', 'val_loss', metrics such as 'val_accuracy', 'seconds'.

    >>> History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]).as_dict()
    {'epoch': [1, 2], 'loss': [0.5, 0.25]}
    """

    def as_dict(self) -> dict[str, list[Any]]:
        """Returns Keras's form, a list of values by name."""
        return {name: [entry[name] for entry in self] for name in (self[0] if self else ())}
