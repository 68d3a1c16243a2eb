"""The overhead of checkpoints at their default interval.

    python experiments/checkpointing.py

Writes experiments/checkpointing.md. Trains the default recipe of fashion_mnist on the real 60,000 images, alternating
between epochs with checkpoints (one at the end of the epoch and one per minute, as by default) and without. A save
normally runs in the background while the next epoch is trained; here each epoch waits for it, so that all of it counts.

Expected: less than 2% of the time.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_suffix(".md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds

    from jaxcls._utils import environment

    environment.configure()
    without, together, saving = measure(rounds)
    ratios = [after / before for before, after in zip(without, together, strict=True)]
    shares = [seconds / epoch for seconds, epoch in zip(saving, without, strict=True)]
    versions = f"Python {platform.python_version()}, jax {version('jax')}, Orbax {version('orbax-checkpoint')}"
    text = f"""# Checkpointing

Written by `python experiments/checkpointing.py`: the default recipe of fashion_mnist, real images, {os.cpu_count()}
cores ({platform.machine()}), {versions}. Median of {rounds} rounds, with the range in parentheses.

| | |
|---|---|
| epoch without checkpoints | {spread(without, ".2f")} s |
| epoch with checkpoints, until they are on disk | {spread(together, ".2f")} s |
| ratio of the two | {spread(ratios, ".4f")} |
| from the start of a save until it is on disk | {spread(saving, ".3f")} s |
| the same as a share of the epoch | {spread(shares, ".2%")} |
"""
    print(text)
    TABLE.write_text(text, encoding="utf-8")


def measure(rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Returns the seconds of epochs without checkpoints, of epochs with them, and of their saves."""
    from jaxcls.checkpoints import CheckpointManager
    from jaxcls.tasks import build
    from jaxcls.training.loop import FitConfig, train
    from jaxcls.training.settings import Settings

    class Timed(CheckpointManager):
        began = 0.0

        def save(self, *arguments: Any, **options: Any) -> None:
            self.began = time.perf_counter()
            super().save(*arguments, **options)

    built = build.build(Settings(task="fashion_mnist"))
    experiment, settings = built.experiment, built.settings
    assert experiment.preprocessor is not None
    validation = build.preprocess(experiment.preprocessor, built.splits.validation)
    config = FitConfig(1, settings.batch_size, settings.monitor)
    state = experiment.init()
    without: list[float] = []
    together: list[float] = []
    saving: list[float] = []

    def epoch(state: Any, checkpoints: CheckpointManager | None) -> Any:
        state, _ = train(experiment, state, built.train, validation, config, checkpoints=checkpoints)
        return state

    # The first epoch compiles.
    state = epoch(state, None)
    for _ in range(rounds):
        begin = time.perf_counter()
        state = epoch(state, None)
        without.append(time.perf_counter() - begin)
        with tempfile.TemporaryDirectory() as folder, Timed(folder, best_metric=settings.monitor) as checkpoints:
            begin = time.perf_counter()
            state = epoch(state, checkpoints)
            checkpoints.wait_until_finished()
            end = time.perf_counter()
            together.append(end - begin)
            saving.append(end - checkpoints.began)
    return without, together, saving


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
