"""What a server answers with: the examples of a request as arrays, and scores as an answer."""

import base64
import binascii
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils.errors import InputError, listed
from jaxcls.data import predictions
from jaxcls.data.datasets.object_detection import canvases
from jaxcls.data.formats import coco, images
from jaxcls.data.preprocessing import Preprocessor, from_record
from jaxcls.data.preprocessing.ensemble import first
from jaxcls.data.preprocessing.images import DetectionPreprocessor, ImagePreprocessor
from jaxcls.data.preprocessing.tables import TablePreprocessor
from jaxcls.data.preprocessing.texts import TextPreprocessor
from jaxcls.export import loader
from jaxcls.tasks import explanation, predictor

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Service:
    """A classifier or a detector, ready to answer.

    Attributes:
      title: what it is, for people.
      preprocessor: of the training.
      encode: raw inputs, as the preprocessor takes them -> arrays.
      score: arrays -> scores.
      problem, class_names, thresholds: dicts of them for several outputs.
      synthetic: whether it learned from synthetic examples.
      explain: raw inputs -> explanations, see :func:`jaxcls.tasks.explanation.explain`; None of what cannot explain.
    """

    title: str
    preprocessor: Preprocessor
    encode: Callable[[PyTree], PyTree]
    score: Callable[[PyTree], PyTree]
    problem: Any
    class_names: Any
    thresholds: Any
    synthetic: bool
    explain: Callable[[PyTree], list[dict[str, Any]]] | None = None

    @property
    def takes(self) -> str:
        """What an example is: 'text', 'row' or 'image'."""
        match first(self.preprocessor):
            case TextPreprocessor():
                return "text"
            case TablePreprocessor():
                return "row"
        return "image"

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of a row, with words that the training rows held; of a column of numbers none."""
        table = first(self.preprocessor)
        return table.columns if isinstance(table, TablePreprocessor) else {}

    def read(self, examples: Sequence[Any]) -> tuple[PyTree, list[str]]:
        """Reads the examples of a request.

        Args:
          examples: texts; rows, as dicts; or images, as the bytes of their files or these in base64.

        Returns:
          Raw inputs, as :attr:`encode` takes them, and warnings about unfamiliar values.

        Raises:
          InputError: names the example and what was wrong with it.
        """
        if not isinstance(examples, list) or not examples:
            raise InputError("'inputs' must be a list of at least one example.")
        match first(self.preprocessor):
            case TextPreprocessor():
                for number, text in enumerate(examples, start=1):
                    _check(text, str, number, "a text")
                return np.array(examples, object), []
            case TablePreprocessor() as table:
                inputs = _columns(examples, [*self.columns])
                return inputs, table.unfamiliar(inputs)
            case DetectionPreprocessor(pixels=ImagePreprocessor() as image):
                decoded, sizes = _decoded(examples, (*image.shape[:2], 3), image.white, pad=True)
                return canvases(decoded, sizes), []
            case image:
                return _decoded(examples, image.shape, image.white)[0], []

    def answers(self, inputs: PyTree, scores: PyTree) -> list[dict[str, Any]]:
        """Returns the answer for each example, plain JSON values.

        Args:
          inputs: as :meth:`read` returns them.
          scores: of :attr:`score`.
        """
        if self.problem == "detection":
            return _boxes(inputs, scores, self.class_names)
        return _decisions(scores, self.problem, self.class_names, self.thresholds)

    def of_shape(self, count: int) -> PyTree:
        """Returns arrays for this number of examples, ones, to compile with."""
        shapes = self.preprocessor.shapes(count)
        return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


def load(path: Path) -> Service:
    """Loads the run or the export in a folder.

    Raises:
      InputError: it is neither, or the run has no preprocessor.
    """
    if not (path / "model.json").exists():
        learned = predictor.load(path, portable=True)
        preprocessor = learned.experiment.preprocessor
        if preprocessor is None:
            raise _no_preprocessor(path)
        names = learned.class_names, learned.thresholds, learned.data["synthetic"]
        explain = explanation.explainer(learned) if learned.task and explanation.can_explain(learned) else None
        return Service(
            learned.origin, preprocessor, learned.experiment.transform, learned.score, learned.problem, *names, explain
        )
    try:
        model = loader.load(path)
    except loader.ExportError as error:
        raise InputError(str(error)) from error
    record = model.record
    if record["preprocessor"] is None:
        raise _no_preprocessor(path)
    preprocessor = from_record(record["preprocessor"])
    origin = path.name + (", learned from SYNTHETIC examples" if record["synthetic"] else "")
    names = record["class_names"], record["thresholds"], record["synthetic"]
    return Service(origin, preprocessor, preprocessor.transform, model.score, record["problem"], *names)


def _no_preprocessor(path: Path) -> InputError:
    return InputError(
        f"{path} is of jaxcls.compile and has no preprocessor, so that a server cannot read requests; serve the run of "
        "a task."
    )


def _check(value: Any, expected: type | tuple[type, ...], number: int, what: str) -> None:
    if not isinstance(value, expected):
        raise InputError(f"example {number} is {type(value).__name__}; it must be {what}.")


def _columns(rows: Sequence[Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    for number, row in enumerate(rows, start=1):
        _check(row, dict, number, "an object with a value for each column")
        if missing := [name for name in names if name not in row]:
            raise InputError(f"example {number} lacks {listed(missing)}; give null where a value is unknown.")
        for name in names:
            if not isinstance(row[name], str | int | float | None):
                raise InputError(
                    f"example {number}: {name!r} is {type(row[name]).__name__}; give text, a number or null."
                )
    # As a file spells them, True and False are words.
    return {name: np.array([str(row[name]) if isinstance(row[name], bool) else row[name] for row in rows], object)
            for name in names}  # fmt: skip


def _decoded(
    files: Sequence[Any], shape: tuple[int, ...], white: int, *, pad: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of image files, and the height and width of each."""
    decoded, sizes = [], []
    for number, content in enumerate(files, start=1):
        _check(content, (str, bytes), number, "an image file in base64")
        try:
            content = base64.b64decode(content, validate=True) if isinstance(content, str) else content
        except binascii.Error as error:
            raise InputError(f"example {number} is not base64: {error}.") from None
        size = shape[0], shape[1]
        image, original = images.decode_content(content, size, shape[2], f"example {number}", pad=pad, white=white)
        decoded.append(image)
        sizes.append(original)
    return np.stack(decoded), np.array(sizes)


def _boxes(inputs: Mapping[str, np.ndarray], detections: PyTree, class_names: Sequence[str]) -> list[dict[str, Any]]:
    scale = inputs["scale"]
    sizes = np.rint(inputs["size"] / scale).astype(int)
    answers: list[dict[str, Any]] = [{"detections": []} for _ in scale]
    for box in coco.results(detections, range(len(scale)), scale=scale, sizes=sizes):
        one = {"class": class_names[box["category_id"] - 1], "bbox": box["bbox"], "score": box["score"]}
        answers[box["image_id"]]["detections"].append(one)
    return answers


def _decisions(scores: PyTree, problem: Any, class_names: Any, thresholds: Any) -> list[dict[str, Any]]:
    if isinstance(problem, Mapping):
        outputs = {
            name: _decisions(scores[name], problem[name], class_names[name], thresholds[name]) for name in problem
        }
        return [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    ids = np.arange(1, len(scores) + 1).astype(str).astype(object)
    table = predictions.columns(ids, scores, thresholds, problem, class_names)
    names = class_names[1:] if problem == "binary" else class_names
    predicted = table["predicted"].tolist()
    if problem == "multilabel":
        predicted = [[name for name, chosen in zip(names, row, strict=True) if chosen] for row in scores >= thresholds]
    columns = np.asarray(scores).reshape(len(ids), -1).tolist()
    return [
        {"predicted": decision, "probabilities": dict(zip(names, row, strict=True))}
        for decision, row in zip(predicted, columns, strict=True)
    ]
