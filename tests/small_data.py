"""Fashion-MNIST's four files, a few hundred real images of the sample, for tests that train."""

from pathlib import Path

from jaxcls.data import formats, sources
from jaxcls.tasks.fashion_mnist import IMAGES

TRAIN, TEST = 240, 60


def write(folder: Path) -> Path:
    """Writes the files as a person would have them in --data-dir."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = sources.load_idx_images(IMAGES, "sample")
    for prefix, split, count in (("train", sample.train, TRAIN), ("t10k", sample.test, TEST)):
        formats.write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", split.inputs[:count, :, :, 0])
        formats.write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", split.labels[:count].astype("uint8"))
    return folder
