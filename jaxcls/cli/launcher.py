"""Starts processes of this machine that train together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from jaxcls._utils.errors import InputError

# A process that hears of the end of another one ends by itself within this time.
_SECONDS_TO_END = 30.0


def launch(command: Sequence[str], processes: int, port: int | None = None) -> int:
    """Starts ``jaxcls COMMAND`` in each process, and returns the exit status of the first that failed, or 0.

    Args:
      port: at which they meet; by default a free one.
    """
    if processes < 1 or not command or command[0] != "train":
        raise InputError("give --processes 1 or more, and a command that trains: jaxcls launch -- train --task ...")
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    children = [_start(command, processes, index, port) for index in range(processes)]
    threads = [
        threading.Thread(target=_show, args=[child.stderr, index], daemon=True)
        for index, child in enumerate(children)
        if child.stderr
    ]
    for thread in threads:
        thread.start()
    with _forwarded(children):
        status = _wait(children)
    for thread in threads:
        thread.join(timeout=1.0)
    # As shells report a process that a signal ended.
    return status if status >= 0 else 128 - status


def _start(command: Sequence[str], processes: int, index: int, port: int) -> "subprocess.Popen[str]":
    where = f"127.0.0.1:{port},{processes},{index}"
    return subprocess.Popen(
        [sys.executable, "-m", "jaxcls", *command, "--distributed", where],
        # Of several GPUs, each process uses one; JAX ignores it for other devices.
        env={"JAX_LOCAL_DEVICE_IDS": str(index), **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=None if index == 0 else subprocess.DEVNULL,
        stderr=None if index == 0 else subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        # A terminal sends its signals to all processes of a session, and they are forwarded as well.
        start_new_session=True,
    )


def _show(stream: IO[str], index: int) -> None:
    with stream:
        for line in stream:
            print(f"[{index}] {line}", end="", file=sys.stderr, flush=True)


def _wait(children: Sequence["subprocess.Popen[str]"]) -> int:
    """Waits for all; after one failed, those that do not end by themselves are killed."""
    failed, since = 0, 0.0
    while None in [child.poll() for child in children]:
        for child in children:
            if child.returncode and not failed:
                failed, since = child.returncode, time.monotonic()
            elif child.returncode is None and failed and time.monotonic() - since > _SECONDS_TO_END:
                child.kill()
        time.sleep(0.05)
    return failed or next((child.returncode for child in children if child.returncode), 0)


@contextlib.contextmanager
def _forwarded(children: Sequence["subprocess.Popen[str]"]) -> Iterator[None]:
    def forward(number: int, frame: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
