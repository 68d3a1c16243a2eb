"""Whole-process time of one epoch of an MLP on Fashion-MNIST and its test, in jaxcls and in other frameworks.

    pip install keras tensorflow torch
    python experiments/cold_start.py

Expected: from the second run on, jaxcls takes less time than Keras on JAX (a ratio of 0.75 in the committed table),
although it also writes checkpoints and all its scores. Writes experiments/cold_start.md. Takes about
three minutes on 2 cores.

Each job is a separate process, measured from the start of the interpreter to its end. In the first run nothing is
compiled: the compilation cache of jaxcls is empty. The frameworks take turns, and the table shows medians. The files of
the data and of the libraries are in the page cache for all. A framework that is not installed is skipped.
"""

import argparse
import gzip
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils import environment

# Debian's package dataset-fashion-mnist.
FOLDER = Path("/usr/share/datasets/fashion-mnist")
BATCH_SIZE = 128
COMMAND = ["-m", "jaxcls.train", "--task", "fashion_mnist", "--model", "mlp", "--epochs", "1"]
IMPORTS = ("numpy", "jax", "optax", "flax.nnx", "jaxcls.tasks.train", "orbax.checkpoint")
MODELS = ("mlp", "cnn", "resnet", "transformer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how many runs follow the first")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--compile", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        PEERS[options.peer][1]()
    elif options.compile:
        compile_model(options.compile)
    else:
        report(options.rounds)


def report(rounds: int) -> None:
    if not FOLDER.is_dir():
        raise SystemExit("this experiment needs the real Fashion-MNIST: install Debian's dataset-fashion-mnist")
    present = [name for name, (package, _) in PEERS.items() if importlib.util.find_spec(package)]
    absent = [name for name in PEERS if name not in present]
    with tempfile.TemporaryDirectory() as scratch:
        # Each has a separate cache, which is empty in the first run.
        first = {name: whole_process(name, Path(scratch) / name) for name in ["jaxcls", *present]}
        later: dict[str, list[float]] = {name: [] for name in first}
        for _ in range(rounds):
            for name, seconds in later.items():
                seconds.append(whole_process(name, Path(scratch) / name))
        compiled = [[compile_seconds(model, Path(scratch) / "models") for _ in range(2)] for model in MODELS]
    imported = import_seconds()
    median = {name: statistics.median(seconds) for name, seconds in later.items()}
    # Several packages provide the module tensorflow.
    packages = packages_distributions()
    known = [name for name in ("jax", "keras", "tensorflow", "torch") if name in packages]
    versions = [f"{name} {version(packages[name][0])}" for name in known]
    setting = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {', '.join(versions)}."
    )
    job = (
        f"Real Fashion-MNIST, MLP 784-512-256-10, batch size {BATCH_SIZE}, one epoch and the test: seconds of the "
        f"whole process. Later runs: median of {rounds}, with the range in parentheses."
    )
    lines = [
        "# Cold start",
        "",
        f"Written by `python {' '.join(sys.argv)}`.",
        setting,
        job,
        *([f"Not installed: {', '.join(absent)}."] if absent else []),
        "",
        "| framework | first run, s | later runs, s | ratio of jaxcls, first run | later runs |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in later.items():
        lines.append(
            f"| {name} | {first[name]:.1f} | {median[name]:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) "
            f"| {first['jaxcls'] / first[name]:.2f} | {median['jaxcls'] / median[name]:.2f} |"
        )
    lines += ["", "Import time of each module after those above it:", "", "| module | s |", "|---|---|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in zip(IMPORTS, imported, strict=True)]
    lines += [
        "",
        "Seconds until the program of 32 training steps is ready. Tracing and lowering happen in every run.",
        "",
        "| model | tracing and lowering | compilation, first run | from the cache |",
        "|---|---|---|---|",
    ]
    for model, ((_, cold), (lowering, warm)) in zip(MODELS, compiled, strict=True):
        lines.append(f"| {model} | {lowering:.2f} | {cold:.2f} | {warm:.2f} |")
    table = "\n".join(lines) + "\n"
    print(table)
    Path(__file__).with_suffix(".md").write_text(table, encoding="utf-8")


def whole_process(name: str, folder: Path) -> float:
    """Runs one job and returns its seconds."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    arguments = [*COMMAND, "--run-dir", str(run)] if name == "jaxcls" else [__file__, "--peer", name]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=with_cache(folder), capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{name} ended with status {done.returncode}:\n{done.stderr}")
    print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return seconds


def compile_seconds(model: str, cache: Path) -> list[float]:
    """Of lowering and of compiling, in a process of its own."""
    command = [sys.executable, __file__, "--compile", model]
    output = subprocess.run(command, env=with_cache(cache), check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(number) for number in output.split()]


def with_cache(folder: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(folder)}


def import_seconds() -> list[float]:
    """The import time of each of IMPORTS after those before it, in a new process."""
    code = f"""
import time
times = [time.perf_counter()]
for name in {IMPORTS}:
    __import__(name)
    times.append(time.perf_counter())
print(*[after - before for before, after in zip(times, times[1:])])
"""
    output = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(number) for number in output.split()]


def compile_model(name: str) -> None:
    """Prints the seconds of tracing and lowering, and of compilation."""
    environment.configure()
    import jax
    import jax.numpy as jnp

    from jaxcls import losses, optimizers
    from jaxcls.data import batching
    from jaxcls.models import functional, text, vision
    from jaxcls.training import steps

    if name == "transformer":
        inputs, classes = np.zeros((32, 256), np.int32), 2
        model = functional(
            lambda rngs: text.Transformer(classes, vocabulary_size=8000, max_length=256, dropout=0.1, rngs=rngs)
        )
    else:
        inputs, classes = np.zeros((BATCH_SIZE, 28, 28, 1), np.float32), 10
        build = {"mlp": vision.MLP, "cnn": vision.CNN, "resnet": vision.ResNet}[name]
        model = functional(lambda rngs: build(inputs.shape[1:], classes, dropout=0.1, rngs=rngs))
    optimizer = optimizers.adam(1e-3)
    step = steps.make_train_step(model, losses.get("sparse_categorical_crossentropy", normalizer="batch"), optimizer)
    state = steps.init_state(model, optimizer, seed=0)
    batch = batching.take(
        batching.examples(inputs, np.zeros(len(inputs), np.int32)), np.arange(len(inputs)), np.ones(len(inputs), bool)
    )
    batches = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (32, *leaf.shape)), batch)
    began = time.perf_counter()
    train_chunk: Any = steps.make_train_chunk(step)
    lowered = train_chunk.lower(state, batches)
    middle = time.perf_counter()
    lowered.compile()
    print(middle - began, time.perf_counter() - middle)


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four files as arrays: images scaled to at most 1, and labels."""

    def read(name: str, header: int) -> np.ndarray:
        with gzip.open(FOLDER / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    def images(name: str) -> np.ndarray:
        return read(f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255

    def labels(name: str) -> np.ndarray:
        return read(f"{name}-labels-idx1-ubyte.gz", 8).astype(np.int64)

    return images("train"), labels("train"), images("t10k"), labels("t10k")


def keras(backend: str) -> None:
    """Trains as Keras's guides do: model.compile, model.fit, model.evaluate."""
    os.environ["KERAS_BACKEND"] = backend
    import keras
    from keras import layers

    train_images, train_labels, test_images, test_labels = load()
    hidden = [layers.Dense(512, activation="relu"), layers.Dense(256, activation="relu")]
    model = keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    model.fit(train_images, train_labels, batch_size=BATCH_SIZE, epochs=1, verbose=0)
    print(model.evaluate(test_images, test_labels, batch_size=500, verbose=0))


def torch() -> None:
    """Trains eagerly, with batches gathered by index, so that no worker process starts."""
    import torch
    from torch import nn

    train_images, train_labels, test_images, test_labels = map(torch.from_numpy, load())
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss = nn.CrossEntropyLoss()
    for rows in torch.randperm(len(train_labels)).split(BATCH_SIZE):
        optimizer.zero_grad(set_to_none=True)
        loss(model(train_images[rows]), train_labels[rows]).backward()
        optimizer.step()
    with torch.inference_mode():
        print((model(test_images).argmax(1) == test_labels).float().mean().item())


PEERS: dict[str, tuple[str, Callable[[], None]]] = {
    "keras-jax": ("keras", lambda: keras("jax")),
    "keras-tensorflow": ("tensorflow", lambda: keras("tensorflow")),
    "torch": ("torch", torch),
}


if __name__ == "__main__":
    main()
