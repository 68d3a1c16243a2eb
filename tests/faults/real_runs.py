"""The command in processes of its own, and all that two runs must share, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

# No process may hang: far more than any of these runs takes on a busy machine.
LIMIT = 300

# A small table of the package, with everything on that has a state: dropout and augmentation (keys), averages of the
# weights, gradients that are accumulated over steps, a best epoch. Two dispatches an epoch, so that saves fall within.
TABLE = (
    "--task csv --model mlp --epochs 8 --batch-size 2 --validation-fraction 0.2 --monitor loss --restore-best "
    "--ema-decay 0.9 --gradient-accumulation-steps 3 --checkpoint-seconds 0"
).split()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "jaxcls.train", *map(str, arguments)]


def run(*arguments: object, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command to its end; with ``code``, a program that is given the arguments in its place."""
    program = command(*arguments) if code is None else [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        program, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT, **options
    )  # fmt: skip


def killed(
    arguments: list[object],
    directory: Path,
    seen: Callable[[Path], bool],
    delay: float = 0.0,
    kind: int = signal.SIGKILL,
    **options: Any,
) -> bool:
    """Runs the command, and kills it so many seconds after something is seen in the run's directory.

    Returns:
      Whether it was killed: it may have come to its end before.
    """
    begun = time.monotonic()
    with subprocess.Popen(
        command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        while process.poll() is None and not seen(directory):
            assert time.monotonic() - begun < LIMIT, "it hangs"
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(kind)
        process.wait(timeout=LIMIT)
    # It has an exit status of its own, if it was done before.
    assert process.returncode in (0, -kind)
    return process.returncode == -kind


def history(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without the times."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [_without_times(json.loads(line)) for line in lines]


def checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """What a checkpoint records of itself, without the times, and every leaf of its state by name, by its bits."""
    from orbax.checkpoint import v1 as ocp

    record = json.loads(
        json.loads((path / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))["custom_metadata"]["record"]
    )
    for entry in record["metadata"].get("history", []):
        _without_times(entry)
    record["metadata"].pop("seconds", None)
    with warnings.catch_warnings():
        # That it reads from the file how the arrays were sharded.
        warnings.simplefilter("ignore")
        leaves = ocp.load(path, checkpointable_name="jaxcls_state")
    return record, {name: _bits(leaf) for name, leaf in zip(record["leaves"], leaves, strict=True)}


def outcome(directory: Path) -> dict[str, Any]:
    """All that must be the same, whatever came between: scores, history, state, the best checkpoint, the weights."""
    steps = steps_in(directory)
    saved = {step: checkpoint(directory / "checkpoints" / str(step)) for step in steps}
    # The one before the last may stand within an epoch, where it was saved by the clock.
    best = min((step for step in steps if saved[step][0]["metrics"]), key=lambda step: _score(saved[step][0]))
    [model] = (path for path in (directory / "model").iterdir() if path.name.isdecimal())
    return {
        "results": json.loads((directory / "results.json").read_text(encoding="utf-8")),
        "history": history(directory),
        "last": saved[steps[-1]],
        "best": saved[best],
        "model": checkpoint(model),
    }


def steps_in(directory: Path) -> list[int]:
    """The steps of the complete checkpoints of a run."""
    return sorted(int(path.name) for path in directory.glob("checkpoints/*") if path.name.isdecimal())


def _score(record: dict[str, Any]) -> tuple[float, int]:
    return record["metrics"]["loss"], record["step"]


def _without_times(entry: dict[str, Any]) -> dict[str, Any]:
    del entry["seconds"], entry["examples_per_second"]
    return entry


def _bits(leaf: jax.Array) -> tuple[str, tuple[int, ...], bytes]:
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return str(array.dtype), array.shape, array.tobytes()


def with_environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
