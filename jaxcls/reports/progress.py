"""How a run is shown while it goes: a bar in a terminal, plain lines elsewhere."""

import sys
from collections.abc import Sequence
from typing import Any, Self, TextIO

from tqdm import tqdm

from jaxcls.reports.callbacks import Callback


class ProgressBar(Callback):
    """Shows the loss, the rate and the time left, and a line for each epoch.

    Args:
      total: the steps of the whole run, those that an earlier process has made among them.
      epochs: of the whole run.
      batch_size: for the rate in examples a second.
      out: where the bar goes, if that is a terminal: by default standard error. The lines go to standard output.
    """

    def __init__(self, total: int, *, epochs: int, batch_size: int, out: TextIO | None = None):
        # Not as a default, which would be what standard error was when this file was imported.
        out = sys.stderr if out is None else out
        self._epochs = epochs
        self._bar = tqdm(
            total=total * batch_size,
            unit=" examples",
            unit_scale=True,
            file=out,
            disable=not out.isatty(),
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}, {rate_fmt}{postfix}",
        )
        self._batch_size = batch_size
        self._started = False

    def on_chunk_end(self, step: int, loss: float) -> None:
        bar, done = self._bar, step * self._batch_size
        bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        if self._started:
            bar.update(done - bar.n)
            return
        # What an earlier process did counts for the bar and not for the rate, nor does the first dispatch, which
        # compiles. Without last_print_n, tqdm's moving average would take it all for the work of this moment.
        bar.initial = bar.n = bar.last_print_n = done
        bar.unpause()
        bar.refresh()
        self._started = True

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        entry = history[-1]
        values = "  ".join(
            f"{name} {value:.4f}"
            for name, value in entry.items()
            if value is not None and (name == "loss" or name.startswith("val_"))
        )
        skipped = f"  {entry['skipped_steps']} steps skipped" if entry["skipped_steps"] else ""
        self._bar.write(  # to standard output, with the bar out of its way
            f"epoch {entry['epoch']:{len(str(self._epochs))}}/{self._epochs}  {values}{skipped}  "
            f"{entry['seconds']:.1f} s, {entry['examples_per_second']:,.0f} examples/s"
        )
        sys.stdout.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
