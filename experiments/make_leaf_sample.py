"""Writes the sample of the task leaf from the data of R's package modeldata, read with the package rdata.

    pip install rdata
    git clone https://github.com/tidymodels/modeldata && git -C modeldata checkout 5c22676a
    python experiments/make_leaf_sample.py modeldata/data/leaf_id_flavia.rda

Expected: the files in jaxcls/data/samples/leaf as they were committed, byte for byte.
"""

import argparse
import hashlib
from pathlib import Path

import jaxcls
from jaxcls.data.formats.tables import write_csv
from jaxcls.data.sources import checksums

FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "leaf"
SHA256 = "73d935ef0930a692d09ca062d793f097147fb9006c1f91d539c762d2e23dd88f"


def main() -> None:
    import rdata

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"this is not the leaf_id_flavia.rda whose SHA-256 is {SHA256}")
    (table,) = rdata.read_rda(path).values()
    # The columns of words describe the species, not the leaf: they have one value in all leaves of a species, and so
    # has the column outlying_contour, the same in all species.
    measured = table.select_dtypes("number").drop(columns="outlying_contour")
    columns = {"id": list(range(1, len(table) + 1)), "species": table["species"].astype(str).tolist()}
    # In the precision of float32, in which they are used.
    columns |= {name: [f"{value:.7g}" for value in column] for name, column in measured.items()}
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "train.csv.gz"
    write_csv(path, columns)
    (FOLDER / "SHA256SUMS").write_text(f"{checksums([path])[path.name]}  {path.name}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
