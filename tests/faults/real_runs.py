"""Runs the command in subprocesses and reads everything that two equal runs must share bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Seconds after which a process counts as hanging: far more than a run takes on a busy machine.
LIMIT = 300

# The table that comes with jaxcls, with every feature that has a state: dropout (keys), averaged weights, gradient
# accumulation, a best epoch. An epoch takes two dispatches, so that checkpoints also fall within epochs.
TABLE = (
    *("--task", "csv", "--model", "mlp", "--epochs", "6", "--batch-size", "2", "--validation-fraction", "0.2"),
    *("--monitor", "loss", "--restore-best", "--ema-decay", "0.9", "--gradient-accumulation-steps", "3"),
    *("--checkpoint-seconds", "0"),
)

# The command, which runs a statement after a number of saves. From outside that could come too late.
AFTER_SAVES = """
import os, shutil, signal, sys, time
from pathlib import Path
from jaxcls._utils import environment
from jaxcls.cli.main import run
environment.configure()
from jaxcls.checkpoints import CheckpointManager
saves, statement, *arguments = sys.argv[1:]
save, left = CheckpointManager.save, [int(saves)]
def counted(checkpoints, *args, **options):
    save(checkpoints, *args, **options)
    left[0] -= 1
    if not left[0]:
        exec(statement, globals())
CheckpointManager.save = counted
sys.exit(run("train", *arguments, program="python -m jaxcls.train"))
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "jaxcls.train", *map(str, arguments)]


def run(*arguments: object, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command, or the program ``code``, with the arguments until it ends."""
    program = command(*arguments) if code is None else [sys.executable, "-c", code, *map(str, arguments)]
    options |= {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": LIMIT}
    return subprocess.run(program, **options)


def after_saves(saves: int, statement: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command, which executes a Python statement after the given number of saves."""
    return run(saves, statement, *arguments, code=AFTER_SAVES, **options)


def killed(arguments: list[object], reached: Callable[[], bool], delay: float = 0.0, **options: Any) -> bool:
    """Runs the command and kills it ``delay`` seconds after ``reached`` is true.

    Returns:
      Whether it was killed; it may have ended before.
    """
    begun = time.monotonic()
    with subprocess.Popen(
        command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        while process.poll() is None and not reached():
            assert time.monotonic() - begun < LIMIT, "the process hangs"
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.wait(timeout=LIMIT)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def epochs_in(directory: Path) -> int:
    """The number of epochs in metrics.jsonl."""
    try:
        return len((directory / "metrics.jsonl").read_bytes().splitlines())
    except FileNotFoundError:
        return 0


def history(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [_without_times(json.loads(line)) for line in lines]


def checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """The record of a checkpoint without times, and the bits of every leaf of its state by name."""
    from orbax.checkpoint import v1 as ocp

    described = json.loads((path / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
    record = json.loads(described["custom_metadata"]["record"])
    for entry in record["metadata"].get("history", []):
        _without_times(entry)
    record["metadata"].pop("seconds", None)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = [_abstract(specification, here) for specification, _ in record["leaves"].values()]
    leaves = ocp.load(path, abstract, checkpointable_name="jaxcls_state")
    return record, {name: _bits(leaf) for name, leaf in zip(record["leaves"], leaves, strict=True)}


def arrays(saved: tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]) -> dict[str, np.ndarray]:
    """The leaves of a result of `checkpoint` as arrays."""
    return {name: np.frombuffer(content, dtype).reshape(shape) for name, (dtype, shape, content) in saved[1].items()}


def outcome(directory: Path) -> dict[str, Any]:
    """All that an interruption must not change: scores, history, the last and the best state, the tested weights."""
    steps = steps_in(directory)
    saved = {step: checkpoint(directory / "checkpoints" / str(step)) for step in steps}
    # CheckpointManager that the clock triggered within an epoch have no metrics.
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


def with_environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def same_bits(tree: Any, other: Any) -> bool:
    """Whether two trees of arrays are equal bit for bit."""
    structures = jax.tree.structure(tree), jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return structures[0] == structures[1] and all(_bits(a) == _bits(b) for a, b in pairs)


def _score(record: dict[str, Any]) -> tuple[float, int]:
    return record["metrics"]["loss"], record["step"]


def _without_times(entry: dict[str, Any]) -> dict[str, Any]:
    del entry["seconds"], entry["examples_per_second"]
    return entry


def _abstract(specification: str, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    name, _, shape = specification.partition("[")
    dtype = jax.random.key(0).dtype if name.startswith("key") else name
    return jax.ShapeDtypeStruct(json.loads(f"[{shape}"), dtype, sharding=sharding)


def _bits(leaf: jax.Array) -> tuple[str, tuple[int, ...], bytes]:
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return str(array.dtype), array.shape, array.tobytes()
