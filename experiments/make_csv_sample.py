"""Writes the sample of the task csv from the wine data of scikit-learn.

    python experiments/make_csv_sample.py

Expected: the files in jaxcls/data/samples/csv as they were committed, byte for byte.
"""

from pathlib import Path

from sklearn.datasets import load_wine

import jaxcls
from jaxcls.data.formats.tables import write_csv
from jaxcls.data.sources import checksums

FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "csv"


def main() -> None:
    wine = load_wine()
    columns = dict(zip(wine.feature_names, wine.data.T, strict=True))
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "wine.csv"
    write_csv(path, {**columns, "class": wine.target_names[wine.target]})
    (FOLDER / "SHA256SUMS").write_text(f"{checksums([path])[path.name]}  {path.name}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
