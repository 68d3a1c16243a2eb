"""Detection on real photographs: BCCD, blood cells (364 images, Pascal VOC's layout), over seeds.

    python experiments/detection.py --data FOLDER
    python experiments/detection.py --data FOLDER --seeds 0 --recipes default --validation --out /dev/stdout

BCCD (https://github.com/Shenggan/BCCD_Dataset, MIT) has lists of 205 training, 87 validation and 72 test images. Each
run is the command of a user, `jaxcls train --task detection --data FOLDER`, in a process of its own; a recipe is a
preset and options of the command. It trains on train and validation together, as is usual with Pascal VOC, less a tenth
that is held out, and is tested once. With --validation, it trains on the list train alone and is scored on the list val
instead: by these scores the recipe was chosen.

CPU seconds are user and system time of the whole process. Expected: a mean mAP at an IoU of 0.5 of at least 0.85 in
1,800 CPU seconds, which is 15 minutes on 2 cores. Writes experiments/detection.md.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import processes

RECIPES = {
    "default": "",
    "any_orientation": "--preset any_orientation",
}
# That of the recipe.
CANVAS = 256
SCORES = {"map_50": "mAP at 0.50", "map": "mAP (0.50:0.95)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of BCCD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=[*RECIPES])
    parser.add_argument("--validation", action="store_true", help="train on the list train, score on the list val")
    parser.add_argument("--keep", type=Path, help="a JSON file of results; what it holds is not run again")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    known: dict[str, dict[str, Any]] = {}
    if options.keep and options.keep.exists():
        known = json.loads(options.keep.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        data = _for_choosing(options.data, Path(scratch, "data")) if options.validation else options.data
        for recipe in options.recipes:
            for seed in options.seeds:
                key = f"{recipe} {seed}{' validation' * options.validation}"
                if key not in known:
                    known[key] = _measure(data, recipe, seed, Path(scratch, key.replace(" ", "-")))
                    print(key, known[key], flush=True)
                    if options.keep:
                        options.keep.write_text(json.dumps(known, indent=1))
    options.out.write_text(_table(options, known), encoding="utf-8")


def _for_choosing(data: Path, folder: Path) -> Path:
    """A copy of the data whose lists of training and of test images are train and val."""
    shutil.copytree(data, folder)
    lists = folder / "ImageSets" / "Main"
    for path in lists.glob("*.txt"):
        if path.stem not in ("train", "val"):
            path.unlink()
    (lists / "val.txt").rename(lists / "test.txt")
    return folder


def _measure(data: Path, recipe: str, seed: int, run: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "jaxcls", "train", "--task", "detection", "--data", str(data)]
    command += [*RECIPES[recipe].split(), "--seed", str(seed), "--run-dir", str(run)]
    cpu = processes.run(command).processor_seconds
    results = json.loads((run / "results.json").read_text())
    classes = {name: values["map_50"] for name, values in results["labels"].items()}
    scores = {name: results["metrics"][name] for name in SCORES}
    return scores | {"classes": classes, "cpu": cpu}


def _table(options: argparse.Namespace, known: dict[str, dict[str, Any]]) -> str:
    scored = "the list val, trained on the list train" if options.validation else "the official test images"
    written = (
        f"Written by `python experiments/detection.py` on {processes.machine()}. Seeds "
        f"{', '.join(map(str, options.seeds))}; scores on {scored}; means, and in parentheses the lowest and highest. "
        "CPU seconds are those of the whole process."
    )
    rows = {
        recipe: [known[f"{recipe} {seed}{' validation' * options.validation}"] for seed in options.seeds]
        for recipe in options.recipes
    }
    names = [*rows[options.recipes[0]][0]["classes"]]
    header = ["recipe", *SCORES.values(), *(f"{name}, AP at 0.50" for name in names), "CPU seconds"]
    lines = ["# Detection on BCCD", "", written, "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for recipe, runs in rows.items():
        columns = [[run[name] for run in runs] for name in SCORES]
        columns += [[run["classes"][name] for run in runs] for name in names]
        cells = [f"{statistics.mean(column):.3f} ({min(column):.3f} to {max(column):.3f})" for column in columns]
        cells.append(f"{statistics.mean(run['cpu'] for run in runs):,.0f}")
        lines.append(f"| `{f'--task detection {RECIPES[recipe]}'.strip()}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_recalls(options.data)]) + "\n"


def _recalls(data: Path) -> list[str]:
    """The fraction of the training objects that some anchor overlaps by half or more, by class, as a table."""
    from jaxcls.data.datasets import object_detection
    from jaxcls.metrics.detection import box_iou
    from jaxcls.models.detection import Anchors, canvas_anchors

    dataset = object_detection.load("files", data, size=CANVAS, channels=1)
    labels, canvas = dataset.train.labels, tuple(dataset.train.inputs["size"].max(axis=0))
    boxes = {name: labels["boxes"][labels["classes"] == index] for index, name in enumerate(dataset.class_names)}
    lines = [
        f"Training objects that an anchor overlaps by half or more, on canvases of {CANVAS} pixels:",
        "",
        f"| anchors | {' | '.join(boxes)} |",
        f"|{'---|' * (len(boxes) + 1)}",
    ]
    for name, anchors in {"of the task": canvas_anchors(*canvas), "of the RetinaNet paper": Anchors()}.items():
        best = [box_iou(corners, anchors.boxes(*canvas)).max(axis=1) for corners in boxes.values()]
        lines.append(f"| {name} | {' | '.join(f'{(one >= 0.5).mean():.3f}' for one in best)} |")
    return lines


if __name__ == "__main__":
    main()
