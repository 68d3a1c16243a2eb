"""Interruptions of a run: signals that request a stop, and a watchdog that ends a process that hangs.

The run can then be resumed, which a process that waits forever cannot.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(Exception):
    """Training was asked to stop; its state is saved.

    Attributes:
      step: of the saved state.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}; the state is saved")
        self.step = step


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM or SIGINT arrived. A second SIGINT raises KeyboardInterrupt.

    For the main thread of a process that trains alone. With several processes under ``jax.distributed``, JAX
    synchronizes their stop itself, and these handlers would break that.

    >>> with stop_requests() as stop:
    ...     stop(), signal.raise_signal(signal.SIGTERM), stop()
    (False, None, True)
    """
    requested = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested.set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each unit of progress; ends the process if it is not called for too long.

    A separate thread prints a message and the stack of every thread to standard error before it ends the process. It
    depends on nothing that may hang: a file system, a reader thread, a device.

    Args:
      seconds: the longest time between two calls; 0 for no limit.

    >>> with watched(60) as progress:
    ...     progress()
    """
    # Time is counted in ticks, not read from a clock: a suspended process does not hang.
    tick = min(1.0, seconds / 4)
    progress, finished = threading.Event(), threading.Event()

    def watch() -> None:
        idle = 0.0
        while not finished.wait(tick):
            idle += tick
            if progress.is_set():
                progress.clear()
                idle = 0.0
            if idle > seconds:
                message = (
                    f"error: no progress for {seconds:g} s (--stall-seconds), so the process ends. The same command "
                    "continues from the last checkpoint. The stack of each thread:"
                )
                print(message, file=sys.stderr, flush=True)
                faulthandler.dump_traceback(file=sys.stderr)
                # An orderly exit would wait for the thread that hangs.
                os._exit(1)

    if seconds > 0:
        threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield progress.set
    finally:
        finished.set()
