"""Cuts the samples in this folder from the full data sets: `python -m jaxcls.data.samples.make`."""

from pathlib import Path

import numpy as np

from jaxcls.data import formats, sources


def make(spec: sources.IdxImages, train: int, test: int, folder: Path) -> None:
    """Writes the first `train` and `test` examples of a data set as four .gz files, with their SHA256SUMS.

    The full data set is that of the Debian package, whose content is verified to be the official one.
    Raises InputError if the package is not installed.
    """
    full = sources.load_idx_images(spec, "files")
    parts = [(full.train, train), (full.test, test)]
    arrays = [
        array for split, rows in parts for array in (split.inputs[:rows, ..., 0], split.labels[:rows].astype(np.uint8))
    ]
    sums = {}
    for name, array in zip(spec.sha256, arrays, strict=True):
        formats.write_idx(folder / f"{name}.gz", array)
        sums[name] = formats.idx_sha256(array)
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


if __name__ == "__main__":
    make(sources.FASHION_MNIST, 10_000, 2_000, Path(__file__).parent / "fashion_mnist")
