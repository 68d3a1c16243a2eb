"""A clock for work that takes long and shows no progress of its own, such as compiling or reading a large file."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

# Work that ends sooner is not mentioned.
_SILENT_SECONDS = 2.0
# Between two lines where standard error is not a terminal.
_LINE_SECONDS = 30.0


# The share that is done of what the clock that started last shows.
_share: list[float] = [0.0]


def progress(share: float) -> None:
    """Tells how much of the work that takes long is done, from 0 to 1; the clock shows it.

    >>> progress(0.5)
    """
    _share[0] = share


class Clock:
    """Shows a text and the seconds since now in a terminal, or prints the text once, if it is not stopped soon.

    Args:
      text: what takes long.
      say: prints a line where standard error is not a terminal.
    """

    def __init__(self, text: str, say: Callable[[str], None]):
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[text, say], name="clock", daemon=True)
        self._thread.start()

    def _run(self, text: str, say: Callable[[str], None]) -> None:
        began = time.monotonic()
        progress(0.0)
        if self._stopped.wait(_SILENT_SECONDS):
            return
        if not sys.stderr.isatty():
            say(text)
            while not self._stopped.wait(_LINE_SECONDS):
                say(f"{text}: {time.monotonic() - began:.0f} s{_done()}")
            return
        while True:
            print(f"\r{text}: {time.monotonic() - began:.0f} s{_done()} ", end="", file=sys.stderr, flush=True)
            if self._stopped.wait(1.0):
                # Erases the line.
                print("\r\033[K", end="", file=sys.stderr, flush=True)
                return

    def stop(self) -> None:
        """Ends the clock and its line."""
        self._stopped.set()
        self._thread.join()


@contextlib.contextmanager
def clock(text: str, say: Callable[[str], None]) -> Iterator[None]:
    """Runs a clock for the time of the context.

    >>> with clock("reading", print):
    ...     pass
    """
    running = Clock(text, say)
    try:
        yield
    finally:
        running.stop()


def _done() -> str:
    return f", {_share[0]:.0%}" if _share[0] else ""
