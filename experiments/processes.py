"""A measured process, and the processor that it ran on."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Finished(NamedTuple):
    """A process that has ended: its seconds, those of its processors, and its output if that was captured."""

    seconds: float
    processor_seconds: float
    output: str


def run(command: Sequence[str | Path], *, capture: bool = False, **options: Any) -> Finished:
    """Runs a command to its end; raises CalledProcessError if it fails.

    Args:
      capture: return its standard output instead of showing it.
      options: of ``subprocess.run``.
    """
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE if capture else None, text=True, **options)
    seconds, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Finished(seconds, spent, done.stdout or "")


def machine() -> str:
    """The number of cores that are used and the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict([part.strip() for part in line.split(":", 1)] for line in lines if ":" in line)
    kind = f"{fields['model name']}, family {fields['cpu family']}, model {fields['model']}"
    return f"{len(os.sched_getaffinity(0))} cores of {kind}"
