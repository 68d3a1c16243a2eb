"""What jaxcls does on a GPU, in at most ten minutes: speed next to PyTorch, reproducibility, memory, and records.

    python experiments/gpu.py --fashion-mnist FOLDER
    python experiments/gpu.py --dry-run    # tiny sizes, on a CPU: whether the script runs

FOLDER holds the four files of Fashion-MNIST. Only the packages that are there are needed: without PyTorch with CUDA, it
is left out. It was not run on a GPU yet. Writes experiments/gpu.md, or the file of --output, after each part, so that
an interruption loses nothing:

1. The fastest matrix product and copy of XLA, for the roofline.
2. Whether two runs with --deterministic have the same weights, bit for bit.
3. The memory that jaxcls expects of a step, next to the most that the device had in use in its first run.
4. Fashion-MNIST: the accuracy of the presets fast94 and best, and the seconds of the process, twice: first with an
   empty compilation cache. `best` reaches 95 %.
5. Training examples per second by batch size, float32 (TF32) and bfloat16, of jaxcls and of PyTorch compiled, with CUDA
   graphs; see experiments/throughput.py for what is trained. The processes of a model compile at the same time and are
   then measured in turn. What is not ready when the time is over is left out, and named.

The roofline is the least time of a step: the operations of products and convolutions at the rate of the fastest product
of the same type, or the float32 weights and both moments of Adam read and written once at the rate of the fastest copy,
whichever is longer. The memory of activations is not counted.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import throughput
from peers import CONTENDERS
from peers.workloads import training_flops

MODELS = ("cnn", "resnet", "transformer", "minilm", "retinanet")
NAMES = ("jaxcls", "torch-compiled", "jaxcls-bfloat16", "torch-compiled-bfloat16")
PRESETS = ("fast94", "best")
# Without the compilers of C++, which take the longest on a CPU.
DRY_NAMES = ("jaxcls-pure", "torch", "torch-bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion-mnist", type=Path, help="folder of its four files; by default that of Debian")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128, 1024, 4096])
    parser.add_argument("--minutes", type=float, default=9.5, help="after which nothing more is measured")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on a CPU; prints, and writes nothing")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    deadline = time.monotonic() + 60 * options.minutes
    # Many processes share the device.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if options.fashion_mnist:
        os.environ["FASHION_MNIST"] = str(options.fashion_mnist)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (roofline, reproducibility, memory, records, speed):
            try:
                for line in part(options, Path(folder), deadline):
                    lines.append(line)
                    print(line, flush=True)
            except (subprocess.SubprocessError, ValueError, KeyError) as error:
                lines.append(f"\n{part.__name__} failed: {error}")
                print(lines[-1], flush=True)
            if not options.dry_run:
                options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def roofline(options: argparse.Namespace, folder: Path, deadline: float) -> Iterator[str]:
    yield f"# On a GPU\n\nWritten by `python experiments/gpu.py`; its docstring says how.\n\n{throughput.machine()}."
    options.peaks = answer_of(options, "peaks", folder, deadline)
    peaks = dict(options.peaks)
    device, versions = peaks.pop("device"), peaks.pop("versions")
    yield f"{device}; {versions}.\n\n| rate of XLA | |\n|---|---|"
    for name, rate in peaks.items():
        yield f"| {name} | {rate / 1e12:,.3f} {'TB' if name == 'copy' else 'TFLOP'}/s |"


def peaks(options: argparse.Namespace) -> dict[str, Any]:
    """Measures the fastest matrix product of each type, and a copy that counts bytes read and written."""
    import flax
    import jax
    import jax.numpy as jnp

    side = 512 if options.dry_run else 8192

    def seconds(function: Callable[..., Any], *arguments: Any) -> float:
        compiled, spent = jax.jit(function), []
        for _ in range(10):
            began = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            spent.append(time.perf_counter() - began)
        return min(spent)

    rates: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        factor = jax.random.normal(jax.random.key(0), (side, side), dtype)
        # One product after another, in one dispatch.
        chain = seconds(lambda a: jax.lax.fori_loop(0, 8, lambda _, x: x @ a, a), factor) / 8
        rates[dtype] = 2 * side**3 / chain
    numbers = jnp.zeros(side**2 * 4)
    rates["copy"] = 2 * numbers.nbytes / seconds(lambda x: x + 1, numbers)
    return rates | {
        "device": jax.devices()[0].device_kind,
        "versions": f"jax {jax.__version__}, flax {flax.__version__}",
    }


def reproducibility(options: argparse.Namespace, folder: Path, deadline: float) -> Iterator[str]:
    yield "\n| `--deterministic`, one epoch, twice | SHA-256 of the weights | equal |\n|---|---|---|"
    for model in ("cnn",) if options.dry_run else ("cnn", "resnet"):
        digests = []
        for number in range(2):
            flags = ["--model", model, "--epochs", "1", "--deterministic"]
            results, _ = trained(options, folder / f"deterministic-{model}-{number}", flags, deadline)
            digests.append(results["params_sha256"])
        yield f"| {model} | {digests[0][:8]} | {'yes' if digests[0] == digests[1] else f'no: {digests[1][:8]}'} |"


def memory(options: argparse.Namespace, folder: Path, deadline: float) -> Iterator[str]:
    yield "\n| batch | model | bytes that jaxcls expects | most in use | ratio |\n|---|---|---|---|---|"
    for model in ("cnn",) if options.dry_run else ("cnn", "resnet", "vgg"):
        # Twice, as choosing the kernels takes memory too, and what was chosen is cached.
        for _ in range(2):
            answer = answer_of(options, "step", folder, deadline, "--model", model)
        expected, used = answer["expected"], answer["used"]
        seen = "not known on a CPU | " if used is None else f"{used:,} | {expected / used:.2f}"
        yield f"| {answer['batch']:,} | {model} | {expected:,} | {seen} |"


def step_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Runs one step, and returns the memory that was expected and the most that was in use."""
    import jax
    import numpy as np

    import jaxcls
    from jaxcls import optimizers
    from jaxcls.models import vision
    from jaxcls.training import compile as compiling
    from jaxcls.training.memory import needed_by

    count = 16 if options.dry_run else 4096
    build: Any = {"cnn": vision.CNN, "resnet": vision.ResNet, "vgg": vision.VGG}[options.model]
    experiment = jaxcls.compile(
        lambda rngs: build((28, 28, 1), 10, rngs=rngs),
        loss="sparse_categorical_crossentropy",
        optimizer=optimizers.adam(1e-3),
    )
    state = experiment.init(seed=0)
    batch = compiling.batch(np.zeros((count, 28, 28, 1), np.float32), np.zeros(count, np.int32))
    lowered = jax.jit(experiment.step, donate_argnums=0).lower(state, batch)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((state, batch)))
    expected = held + (needed_by(lowered) or 0)
    jax.block_until_ready(lowered.compile()(state, batch))
    statistics = jax.devices()[0].memory_stats()
    return {"batch": count, "expected": expected, "used": statistics and statistics["peak_bytes_in_use"]}


def records(options: argparse.Namespace, folder: Path, deadline: float) -> Iterator[str]:
    yield "\n| preset | type | test accuracy | first run, s | second run, s |\n|---|---|---|---|---|"
    for preset in ("fast90",) if options.dry_run else PRESETS:
        for dtype in ("float32",) if options.dry_run else ("float32", "bfloat16"):
            flags = ["--preset", preset, "--dtype", dtype, *(["--epochs", "1"] if options.dry_run else [])]
            # With a cache of its own.
            separate = folder / f"{preset}-{dtype}"
            separate.mkdir()
            runs = [trained(options, separate / f"run-{number}", flags, deadline) for number in range(2)]
            accuracies = ", ".join(f"{results['metrics']['accuracy']:.4f}" for results, _ in runs)
            yield f"| {preset} | {dtype} | {accuracies} | {' | '.join(f'{seconds:.1f}' for _, seconds in runs)} |"


def speed(options: argparse.Namespace, folder: Path, deadline: float) -> Iterator[str]:
    yield (
        "\n| model | batch | contender | examples/s | ratio to PyTorch | TFLOP/s | share of the roofline | start, s |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    names = DRY_NAMES if options.dry_run else NAMES
    left_out = []
    for model in options.models:
        cells = [(size, name) for size in ([8] if options.dry_run else options.batch_sizes) for name in names]
        if time.monotonic() > deadline:
            left_out += [f"{model} {size} {name}: no time was left" for size, name in cells]
            continue
        with contextlib.ExitStack() as stack:
            # All compile at the same time; what hangs is killed.
            rows = {cell: row_of(stack, model, *cell, folder, deadline, dry_run=options.dry_run) for cell in cells}
            ready: dict[tuple[int, str], tuple[throughput.Worker, int, float]] = {}
            for cell, worker in rows.items():
                try:
                    parameters = worker.answer()
                    start = time.monotonic() - worker.started
                    worker.answer()
                    ready[cell] = worker, parameters, start
                except throughput.WorkerFailed as failure:
                    left_out.append(f"{model} {cell[0]} {cell[1]}: {failure}")
            rates: dict[tuple[int, str], list[float]] = {cell: [] for cell in ready}
            for _ in range(1 if options.dry_run else 3):
                for cell, (worker, *_) in ready.items():
                    with contextlib.suppress(throughput.WorkerFailed):
                        rates[cell].append(worker.measure()[0])
            for (size, name), (_, parameters, start) in ready.items():
                if not rates[size, name]:
                    left_out.append(f"{model} {size} {name}: no time was left")
                    continue
                rate = sorted(rates[size, name])[len(rates[size, name]) // 2]
                other = sorted(rates.get((size, name.replace("jaxcls", names[1])), []))
                ratio = f"{rate / other[len(other) // 2]:.2f}" if other and name.startswith("jaxcls") else ""
                dtype = "bfloat16" if name.endswith("bfloat16") else "float32"
                operations = training_flops(model) * size
                # The weights and both moments are read and written.
                least = max(operations / options.peaks[dtype], 6 * 4 * parameters / options.peaks["copy"])
                yield (
                    f"| {model} | {size} | {CONTENDERS[name].title} | {rate:,.0f} | {ratio} "
                    f"| {rate * training_flops(model) / 1e12:,.2f} | {least * rate / size:.0%} | {start:.0f} |"
                )
    if left_out:
        yield "\nLeft out:\n"
        yield from (f"- {line}" for line in left_out)


def row_of(
    stack: contextlib.ExitStack, model: str, size: int, name: str, folder: Path, deadline: float, *, dry_run: bool
) -> throughput.Worker:
    """Starts a process that compiles, and is killed when the time is over."""
    cache = folder / f"{model}-{size}"
    cache.mkdir(exist_ok=True)
    worker = stack.enter_context(throughput.Worker(name, model, size, 0.2 if dry_run else 1.0, cache))
    timer = threading.Timer(max(1.0, deadline - time.monotonic()), worker.kill)
    timer.daemon = True
    timer.start()
    stack.callback(timer.cancel)
    return worker


def trained(
    options: argparse.Namespace, directory: Path, flags: list[str], deadline: float
) -> tuple[dict[str, Any], float]:
    """Trains Fashion-MNIST; returns results.json and the seconds of the process."""
    data = ["--source", "sample"] if options.dry_run else ["--source", "files"]
    if options.fashion_mnist and not options.dry_run:
        data += ["--data-dir", str(options.fashion_mnist)]
    command = [sys.executable, "-m", "jaxcls.train", "--task", "fashion_mnist", *data, *flags]
    began = time.perf_counter()
    finished([*command, "--run-dir", str(directory)], directory.parent, deadline)
    seconds = time.perf_counter() - began
    return json.loads((directory / "results.json").read_text(encoding="utf-8")), seconds


def answer_of(options: argparse.Namespace, part: str, folder: Path, deadline: float, *arguments: str) -> dict[str, Any]:
    """Runs a part in its own process, whose memory and device are then free again."""
    flags = ["--part", part, *arguments, *(["--dry-run"] if options.dry_run else [])]
    answer: dict[str, Any] = json.loads(finished([sys.executable, __file__, *flags], folder, deadline).splitlines()[-1])
    return answer


def finished(command: list[str], folder: Path, deadline: float) -> str:
    """Returns the output of a command, which has a cache of its own in the folder."""
    # On a GPU there are no native kernels, and the dry run need not compile them.
    variables = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "JAXCLS_NATIVE": "0"}
    seconds = max(1.0, deadline - time.monotonic())
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise ValueError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"peaks": peaks, "step": step_memory}

if __name__ == "__main__":
    main()
