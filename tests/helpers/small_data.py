"""The four files of Fashion-MNIST with a few hundred real images, for tests that train."""

from pathlib import Path
from typing import Any

from idx_files import write_idx

from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import IMAGES
from jaxcls.tasks.train import train_task
from jaxcls.training.run import Result
from jaxcls.training.settings import Settings

TRAIN, TEST = 240, 60
# A short run.
QUICK = {"model": "mlp", "epochs": 2, "batch_size": 16, "validation_fraction": 0.2, "eval_batch_size": 32}


def write(folder: Path) -> Path:
    """Writes the files as --data-dir expects them, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = idx_images.load(IMAGES, "sample")
    for prefix, split, count in (("train", sample.train, TRAIN), ("t10k", sample.test, TEST)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", split.inputs[:count, :, :, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", split.labels[:count].astype("uint8"))
    return folder


def train(data_dir: Path | None, run_dir: Path, lines: list[str] | None = None, **changes: Any) -> Result:
    """Trains as `QUICK` says, with changes, and appends what is printed to ``lines``."""
    options = Settings(data_dir=data_dir, run_dir=run_dir, **(QUICK | changes))
    return train_task(options, say=(lines if lines is not None else []).append)
