"""chest_xray on real radiographs, whose test images differ from the training images, and how its recipe was chosen.

    python experiments/chest_xray.py --data-dir chest_xray/ --runs runs/ --choose --recipe before
    python experiments/chest_xray.py --data-dir chest_xray/ --runs runs/ --seeds 0 1 2
    python experiments/chest_xray.py --data-dir chest_xray/ --runs runs/ --pretrained lite0/ --freeze backbone

The folder of --data-dir is that of the task: Kaggle's chest_xray/, or the one with MedMNIST's pneumoniamnist.npz. With
--choose, the scores are those of the validation images (of other patients than the training images, in Kaggle's) and of
copies of them that are shifted in exposure, contrast, sharpness, noise, size, aspect ratio and angle. Without it, they
are those of the test images. Other flags are passed to jaxcls train; a finished run of --runs is not trained again.
Each call adds a row to experiments/chest_xray.md: means of the seeds, and for test images intervals that hold 95% of
the means of 1,000 bootstrap samples of the images.
"""

import argparse
import dataclasses
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from jaxcls import metrics, tasks
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.data import augmentation
from jaxcls.tasks import build, predictor
from jaxcls.tasks.task import Preset
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

TABLE = Path(__file__).with_suffix(".md")
CHOICE = """## Validation images

| data | recipe | seeds | AUC | AUC, shifted | lowest | balanced accuracy | balanced, shifted | CPU seconds |
|---|---|---|---|---|---|---|---|---|
"""
TEST = """## Test images

| data | recipe | seeds | accuracy | balanced | sensitivity | specificity | AUC | specificity at sensitivity 0.97 |
|---|---|---|---|---|---|---|---|---|
"""


class Run(NamedTuple):
    """The probabilities of pneumonia that a run predicts, the labels, its threshold, and the processor's seconds."""

    scores: dict[str, np.ndarray]
    labels: np.ndarray
    threshold: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of the images")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--recipe", choices=candidates(), default="default", help="that of the task, or a candidate")
    parser.add_argument("--choose", action="store_true", help="score validation images, not test images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments, flags = parser.parse_known_args()
    presets = {"default": candidates()[arguments.recipe]}
    tasks.TASKS["chest_xray"] = dataclasses.replace(tasks.TASKS["chest_xray"], presets=presets)
    recipe = " ".join([arguments.recipe, *(Path(flag).name for flag in flags)])
    runs = []
    for seed in arguments.seeds:
        directory = arguments.runs / f"{arguments.data_dir.name} {recipe} {seed}".replace(" ", "_")
        words = ["--task", "chest_xray", "--data-dir", str(arguments.data_dir), "--seed", str(seed), *flags]
        runs.append(train(parse(Train, [*words, "--run-dir", str(directory)]), arguments.choose))
    cells = choice(runs) if arguments.choose else test(runs)
    add_row(
        CHOICE if arguments.choose else TEST,
        [arguments.data_dir.name, recipe, " ".join(map(str, arguments.seeds)), *cells],
    )


def candidates() -> dict[str, Preset]:
    """The recipes that were tried, by name."""
    default = tasks.get("chest_xray").presets["default"]
    before = dataclasses.replace(default.settings, standardize="dataset", tune_threshold="balanced_accuracy")
    shift = augmentation.inputs_only(augmentation.shift(4))
    return {
        "default": default,
        "before": Preset(before, shift),
        "standardized": Preset(dataclasses.replace(before, standardize="image"), shift),
        "augmented": default._replace(settings=before),
    }


def train(settings: Settings, choose: bool) -> Run:
    start = time.process_time()
    # Its lines would show the scores of the test images.
    directory = train_task(settings, say=lambda line: None).directory
    note = directory.with_suffix(".seconds")
    if not note.exists():
        note.write_text(str(time.process_time() - start))
    learned = predictor.load(directory)
    task, resolved = build.resolve(settings)
    splits = build.load(task, resolved, say=lambda line: None)[1]
    one = splits.validation if choose else splits.test
    names = ["unchanged", *shifts()] if choose else ["unchanged"]
    scores = {name: learned.predict(shifted(one.inputs, name)) for name in names}
    return Run(scores, one.labels, learned.thresholds, float(note.read_text()))


def shifts() -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Functions that change a gray image as another scanner, radiographer or patient might."""

    def values(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Image.Image], Image.Image]:
        table = np.rint(255 * function(np.arange(256) / 255).clip(0, 1)).astype(int).tolist()
        return lambda image: image.point(table)

    def crop(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
        return lambda image: image.transform(
            image.size,
            Image.Transform.EXTENT,
            (left * image.width, top * image.height, right * image.width, bottom * image.height),
            Image.Resampling.BILINEAR,
        )

    noise = np.random.default_rng(0)
    return {
        "gamma 0.5": values(lambda value: value**0.5),
        "gamma 2": values(lambda value: value**2),
        "less contrast": values(lambda value: 0.25 + value / 2),
        "more contrast": values(lambda value: 1.6 * value - 0.3),
        "brighter": values(lambda value: value + 0.2),
        "darker": values(lambda value: value - 0.2),
        "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 64)),
        "noise": lambda image: Image.fromarray(
            (np.asarray(image) + noise.normal(0, 15, image.size)).clip(0, 255).astype(np.uint8)
        ),
        "nearer": crop(0.12, 0.12, 0.88, 0.88),
        "farther": crop(-0.12, -0.12, 1.12, 1.12),
        "taller": crop(0, 0.15, 1, 0.85),
        "wider": crop(0.15, 0, 0.85, 1),
        "turned": lambda image: image.rotate(8, Image.Resampling.BILINEAR),
    }


def shifted(images: np.ndarray, name: str) -> np.ndarray:
    shift = shifts().get(name, lambda image: image)
    return np.stack([np.asarray(shift(Image.fromarray(image[..., 0]))) for image in images])[..., None]


def choice(runs: Sequence[Run]) -> list[str]:
    names = [*shifts()]
    area = {name: mean(float(metrics.roc_auc(run.scores[name], run.labels)) for run in runs) for name in runs[0].scores}
    balanced = {
        name: mean(metrics.balanced_accuracy(run.scores[name], run.labels, threshold=run.threshold) for run in runs)
        for name in area
    }
    lowest = min(names, key=area.__getitem__)
    return [
        f"{area['unchanged']:.4f}",
        f"{mean(area[name] for name in names):.4f}",
        f"{area[lowest]:.4f} ({lowest})",
        f"{balanced['unchanged']:.4f}",
        f"{mean(balanced[name] for name in names):.4f}",
        f"{mean(run.seconds for run in runs):.0f}",
    ]


def test(runs: Sequence[Run]) -> list[str]:
    labels = runs[0].labels
    random = np.random.default_rng(0)
    samples = [random.integers(0, len(labels), len(labels)) for _ in range(1000)]

    def cell(metric: Callable[..., float]) -> str:
        def over_seeds(rows: np.ndarray) -> float:
            return mean(metric(run.scores["unchanged"][rows], labels[rows], run.threshold) for run in runs)

        low, high = np.quantile([over_seeds(rows) for rows in samples], [0.025, 0.975])
        return f"{over_seeds(np.arange(len(labels))):.3f} ({low:.3f} to {high:.3f})"

    return [
        cell(lambda scores, labels, threshold: float(np.mean((scores >= threshold) == labels))),
        cell(lambda *run: (sensitivity(*run) + specificity(*run)) / 2),
        cell(sensitivity),
        cell(specificity),
        cell(lambda scores, labels, threshold: float(metrics.roc_auc(scores, labels))),
        # At the threshold that 97% of the images with pneumonia reach.
        cell(lambda scores, labels, threshold: specificity(scores, labels, np.quantile(scores[labels == 1], 0.03))),
    ]


def sensitivity(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    return float(np.mean(scores[labels == 1] >= threshold))


def specificity(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    return float(np.mean(scores[labels == 0] < threshold))


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def add_row(head: str, cells: Sequence[str]) -> None:
    """Adds a row to the table with this head."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else f"# Chest radiographs\n\n{CHOICE}\n{TEST}"
    row = f"| {' | '.join(cells)} |\n"
    pattern = re.escape(head) + r"(\|.*\n)*"
    TABLE.write_text(re.sub(pattern, lambda table: table[0] + row, text), encoding="utf-8")
    print(row)


if __name__ == "__main__":
    main()
