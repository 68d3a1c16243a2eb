"""Preprocessing as part of an ONNX model, which then takes images and tables as a user has them.

Images are uint8 (N, height, width, channels) of any one size, and are resized as Pillow resizes the image files of
`jaxcls predict`. Of a table, each column is an input (N,) by its name: numbers are float64, NaN where they are missing;
words are strings, spelled as in the training file. A date enters as its parts, numbers such as "signup (days)". Texts
are not possible: ONNX has no operation that splits them into words or tokens.
"""

import itertools
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import columns
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.data.preprocessing.ensemble import EnsemblePreprocessor
from jaxcls.data.preprocessing.images import ImagePreprocessor
from jaxcls.data.preprocessing.tables import TablePreprocessor
from jaxcls.data.preprocessing.texts import TextPreprocessor

_MODEL = "model/"


def check(preprocessor: Preprocessor | None) -> None:
    """Raises InputError for a preprocessor that ONNX cannot express."""
    for encoder in _encoders(preprocessor):
        if isinstance(encoder, ImagePreprocessor) or (isinstance(encoder, TablePreprocessor) and not encoder.texts):
            continue
        reason, remedy = "", "leave out --with-preprocessing"
        if encoder is None:
            reason = ": the model takes arrays, and has none"
        elif isinstance(encoder, TablePreprocessor):
            reason = f", which cannot split the texts of the column {next(iter(encoder.texts))!r} into words"
        elif isinstance(encoder, TextPreprocessor):
            reason, remedy = ", which cannot split texts into tokens", f"{remedy}, and use tokenizer.json"
        raise InputError(f"the format onnx cannot express the preprocessing{reason}; {remedy}.")


def prepend(model: Any, preprocessor: Preprocessor, names: Sequence[str]) -> tuple[Any, list[str]]:
    """Returns the ONNX model with the preprocessing before it, and the names of its inputs.

    Args:
      model: of encoded inputs.
      names: of these.
    """
    from onnx import compose, helper

    outputs = [*model.graph.output]
    inner = compose.add_prefix(model, _MODEL)
    graph, encoders = _Graph(), _encoders(preprocessor)
    for number, encoder in enumerate(encoders):
        encode = _image if isinstance(encoder, ImagePreprocessor) else _table
        for name, value in encode(graph, encoder).items():
            name = name if len(encoders) == 1 else f"{name}_{number}"
            if name in names:
                graph.nodes.append(helper.make_node("Identity", [value], [_MODEL + name]))
    taken = {"", *(output.name for output in outputs), *(name for node in graph.nodes for name in node.output)}
    if wrong := sorted(taken & graph.inputs.keys()):
        raise InputError(f"the format onnx cannot have an input of the name {wrong[0]!r}; rename the column.")
    nodes = [*graph.nodes, *inner.graph.node]
    nodes += [helper.make_node("Identity", [_MODEL + output.name], [output.name]) for output in outputs]
    whole = helper.make_graph(
        nodes, model.graph.name, [*graph.inputs.values()], outputs, [*graph.constants, *inner.graph.initializer]
    )
    opsets = [*model.opset_import, helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(whole, ir_version=model.ir_version, opset_imports=opsets), [*graph.inputs]


def example(preprocessor: Preprocessor, random: np.random.Generator, count: int) -> tuple[dict[str, np.ndarray], Any]:
    """Draws inputs of a model with preprocessing, and returns them with their encoding."""
    encoders = _encoders(preprocessor)
    one = encoders[0]
    if isinstance(one, ImagePreprocessor):
        images = random.integers(0, 256, (count, *one.shape), np.uint8)
        return {"images": images}, images
    drawn: dict[str, np.ndarray] = {}
    for encoder in encoders:
        for column in encoder.numeric:
            values = column.mean + random.normal(size=count) * 2 / (column.scale or 1)
            drawn[column.name] = np.where(random.random(count) < 0.2, random.choice([np.nan, np.inf]), values)
        for name, words in encoder.categories:
            known = [*filter(None, words), "", "NA", "a word that no row has"]
            drawn[name] = random.choice(np.array(known, object), count)
    # The parts of dates are drawn, not the dates.
    encoded = [columns.encode(drawn, {**encoder.as_record(), "dates": {}}) for encoder in encoders]
    return drawn, encoded[0] if len(encoded) == 1 else {str(number): one for number, one in enumerate(encoded)}


def _encoders(preprocessor: Any) -> list[Any]:
    return preprocessor.encoders if isinstance(preprocessor, EnsemblePreprocessor) else [preprocessor]


class _Graph:
    """Nodes of ONNX, each of which is added by its name, its operands (values or arrays) and its attributes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: dict[str, Any] = {}
        self._numbers = itertools.count()

    def input(self, name: str, dtype: int, shape: Sequence[Any]) -> str:
        from onnx import helper

        self.inputs[name] = helper.make_tensor_value_info(name, dtype, shape)
        return name

    def __call__(self, operation: str, *operands: Any, domain: str = "", **attributes: Any) -> str:
        from onnx import helper, numpy_helper

        names = []
        for operand in operands:
            if not isinstance(operand, str):
                self.constants.append(numpy_helper.from_array(operand, f"preprocessing/constant_{len(self.constants)}"))
                operand = self.constants[-1].name
            names.append(operand)
        result = f"preprocessing/{operation}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(operation, names, [result], domain=domain, **attributes))
        return result

    def branch(self, condition: str, yes: Callable[[], str], no: Callable[[], str]) -> str:
        """Returns one of two float64 values, only one of which is computed."""
        from onnx import TensorProto, helper

        graphs, outer = {}, self.nodes
        for name, add in (("then_branch", yes), ("else_branch", no)):
            self.nodes = []
            result = helper.make_tensor_value_info(add(), TensorProto.DOUBLE, None)
            graphs[name] = helper.make_graph(self.nodes, name, [], [result])
        self.nodes = outer
        return self("If", condition, **graphs)


def _image(graph: _Graph, encoder: ImagePreprocessor) -> dict[str, str]:
    """Resizes as :func:`jaxcls.data.formats.pixels.decode` does, by the arithmetic of Pillow.

    Where an image is at least four times as large, the means of blocks come first, which `reducing_gap` is. Columns,
    then rows, become weighted means, by the areas of triangles; where an image loses more than twice as many rows as
    columns, rows come first. (In older versions than Pillow 13 they do not, which changes some of its pixels by one
    gray level.) Each step rounds to integers.
    """
    from onnx import TensorProto as types

    height, width, channels = encoder.shape
    images = graph.input("images", types.UINT8, ["count", "height", "width", channels])
    one, half, size = _int64(1), np.float64(0.5), _int64(height, width)
    shape = graph("Shape", images, start=1, end=3)
    factor = graph("Max", graph("Div", shape, 2 * size), one)
    blocks = graph("Div", graph("Sub", graph("Add", shape, factor), one), factor)
    padding = graph("Sub", graph("Mul", blocks, factor), shape)
    pairs = graph("Concat", graph("Unsqueeze", blocks, one), graph("Unsqueeze", factor, one), axis=1)
    divided = graph("Reshape", pairs, _int64(-1))

    def sums(pixels: str, before: np.ndarray, after: np.ndarray, axes: np.ndarray) -> str:
        """The sums of blocks of the rows and columns, which are between other axes."""
        none = np.zeros(len(before) + len(after), np.int64)
        pads = graph("Concat", none[: len(before)], _int64(0, 0), none, padding, none[: len(after)], axis=0)
        whole = graph("Concat", before, divided, after, axis=0)
        return graph("ReduceSum", graph("Reshape", graph("Pad", pixels, pads), whole), axes, keepdims=0)

    ones = graph("Expand", np.float32(1), shape)
    counts = graph("Unsqueeze", sums(ones, _int64(), _int64(), _int64(1, 3)), _int64(2))
    totals = sums(graph("Cast", images, to=types.FLOAT), _int64(-1), _int64(channels), _int64(2, 4))
    rounded = graph("Add", totals, graph("Floor", graph("Mul", counts, np.float32(0.5))))
    # Divided by a factor of 24 bits.
    bits = graph("Cast", graph("Floor", graph("Div", np.float32(1 << 24), counts)), to=types.DOUBLE)
    quotient = graph("Mul", graph("Mul", graph("Cast", rounded, to=types.DOUBLE), bits), np.float64(1 / (1 << 24)))
    reduced = graph("Transpose", graph("Floor", quotient), perm=[0, 3, 1, 2])
    # The size in blocks is a float32.
    extent = graph("Div", graph("Cast", shape, to=types.FLOAT), graph("Cast", factor, to=types.FLOAT))
    scale = graph("Div", graph("Cast", extent, to=types.DOUBLE), size.astype(np.float64))

    def weights(axis: int) -> str:
        """Of each pixel (columns) in each pixel of the result (rows)."""
        step = graph("Gather", scale, _int64(axis))
        centers = graph("Mul", np.arange(size[axis])[:, None] + 0.5, step)
        numbers = graph("Range", np.int64(0), graph("Gather", blocks, np.int64(axis)), np.int64(1))
        distance = graph("Add", graph("Sub", graph("Cast", numbers, to=types.DOUBLE), centers), half)
        inverse = graph("Reciprocal", graph("Max", step, np.float64(1)))
        areas = graph("Max", graph("Sub", np.float64(1), graph("Abs", graph("Mul", distance, inverse))), np.float64(0))
        normalized = graph("Mul", areas, graph("Reciprocal", graph("ReduceSum", areas, one)))
        # Rounded to 22 bits.
        bits = graph("Mul", normalized, np.float64(1 << 22))
        return graph("Mul", graph("Floor", graph("Add", bits, half)), np.float64(1 / (1 << 22)))

    rows, columns = weights(0), graph("Transpose", weights(1))

    def rounded_mean(pixels: str, axis: int) -> str:
        product = graph("MatMul", rows, pixels) if axis == 0 else graph("MatMul", pixels, columns)
        return graph("Floor", graph("Add", product, half))

    lost = graph("Sub", blocks, size)
    twice = graph("Max", graph("Mul", graph("Gather", lost, _int64(1)), _int64(2)), _int64(0))
    pixels = graph.branch(
        graph("Greater", graph("Gather", lost, _int64(0)), twice),
        lambda: rounded_mean(rounded_mean(reduced, 0), 1),
        lambda: rounded_mean(rounded_mean(reduced, 1), 0),
    )
    return {"images": graph("Cast", graph("Transpose", pixels, perm=[0, 2, 3, 1]), to=types.UINT8)}


def _table(graph: _Graph, encoder: TablePreprocessor) -> dict[str, str]:
    """Encodes as :func:`jaxcls.data.formats.columns.encode` does."""
    from onnx import TensorProto as types

    encoded = {}
    if numeric := encoder.numeric:
        values = _stacked(graph, [graph.input(column.name, types.DOUBLE, ["count"]) for column in numeric])
        missing = graph("Or", graph("IsNaN", values), graph("IsInf", values))
        mean, scale = (np.array([[getattr(column, name) for column in numeric]]) for name in ("mean", "scale"))
        huge = np.float64(-1e100), np.float64(1e100)
        known = graph("Clip", graph("Where", missing, mean, values), *huge)
        # Clipped again, so that its square is finite.
        distance = graph("Clip", graph("Mul", graph("Sub", known, mean), scale), *huge)
        part = graph("Div", distance, np.float64(5))
        length = graph("Sqrt", graph("Add", graph("Mul", part, part), np.float64(1)))
        encoded["numeric"] = graph("Cast", graph("Div", distance, length), to=types.FLOAT)
        flagged = _int64(*(index for index, column in enumerate(numeric) if column.flagged))
        encoded["missing"] = graph("Cast", graph("Gather", missing, flagged, axis=1), to=types.UINT8)
    if encoder.categories:
        indices = []
        for name, words in encoder.categories:
            keys = _keys(words)
            column = graph.input(name, types.STRING, ["count"])
            labels = {"keys_strings": [*keys], "values_int64s": [*keys.values()], "default_int64": 0}
            indices.append(graph("LabelEncoder", column, domain="ai.onnx.ml", **labels))
        encoded["categories"] = graph("Cast", _stacked(graph, indices), to=types.INT32)
    return encoded


def _keys(words: Sequence[str | None]) -> Mapping[str, int]:
    """The index of each word that has one; as of :func:`jaxcls.data.formats.columns.indices`."""
    known = {word: index for index, word in enumerate(words, 1) if word is not None}
    decomposed = {unicodedata.normalize("NFD", word): index for word, index in known.items()}
    return dict.fromkeys(columns.MISSING, known.get("", 0)) | decomposed | known


def _stacked(graph: _Graph, values: Sequence[str]) -> str:
    return graph("Concat", *(graph("Unsqueeze", value, _int64(1)) for value in values), axis=1)


def _int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)
