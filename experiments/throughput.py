"""Training examples per second of jaxcls and other frameworks, for the same models on the same data.

    pip install keras torch tensorflow matplotlib
    python experiments/throughput.py
    python experiments/throughput.py --models mlp cnn --batch-sizes 128
    python experiments/throughput.py --contenders jaxcls torch    # quick; writes nothing

Writes experiments/throughput.json (the measurements), .md (the table) and .svg (the chart); a run of some models and
batch sizes replaces only those. A framework that is not installed is skipped and named.

Every contender trains in a separate process, as its users would run it: the same architecture and number of
parameters, Adam, float32 unless it says bfloat16, including shuffling and data transfer. jaxcls uses its native
kernels (pip install 'jaxcls[cpu]', and a C++ compiler) unless it says pure JAX. Images are the real Fashion-MNIST;
the tokens of the transformer and the scenes of the detector are generated, since only their number matters here. The
contenders take turns of some seconds for several rounds, so that other load on the machine slows down all of them.
The rate is the median over the rounds; a ratio is the median of the ratios of each round. The operations per example
are those of matrix products and convolutions, counted in experiments/peers/workloads.py; the peak is the fastest
square matrix product of NumPy, XLA or PyTorch in the same rounds. Nothing is cached when a process starts.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import throughput_report
from peers import CONTENDERS, workloads
from throughput_report import Cell, Row

from jaxcls._utils import environment

BATCH_SIZES = {
    "mlp": (32, 128, 512),
    "cnn": (32, 128, 512),
    "resnet": (32, 128, 512),
    "transformer": (8, 32, 128),
    "retinanet": (16,),
}
# Practically endless: the contender stops when its input ends.
MANY = 1_000_000
# Not a contender: measures the peak.
GEMM = "gemm"
RECORD = Path(__file__).with_suffix(".json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*BATCH_SIZES, "minilm"], default=list(BATCH_SIZES))
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="instead of those of each model")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="only these; nothing is written")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="approximate length of one measurement")
    parser.add_argument("--worker", choices=[*CONTENDERS, GEMM], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == GEMM:
        measure_peak()
    elif options.worker:
        measure(options.worker, options.models[0], options.batch_sizes[0], options.seconds)
    else:
        compare_all(options)


def compare_all(options: argparse.Namespace) -> None:
    measured = []
    for model in options.models:
        for batch_size in options.batch_sizes or BATCH_SIZES[model]:
            names = options.contenders or list(CONTENDERS)
            measured.append(compare(model, batch_size, names, options.rounds, options.seconds))
            print(throughput_report.table(measured[-1:]), flush=True)
            if not options.contenders:
                # After each cell, so that an interruption loses nothing.
                throughput_report.write(measured[-1], RECORD)


def compare(model: str, batch_size: int, names: list[str], rounds: int, seconds: float) -> Cell:
    """Lets the contenders take turns on one model."""
    rows = {name: Row(name, versions(name)) for name in names}
    peaks = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gemm = stack.enter_context(Worker(GEMM, model, batch_size, seconds, folder))
        workers = {}
        for name, row in rows.items():
            missing = [package for package in CONTENDERS[name].packages if package not in row.versions]
            if missing:
                row.failure = f"{' and '.join(missing)} not installed"
                continue
            say(f"{model}, batch size {batch_size}: {name} starts")
            worker = stack.enter_context(Worker(name, model, batch_size, seconds, folder))
            try:
                row.parameters = worker.answer()
                row.start_seconds = time.monotonic() - worker.started
                row.compile_seconds = worker.answer()
                workers[name] = worker
            except WorkerFailed as failure:
                row.failure = str(failure)
        for number in range(rounds):
            say(f"{model}, batch size {batch_size}: round {number + 1} of {rounds}")
            peaks.append(gemm.measure())
            for name, worker in list(workers.items()):
                try:
                    rate, rows[name].memory = worker.measure()
                    rows[name].rates.append(rate)
                except WorkerFailed as failure:
                    # A row has all rounds or none.
                    rows[name].rates, rows[name].failure = [], str(failure)
                    del workers[name]
    for name, row in rows.items():
        if row.failure:
            say(f"{model}, batch size {batch_size}: {name} is skipped: {row.failure}")
    parameters = {row.contender: row.parameters for row in rows.values() if not row.failure}
    say(f"{model}: parameters {parameters}")
    if len(set(parameters.values())) > 1:
        raise SystemExit(f"the contenders do not train the same model; parameters: {parameters}")
    return Cell(model, batch_size, machine(), f"--rounds {rounds} --seconds {seconds:g}", max(peaks), [*rows.values()])


class WorkerFailed(Exception):
    """The process of a contender ended; the message is the last line that it wrote."""


class Worker(contextlib.AbstractContextManager):
    """A contender in a separate process with empty caches, which measures on request."""

    def __init__(self, name: str, model: str, batch_size: int, seconds: float, folder: Path):
        command = [sys.executable, __file__, "--worker", name, "--models", model, "--batch-sizes", str(batch_size)]
        caches = {"XDG_CACHE_HOME": folder / name, "TORCHINDUCTOR_CACHE_DIR": folder / name / "torch"}
        environment = os.environ | {variable: str(path) for variable, path in caches.items()}
        self._log = folder / f"{name}.log"
        self.started = time.monotonic()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--seconds", str(seconds)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
            raise WorkerFailed(lines[-1] if lines else f"ended with status {status}")
        return json.loads(line)

    def measure(self) -> Any:
        assert self._process.stdin is not None
        # If the process has ended, answer() raises.
        with contextlib.suppress(BrokenPipeError):
            print("measure", file=self._process.stdin, flush=True)
        return self.answer()

    def kill(self) -> None:
        self._process.kill()

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


# The other end of Worker: each line on the standard output is an answer.


def measure(name: str, model: str, batch_size: int, seconds: float) -> NoReturn:
    """Answers the number of parameters after two steps, then the compilation time in seconds, then rates."""
    tell = teller()
    if name.startswith("jaxcls"):
        # As its commands do, before jax is imported, which loading the data does.
        environment.configure()
    workload = workloads.load(model, batch_size)
    module, function = CONTENDERS[name].function.split(".")
    parameters, train = getattr(importlib.import_module(f"peers.{module}"), function)(workload)

    # Two steps: a loop of one step would be compiled without a loop.
    count = 2 * batch_size
    ends = [time.perf_counter()]

    def first_turn() -> None:
        ends.append(time.perf_counter())
        if len(ends) == 2:
            tell(parameters)

    train(count, 2, first_turn)
    first, second = ends[1] - ends[0], ends[2] - ends[1]

    # The number of examples that fill one measurement, or all. Small epochs are dominated by their start and end, so
    # the number is increased step by step.
    most = workload.size // batch_size
    epoch_seconds, batches = second, 2
    while epoch_seconds < seconds / 2 and batches < most:
        batches = min(most, int(batches * min(8, seconds / epoch_seconds)))
        ends.clear()
        train(batches * batch_size, 2, lambda: ends.append(time.perf_counter()))
        epoch_seconds = ends[1] - ends[0]
    count = batches * batch_size

    began, done = None, 0

    def turn() -> None:
        """Called after each epoch, the first of which is a warm-up: answers and waits for the next request."""
        nonlocal began, done
        if began is None:
            tell(first - second)
        else:
            done += count
            elapsed = time.perf_counter() - began
            # The number of whole epochs that comes closest to the requested time.
            if elapsed + epoch_seconds / 2 < seconds:
                return
            tell((done / elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        if not sys.stdin.readline():
            sys.exit()
        began, done = time.perf_counter(), 0

    train(count, MANY, turn)
    raise AssertionError("an endless training ended")


def measure_peak() -> NoReturn:
    """Answers the operations per second of the fastest matrix product."""
    tell = teller()
    from peers import gemm

    products = gemm.products()
    while sys.stdin.readline():
        tell(max(product() for product in products for _ in range(3)))
    sys.exit()


def teller() -> Callable[[Any], None]:
    """Reserves the standard output for answers; other output goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda value: print(json.dumps(value), file=answers, flush=True)


def versions(name: str) -> dict[str, str]:
    """The installed packages of those that a contender needs. TensorFlow is distributed under several names."""
    distributions = importlib.metadata.packages_distributions()
    packages = [package for package in CONTENDERS[name].packages if package in distributions]
    return {package: importlib.metadata.version(distributions[package][0]) for package in packages}


def machine() -> str:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu: dict[str, str] = {}
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            cpu.setdefault(key.strip(), value.strip())
    flags = cpu.get("flags", "").split()
    widest = next((name for name in ("avx512f", "avx2") if name in flags), platform.machine())
    return f"{cpus} cores, {cpu.get('model name', platform.processor())}, {widest}, Python {platform.python_version()}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
