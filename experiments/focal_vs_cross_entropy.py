"""Detection: focal loss against cross-entropy, over seeds, on composed scenes, after table 1 of the paper.

    python experiments/focal_vs_cross_entropy.py
    python experiments/focal_vs_cross_entropy.py --gammas 0 2 --alphas 0.25 0.75 --seeds 0 1 --epochs 4 --train 600

In Lin et al. 2017 (arXiv:1708.02002), on COCO, cross-entropy diverges unless every class starts at a probability of
0.01; with that prior it reaches an AP of 30.2, balanced by alpha 0.75 31.1, and focal loss with gamma 2 and alpha
0.25 34.0. Here a small RetinaNet learns a few thousand scenes; each seed has different scenes, weights and order. All
losses are trained with the recipe of the task's sample, except for the number of epochs. Differences to cross-entropy
with the prior are paired by seed, with the 95 % confidence interval of Student's t.

The data is SYNTHETIC: scenes composed of real articles. Their backgrounds have few hard negatives compared to COCO, so
focal loss may gain less here. Writes experiments/focal_vs_cross_entropy.md.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import paired

from jaxcls._utils import environment
from jaxcls.data.samples import scenes
from jaxcls.training.settings import Settings

TABLE = Path(__file__).with_suffix(".md")
PLAIN = "cross-entropy, prior 0.01"
SCORES = ("map", "map_50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.0, 1.0, 2.0, 5.0])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train", type=int, default=1200, help="training scenes")
    parser.add_argument("--test", type=int, default=400, help="test scenes")
    parser.add_argument("--keep", type=Path, help="a JSON file of results; what it holds is not run again")
    options = parser.parse_args()
    paired.check_seeds(parser, options.seeds)
    environment.configure()
    measured = [_measure(seed, options) for seed in options.seeds]
    TABLE.write_text(_table(options, measured), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def losses(gammas: list[float], alphas: list[float]) -> dict[str, dict[str, Any]]:
    """Settings by the name of the loss; the others are compared to PLAIN."""
    plain = {"loss": "binary_crossentropy", "gamma": None, "alpha": None}
    focal = {
        f"{'balanced cross-entropy' if gamma == 0 else f'focal loss, gamma {gamma:g}'}, alpha {alpha:g}": {
            "loss": "focal_loss",
            "gamma": gamma,
            "alpha": alpha,
        }
        for gamma in gammas
        for alpha in alphas
    }
    even = {"cross-entropy, prior 0.5": {**plain, "model": "retinanet_even"}}
    return {PLAIN: plain, **even, **focal}


def _measure(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Scores on the test scenes of a seed, by loss and by the name of the score."""
    # Imported after environment.configure(), which must run before jax is imported.
    from jaxcls.tasks.train import train_task

    values: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        data.mkdir()
        scenes.write(data, train=options.train, val=100, test=options.test, seed=seed)
        for number, (name, loss) in enumerate(losses(options.gammas, options.alphas).items()):
            key = json.dumps([seed, options.epochs, options.train, options.test, name])
            known = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
            if key not in known:
                began = time.monotonic()
                settings = Settings(
                    task="detection", source="files", data_dir=data, run_dir=Path(scratch, f"run{number}"), seed=seed,
                    epochs=options.epochs, image_size=128, batch_size=16, learning_rate=4e-3, **loss,
                )  # fmt: skip
                report = train_task(settings, say=lambda line: None).report
                known[key] = {score: report["metrics"][score] for score in SCORES}
                print(seed, name, known[key], f"{time.monotonic() - began:.0f} s", flush=True)
                if options.keep:
                    options.keep.write_text(json.dumps(known, indent=1))
            values[name] = known[key]
    return values


def _table(options: argparse.Namespace, measured: list[dict[str, dict[str, float]]]) -> str:
    def over_seeds(loss: str, name: str) -> np.ndarray:
        return np.array([values[loss][name] for values in measured])

    written = (
        f"Written by `python experiments/focal_vs_cross_entropy.py --epochs {options.epochs} --train {options.train} "
        f"--test {options.test}`. Seeds {', '.join(map(str, options.seeds))}, each with different {options.train:,} "
        f"training and {options.test:,} test scenes; {options.epochs} epochs. Means over the seeds; in parentheses the "
        f"paired difference to {PLAIN} with its 95 % confidence interval."
    )
    lines = ["# Detection: focal loss against cross-entropy (SYNTHETIC)", "", written, ""]
    lines += ["| loss | mAP (0.50:0.95) | mAP at 0.50 |", "|---|---|---|"]
    for loss in measured[0]:
        cells = [paired.cell(over_seeds(loss, name), over_seeds(PLAIN, name)) for name in SCORES]
        lines.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
