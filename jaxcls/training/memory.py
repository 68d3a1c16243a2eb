"""Whether the compiled steps fit into the memory of the device, before the first of them is made."""

import functools
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Batch, Examples
from jaxcls.data.rows import SMALL, Rows, is_sampled
from jaxcls.training.steps import TrainState, TrainStep

# XLA's time for a program is 5 to 14 times that of tracing and lowering it, for eight networks of the tasks on a CPU.
_COMPILING_PER_LOWERING = 10
_CHECKED: "weakref.WeakKeyDictionary[Any, set[str]]" = weakref.WeakKeyDictionary()


def compile_checked(
    train_chunk: TrainStep,
    state: TrainState,
    batches: Batch,
    on_compile: Callable[[float], None] = lambda seconds: None,
    micro_batches: int = 1,
) -> None:
    """Compiles a chunk for these arguments, and compares what it needs with what is free.

    What is compiled here is what is run. A chunk that is not compiled is left alone, as is one that was checked for
    arguments of these shapes, and on a backend that cannot say, nothing is compared.

    Args:
      on_compile: called before it is compiled, with about how many seconds that takes.
      micro_batches: of each batch.

    Raises:
      InputError: there is too little memory; the message names a batch size that fits.
    """
    lower = getattr(train_chunk, "lower", None)
    if lower is None:
        return
    # The members of a population share a chunk, and to lower it again takes as long as many of their steps.
    devices: list[Any] = sorted(state.step.sharding.addressable_devices, key=str)
    shapes = f"{devices} {jax.tree.map(jax.typeof, (state, batches))}"
    checked = _CHECKED.setdefault(train_chunk, set())
    if shapes in checked:
        return
    began = time.monotonic()
    lowered = lower(state, batches)
    on_compile(_COMPILING_PER_LOWERING * (time.monotonic() - began))
    there, needed = free(devices), needed_by(lowered)
    if there is None or needed is None or needed <= there:
        checked.add(shapes)
        return
    batch_size, sharing, factor = batches.mask.shape[1] // micro_batches, len(state.step.sharding.device_set), 2
    advice = "No smaller batch fits: give a smaller --model, or --remat, which keeps less of it for the gradient."
    while (smaller := batch_size // factor // sharing * sharing) > 0:
        fewer = jax.tree.map(functools.partial(_resized, batch_size=smaller * micro_batches), batches)
        if (needed_by(lower(state, fewer)) or 0) <= there:
            advice = (
                f"--batch-size {smaller} fits; with --gradient-accumulation-steps {factor * micro_batches} an update "
                "is of as many examples."
            )
            break
        factor *= 2
    raise InputError(
        f"--batch-size {batch_size}: the compiled steps need {needed / 1e9:,.3f} GB more than what is there, and "
        f"{devices[0].device_kind} has {there / 1e9:,.3f} GB free. {advice}"
    )


def fits(data: Examples | Sequence[Any], devices: Sequence[Any]) -> bool:
    """Whether the examples take at most half of the free memory of each device.

    Arrays always fit on CPU devices, whose memory is the host's. Many rows on disk fit on none of them, nor on another
    device if reading all of them would delay the first step.
    """
    on_cpu, arrays = devices[0].platform == "cpu", jax.tree.leaves(tuple(data))
    if (on_cpu or is_sampled(arrays)) and sum(one.nbytes for one in arrays if isinstance(one, Rows)) > SMALL:
        return False
    available = None if on_cpu else free(devices)
    # Activations, gradients and the compiler need the rest.
    return available is None or sum(array.nbytes for array in arrays) <= available / 2


def free(devices: Sequence[Any]) -> int | None:
    """The bytes that are free on each of the devices, or None where that is not known.

    The memory of a CPU is the host's, and as many devices as a process has share it.
    """
    if devices[0].platform == "cpu":
        host = _free_of_host()
        return None if host is None else host // len(devices)
    statistics = [device.memory_stats() for device in devices]
    known = [held for held in statistics if held and "bytes_limit" in held]
    return min((held["bytes_limit"] - held["bytes_in_use"] for held in known), default=None)


def needed_by(lowered: jax.stages.Lowered) -> int | None:
    """The bytes that a program takes on each device in addition to its arguments, which are already allocated."""
    analysis = lowered.compile().memory_analysis()
    if analysis is None:
        return None
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes


def _resized(leaf: jax.Array, batch_size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((leaf.shape[0], batch_size, *leaf.shape[2:]), leaf.dtype, sharding=leaf.sharding)


def _free_of_host() -> int | None:
    """What the system has, or this process's control group may still take, whichever is less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    bounds = [1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])]
    # Version 2 of control groups; what files take in the cache is given back when it is needed.
    within = next((line.removeprefix("0::/") for line in group if line.startswith("0::")), None)
    if within is not None:
        root = Path("/sys/fs/cgroup")
        for folder in (root / within, *(root / parent for parent in Path(within).parents)):
            try:
                most = (folder / "memory.max").read_text(encoding="ascii").strip()
                used = int((folder / "memory.current").read_text(encoding="ascii"))
                fields = dict(map(str.split, (folder / "memory.stat").read_text(encoding="ascii").splitlines()))
            except OSError:
                continue
            if most != "max":
                bounds.append(int(most) - used + int(fields.get("inactive_file", 0)))
    return max(0, min(bounds))
