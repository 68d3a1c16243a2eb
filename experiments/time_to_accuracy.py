"""Whole-process time to a test accuracy on Fashion-MNIST, for the presets of jaxcls and the same recipes in PyTorch.

    pip install 'jaxcls[cpu]' torch
    python experiments/time_to_accuracy.py
    python experiments/time_to_accuracy.py --presets fast90 --contenders jaxcls --seeds 0 1

Expected: each preset reaches the accuracy in its name as the mean of five seeds, and `best`, which runs only if it is
named, 0.950 in bfloat16. Each run is a separate process on the official 60,000 and 10,000 images: start, imports, data,
compilation, training, test. The schedule is fixed, and the test images are scored once, at its end. jaxcls runs once
more before the seeds, with an empty compilation cache, as in the first run of a user. Convolutions are computed by the
native kernels, which the first run compiles, in float32 or bfloat16, or, in pure JAX, by XLA.

PyTorch trains the same network with the same batch size, optimizer, schedule and augmentation, eagerly and
channels-last, with the images in memory and augmented per batch. Adds its rows to experiments/time_to_accuracy.md.
"""

import argparse
import dataclasses
import functools
import gzip
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jaxcls._utils import environment

TABLE = Path(__file__).with_suffix(".md")


class Augmentation(NamedTuple):
    """The augmentation of a preset, in addition to mirroring, which is used in training and prediction.

    Attributes:
      shift: the greatest shift in training, in pixels, in both directions.
      cut: the side of the square that is blacked out in training, in pixels.
      moves: the shifts, in pixels down and to the right, over which predictions are averaged.
    """

    shift: int = 0
    cut: int = 0
    moves: tuple[int, ...] = (0,)


PRESETS = {
    "fast90": Augmentation(),
    "fast92": Augmentation(),
    "fast93": Augmentation(shift=1),
    "fast94": Augmentation(shift=1),
    "best": Augmentation(shift=2, cut=10, moves=(0, 1, -1)),
}
# A run of `best` takes at least 20 minutes, so it must be named.
DEFAULT = tuple(preset for preset in PRESETS if preset != "best")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=DEFAULT)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.recipe:
        print(json.dumps(train_in_torch(Recipe(**json.loads(options.recipe)), options.seeds[0])))
        return
    for preset in options.presets:
        for contender in options.contenders:
            row = CONTENDERS[contender](preset, options.seeds)
            with TABLE.open("a", encoding="utf-8") as table:
                table.write(row)
            print(row, end="", flush=True)


def row_of(preset: str, contender: str, runs: list[tuple[float, float]], first: str) -> str:
    accuracies, seconds = zip(*runs, strict=True)
    return (
        f"| {preset} | {contender} | {statistics.mean(accuracies):.4f} | {', '.join(f'{a:.4f}' for a in accuracies)} "
        f"| {first} | {statistics.mean(seconds):.1f} | {min(seconds):.1f} to {max(seconds):.1f} "
        f"| {len(os.sched_getaffinity(0))} cores, {processor()} |\n"
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def timed(command: list[str], **options: Any) -> tuple[str, float]:
    began = time.perf_counter()
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options)
    return done.stdout, time.perf_counter() - began


def jaxcls_row(preset: str, seeds: list[int], *, native: bool, dtype: str = "float32") -> str:
    with tempfile.TemporaryDirectory() as folder:

        def run(seed: int, name: str) -> tuple[float, float]:
            command = [sys.executable, "-m", "jaxcls.train", "--task", "fashion_mnist", "--preset", preset]
            directory = Path(folder, name)
            _, seconds = timed(
                [*command, "--dtype", dtype, "--seed", str(seed), "--run-dir", str(directory)],
                env=os.environ | {"XDG_CACHE_HOME": f"{folder}/cache", "JAXCLS_NATIVE": str(int(native))},
            )
            report = json.loads((directory / "results.json").read_text(encoding="utf-8"))
            if report["examples"] != 10_000:
                raise SystemExit("this experiment needs the real Fashion-MNIST: install Debian's dataset-fashion-mnist")
            return report["metrics"]["accuracy"], seconds

        _, first = run(seeds[0], "first")
        runs = [run(seed, str(seed)) for seed in seeds]
    contender = "jaxcls" if native else "jaxcls in pure JAX"
    contender += ", bfloat16" if dtype == "bfloat16" else ""
    return row_of(preset, f"{contender}, jax {version('jax')}", runs, f"{first:.1f}")


def torch_row(preset: str, seeds: list[int]) -> str:
    recipe = json.dumps(dataclasses.asdict(recipe_of(preset)))
    runs = []
    for seed in seeds:
        out, seconds = timed([sys.executable, __file__, "--recipe", recipe, "--seeds", str(seed)])
        runs.append((json.loads(out), seconds))
    return row_of(preset, f"PyTorch {version('torch')}", runs, "")


CONTENDERS: dict[str, Callable[[str, list[int]], str]] = {
    "jaxcls": functools.partial(jaxcls_row, native=True),
    "jaxcls-bfloat16": functools.partial(jaxcls_row, native=True, dtype="bfloat16"),
    "jaxcls-pure": functools.partial(jaxcls_row, native=False),
    "torch": torch_row,
}


@dataclasses.dataclass
class Recipe:
    """A preset in plain numbers for PyTorch.

    Attributes:
      files: the four IDX files: training images and labels, test images and labels.
      stages: the channels of the convolutions of each stage.
      shift, cut, moves: see `Augmentation`.
      rates: the learning rate of each step.
      rows: the number of training examples that are not held out.
    """

    files: list[str]
    stages: list[list[int]]
    shift: int
    cut: int
    moves: Sequence[int]
    epochs: int
    batch_size: int
    label_smoothing: float
    rates: list[float]
    rows: int


def recipe_of(preset: str) -> Recipe:
    """The recipe of a preset."""
    environment.configure()
    import jax
    import numpy as np

    from jaxcls import optimizers
    from jaxcls.data.batching import steps_per_epoch
    from jaxcls.data.datasets.fashion_mnist import IMAGES
    from jaxcls.tasks import fashion_mnist

    assert IMAGES.debian is not None
    _, folder = IMAGES.debian
    chosen = fashion_mnist.TASK.recipe(preset)
    model = fashion_mnist.TASK.models[chosen.model]
    assert isinstance(model, functools.partial)
    rows = round(60_000 * (1 - chosen.validation_fraction))
    steps = chosen.epochs * steps_per_epoch(rows, chosen.batch_size)
    rate = optimizers.schedule(
        chosen.schedule,
        learning_rate=chosen.learning_rate,
        total_steps=steps,
        warmup_steps=round((chosen.warmup or 0) * steps),
    )
    return Recipe(
        files=[f"{folder}/{name}.gz" for name in IMAGES.sha256],
        stages=model.keywords["stages"],
        **PRESETS[preset]._asdict(),
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        label_smoothing=chosen.label_smoothing or 0.0,
        rates=np.asarray(jax.vmap(rate)(np.arange(steps))).tolist(),
        rows=rows,
    )


def train_in_torch(recipe: Recipe, seed: int) -> float:
    """Trains the recipe in PyTorch and returns the test accuracy."""
    import numpy as np
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)

    def read(path: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress(Path(path).read_bytes()), np.uint8, offset=header)

    pixels, labels, test_pixels, test_labels = (
        torch.from_numpy(read(path, header).copy()) for path, header in zip(recipe.files, (16, 8, 16, 8), strict=True)
    )
    selected = torch.randperm(len(labels))[: recipe.rows]
    labels, test_labels = labels.long()[selected], test_labels.long()
    images, test_images = (values.view(-1, 1, 28, 28).float() for values in (pixels, test_pixels))
    images = images[selected]
    mean, deviation = images.mean(), images.std()
    black = (0 - mean) / deviation
    images, test_images = ((values - mean) / deviation for values in (images, test_images))
    model = network(recipe).to(memory_format=torch.channels_last)
    optimizer = muon_of(model)

    step = 0
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(labels)).split(recipe.batch_size):
            batch = augmented(images[rows], recipe, black)
            loss = functional.cross_entropy(model(batch), labels[rows], label_smoothing=recipe.label_smoothing)
            model.zero_grad(set_to_none=True)
            loss.backward()
            optimizer(recipe.rates[step])
            step += 1

    model.eval()
    with torch.inference_mode():
        scores = []
        for batch in test_images.split(500):
            views = [moved(batch, pixels, black) for pixels in recipe.moves]
            scores.append(sum(model(view).softmax(1) for shifted in views for view in (shifted, shifted.flip(3))))
        return (torch.cat(scores).argmax(1) == test_labels).float().mean().item()


def network(recipe: Recipe) -> Any:
    """As `jaxcls.models.VGG`: the first convolution of a stage is pooled before normalization."""
    import torch
    from torch import nn

    layers: list[Any] = []
    previous, side = 1, 28
    for stage in recipe.stages:
        for index, features in enumerate(stage):
            conv = nn.Conv2d(previous, features, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            pool = [] if index else [nn.MaxPool2d(2)]
            # PyTorch's momentum is the weight of the new batch.
            layers += [conv, *pool, nn.BatchNorm2d(features, eps=1e-5, momentum=0.1), nn.ReLU(inplace=True)]
            previous = features
        side //= 2
    model = nn.Sequential()
    model.add_module("features", nn.Sequential(*layers, nn.Flatten()))
    model.add_module("head", nn.Linear(side * side * previous, 10))
    torch.nn.init.zeros_(model.head.bias)
    return model


def augmented(images: Any, recipe: Recipe, black: Any) -> Any:
    """Augments each image as `jaxcls.data.augmentation` does; the images are normalized, (N, 1, 28, 28)."""
    import torch
    from torch.nn import functional

    count, _, height, width = images.shape
    images = torch.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(3), images)
    if recipe.shift:
        padded = functional.pad(images, [recipe.shift] * 4, value=float(black))
        tops, lefts = torch.randint(2 * recipe.shift + 1, (2, count, 1))
        rows, columns = tops + torch.arange(height), lefts + torch.arange(width)
        images = padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
    if recipe.cut:
        # The center is anywhere in the image, so the square may extend beyond it.
        top, left = (torch.randint(size, (count, 1)) - recipe.cut // 2 for size in (height, width))
        rows, columns = torch.arange(height) - top, torch.arange(width) - left
        in_rows, in_columns = ((offsets >= 0) & (offsets < recipe.cut) for offsets in (rows, columns))
        images = torch.where((in_rows[:, :, None] & in_columns[:, None, :])[:, None], black, images)
    return images


def moved(images: Any, pixels: int, black: Any) -> Any:
    """Shifts images down and to the right, or up and to the left if ``pixels`` is negative."""
    from torch.nn import functional

    return functional.pad(images, [pixels, -pixels] * 2, value=float(black))


def muon_of(model: Any) -> Any:
    """Returns ``rate -> None``, which updates all parameters as `jaxcls.optimizers.muon` does.

    `torch.optim.Muon` does not accept convolution kernels. The last layer, biases and scales are updated by Nadam.
    """
    import torch

    hidden = [p for name, p in model.named_parameters() if p.ndim >= 2 and not name.startswith("head")]
    rest = [p for name, p in model.named_parameters() if p.ndim < 2 or name.startswith("head")]
    adam = [(torch.zeros_like(p), torch.zeros_like(p)) for p in rest]
    means = [torch.zeros_like(p) for p in hidden]
    beta, b1, b2, taken = 0.95, 0.9, 0.999, 0

    @torch.no_grad()
    def update(rate: float) -> None:
        nonlocal taken
        taken += 1
        for p, mean in zip(hidden, means, strict=True):
            mean.lerp_(p.grad, 1 - beta)
            ahead = mean * (beta / (1 - beta ** (taken + 1))) + p.grad * ((1 - beta) / (1 - beta**taken))
            x = orthogonal(ahead.flatten(1))
            p.add_(x.view_as(p), alpha=-0.2 * rate * math.sqrt(max(x.shape)))
        for p, (mean, square) in zip(rest, adam, strict=True):
            mean.lerp_(p.grad, 1 - b1)
            square.lerp_(p.grad.square(), 1 - b2)
            ahead = mean * (b1 / (1 - b1 ** (taken + 1))) + p.grad * ((1 - b1) / (1 - b1**taken))
            root = (square / (1 - b2**taken)).sqrt_().add_(1e-8)
            p.addcdiv_(ahead, root, value=-rate)

    return update


def orthogonal(x: Any) -> Any:
    """Five Newton-Schulz iterations towards the nearest matrix with orthonormal rows or columns."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


if __name__ == "__main__":
    main()
