"""Ends a process that gets no further: a wait that nothing ends is worse than an end from which the run goes on."""

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator

# As what else goes wrong.
STATUS = 1


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[Callable[[], None]]:
    """A function to be called whenever something was done; too long after the last call, the process ends.

    It says so, and where each thread is, on standard error. A thread of its own sees to it, which needs no help from
    what hangs: a file system, a thread that reads, a device.

    Args:
      seconds: how long is too long; 0 is never.

    >>> with watched(60) as done:
    ...     done()
    """
    # Counted, not read from a clock: a process that is suspended does not hang.
    tick = min(1.0, seconds / 4)
    idle = 0.0
    ended = threading.Event()

    def done() -> None:
        nonlocal idle
        idle = 0.0

    def watch() -> None:
        nonlocal idle
        while not ended.wait(tick):
            idle += tick
            if idle > seconds:
                print(
                    f"error: nothing was done for {seconds:g} s, which --stall-seconds takes for a hang. The same "
                    "command goes on from the last checkpoint. Where each thread is:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(file=sys.stderr)
                # What hangs would keep an orderly end waiting as well.
                os._exit(STATUS)

    if seconds > 0:
        threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield done
    finally:
        ended.set()
