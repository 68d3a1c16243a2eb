"""Runs a classifier or a detector that jaxcls exported, without jaxcls or Flax.

It needs jax, numpy, flatbuffers (with which jax.export reads its files) and, for texts, tokenizers, for image files
Pillow.

    python model/loader.py --input photos --output predicted.csv           # an image file, or a folder of images
    python model/loader.py --input images.npy --output predicted.csv       # uint8 (N, height, width, channels)
    python model/loader.py --input texts.txt --output predicted.csv        # one text per line
    python model/loader.py --input rows.csv --output predicted.csv         # the columns of the training data
    python model/loader.py --input photos --output detections.json         # boxes in pixels, from a detector

    import loader                                                          # with the folder on the path
    model = loader.load("model")
    probabilities = model.predict(images)

The SHA-256 of every file must be the one in SHA256SUMS, so a damaged folder is not loaded. That says nothing about who
made the folder, which contains programs, this file among them: run none that you do not trust. The probabilities are
those of `jaxcls predict`, bit for bit on the same versions, XLA_FLAGS (both are in model.json), processor and number of
devices; elsewhere, and for transformers, up to rounding.
"""

import argparse
import csv
import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxcls.data.formats.columns import as_utf8, csv_reader, encode, is_formula, unfamiliar

SUMS = "SHA256SUMS"


class ExportError(ValueError):
    """A file of the export is damaged, or an input does not fit the model."""


@dataclasses.dataclass(frozen=True)
class Model:
    """An exported model.

    Attributes:
      record: the content of model.json: "problem", "class_names", "thresholds", "synthetic" and more.
      parameters: arrays by name.
      programs: functions ``(parameters, encoded inputs) -> scores``; one for each size in ``record["buckets"]``, in the
        same order, or a single one.
      tokenizers: of texts, as the `tokenizers` library loads them; several for an ensemble whose members differ.
      folder: of the export.
    """

    record: dict[str, Any]
    parameters: dict[str, Any]
    programs: tuple[Callable[..., Any], ...]
    tokenizers: tuple[Any, ...] = ()
    folder: Path = Path(__file__).parent

    def encode(self, inputs: Any) -> Any:
        """Converts inputs to the arrays that the programs take.

        Args:
          inputs: images, uint8 (N, height, width, channels); or texts; or a table, {name: column (N,)}. A
            detector takes images that fill its square canvas, or {"image": canvases, "size": int32 (N, 2)} with the
            height and width of the image at the top left of each canvas. Without a preprocessor, the arrays that the
            model takes.

        Returns:
          Images unchanged; token ids, int32 (N, width), of texts; a dict of arrays of a table. Of an ensemble whose
          members encode inputs differently, a dict of "0", "1", ... with each of these.
        """
        preprocessor = self.record["preprocessor"]
        if preprocessor is not None and preprocessor["type"] == "ensemble":
            return {str(i): self._encode(inputs, one, i) for i, one in enumerate(preprocessor["preprocessors"])}
        return self._encode(inputs, preprocessor)

    def _encode(self, inputs: Any, preprocessor: Mapping[str, Any] | None, number: int = 0) -> Any:
        match preprocessor:
            case None | {"type": "images"}:
                return _encode_arrays(inputs, self.record["inputs"])
            case {"type": "detection", "shape": shape}:
                return _encode_canvases(inputs, shape)
            case {"type": "texts", "widths": widths}:
                return _encode_texts(inputs, self.tokenizers[number], widths[-1], _padding(preprocessor))
            case preprocessor:
                return _encode_table(inputs, preprocessor)

    def read(self, path: str | Path) -> tuple[list[str] | None, Any]:
        """Reads inputs from a file, or images from a folder.

        Returns:
          The ids: the names of image files, or the id column of a table; None for row numbers. And the inputs, as
          :meth:`encode` takes them.
        """
        path, preprocessor = Path(path), _first(self.record["preprocessor"])
        images = preprocessor is not None and preprocessor["type"] in ("images", "detection")
        if images and path.suffix.lower() not in (".npy", ".npz"):
            return self._read_images(path, preprocessor)
        inputs = _read(path, preprocessor)
        column = self.record.get("id_column") or "id"
        ids = inputs.get(column) if preprocessor is not None and preprocessor["type"] == "tables" else None
        return ids, inputs

    def _read_images(self, path: Path, preprocessor: Mapping[str, Any]) -> tuple[list[str], Any]:
        spec = importlib.util.spec_from_file_location("pixels", self.folder / "pixels.py")
        pixels: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(pixels)  # type: ignore[union-attr]
        files = [path]
        if path.is_dir():
            names = sorted(file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in pixels.SUFFIXES)
            hidden = (".", "__MACOSX")
            files = [path / name for name in names if not any(part.startswith(hidden) for part in name.parts)]
        if not files:
            raise ExportError(f"{path} holds no images.")
        height, width, channels = preprocessor["shape"]
        pad, white = preprocessor["type"] == "detection", preprocessor.get("white", pixels.DEEP_WHITE)
        decoded, sizes = [], []
        for file in files:
            try:
                # A detector of gray images converts others as in training.
                read = pixels.decode(file.read_bytes(), (height, width), 3 if pad else channels, pad=pad, white=white)
            except Exception as error:
                raise ExportError(f"{file}: cannot be read as an image: {error}.") from error
            decoded.append(read[0])
            sizes.append(read[1])
        ids = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
        images = np.stack(decoded)
        if not pad:
            return ids, images
        fitted = np.array([pixels.fitted_size(*size, height) for size in sizes], np.int32)
        return ids, {
            "image": pixels.to_gray(images) if channels == 1 else images,
            "size": fitted,
            "scale": fitted / np.array(sizes),
        }

    def predict(self, inputs: Any, *, batch_size: int | None = None) -> Any:
        """Returns probabilities: (N,) of the positive class of a binary problem, else (N, classes); a dict by output.

        A detector returns a dict of its detections, sorted by score: "boxes" (N, D, 4) as x1, y1, x2, y2 in pixels of
        the canvas, "scores" (N, D), and "classes" (N, D), indices of class names, or -1 for no detection.

        Args:
          inputs: see :meth:`encode`.
          batch_size: examples per batch. The default is that of `jaxcls predict`: 1, 8 or 64 if it holds all inputs,
            else that of the training run, which gives the same bits.
        """
        return self.score(self.encode(inputs), batch_size=batch_size)

    def score(self, encoded: Any, *, batch_size: int | None = None) -> Any:
        """Returns the probabilities of inputs that :meth:`encode` returned, as :meth:`predict`."""
        count = len(jax.tree.leaves(encoded)[0])
        if not count:
            raise ExportError("there is no input to predict.")
        most, buckets = self.record["batch_size"], self.record["buckets"]
        # Of few examples, one that is hardly padded.
        size = batch_size or next((size for size in (1, 8, 64) if count <= size < most), most)
        numbers = np.zeros(count, int)
        if buckets:
            # Each input is cut to the first size that holds it, as in the training run.
            extents = _extents(encoded, self.record["preprocessor"])
            numbers = (extents[:, None, :] <= np.array(buckets)).all(axis=2).argmax(axis=1)
        results, order = [], []
        for number in np.unique(numbers):
            matching = np.flatnonzero(numbers == number)
            for start in range(0, len(matching), size):
                # The last batch is filled with copies of its first row.
                rows = np.full(size, matching[start])
                rows[: len(matching) - start] = matching[start : start + size]
                batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], encoded)
                results.append(
                    self.programs[number](self.parameters, _cut(batch, buckets[number]) if buckets else batch)
                )
                order.append(rows)
        _, first = np.unique(np.concatenate(order), return_index=True)
        return jax.tree.map(lambda *parts: np.concatenate(parts)[first], *results)

    def decide(self, scores: np.ndarray) -> list[str]:
        """Returns the name of the predicted class of each example.

        Several names, those of several outputs or of the labels whose score reaches their threshold, are joined by "|".
        """
        decided = []
        for problem, class_names, thresholds, values in self._outputs(scores).values():
            names = np.array(class_names, object)
            if problem == "binary":
                decided.append(names[(values >= thresholds).astype(int)])
            elif problem == "multiclass":
                decided.append(names[values.argmax(axis=1)])
            else:
                decided.append(["|".join(names[row]) for row in values >= np.asarray(thresholds)])
        return ["|".join(row) for row in zip(*decided, strict=True)]

    def detections(
        self, scores: Mapping[str, np.ndarray], ids: Sequence[str] | None = None, scale: np.ndarray | None = None
    ) -> list[dict[str, Any]]:
        """Returns a dict for each detection: row (of the image, from 1), class, bbox (x, y, width, height), score.

        With ids, as of :meth:`read`, also the image; with a scale, boxes are in pixels of the original image.
        """
        records = []
        for row, index in np.argwhere(scores["classes"] >= 0):
            corners = scores["boxes"][row, index]
            x1, y1, x2, y2 = (corners if scale is None else corners / scale[row, [1, 0, 1, 0]]).tolist()
            records.append({
                "row": int(row) + 1,
                **({} if ids is None else {"image": ids[row]}),
                "class": self.record["class_names"][scores["classes"][row, index]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(scores["scores"][row, index]),
            })  # fmt: skip
        return records

    def _outputs(self, scores: Any) -> dict[str, tuple[str, list[str], Any, np.ndarray]]:
        """The problem, class names, thresholds and scores of each output; the name of a single one is ''."""
        values = *(self.record[name] for name in ("problem", "class_names", "thresholds")), scores
        if isinstance(values[0], str):
            return {"": values}
        return {output: tuple(value[output] for value in values) for output in values[0]}


def load(folder: str | Path) -> Model:
    """Loads the model of a folder after checking every file.

    Raises:
      ExportError: names the file that is damaged, missing or unexpected.
    """
    files = verified(Path(folder))
    record = json.loads(files["model.json"])
    if record["format"] != "stablehlo":
        raise ExportError(f"{folder} holds a model in the format {record['format']}, which this loader does not run.")
    with np.load(io.BytesIO(files["parameters.npz"]), allow_pickle=False) as stored:
        parameters = jax.device_put(dict(stored))
    programs = tuple(jax.jit(export.deserialize(bytearray(files[name])).call) for name in record["programs"])
    tokenizers: list[Any] = []
    while (name := tokenizer_name(len(tokenizers))) in files:
        from tokenizers import Tokenizer

        tokenizers.append(Tokenizer.from_str(files[name].decode()))
        # The name of the padding token in a text is not padding.
        tokenizers[-1].encode_special_tokens = True
    return Model(record, parameters, programs, tuple(tokenizers), Path(folder))


def tokenizer_name(number: int) -> str:
    """Returns the name of the file of a tokenizer.

    >>> tokenizer_name(0), tokenizer_name(1)
    ('tokenizer.json', 'tokenizer-1.json')
    """
    return f"tokenizer-{number}.json" if number else "tokenizer.json"


def verified(folder: Path) -> dict[str, bytes]:
    """Returns the content of all files of the folder, by name, if each is as it was written."""
    try:
        # Python itself writes __pycache__ when this file is imported.
        paths = [path for path in folder.iterdir() if path.name != "__pycache__"]
        for path in paths:
            # A link may lead anywhere, and reading a pipe may never end.
            if path.is_symlink() or not path.is_file():
                raise ExportError(f"{path} is not a regular file, and does not belong there.")
        files = {path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise ExportError(f"{error.filename}: cannot be read ({error.strerror}).") from None
    if SUMS not in files:
        raise ExportError(f"{folder / SUMS} is missing: this is not an export of jaxcls, or not all of one.")
    lines = files.pop(SUMS).decode(errors="replace").removesuffix("\n").split("\n")
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(expected.keys() | files.keys()):
        if name not in files:
            raise ExportError(f"{folder / name} is missing, or {SUMS} is damaged.")
        if name not in expected:
            raise ExportError(f"{folder / name} does not belong there, or {SUMS} is damaged.")
        if expected[name] != hashlib.sha256(files[name]).hexdigest():
            raise ExportError(f"{folder / name} is damaged: its SHA-256 is not the one in {SUMS}.")
    return files


def _first(preprocessor: Any) -> Any:
    """The preprocessor, or the first one of an ensemble: all read the same columns."""
    return preprocessor and preprocessor.get("preprocessors", [preprocessor])[0]


def _padding(preprocessor: Mapping[str, Any] | None) -> int:
    """The token of padding of texts."""
    padding: int = (preprocessor or {}).get("padding", 0)
    return padding


def _extents(encoded: Any, preprocessor: Mapping[str, Any] | None) -> np.ndarray:
    """The size of each input without padding, (N, axes): the height and width of an image, or the length of a text."""
    if preprocessor is not None and preprocessor["type"] == "ensemble":
        each = [_extents(encoded[str(i)], one) for i, one in enumerate(preprocessor["preprocessors"])]
        longest: np.ndarray = np.max(each, axis=0)
        return longest
    if isinstance(encoded, dict):
        return encoded["size"]
    return ((encoded != _padding(preprocessor)) * np.arange(1, encoded.shape[1] + 1)).max(axis=1, keepdims=True)


def _cut(encoded: Any, size: Sequence[int]) -> Any:
    if isinstance(encoded, dict) and "image" not in encoded:
        return {name: tokens[:, : size[0]] for name, tokens in encoded.items()}
    if isinstance(encoded, dict):
        return encoded | {"image": encoded["image"][:, : size[0], : size[1]]}
    return encoded[:, : size[0]]


def _encode_arrays(inputs: Any, expected: Mapping[str, Any]) -> Any:
    """Checks an array, or a dict of arrays, against {"dtype": ..., "shape": ...}, or a dict of such dicts."""
    if isinstance(expected.get("dtype"), str):
        return _encode_array(inputs, expected["dtype"], expected["shape"])
    if not isinstance(inputs, Mapping) or not expected.keys() <= inputs.keys():
        raise ExportError(f"the inputs must be a dict of the arrays {', '.join(expected)}.")
    return {name: _encode_arrays(inputs[name], one) for name, one in expected.items()}


def _encode_array(values: Any, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """Converts (N, *shape) numbers to the dtype. Integers must not change; a channel axis of 1 may be missing."""
    array = np.asarray(values)
    if array.ndim == len(shape) and [*shape[-1:]] == [1]:
        array = array[..., None]
    floating = jnp.issubdtype(dtype, jnp.floating)
    if array.shape[1:] == tuple(shape) and array.dtype.kind in ("biuf" if floating else "biu"):
        converted = array.astype(dtype, copy=False)
        if floating or converted is array or np.array_equal(converted, array):
            return converted
    right = ", ".join(map(str, ("N", *shape)))
    raise ExportError(f"the inputs are {array.dtype} of shape {array.shape}; give {dtype} of ({right}).")


def _encode_canvases(inputs: Any, shape: Sequence[int]) -> dict[str, np.ndarray]:
    canvases = inputs if isinstance(inputs, Mapping) else {"image": inputs}
    images = _encode_array(canvases["image"], "uint8", shape)
    size = np.asarray(canvases.get("size", np.broadcast_to(shape[:2], (len(images), 2))), np.int32)
    if size.shape != (len(images), 2) or not ((size >= 1) & (size <= shape[:2])).all():
        raise ExportError(f"the sizes are of shape {size.shape}; give ({len(images)}, 2), from 1 to {shape[:2]}.")
    return {"image": images, "size": size}


def _encode_texts(texts: Sequence[str], tokenizer: Any, width: int, padding: int) -> np.ndarray:
    tokens = np.full((len(texts), width), padding, np.int32)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for row, encoding in enumerate(tokenizer.encode_batch_fast(list(texts))):
        ids = encoding.ids
        if (excess := len(ids) - width) > 0:
            # As in training, a longer text loses its middle, and no special token.
            content = encoding.special_tokens_mask.count(0)
            first = encoding.special_tokens_mask.index(0) + max(0, content - excess) // 4
            ids = np.delete(ids, slice(first, first + excess))
        tokens[row, : len(ids)] = ids
    return tokens


def _encode_table(table: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, np.ndarray]:
    try:
        return encode(table, preprocessor)
    except KeyError as error:
        raise ExportError(f"the table has no column {error}; it has: {', '.join(table)}.") from None


def _read(path: Path, preprocessor: Mapping[str, Any] | None) -> Any:
    """Reads a file of inputs for :meth:`Model.encode`."""
    kind = preprocessor["type"] if preprocessor else "arrays"
    try:
        if kind in ("images", "detection", "arrays"):
            # Mapped, so that a header that declares more than the file holds takes no memory.
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            return np.asarray(loaded) if isinstance(loaded, np.ndarray) else dict(loaded)
        if kind == "texts":
            return path.read_text(encoding="utf-8-sig").splitlines()
        content = path.read_bytes()
        content, separator = as_utf8(path, gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)
        names, *rows = (row for row in csv_reader(content.decode(), separator) if row)
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    except (OSError, EOFError, zlib.error, ValueError, SyntaxError, RecursionError, csv.Error) as error:
        needs = "it must be an .npy or .npz file of what the model takes, which cannot decode other files"
        raise ExportError(f"{path}: cannot be read: {needs if kind == 'arrays' else error}.") from None


def _no_formula(name: str) -> str:
    """Prefixes a ' where a spreadsheet would read the name as a formula."""
    return f"'{name}" if is_formula(name) else name


def _escaped(text: str) -> str:
    """Escapes the control characters that a terminal would obey."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", lambda sign: ascii(sign[0])[1:-1], text)


def _csv(model: Model, scores: np.ndarray, ids: Sequence[Any] | None = None) -> str:
    columns: dict[str, list[float]] = {}
    for output, (_, names, _, values) in model._outputs(scores).items():
        values, names = (values[:, None], names[1:]) if values.ndim == 1 else (values, names)
        for name, column in zip(names, values.T, strict=True):
            columns[f"probability_{output}: {name}" if output else f"probability_{name}"] = column.tolist()
    decided = model.decide(scores)
    with io.StringIO(newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row" if ids is None else "id", "predicted", *columns])
        rows = range(1, len(decided) + 1) if ids is None else [_no_formula(str(one)) for one in ids]
        for row, name, *numbers in zip(rows, decided, *columns.values(), strict=True):
            writer.writerow([row, _no_formula(name), *numbers])
        return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Predict with a model that jaxcls exported.")
    takes = "an image, a folder of images or an .npy file; one text per line; or a CSV table"
    parser.add_argument("--input", type=Path, required=True, help=takes)
    parser.add_argument("--output", type=Path, help="the CSV (or JSON) file to write; without it, it is printed")
    parser.add_argument("--batch-size", type=int, help="examples per batch")
    options = parser.parse_args(arguments)
    try:
        model = load(Path(__file__).parent)
        ids, inputs = model.read(options.input)
        preprocessor = _first(model.record["preprocessor"])
        for line in unfamiliar(inputs, preprocessor) if preprocessor and preprocessor["type"] == "tables" else ():
            print(f"warning: {_escaped(line)}", file=sys.stderr)
        scores = model.predict(inputs, batch_size=options.batch_size)
    except ExportError as error:
        print(f"error: {_escaped(str(error))}", file=sys.stderr)
        return 2
    detector = model.record["problem"] == "detection"
    scale = inputs.get("scale") if isinstance(inputs, Mapping) and ids is not None else None
    if detector:
        content = json.dumps(model.detections(scores, ids, scale), indent=1) + "\n"
    else:
        content = _csv(model, scores, ids)
    if options.output is None:
        print(_escaped(content) if sys.stdout.isatty() else content, end="")
    else:
        options.output.write_text(content, encoding="utf-8")
    if model.record["synthetic"]:
        print("this model learned from SYNTHETIC examples", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
