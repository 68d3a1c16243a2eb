"""Members that one compiled program trains, as one more axis under ``vmap``: small networks do not fill an accelerator.

Each member is trained by the loop in a thread of its own, and has its own data, order, checkpoints, history and end.
Only their chunks are run by one program, when all that still train have come to theirs. The program always has the
same size, and a member its own row of it, so that its bits do not depend on which others train at the time.
"""

import hashlib
import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxcls._utils import files, schemas
from jaxcls.data.batching import Batch, Examples
from jaxcls.data.rows import in_memory
from jaxcls.training import loop, memory
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import FitConfig
from jaxcls.training.mesh import devices, shardings
from jaxcls.training.steps import StepMetrics, TrainState, TrainStep

Of = TypeVar("Of")

# Members of a program. Fewer leave the other rows unused.
SIZE = 8
# On a CPU it was measured to be slower: XLA multiplies a batch of small matrices one by one, each on one core.
BACKENDS = ("gpu", "tpu")
_TIMES = 3


class Meeting:
    """Runs the chunks of members at the same time.

    Args:
      program: ``(states, batches) -> states, metrics`` of :data:`SIZE` members, as lists.
      members: how many there are; each calls its own :meth:`chunk_of`, and at last :meth:`leave`.
    """

    def __init__(self, program: Callable[..., Any], members: int):
        self._program = program
        self._condition = threading.Condition()
        self._training = {*range(members)}
        self._calls: dict[int, tuple[TrainState, Batch]] = {}
        self._results: dict[int, Any] = {}

    def chunk_of(self, row: int) -> TrainStep:
        """Returns the function that trains a chunk of a member, to be called by its own thread."""

        def train_chunk(state: TrainState, batches: Batch) -> tuple[TrainState, StepMetrics]:
            with self._condition:
                self._calls[row] = state, batches
                self._run_if_complete()
                self._condition.wait_for(lambda: row in self._results)
                result = self._results.pop(row)
            if isinstance(result, BaseException):
                raise result
            return result

        return train_chunk

    def leave(self, row: int) -> None:
        """Lets the others continue without this member."""
        with self._condition:
            self._training.discard(row)
            self._run_if_complete()

    def _run_if_complete(self) -> None:
        if not self._calls or len(self._calls) < len(self._training):
            return
        calls, self._calls = self._calls, {}
        try:
            some = next(iter(calls.values()))
            states, batches = zip(*(calls.get(row, some) for row in range(SIZE)), strict=True)
            after = zip(*self._program(states, batches), strict=True)
            self._results = {row: result for row, result in enumerate(after) if row in calls}
        except BaseException as error:
            self._results = dict.fromkeys(calls, error)  # it ends all members
            raise
        finally:
            self._condition.notify_all()


def divided(items: Sequence[Of], at_once: int) -> list[list[Of]]:
    """Divides members into programs: few on each of the devices, if there are several, and no more than fit.

    >>> divided("abcdefghij", at_once=1), divided("abc", at_once=2), divided("ab", at_once=8)
    ([['a', 'b', 'c', 'd', 'e'], ['f', 'g', 'h', 'i', 'j']], [['a', 'b'], ['c']], [['a'], ['b']])
    """
    count = max(math.ceil(len(items) / SIZE), min(len(items), at_once))
    longer = len(items) % count
    starts = [i * (len(items) // count) + min(i, longer) for i in range(count + 1)]
    return [[*items[start:end]] for start, end in itertools.pairwise(starts)]


def is_faster(
    experiment: Experiment,
    states: Sequence[TrainState],
    data: Sequence[Examples],
    config: FitConfig,
    file: Path | None,
    say: Callable[[str], None],
) -> bool:
    """Whether these members of an experiment train faster together, by the time of one chunk each way.

    Args:
      states: of up to :data:`SIZE` members, before their first step.
      data: their training examples.
      file: keeps the answer for each program: a run that continues must train as it began.
    """
    distinct = {id(one): one for one in data}
    fits = memory.fits([*map(tuple, distinct.values())], devices())
    if experiment.run_eagerly or experiment.constant_leaves or config.data_on == "host" or not fits:
        return False
    placed = on_device(distinct.values())
    feeds = [loop.chunks(experiment, placed[id(one)], config.batch_size) for one in data]
    batches = [next(one.epoch_chunks(state.key, 0, 0)) for one, state in zip(feeds, states, strict=True)]
    program: Any = experiment.train_chunk
    name = hashlib.sha256(program.lower(states[0], batches[0]).as_text().encode()).hexdigest()[:16]
    known: dict[str, bool] = {}
    if file is not None and file.exists():
        known = schemas.parse(files.content(file, folder=file.parent), {str: bool}, str(file))
    if name not in known:
        unused = SIZE - len(states)
        rows = [*states, *[states[0]] * unused], [*batches, *[batches[0]] * unused]
        needed, free = memory.needed_by(experiment.train_chunks.lower(*rows)), memory.free(devices())
        known[name] = False
        if needed is None or free is None or needed <= free:
            alone = _milliseconds(lambda: program(jax.tree.map(jnp.copy, states[0]), batches[0])) / feeds[0].length
            joint = _milliseconds(lambda: experiment.train_chunks(*rows)) / feeds[0].length
            known[name] = joint < alone * len(states)
            way = "as one program (vmap)" if known[name] else "one after the other"
            say(f"members train {way}: a step of {len(states)} takes {joint:.3f} ms, and one of each {alone:.3f} ms")
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(file, json.dumps(known))
    return known[name]


def on_device(data: Iterable[Examples]) -> dict[int, Examples]:
    """Returns examples on the devices of this thread, by the id of those that are given."""
    return {id(one): jax.device_put(in_memory(one), shardings()[0]) for one in data}


def _milliseconds(run: Callable[[], Any]) -> float:
    """Returns the least time of several runs after one that compiles."""
    times = []
    for _ in range(1 + _TIMES):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1000 * (time.perf_counter() - began))
    return min(times[1:])
