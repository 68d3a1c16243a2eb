"""Runs a classifier, or a detector, that jaxcls exported. It takes jax and numpy, flatbuffers (which jax.export reads
its files with) and, for texts, tokenizers; neither Flax nor jaxcls.

    python model/loader.py --input images.npy --output predicted.csv     # uint8 (N, height, width, channels)
    python model/loader.py --input texts.txt --output predicted.csv      # a text a line
    python model/loader.py --input rows.csv --output predicted.csv       # the columns of the training, by name
    python model/loader.py --input images.npy --output found.json        # of a detector: boxes in pixels of its canvas

    import loader                                                        # with the folder on the path
    model = loader.load("model")
    probabilities = model.predict(images)

Nothing damaged is loaded: every file's SHA-256 must be the one in SHA256SUMS. That says nothing of who made the folder,
and what it holds are programs, this one too: run none of a stranger. The probabilities are those of
`jaxcls predict`, bit for bit on the same versions, XLA_FLAGS (model.json names both), processor and number of
devices; elsewhere, and those of a transformer, but for rounding.
"""

import argparse
import csv
import dataclasses
import hashlib
import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

SUMS = "SHA256SUMS"
# With these a spreadsheet lets a formula begin, in some languages with the wide ones.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# What programs write where a number is missing.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>")


class ArtifactError(ValueError):
    """A file of the folder is damaged, or an input is not what the model takes."""


@dataclasses.dataclass(frozen=True)
class Model:
    """What was learned.

    Attributes:
      record: model.json; "problem", "class_names", "thresholds" and "synthetic" among other things.
      parameters: name -> array.
      programs: (parameters, encoded inputs) -> probabilities, those of several outputs beside each other; one for each
        size that padded inputs are cut to, the cheapest first, else one. Those of a detector give a dict: see
        :meth:`predict`.
      encode: inputs as they are read -> encoded inputs, on the host: images, uint8 (N, height, width, channels), stay
        as they are; texts become token numbers, int32 (N, width); a table, columns (N,) by their names, becomes a
        dict of arrays. A detector takes images that fill its square canvas; or a dict of canvases, "image", and of the
        height and width of what of each is image, "size", int32 (N, 2), at its top left, the rest black.
    """

    record: dict[str, Any]
    parameters: dict[str, Any]
    programs: tuple[Callable[..., Any], ...]
    encode: Callable[[Any], Any]

    def predict(self, inputs: Any, *, batch_size: int | None = None) -> Any:
        """Inputs as they are read -> probabilities, (N,) of the positive class of a binary problem, else (N, classes).

        A detector gives a dict of what it found, the surest first: "boxes" (N, D, 4), x1, y1, x2, y2 in pixels of the
        canvas, "scores" (N, D) and "classes" (N, D), places in the names of the classes; -1 where there is nothing.

        Args:
          batch_size: how many are predicted together, the last ones filled up; by default as many as in the run, which
            gives the same bits.
        """
        return self.scores(self.encode(inputs), batch_size=batch_size)

    def scores(self, encoded: Any, *, batch_size: int | None = None) -> Any:
        """As :meth:`predict`, of inputs that are encoded."""
        count = len(jax.tree.leaves(encoded)[0])
        if not count:
            raise ArtifactError("there is no input to predict.")
        size = batch_size or self.record["batch_size"]
        if not self.record["buckets"]:
            return self._batched(self.programs[0], encoded, size)
        # An input goes through the program of the first size that holds it, as in the run.
        buckets = np.array(self.record["buckets"])
        first = (_extents(encoded)[:, None, :] <= buckets[None]).all(axis=2).argmax(axis=1)
        parts, rows = [], []
        for number in np.unique(first):
            own = np.flatnonzero(first == number)
            cut = _cut(jax.tree.map(lambda leaf, own=own: leaf[own], encoded), buckets[number])
            parts.append(self._batched(self.programs[number], cut, size))
            rows.append(own)
        back = np.argsort(np.concatenate(rows))
        return jax.tree.map(lambda *found: np.concatenate(found)[back], *parts)

    def decide(self, scores: np.ndarray) -> list[str]:
        """The name of the likeliest class, of several outputs one of each; of a multi-label problem those that reach
        their threshold. Several are parted by |."""
        names, thresholds = self.record["class_names"], np.asarray(self.record["thresholds"])
        match self.record["problem"]:
            case "binary":
                return [names[int(reached)] for reached in scores >= thresholds]
            case "multiclass":
                return [names[best] for best in scores.argmax(axis=1)]
            case "multioutput":
                # The names of the classes of an output begin alike, 'article: coat', and stand together.
                output = np.array([name.partition(": ")[0] for name in names])
                blocks = [np.flatnonzero(output == name) for name in dict.fromkeys(output)]
                best = [block[scores[:, block].argmax(axis=1)] for block in blocks]
                return ["|".join(names[place] for place in places) for places in zip(*best, strict=True)]
            case _:
                return ["|".join(np.array(names, object)[row]) for row in scores >= thresholds]

    def found(self, scores: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """What a detector found, as records: the row of the image, from 1; class; x, y, width, height; and score."""
        names = self.record["class_names"]
        records = []
        for row, place in np.argwhere(scores["classes"] >= 0):
            x1, y1, x2, y2 = scores["boxes"][row, place].tolist()
            records.append({
                "row": int(row) + 1,
                "class": names[scores["classes"][row, place]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(scores["scores"][row, place]),
            })  # fmt: skip
        return records

    def _batched(self, program: Callable[..., Any], encoded: Any, size: int) -> Any:
        count = len(jax.tree.leaves(encoded)[0])
        parts = []
        for first in range(0, count, size):
            rows = np.arange(first, first + size)
            rows = np.where(rows < count, rows, first)
            parts.append(program(self.parameters, jax.tree.map(lambda a, rows=rows: a[rows], encoded)))
        return jax.tree.map(lambda *found: np.concatenate([np.asarray(one) for one in found])[:count], *parts)


def _extents(encoded: Any) -> np.ndarray:
    """How much of each input is not padding: the heights and widths of images, the lengths of texts; (N, axes)."""
    if isinstance(encoded, dict):
        return encoded["size"]
    return ((encoded != 0) * np.arange(1, encoded.shape[1] + 1)).max(axis=1, keepdims=True)


def _cut(encoded: Any, size: Sequence[int]) -> Any:
    if isinstance(encoded, dict):
        return encoded | {"image": encoded["image"][:, : size[0], : size[1]]}
    return encoded[:, : size[0]]


def load(folder: str | Path) -> Model:
    """Reads the folder, and checks every file of it.

    Raises:
      ArtifactError: names the file that is damaged, missing or too many.
    """
    files = verified(Path(folder))
    record = _record(files, folder)
    parameters = jax.device_put(_arrays(files["parameters.npz"], f"{folder}/parameters.npz"))
    programs = tuple(jax.jit(export.deserialize(bytearray(files[name])).call) for name in record["programs"])
    encode: Callable[[Any], Any]
    match record["preprocessor"]:
        case {"type": "images", "shape": shape}:
            encode = _images(tuple(shape))
        case {"type": "detection", "shape": shape}:
            encode = _canvases(tuple(shape))
        case {"type": "texts", "widths": widths}:
            encode = _texts(files["tokenizer.json"].decode(), widths[-1])
        case preprocessor:
            encode = _tables(preprocessor)
    return Model(record, parameters, programs, encode)


def verified(folder: Path) -> dict[str, bytes]:
    """The files of the folder, by name; but only if each is as it was written."""
    try:
        # Python itself writes __pycache__ where this file is imported.
        paths = [path for path in folder.iterdir() if path.name != "__pycache__"]
        for path in paths:
            # A link may lead anywhere, and a pipe never ends.
            if path.is_symlink() or not path.is_file():
                raise ArtifactError(f"{path} is no plain file, and does not belong there.")
        files = {path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise ArtifactError(f"{error.filename}: cannot be read ({error.strerror}).") from None
    if SUMS not in files:
        raise ArtifactError(f"{folder / SUMS} is missing; it is no folder that jaxcls exported, or not all of one.")
    written = files.pop(SUMS)
    if written == checksums(files):
        return files
    lines = [line.partition("  ") for line in written.decode(errors="replace").splitlines()]
    listed = {name: digest for digest, _, name in lines}
    for name in sorted(listed.keys() - files.keys()):
        raise ArtifactError(f"{folder / name} is missing, or {SUMS} is damaged.")
    for name in sorted(files.keys() - listed.keys()):
        raise ArtifactError(f"{folder / name} does not belong there, or {SUMS} is damaged.")
    for name in sorted(files):
        if listed[name] != hashlib.sha256(files[name]).hexdigest():
            raise ArtifactError(f"{folder / name} is damaged: its SHA-256 is not the one in {SUMS}.")
    raise ArtifactError(f"{folder / SUMS} is damaged.")


def checksums(files: Mapping[str, bytes]) -> bytes:
    """What SHA256SUMS holds; `sha256sum -c` checks it too."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def _record(files: Mapping[str, bytes], folder: str | Path) -> dict[str, Any]:
    """What model.json holds, if it is what the loader goes by."""
    try:
        record = json.loads(files["model.json"])
        wrong = _wrong(record, files)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder}/model.json is damaged ({type(error).__name__}: {error}).") from None
    if record["format"] != "stablehlo":
        raise ArtifactError(f"{folder} holds a model in the format {record['format']}, which this loader does not run.")
    if wrong:
        raise ArtifactError(f"{folder}/model.json is damaged: {', '.join(wrong)}.")
    return record


def _wrong(record: Mapping[str, Any], files: Mapping[str, bytes]) -> list[str]:
    """The names of what is not of the kind or the size that it must be."""
    if record["format"] != "stablehlo":
        return []
    names, buckets, preprocessor = record["class_names"], record["buckets"], record["preprocessor"]
    thresholds = [*np.ravel(record["thresholds"])]
    kind = preprocessor["type"]
    match kind:
        case "images" | "detection":
            shape = preprocessor["shape"]
            prepared = _whole(shape) and len(shape) == 3 and buckets in ([], preprocessor.get("canvases"))
            prepared &= not buckets or buckets[-1] == shape[:2]
        case "texts":
            prepared = [[width] for width in preprocessor["widths"]] == buckets and "tokenizer.json" in files
            prepared &= preprocessor["widths"] == sorted(set(preprocessor["widths"]))
        case "tables":
            columns, categories = preprocessor["numeric"], preprocessor["categories"]
            prepared = all(isinstance(word, str) for words in categories.values() for word in words) and all(
                isinstance(column["name"], str)
                and isinstance(column["flagged"], bool)
                and all(type(column[key]) in (int, float) and math.isfinite(column[key]) for key in ("mean", "scale"))
                for column in columns
            )
        case _:
            prepared = False
    return [
        name
        for name, good in {
            "problem": record["problem"] in ("binary", "multiclass", "multilabel", "multioutput", "detection"),
            "class_names": len(names) > 1 - (record["problem"] in ("multilabel", "detection"))
            and all(isinstance(name, str) for name in names),
            "thresholds": all(isinstance(value, float) for value in thresholds) and len(thresholds) in (1, len(names)),
            "buckets": all(_whole(size) and len(size) == (1 if kind == "texts" else 2) for size in buckets)
            and (bool(buckets) if kind == "texts" else not buckets or kind == "detection"),
            "batch_size": _whole([record["batch_size"]]),
            "synthetic": isinstance(record["synthetic"], bool),
            "preprocessor": prepared,
            "programs": len(record["programs"]) == max(1, len(buckets))
            and all(name in files for name in record["programs"]),
            "parameters.npz": "parameters.npz" in files,
        }.items()
        if not good
    ]


def _whole(values: Sequence[Any]) -> bool:
    """Whether these are sizes that an array can have."""
    return isinstance(values, list) and all(type(value) is int and 0 < value < 1 << 24 for value in values)


def _arrays(content: bytes, where: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, which unpacks to no more than its size gives reason for."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > 100 * len(content):
                raise ArtifactError(f"{where} unpacks to more than its size gives reason for.")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, LookupError, RuntimeError, SyntaxError) as error:
        raise ArtifactError(f"{where} is damaged ({error}).") from None


def _images(shape: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
    def encode(images: Any) -> np.ndarray:
        images = np.asarray(images)
        if images.ndim == 3 and shape[-1] == 1:
            images = images[..., None]
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            right = ", ".join(map(str, ("N", *shape)))
            raise ArtifactError(f"the images are {images.dtype} of shape {images.shape}; give uint8 of ({right}).")
        return images

    return encode


def _canvases(shape: tuple[int, ...]) -> Callable[[Any], dict[str, np.ndarray]]:
    encoded = _images(shape)

    def encode(canvases: Any) -> dict[str, np.ndarray]:
        given = canvases if isinstance(canvases, Mapping) else {"image": canvases}
        images = encoded(given["image"])
        size = np.asarray(given.get("size", np.broadcast_to(shape[:2], (len(images), 2))), np.int32)
        if size.shape != (len(images), 2) or not ((size >= 1) & (size <= shape[:2])).all():
            raise ArtifactError(f"the sizes are of shape {size.shape}; give ({len(images)}, 2), from 1 to {shape[:2]}.")
        return {"image": images, "size": size}

    return encode


def _texts(tokenizer: str, width: int) -> Callable[[Sequence[str]], np.ndarray]:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(tokenizer)
    # A text that holds the name of the padding is no padding.
    loaded.encode_special_tokens = True

    def encode(texts: Sequence[str]) -> np.ndarray:
        tokens = np.zeros((len(texts), width), np.int32)
        for row, encoding in enumerate(loaded.encode_batch_fast(list(texts), add_special_tokens=False)):
            tokens[row, : len(encoding.ids)] = encoding.ids[:width]
        return tokens

    return encode


def _tables(record: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    numeric, categories = record["numeric"], record["categories"]

    def encode(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        for name in [*(column["name"] for column in numeric), *categories]:
            if name not in columns:
                raise ArtifactError(f"the table has no column {name!r}; it has: {', '.join(columns)}.")
        rows = len(next(iter(columns.values())))
        values = {column["name"]: _numbers(columns[column["name"]], column["name"]) for column in numeric}
        scaled = [_scaled(values[column["name"]], column["mean"], column["scale"]) for column in numeric]
        missing = [np.isnan(values[column["name"]]) for column in numeric if column["flagged"]]
        indices = [_indices(columns[name], words) for name, words in categories.items()]
        return {
            "numeric": _stacked(rows, np.float32, scaled),
            "missing": _stacked(rows, np.uint8, missing),
            "categories": _stacked(rows, np.int32, indices),
        }

    return encode


def _numbers(column: Any, name: str) -> np.ndarray:
    """Numbers, or words that are; NaN where one is missing."""
    values = np.array([_number(value) for value in column], np.float64)
    for row in np.flatnonzero(~np.isfinite(values)):
        value = column[row]
        if not (value.strip() in MISSING if isinstance(value, str) else math.isnan(value)):
            raise ArtifactError(f"row {row + 1} of column {name!r} is {value!r}, which is not a finite number.")
    return values


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _scaled(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """Between -5 and 5, smoothly; a missing number is 0, the mean."""
    distance = (np.clip(values, -1e100, 1e100) - mean) * scale
    return np.nan_to_num(distance / np.hypot(1.0, distance / 5.0)).astype(np.float32)


def _indices(column: Any, words: Sequence[str]) -> np.ndarray:
    """Word i has the index i + 1; 0 stands for all others. A column of numbers is spelled as the words are."""
    known = {word: index for index, word in enumerate(words, 1)}
    spelled = {_number(word): word for word in words if not math.isnan(_number(word))}
    names = [
        value if isinstance(value, str) else "" if math.isnan(value) else spelled.get(float(value), repr(float(value)))
        for value in column
    ]
    return np.array([known.get(name, 0) for name in names], np.int32)


def _stacked(rows: int, dtype: type, columns: list[np.ndarray]) -> np.ndarray:
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((rows, 0), dtype)


def _read(path: Path, kind: str) -> Any:
    """A file of inputs as `encode` takes them."""
    try:
        if kind in ("images", "detection"):
            # Mapped, so that a header which declares more than there is takes no memory.
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        text = path.read_text(encoding="utf-8-sig")
        if kind == "texts":
            return text.splitlines()
        names, *rows = (row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row)
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    except (OSError, ValueError, SyntaxError, RecursionError, csv.Error) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}.") from None
    # As in the training, a column that holds numbers alone is one of numbers.
    return {
        name: [_number(word) for word in column] if all(_is_number(word) for word in column) else column
        for name, column in columns.items()
    }


def _is_number(word: str) -> bool:
    return word.strip() in MISSING or (not math.isnan(_number(word)) and "_" not in word)


def _no_formula(name: str) -> str:
    """The name, after a ' where a spreadsheet would take it for a formula."""
    plain = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", name, re.ASCII)
    return f"'{name}" if name.startswith(_FORMULA) and plain is None else name


def _harmless(text: str) -> str:
    """The text without what a terminal would obey."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", lambda sign: ascii(sign[0])[1:-1], text)


def _table(model: Model, scores: np.ndarray) -> str:
    """Predictions as CSV."""
    names = model.record["class_names"]
    columns, names = (scores[:, None], names[1:]) if scores.ndim == 1 else (scores, names)
    predicted = [*zip(model.decide(scores), columns.tolist(), strict=True)]
    with io.StringIO(newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "predicted", *(f"probability_{name}" for name in names)])
        writer.writerows([row, _no_formula(name), *values] for row, (name, values) in enumerate(predicted, 1))
        return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Predicts with a model that jaxcls exported.")
    parser.add_argument(
        "--input", type=Path, required=True, help="a .npy file of images, a text a line, or a CSV table"
    )
    parser.add_argument("--output", type=Path, help="the CSV (or JSON) file to write; without it, it is printed")
    parser.add_argument("--batch-size", type=int, help="inputs that are predicted together")
    asked = parser.parse_args(arguments)
    try:
        model = load(Path(__file__).parent)
        inputs = _read(asked.input, model.record["preprocessor"]["type"])
        scores = model.predict(inputs, batch_size=asked.batch_size)
    except ArtifactError as error:
        print(f"error: {_harmless(str(error))}", file=sys.stderr)
        return 2
    content = json.dumps(model.found(scores), indent=1) + "\n" if isinstance(scores, dict) else _table(model, scores)
    if asked.output is None:
        print(_harmless(content) if sys.stdout.isatty() else content, end="")
    else:
        asked.output.write_text(content, encoding="utf-8")
    if model.record["synthetic"]:
        print("this model learned from SYNTHETIC examples", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
