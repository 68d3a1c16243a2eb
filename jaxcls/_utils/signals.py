"""Turns SIGTERM and SIGINT into requests to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Training was asked to stop; its state is saved.

    Attributes:
      step: of the saved state.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}; the state is saved")
        self.step = step


@contextmanager
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
