"""Image folders that are larger than memory: peak memory, the first step, the rate, and SIGKILL.

    python experiments/big_data.py --folder /tmp/big_data               # 50,000 files of 224 pixels; needs 9 GB of disk
    python experiments/big_data.py --folder /tmp/big_data --files 5000  # quick; writes nothing

Writes experiments/big_data.md. The files are 500 different drawings (SYNTHETIC), each of which is linked under many
names, so that they take little disk; they are decoded and cached as if they were all different.

Every run is a process of its own, with a model that is so small that decoding is the bound: a linear one of 7 x 7 mean
colors, without augmentation.

- decoding alone: Pillow to RGB arrays in one thread per core, nothing kept.
- the first epoch decodes, the later ones read the cache. As other load changes what a second is worth, images per
  second of a core are given too; these include compiling and validation.
- the peak of memory (VmHWM) is compared with that of the same program on the first 200 files.
- 1 GB of pixels is trained on under a limit of the data segment (RLIMIT_DATA), which bounds what is allocated.
- the same run is killed by SIGKILL and continued; its parameters must be those of the undisturbed one.

Expected: a difference of memory below 1 GB, a first step within 15 s, and over the epochs more images a second than
decoding alone.
"""

import argparse
import concurrent.futures
import io
import itertools
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import processes

TABLE = Path(__file__).with_suffix(".md")
FILES, SIDE, DISTINCT, FEW, GIGABYTE = 50_000, 224, 500, 200, 7_000
EPOCHS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for files, caches and runs; created")
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--checkpoint-seconds", type=float, default=20.0)
    parser.add_argument("--limit", type=int, default=700, help="RLIMIT_DATA in MB")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), Path(options.child[1]), options.epochs, options.checkpoint_seconds)
        return

    data = {count: write(options.folder, count) for count in (options.files, FEW, GIGABYTE)}
    alone = decoding_alone(data[options.files])
    print(f"decoding alone: {alone[0]:,.0f} images/s, {alone[1]:,.0f} per second of a core")
    few = run(options, data[FEW], "few")
    many = run(options, data[options.files], "many")
    options.checkpoint_seconds = 1.0
    limited = run(options, data[GIGABYTE], "limited", limit=options.limit << 20)
    killed = run(options, data[GIGABYTE], "killed", kill_at=limited["step"] // 4)
    continued = run(options, data[GIGABYTE], "killed", keep=True)
    text = table(options, alone, few, many, killed, continued, limited)
    print(text)
    if options.files == FILES:
        TABLE.write_text(text, encoding="utf-8")


def write(folder: Path, count: int) -> Path:
    """Writes JPEG files of drawings in two folders, one for each class, unless they are there."""
    root = folder / f"images-{count}"
    if root.exists():
        return root
    drawings = folder / "drawings"
    if not drawings.exists():
        draw(drawings)
    partial = folder / f"partial-{count}"
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("blue", "red"):
        (partial / name).mkdir(parents=True)
    for number in range(count):
        os.link(drawings / f"{number % DISTINCT}.jpg", partial / ("blue", "red")[number % 2] / f"{number:06}.jpg")
    return partial.rename(root)


def draw(folder: Path) -> None:
    """Writes the drawings, which compress like photographs; the two classes differ in color."""
    from PIL import Image

    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(DISTINCT):
        layers = [
            Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).resize((SIDE, SIDE), 3)
            for size in (4, 16, 56)
        ]
        pixels = np.tensordot([0.5, 0.3, 0.2], np.stack([np.asarray(layer, np.float64) for layer in layers]), 1)
        pixels[..., number % 2] *= 0.8
        content = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=85)
        (folder / f"{number}.jpg").write_bytes(content.getvalue())


def decoding_alone(root: Path) -> tuple[float, float]:
    """The images that Pillow decodes in one thread per core, per second and per second of a processor."""
    from PIL import Image

    def decode(path: Path) -> int:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).shape[0]

    paths = sorted(root.rglob("*.jpg"))[:10_000]
    begin, before = time.perf_counter(), time.process_time()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        assert set(pool.map(decode, paths, chunksize=64)) == {SIDE}
    return len(paths) / (time.perf_counter() - begin), len(paths) / (time.process_time() - before)


def run(
    options: Any, data: Path, name: str, *, keep: bool = False, kill_at: int | None = None, limit: int = 0
) -> dict[str, Any]:
    """Trains in a process; returns what it wrote, the peak of its memory and its status.

    Args:
      keep: continue the earlier run of this name, with its cache.
      kill_at: the step at which it is killed.
      limit: of the data segment, in bytes.
    """
    directory, cache = options.folder / f"run-{name}", options.folder / f"cache-{name}"
    if not keep:
        for path in (directory, cache):
            shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, __file__, "--folder", options.folder, "--epochs", str(options.epochs)]
    command += ["--checkpoint-seconds", str(options.checkpoint_seconds)]
    # Compiled programs are shared.
    variables = {"XDG_CACHE_HOME": str(cache), "JAX_COMPILATION_CACHE_DIR": str(options.folder / "compiled")}
    begin, log = time.time(), options.folder / f"{name}.log"

    def limited() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    lines: list[dict[str, Any]] = []
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*map(str, command), "--child", str(data), str(directory)],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | variables, preexec_fn=limited,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                lines.append(json.loads(line))
                if kill_at is not None and lines[-1]["step"] >= kill_at:
                    process.send_signal(signal.SIGKILL)
        status = process.wait()
    print(f"{name}: status {status}, {time.time() - begin:.0f} s, {log.read_text()[-2000:]}")
    if keep is False and kill_at is None:
        shutil.rmtree(cache, ignore_errors=True)
    first = next(line["time"] for line in lines if "begin" not in line)
    return {"status": status, "lines": lines, "first": first - begin} | lines[-1]


def child(data: Path, directory: Path, epochs: int, checkpoint_seconds: float) -> None:
    """Trains the image_folder task with a small model; prints a line for each dispatch."""
    from jaxcls._utils import environment

    environment.configure()
    import dataclasses

    import jax
    from flax import nnx

    from jaxcls.reports.callbacks import Callback
    from jaxcls.tasks import TASKS
    from jaxcls.tasks.train import train_task
    from jaxcls.training.settings import Settings
    from jaxcls.training.steps import no_augmentation

    class Colors(nnx.Module):
        """A linear model of the mean colors of squares."""

        def __init__(self, *, num_classes: int, rngs: nnx.Rngs, input_shape: Any, **others: Any):
            self.head = nnx.Linear(7 * 7 * 3, num_classes, rngs=rngs)

        def __call__(self, images: jax.Array) -> jax.Array:
            count, side = images.shape[0], images.shape[1] // 7
            return self.head(images.reshape(count, 7, side, 7, side, 3).mean((2, 4)).reshape(count, -1))

    def tell(**values: Any) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) * 1024
        # What RLIMIT_DATA limits; thread stacks count as a whole.
        data_bytes, threads = int(status["VmData"].split()[0]) * 1024, int(status["Threads"])
        times = {"data_bytes": data_bytes, "threads": threads, "time": time.time(), "processor": time.process_time()}
        print(json.dumps(times | {"peak": peak} | values), flush=True)

    class Teller(Callback):
        def on_train_begin(self, step: int) -> None:
            tell(step=step, begin=True)

        def on_chunk_end(self, step: int, loss: float) -> None:
            tell(step=step)

        def on_epoch_end(self, history: Any) -> None:
            tell(step=history[-1]["step"], epoch=history[-1])

    task = TASKS["image_folder"]
    preset = task.presets["default"]._replace(augment=no_augmentation)
    TASKS["image_folder"] = dataclasses.replace(
        task, models={**task.models, "colors": Colors}, presets={"default": preset}
    )
    settings = Settings(
        task="image_folder", data=data, run_dir=directory, image_size=SIDE, model="colors", epochs=epochs,
        eval_batch_size=64, schedule="constant", warmup=0.0, checkpoint_seconds=checkpoint_seconds, quiet=True,
    )  # fmt: skip
    result = train_task(settings, callbacks=[Teller()], say=lambda line: print(line, file=sys.stderr, flush=True))
    tell(step=int(result.state.step), parameters=result.report["params_sha256"], scores=result.report["metrics"])


def table(
    options: Any, alone: tuple[float, float], few: Any, many: Any, killed: Any, continued: Any, limited: Any
) -> str:
    ends = [line for line in many["lines"] if "epoch" in line]
    rates = [end["epoch"]["examples_per_second"] for end in ends]
    # The examples of an epoch, and those of validation, per second of a core.
    trained = rates[0] * ends[0]["epoch"]["seconds"]
    validated = trained / 9
    begins = [many["lines"][0]["processor"], *(end["processor"] for end in ends)]
    by_core = [(trained + validated) / (end - begin) for begin, end in itertools.pairwise(begins)]
    overall = len(rates) * trained / sum(end["epoch"]["seconds"] for end in ends)
    by_core_overall = len(rates) * (trained + validated) / (begins[-1] - begins[0])
    size = options.files * SIDE**2 * 3 / 1e9
    same = "the same parameters" if continued["parameters"] == limited["parameters"] else "OTHER PARAMETERS"

    def rate(value: float, core: float) -> str:
        shares = f"{value / alone[0]:.2f} and {core / alone[1]:.2f} of decoding alone"
        return f"{value:,.0f}; {core:,.0f} per second of a core ({shares})"

    rows = {
        "decoding alone, images/s": f"{alone[0]:,.0f}; {alone[1]:,.0f} per second of a core",
        "first epoch, images/s": rate(rates[0], by_core[0]),
        "last epoch, images/s": rate(rates[-1], by_core[-1]),
        f"all {len(ends)} epochs, images/s": rate(overall, by_core_overall),
        "first dispatch of steps is done after": f"{many['first']:.1f} s",
        f"peak memory with {FEW} files": f"{few['peak'] / 1e9:.2f} GB",
        f"peak memory with {options.files:,} files": f"{many['peak'] / 1e9:.2f} GB, of {size:.1f} GB of pixels",
        f"{GIGABYTE:,} files, 1.1 GB of pixels, under RLIMIT_DATA of {options.limit} MB": (
            f"status {limited['status']}, peak memory {limited['peak'] / 1e9:.2f} GB"
        ),
        "killed at step": f"{killed['step']:,} of {limited['step']:,}, status {killed['status']}",
        "continued": f"from step {continued['lines'][0]['step']:,}, first dispatch after {continued['first']:.1f} s, "
        + same,
    }
    explanation = (
        f"Written by `python experiments/big_data.py`. {processes.machine()}, for decoding and steps alike; Python "
        f"{platform.python_version()}, jax {version('jax')}, Pillow {version('pillow')}. {options.files:,} JPEG files "
        f"of {SIDE} pixels (SYNTHETIC), seed 0."
    )
    lines = ["# Image folders larger than memory", "", explanation, "", "| measured | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"


if __name__ == "__main__":
    main()
