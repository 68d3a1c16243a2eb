"""The four files of Fashion-MNIST with a few hundred real images, for tests that train."""

from pathlib import Path

from idx_files import write_idx

from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import IMAGES

TRAIN, TEST = 240, 60


def write(folder: Path) -> Path:
    """Writes the files as --data-dir expects them, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = idx_images.load(IMAGES, "sample")
    for prefix, split, count in (("train", sample.train, TRAIN), ("t10k", sample.test, TEST)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", split.inputs[:count, :, :, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", split.labels[:count].astype("uint8"))
    return folder
