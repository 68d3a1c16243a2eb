"""Detection: focal loss against cross-entropy, over seeds, on composed scenes, as in table 1 of the paper.

    python experiments/focal_vs_cross_entropy.py
    python experiments/focal_vs_cross_entropy.py --gammas 0 2 --alphas 0.25 0.75 --seeds 0 1 --epochs 4 --train 600

Lin et al. 2017 (arXiv:1708.02002), on COCO: cross-entropy diverges unless every class begins at a probability of 0.01;
with that prior it reaches an AP of 30.2, balanced by alpha 0.75 31.1, and focal loss with gamma 2 and alpha 0.25 34.0.
Here a small RetinaNet learns a few thousand scenes; a seed makes its own scenes, weights and order. All losses are
trained alike, by the recipe of the task but for its epochs. Differences to cross-entropy with the prior are paired by
seed, with the 95 % confidence interval of Student's t.

The data is SYNTHETIC: scenes composed of real articles. There are few hard negatives on their grounds, beside COCO's,
so what focusing gains need not be what it gains there. Writes experiments/focal_vs_cross_entropy.md.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils import environment
from jaxcls.data.samples import scenes
from jaxcls.training.settings import Settings

TABLE = Path(__file__).with_suffix(".md")
# Two-sided 95 % quantiles of Student's t, by the degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
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
    parser.add_argument("--keep", type=Path, help="a JSON file of what was measured; what is in it is not run again")
    options = parser.parse_args()
    if not 2 <= len(options.seeds) <= len(STUDENT) + 1:
        parser.error(f"--seeds: give 2 to {len(STUDENT) + 1}; a confidence interval takes differences.")
    environment.configure()
    measured = [_measure(seed, options) for seed in options.seeds]
    TABLE.write_text(_table(options, measured), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def losses(gammas: list[float], alphas: list[float]) -> dict[str, dict[str, Any]]:
    """Name -> settings; PLAIN is what the others are compared with."""
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
    """Loss -> name -> value on the test scenes of that seed."""
    # Once the environment is prepared, as it must be before jax is imported.
    from jaxcls.tasks.run import run

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
                given = Settings(
                    task="detection", source="files", data_dir=data, run_dir=Path(scratch, f"run{number}"), seed=seed,
                    epochs=options.epochs, **loss,
                )  # fmt: skip
                report = run(given, say=lambda line: None).report
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
        f"--test {options.test}`. Seeds {', '.join(map(str, options.seeds))}, each with its own {options.train:,} "
        f"training and {options.test:,} test scenes; {options.epochs} epochs. Mean over the seeds; in brackets the "
        f"paired difference to {PLAIN} with its 95 % confidence interval."
    )
    lines = ["# Detection: focal loss against cross-entropy (SYNTHETIC)", "", written, ""]
    lines += ["| loss | mAP (0.50:0.95) | mAP at 0.50 |", "|---|---|---|"]
    for loss in measured[0]:
        cells = [_cell(over_seeds(loss, name), over_seeds(PLAIN, name)) for name in SCORES]
        lines.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: np.ndarray, baseline: np.ndarray) -> str:
    difference = values - baseline
    if not difference.any():
        return f"{values.mean():.3f}"
    half = STUDENT[len(values) - 1] * difference.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ({difference.mean():+.3f} ± {half:.3f})"


if __name__ == "__main__":
    main()
