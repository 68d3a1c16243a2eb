"""Show the progress of a run: a progress bar in a terminal, plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from tqdm import tqdm

from jaxcls.reports.callbacks import Callback


class ProgressBar(Callback, contextlib.AbstractContextManager["ProgressBar"]):
    """Shows the loss, the rate and the remaining time, and prints a line for each epoch.

    Args:
      total: the number of steps of the whole run, including those of earlier processes.
      epochs: the number of epochs of the whole run.
      batch_size: for the rate in examples per second.
      out: the stream of the bar, which is shown only in a terminal; by default standard error. The lines go to
        standard output.
    """

    def __init__(self, total: int, *, epochs: int, batch_size: int, out: TextIO | None = None):
        # A default argument would be the standard error of the time of import.
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
        # The steps of earlier processes, and the first dispatch, which compiles, count for the bar but not for the
        # rate. last_print_n keeps them out of tqdm's moving average.
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
        self._bar.write(  # clears the bar and prints to standard output
            f"epoch {entry['epoch']:{len(str(self._epochs))}}/{self._epochs}  {values}{skipped}  "
            f"{entry['seconds']:.1f} s, {entry['examples_per_second']:,.0f} examples/s"
        )
        sys.stdout.flush()

    def __exit__(self, *error: object) -> None:
        self._bar.close()
