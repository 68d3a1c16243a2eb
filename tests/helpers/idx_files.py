"""Writing IDX files, plain and gzipped."""

import gzip
from pathlib import Path

import numpy as np

from jaxcls.data.formats import idx


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an array as an IDX file, gzipped if the name ends in .gz; the same array gives the same bytes."""
    content = idx.to_bytes(array)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
