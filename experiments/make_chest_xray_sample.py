"""Writes the sample of the task chest_xray: a part of PneumoniaMNIST.

    python experiments/make_chest_xray_sample.py FOLDER/pneumoniamnist.npz

Expected, from the copy of PneumoniaMNIST whose SHA-256 is below: the files in jaxcls/data/samples/chest_xray as they
were committed, byte for byte. That copy lacks 826 of MedMNIST's training images, none with pneumonia; from MedMNIST's
own file other normal training images may be chosen.
"""

import argparse
from pathlib import Path

import numpy as np

import jaxcls
from jaxcls.data.sources import checksums

FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "chest_xray"
SHA256 = "a554d2332488d3ddc075125e66a1af77ec379fd2bafc09108ab95a37e2bd9c26"
# Training images without and with pneumonia, in MedMNIST's proportion.
COUNTS = (388, 1122)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    if checksums([path])[path.name] != SHA256:
        print("another copy of PneumoniaMNIST: the sample may differ from the one that comes with jaxcls")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    labels = arrays["train_labels"][:, 0]
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(COUNTS)]))
    for name in ("train_images", "train_labels"):
        arrays[name] = arrays[name][rows]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "pneumoniamnist.npz"
    np.savez_compressed(path, **arrays)
    (FOLDER / "SHA256SUMS").write_text(f"{checksums([path])[path.name]}  {path.name}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
