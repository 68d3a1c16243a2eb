"""A trace of JAX's profiler of some steps of a run, and where their time went as a table."""

import collections
import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxcls._utils.text_table import text_table
from jaxcls.reports.callbacks import Callback

# Dispatches that are traced, after the first one, which compiles. A trace of more is too large to look at.
DISPATCHES = 4
# What holds other operations, whose time would count twice.
_HOLDERS = ("while", "call", "conditional")


class Trace(Callback, contextlib.AbstractContextManager["Trace"]):
    """Traces the dispatches after the first one of a training.

    Args:
      folder: where the trace goes, in the form that XProf and TensorBoard read.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._seen = 0
        self._running = False

    def on_chunk_end(self, step: int, loss: float) -> None:
        self._seen += 1
        if self._seen == 1:
            options = jax.profiler.ProfileOptions()
            # Every call of a Python function would be in it.
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._running = True
        elif self._seen > DISPATCHES:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

    def __exit__(self, *error: object) -> None:
        self._stop()


def table(folder: Path, *, most: int = 15) -> str:
    """The operations that took most time in the newest trace in a folder, those of one kind together.

    Times are those of the threads or cores of the device, all added up, so they may exceed the clock's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     table(Path(name))
    'no operation was traced: the training had one dispatch only'
    """
    traces = sorted(folder.glob("**/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    times: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for path in traces[-1:]:
        for name, nanoseconds in _operations(path):
            kind = re.sub(r"[.\d]+$", "", name)
            if kind not in _HOLDERS:
                times[kind] += round(nanoseconds)
                calls[kind] += 1
    total = sum(times.values())
    if not total:
        return "no operation was traced: the training had one dispatch only"
    rows = [("operation", "share", "milliseconds", "calls")]
    rows += [
        (name, f"{ns / total:.1%}", f"{ns / 1e6:,.1f}", f"{calls[name]:,}") for name, ns in times.most_common(most)
    ]
    if rest := total - sum(ns for _, ns in times.most_common(most)):
        rows.append(("all others", f"{rest / total:.1%}", f"{rest / 1e6:,.1f}", ""))
    return text_table(rows)


def _operations(path: Path) -> Iterator[tuple[str, float]]:
    """The name and the nanoseconds of every operation in a trace."""
    with warnings.catch_warnings():
        # jaxlib's own, of Python 3.13; as an error it would end the process.
        warnings.filterwarnings("ignore", "builtin type .* has no __module__ attribute", DeprecationWarning)
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    # Other events are of the host, and of what waits.
                    if line.name == "XLA Ops" or any(name == "hlo_op" for name, _ in event.stats):
                        yield event.name, event.duration_ns
