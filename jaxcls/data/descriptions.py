"""Inputs described by columns that people understand: those of a table, or measures of texts and images."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls.data import rows as data_rows
from jaxcls.data.formats import columns as formats
from jaxcls.data.preprocessing.ensemble import first
from jaxcls.data.preprocessing.tables import TablePreprocessor

PyTree = Any

# Of fewer rows where they are large, since images may be decoded for it.
MOST_ROWS, _MOST_BYTES = 5000, 1 << 27
_MANY = 1_000_000
_CAPITAL, _DIGIT = re.compile("[A-Z]"), re.compile("[0-9]")


def columns(inputs: PyTree, rows: np.ndarray | slice = slice(None), preprocessor: Any = None) -> dict[str, np.ndarray]:
    """Returns columns that describe inputs, float64 with NaN for a missing number, or str objects, each (N,).

    Args:
      inputs: of a :class:`jaxcls.data.dataset.Split`. A table has its own columns; of a text, its words and characters
        are counted, and it has shares of capitals, digits and other than ASCII characters. None depends on the words of
        training texts, which are always more familiar than those of other texts. An image has a brightness, a contrast
        (the standard deviation of its pixels) and a sharpness (the mean difference of neighbors in a row), in shares of
        white. Other inputs have none.
      rows: those that are described.
      preprocessor: of a table: only columns that it takes are described, as it reads them, a date by its parts and a
        column of texts by their length. A running number, which a model does not use, differs in any other file.

    >>> measures = columns(np.array(["A fine film", ""], object))
    >>> {name: float(column[0].round(2)) for name, column in measures.items()}
    {'words': 3.0, 'characters': 11.0, 'capitals': 0.09, 'digits': 0.0, 'not ASCII': 0.0}
    """
    if isinstance(inputs, Mapping):
        if not all(column.ndim == 1 for column in inputs.values()):
            return {}
        table = data_rows.in_memory(data_rows.select(inputs, rows))
        named = {name: np.asarray(column) for name, column in table.items()}
        if isinstance(used := first(preprocessor), TablePreprocessor):
            return _as_used(named, used)
        return {
            name: column.astype(object if column.dtype.kind in "OUS" else np.float64)
            for name, column in named.items()
            if column.dtype.kind in "OUSbiuf"
        }
    if not hasattr(inputs, "dtype"):
        return {}
    some = data_rows.select(inputs, rows)
    if inputs.dtype == object:
        return _of_texts([str(text) for text in some])
    if inputs.dtype != np.uint8 or len(inputs.shape) != 4:
        return {}
    measured = [_measures(block) for block in data_rows.blocks(some)]
    return {name: np.concatenate([one[name] for one in measured]) for name in measured[0]} if measured else {}


def sampled_rows(inputs: PyTree) -> np.ndarray:
    """Returns at most 5,000 rows, drawn at random; of data that takes long to read, of its sample."""
    random, known = np.random.default_rng(0), data_rows.sampled(inputs)
    leaf = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    if known is None:
        # Not in runs, which cost as much: neighbors are alike, and 20 runs of a sorted file are like 20 examples. A
        # permutation of very many takes memory.
        known = random.choice(len(leaf), MOST_ROWS, replace=False) if len(leaf) > _MANY else np.arange(len(leaf))
    row_bytes = getattr(inputs, "nbytes", 0) // max(1, len(leaf))
    most = min(MOST_ROWS, _MOST_BYTES // max(1, row_bytes))
    return np.sort(random.permutation(known)[: max(1, most)])


def _as_used(table: Mapping[str, np.ndarray], preprocessor: TablePreprocessor) -> dict[str, np.ndarray]:
    known = {formats.composed(name): column for name, column in table.items()}
    for name, form in preprocessor.dates.items():
        known |= formats.date_parts(known[name], name, form)
    numbers = {one.name: formats.to_numbers(known[one.name], preprocessor.decimal) for one in preprocessor.numeric}
    words = {name: np.array([*map(formats.as_word, known[name])], object) for name, _ in preprocessor.categories}
    lengths = {
        f"characters of {name}": np.array([len(formats.as_word(text)) for text in known[name]], np.float64)
        for name in preprocessor.texts
    }
    return numbers | words | lengths


def _of_texts(texts: Sequence[str]) -> dict[str, np.ndarray]:
    count = np.array([*map(len, texts)], np.float64)
    parts = {
        "capitals": [len(_CAPITAL.findall(text)) for text in texts],
        "digits": [len(_DIGIT.findall(text)) for text in texts],
        "not ASCII": [len(text) - len(text.encode("ascii", "ignore")) for text in texts],
    }
    words = np.array([len(text.split()) for text in texts], np.float64)
    shares = {name: np.array(part) / np.maximum(count, 1) for name, part in parts.items()}
    return {"words": words, "characters": count, **shares}


def _measures(images: np.ndarray) -> dict[str, np.ndarray]:
    pixels = np.asarray(images, np.float32) / 255
    sharpness = np.abs(np.diff(pixels, axis=2)).mean(axis=(1, 2, 3)) if images.shape[2] > 1 else np.zeros(len(images))
    measures = {"brightness": pixels.mean(axis=(1, 2, 3)), "contrast": pixels.std(axis=(1, 2, 3))}
    return {name: values.astype(np.float64) for name, values in (measures | {"sharpness": sharpness}).items()}
