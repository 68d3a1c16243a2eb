"""Interruptions of a run: signals that request a stop, and a watchdog that ends a process that hangs.

The run can then be resumed, which a process that waits forever cannot.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from jaxcls._utils import clusters

# Exit statuses. EX_TEMPFAIL of sysexits.h: the run is saved, and the same command continues it; and as shells report a
# process that SIGINT ended.
INTERRUPTED, KILLED = 75, 130

# For the main thread to react to an exception: to finish the last save.
_SECONDS_TO_END = 5.0


class Interrupted(Exception):
    """The command was asked to stop.

    Attributes:
      step: of the state that was saved for it; None if there was nothing to save.
    """

    def __init__(self, step: int | None = None):
        super().__init__(
            "stopped; nothing that was saved is lost" if step is None else f"stopped at step {step}; the state is saved"
        )
        self.step = step


class StopRequests:
    """Whether SIGTERM or SIGINT arrived: ``stop()`` tells.

    Attributes:
      training: whether there are steps to save, so that a request waits until training polls it; None before that.
    """

    def __init__(self) -> None:
        self.training: bool | None = None
        self.requested, self.ended = threading.Event(), threading.Event()

    def __call__(self) -> bool:
        return self.requested.is_set()

    def request(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal, in the main thread."""
        if self.requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested.set()
        if self.training is False:
            raise Interrupted

    def answer(self, signals: socket.socket) -> None:
        """Answers signals at once, in a thread of its own: the main thread may be waiting for compiled code."""
        requested = False
        while number := signals.recv(1):
            if number[0] not in (signal.SIGTERM, signal.SIGINT):
                continue
            again = requested and number[0] == signal.SIGINT
            requested = True
            if self.training and not again:
                name = signal.Signals(number[0]).name
                _print(f"{name}: training saves its state and stops; another Ctrl-C stops it at once")
            elif self.training is None or not self.ended.wait(_SECONDS_TO_END):
                message = f"{Interrupted()}; the same command continues"
                clusters.leave(KILLED if again else INTERRUPTED, message, _print)
                # An orderly exit would wait for what is being compiled.
                os._exit(KILLED if again else INTERRUPTED)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Yields whether SIGTERM or SIGINT arrived; each is answered at once with a line on standard error.

    Before training, a signal ends the process. In training, it is a request; a second SIGINT raises KeyboardInterrupt.
    After training, it raises Interrupted. A process whose main thread does not react to an exception is ended.

    For the main thread. Of processes that train together, each may be asked: they agree between dispatches.

    >>> with stop_requests() as stop:
    ...     stop.training = True
    ...     stop(), signal.raise_signal(signal.SIGTERM), stop()
    (False, None, True)
    """
    stop = StopRequests()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous = {number: signal.signal(number, stop.request) for number in (signal.SIGTERM, signal.SIGINT)}
    # Python calls a handler between two of its instructions, but the number of the signal arrives here at once.
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    answering = threading.Thread(target=stop.answer, args=[reader], name="signals", daemon=True)
    answering.start()
    try:
        yield stop
    finally:
        stop.ended.set()
        signal.set_wakeup_fd(descriptor)
        for number, handler in previous.items():
            signal.signal(number, handler)
        writer.close()
        answering.join()
        reader.close()


def _print(line: str) -> None:
    # In a terminal, there is a progress bar on this line.
    print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


# What tells the watchdogs of this process that it makes progress.
_watchdogs: list[Callable[[], None]] = []


def made_progress() -> None:
    """Tells that a unit of work is done, such as a dispatch of training steps or a batch of predictions."""
    for watchdog in _watchdogs:
        watchdog()


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Ends the process if :func:`made_progress` is not called for too long.

    A separate thread prints a message and the stack of every thread to standard error before it ends the process. It
    depends on nothing that may hang: a file system, a reader thread, a device.

    Args:
      seconds: the longest time between two calls; 0 for no limit.

    >>> with watched(60):
    ...     made_progress()
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
    _watchdogs.append(progress.set)
    try:
        yield
    finally:
        _watchdogs.remove(progress.set)
        finished.set()
