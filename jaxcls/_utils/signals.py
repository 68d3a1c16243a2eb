"""SIGTERM and SIGINT as a request to stop at the next good moment."""

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
    """A function that tells whether SIGTERM or SIGINT came. A second SIGINT raises KeyboardInterrupt at once.

    For the main thread of a process that trains alone. With several processes under ``jax.distributed``, JAX has
    a synchronised way of its own to stop, which a handler of ours would break.

    >>> with stop_requests() as stop:
    ...     stop(), signal.raise_signal(signal.SIGTERM), stop()
    (False, None, True)
    """
    came = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        if came.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
