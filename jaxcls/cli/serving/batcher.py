"""Requests that arrive at the same time, computed together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

PyTree = Any


class QueueFull(Exception):
    """More examples wait than the queue holds."""


class _Waiting(NamedTuple):
    arrays: PyTree
    examples: int
    scores: "asyncio.Future[PyTree]"


class Batcher:
    """Scores the examples of concurrent requests in batches.

    While a batch is computed, requests wait in a queue; then those that wait are computed together, as many as
    give the most examples a second. So no request waits for others while the device is idle, unless ``wait_seconds``
    asks for it.

    Args:
      score: arrays -> scores; called in a single thread.
      seconds: size of a batch -> the time that it takes, for each size that is compiled. Other numbers of examples are
        padded to the next size. The largest is the most examples that requests are joined to; a larger request is
        computed alone.
      max_waiting: the most examples that wait.
      wait_seconds: how long a batch that is not full waits for more requests.
      on_batch: called with the number of examples of a batch and the seconds that it took.
    """

    def __init__(
        self,
        score: Callable[[PyTree], PyTree],
        seconds: Mapping[int, float],
        *,
        max_waiting: int,
        wait_seconds: float = 0.0,
        on_batch: Callable[[int, float], None] = lambda count, seconds: None,
    ):
        self._score, self._on_batch = score, on_batch
        self._seconds, self._max_waiting, self._wait_seconds = seconds, max_waiting, wait_seconds
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self.waiting = 0

    async def submit(self, arrays: PyTree) -> PyTree:
        """Returns the scores of arrays.

        Raises:
          QueueFull: the queue has no space for them.
        """
        count = len(jax.tree.leaves(arrays)[0])
        # A request is refused for those before it, not for its own size.
        if self.waiting and self.waiting + count > self._max_waiting:
            raise QueueFull
        future = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(arrays, count, future))
        self.waiting += count
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Computes what is submitted until it is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._wait_seconds and self.waiting < max(self._seconds):
                await asyncio.sleep(self._wait_seconds)
            batch = self._next()
            started = time.monotonic()
            computed = loop.run_in_executor(self._thread, self._scores, batch)
            await asyncio.wait([computed])
            if error := computed.exception():
                for one in batch:
                    if not one.scores.done():
                        one.scores.set_exception(error)
                continue
            scores = computed.result()
            self._on_batch(sum(one.examples for one in batch), time.monotonic() - started)
            start = 0
            for one in batch:
                rows = slice(start, start + one.examples)
                start += one.examples
                # A client that gave up canceled its future.
                if not one.scores.done():
                    one.scores.set_result(jax.tree.map(lambda leaf, rows=rows: leaf[rows], scores))

    def _next(self) -> list[_Waiting]:
        most = self._best(self.waiting)
        batch = [self._queue.popleft()]
        total = batch[0].examples
        while self._queue and total + self._queue[0].examples <= most:
            batch.append(self._queue.popleft())
            total += batch[-1].examples
        self.waiting -= total
        if not self._queue:
            self._arrived.clear()
        return batch

    def _scores(self, batch: list[_Waiting]) -> PyTree:
        joined = batch[0].arrays
        if len(batch) > 1:
            joined = jax.tree.map(lambda *parts: np.concatenate(parts), *(one.arrays for one in batch))
        count = sum(one.examples for one in batch)
        if count > max(self._seconds):
            return jax.tree.map(np.asarray, self._score(joined))
        parts, start = [], 0
        while start < count:
            rows = slice(start, start + self._best(count - start))
            parts.append(self._score(jax.tree.map(lambda leaf, rows=rows: leaf[rows], joined)))
            start = rows.stop
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def _best(self, examples: int) -> int:
        """The size of the batches that compute the most of these examples a second.

        Of 16 examples, two batches of 8 can be faster than one that is padded to 64.
        """
        return max(self._seconds, key=lambda size: min(size, examples) / self._seconds[size])
