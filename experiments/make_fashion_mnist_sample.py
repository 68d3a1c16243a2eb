"""Writes the sample of Fashion-MNIST from the official files.

    python experiments/make_fashion_mnist_sample.py

Expected: the files in jaxcls/data/samples/fashion_mnist as they were committed, byte for byte. Needs Debian's
package dataset-fashion-mnist, whose content is verified against the official checksums.
"""

import gzip
from pathlib import Path

import numpy as np

import jaxcls
from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import IMAGES
from jaxcls.data.formats import idx

TRAIN, TEST = 10_000, 2_000
FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "fashion_mnist"


def main() -> None:
    full = idx_images.load(IMAGES, "files")
    arrays = [
        array
        for split, count in ((full.train, TRAIN), (full.test, TEST))
        for array in (split.inputs[:count, ..., 0], split.labels[:count].astype(np.uint8))
    ]
    sums = []
    for name, array in zip(IMAGES.sha256, arrays, strict=True):
        # Neither a time nor a name is in the header.
        with (FOLDER / f"{name}.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
            zipped.write(idx.to_bytes(array))
        sums.append(f"{idx.idx_sha256(array)}  {name}\n")
    (FOLDER / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


if __name__ == "__main__":
    main()
