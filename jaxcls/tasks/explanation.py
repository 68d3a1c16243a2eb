"""Why a finished run predicts what it does: the contributions of pixels, words or columns to its predictions."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls import metrics
from jaxcls._utils.errors import InputError
from jaxcls.data.preprocessing.images import ImagePreprocessor
from jaxcls.data.preprocessing.tables import TablePreprocessor
from jaxcls.data.preprocessing.texts import TextPreprocessor
from jaxcls.data.rows import select
from jaxcls.reports.summary import cell, encoded, example
from jaxcls.tasks import build
from jaxcls.tasks.predictor import Predictor
from jaxcls.training import attribution

PyTree = Any
Method = Literal["auto", "integrated_gradients", "grad_cam"]
# Rows that replace the columns of an example, and rows that the importance of columns is measured on.
_BACKGROUND, _MOST_ROWS = 64, 2000
_REPEATS = 5


def explain(
    learned: Predictor, inputs: PyTree, *, background: PyTree = None, method: Method = "auto"
) -> list[dict[str, Any]]:
    """Explains the prediction of each example: what speaks for the predicted class, and what against it.

    Contributions are in logits (log-odds). For images and texts, they are integrated gradients or, for n-grams, exact;
    for tables, Shapley values against the background.

    Args:
      learned: a run of a single output that classifies images, texts or rows.
      inputs: raw, as the preprocessor takes them.
      background: of a table: other rows, such as training rows.
      method: of images; auto is integrated gradients.

    Returns:
      For each example 'predicted', its 'confidence', the 'example' as a report shows it, and 'why': a heat map, words
      or columns, each with its contribution. Plain JSON values.

    Raises:
      InputError: the run has several outputs, detects, or was not of a task; or the method does not fit.
    """
    experiment = learned.experiment
    if not can_explain(learned):
        raise InputError(
            "only a run of a single output that classifies images, texts or rows can be explained, not an ensemble of "
            "several preprocessors."
        )
    preprocessor = experiment.preprocessor
    scores = learned.predict(inputs)
    columns = np.stack([1 - scores, scores], axis=1) if scores.ndim == 1 else scores
    targets = columns.argmax(axis=1)
    match preprocessor:
        case ImagePreprocessor():
            whys = _heat(learned, np.asarray(experiment.transform(inputs)), targets, method)
        case TextPreprocessor():
            whys = _words(learned, preprocessor, inputs, targets)
        case _:
            assert isinstance(preprocessor, TablePreprocessor)
            whys = _columns(learned, preprocessor, inputs, targets, background)
    return [
        {
            "predicted": learned.class_names[target],
            "confidence": float(columns[row, target]),
            "example": example(inputs, row),
            "why": why,
        }
        for row, (target, why) in enumerate(zip(targets.tolist(), whys, strict=True))
    ]


def can_explain(learned: Predictor) -> bool:
    """Returns whether :func:`explain` takes the run."""
    single = not isinstance(learned.problem, Mapping) and learned.problem != "detection"
    kinds = ImagePreprocessor | TextPreprocessor | TablePreprocessor
    return single and isinstance(learned.experiment.preprocessor, kinds)


def explainer(learned: Predictor) -> Callable[[PyTree], list[dict[str, Any]]]:
    """Returns :func:`explain` of a task's run, as a function of the inputs. The rows that columns of a table are
    explained against are read from the training data of the run when it is first called.
    """
    if not isinstance(learned.experiment.preprocessor, TablePreprocessor):
        return functools.partial(explain, learned)

    @functools.cache
    def background() -> dict[str, np.ndarray]:
        rows = _splits(learned, lambda line: None).train.inputs
        return _in_memory(rows, [*rows], _rows(rows, _BACKGROUND, np.random.default_rng(0)))

    return lambda inputs: explain(learned, inputs, background=background())


def _logits(learned: Predictor) -> Callable[[PyTree], jax.Array]:
    """The function from what the model takes to a logit of each class, (N, K); of a binary problem, of both classes."""
    weights = learned.weights

    def logits(inputs: PyTree) -> jax.Array:
        outputs, _ = learned.experiment.model.apply(weights["params"], weights["model_state"], inputs)
        return _of_each_class(outputs)

    return logits


def _of_each_class(outputs: Any) -> Any:
    """The logits of each class, of JAX or NumPy, (N, K)."""
    # The log-odds of the negative class are those of the positive one with the other sign.
    return outputs[:, None] * np.array([[-1, 1]], np.float32) if outputs.ndim == 1 else outputs


def _heat(learned: Predictor, pixels: np.ndarray, targets: np.ndarray, method: Method) -> list[dict[str, Any]]:
    logits = _logits(learned)

    def target(inputs: jax.Array) -> jax.Array:
        return logits(inputs)[jnp.arange(len(targets)), targets]

    inputs = learned.experiment.preprocess(jnp.asarray(pixels))
    if method == "grad_cam":
        heats = attribution.grad_cam(target, inputs)
    else:
        # The mean pixel is zero; each channel of a pixel contributes.
        heats = attribution.integrated_gradients(target, inputs, jnp.zeros_like(inputs)).sum(axis=3)
    return [
        {"type": "heat", "png": _png(image, heat), "sum": float(heat.sum())}
        for image, heat in zip(pixels, heats, strict=True)
    ]


def _png(image: np.ndarray, heat: np.ndarray) -> str:
    """The image in gray, with what speaks for the class in orange and what speaks against it in blue."""
    from PIL import Image

    size = max(1, 224 // image.shape[0])
    gray = np.asarray(image, np.float64).mean(axis=2, keepdims=True) * 0.6 + 60
    limit = max(np.quantile(np.abs(heat), 0.99), np.finfo(np.float32).tiny)
    large = Image.fromarray((heat / limit).clip(-1, 1).astype(np.float32)).resize(
        (image.shape[1], image.shape[0]), Image.Resampling.BILINEAR
    )
    strength = np.asarray(large)[..., None]
    color = np.where(strength > 0, [255.0, 140.0, 0.0], [60.0, 140.0, 255.0])
    share = 0.8 * np.abs(strength)
    mixed = Image.fromarray((gray * (1 - share) + color * share).astype(np.uint8))
    mixed = mixed.resize((image.shape[1] * size, image.shape[0] * size), Image.Resampling.NEAREST)
    return encoded(mixed.quantize(64))


def _words(
    learned: Predictor, preprocessor: TextPreprocessor, inputs: np.ndarray, targets: np.ndarray
) -> list[dict[str, Any]]:
    tokens = preprocessor.transform(inputs)
    padding = preprocessor.padding or 0
    contributions = attribution.of_tokens(_logits(learned), jnp.asarray(tokens), targets, padding)
    return [
        {"type": "words", "words": [[word, float(value)] for word, value in preprocessor.words_of(row, values)]}
        for row, values in zip(tokens, contributions, strict=True)
    ]


def _columns(
    learned: Predictor, preprocessor: TablePreprocessor, inputs: Mapping[str, np.ndarray], targets: np.ndarray,
    background: Mapping[str, np.ndarray] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    if background is None:
        raise InputError("columns are explained against other rows; give some as the background.")
    names = [*preprocessor.columns]
    others = _in_memory(background, names, _rows(background, _BACKGROUND, np.random.default_rng(0)))
    columns = _in_memory(inputs, names)
    whys = []
    for row, target in enumerate(targets.tolist()):
        # A number that is given as text would make text of the numbers that it is mixed with.
        values = {name: column[row] for name, column in columns.items()}
        one = {name: np.array(value, object) if isinstance(value, str) else value for name, value in values.items()}

        def outputs(mask: np.ndarray, rows: np.ndarray, one: Any = one, target: int = target) -> np.ndarray:
            mixed = {name: np.where(mask[:, index], one[name], others[name][rows]) for index, name in enumerate(names)}
            logits = np.asarray(learned.outputs(learned.experiment.transform(mixed)))
            return _of_each_class(logits)[:, target : target + 1]

        result = attribution.shapley(outputs, len(names), len(next(iter(others.values()))))
        order = np.argsort(-np.abs(result.values[:, 0]), kind="stable")
        whys.append({
            "type": "columns",
            "columns": [[names[index], cell(values[names[index]]), float(result.values[index, 0])] for index in order],
            "base": float(result.base[0]),
        })  # fmt: skip
    return whys


def _rows(table: Mapping[str, Any], most: int, rng: np.random.Generator) -> np.ndarray:
    """At most this many rows of a table, drawn at random."""
    count = len(next(iter(table.values())))
    return np.sort(rng.permutation(count)[:most])


def _in_memory(
    table: Mapping[str, Any], names: Sequence[str], rows: np.ndarray | slice = slice(None)
) -> dict[str, np.ndarray]:
    return {name: np.asarray(select(table[name], rows)) for name in names}


def importance(learned: Predictor, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> list[dict[str, Any]]:
    """Returns by how much the log loss of a table grows when the values of a column are shuffled among the rows.

    Permutation importance (Breiman 2001, "Random Forests"), the mean of five shuffles; of at most 2,000 rows.

    Returns:
      For each 'column' the 'increase' and its standard error over the shuffles, 'error'; the largest first.
    """
    preprocessor = learned.experiment.preprocessor
    assert isinstance(preprocessor, TablePreprocessor)
    names = [*preprocessor.columns]
    rng = np.random.default_rng(0)
    rows = _rows(inputs, _MOST_ROWS, rng)
    table, labels = _in_memory(inputs, names, rows), labels[rows]

    def loss(table: Mapping[str, np.ndarray]) -> float:
        return metrics.log_loss(learned.predict(table), labels, problem=learned.problem)

    base = loss(table)
    increased = []
    for name in names:
        increases = [loss({**table, name: rng.permutation(table[name])}) - base for _ in range(_REPEATS)]
        error = float(np.std(increases, ddof=1) / np.sqrt(_REPEATS))
        increased.append({"column": name, "increase": float(np.mean(increases)), "error": error})
    return sorted(increased, key=lambda one: -one["increase"])


def explain_split(
    learned: Predictor, split: str, rows: Sequence[int], *, mistakes: bool, method: Method, say: Callable[[str], None]
) -> dict[str, Any]:
    """Explains examples of a split of the run's data, which is read again; of a table, also how much columns matter.

    Args:
      rows: of the split, from 0.
      mistakes: whether these are the most confident mistakes of the test.

    Returns:
      A record for :func:`jaxcls.reports.run_directory.write_explanations`.

    Raises:
      InputError: the data is not there, or has no such rows.
    """
    splits = _splits(learned, say)
    examples = getattr(splits, split)
    if wrong := [row for row in rows if not 0 <= row < examples.num_examples]:
        raise InputError(
            f"there is no row {wrong[0]}; the {split} examples are numbered 0 to {examples.num_examples - 1}."
        )
    chosen = examples.take(np.asarray(rows, np.int64))
    is_table = isinstance(learned.experiment.preprocessor, TablePreprocessor)
    background = splits.train.inputs if is_table else None
    explained = explain(learned, chosen.inputs, background=background, method=method)
    names: Any = learned.class_names
    truths = [names[int(label)] if np.ndim(label) == 0 else None for label in chosen.labels]
    return {
        "split": split,
        "mistakes": mistakes,
        "examples": [
            {"row": int(row), "truth": truth, **one} for row, truth, one in zip(rows, truths, explained, strict=True)
        ],
        "importance": importance(learned, examples.inputs, examples.labels) if is_table else [],
    }


def explain_file(learned: Predictor, path: Path, method: Method, say: Callable[[str], None]) -> dict[str, Any]:
    """Explains the examples of a file, as `jaxcls predict` reads it: 'examples', each with its 'id'."""
    examples = learned.read(path)
    background = None
    if isinstance(learned.experiment.preprocessor, TablePreprocessor):
        background = _splits(learned, say).train.inputs
    explained = explain(learned, examples.inputs, background=background, method=method)
    return {"examples": [{"id": str(name), **one} for name, one in zip(examples.ids, explained, strict=True)]}


def _splits(learned: Predictor, say: Callable[[str], None]) -> build.Splits:
    """The examples of the run, read again."""
    task, settings = build.resolve(learned.task_settings)
    return build.load(task, settings, say=say)[1]


def lines(explanation: Mapping[str, Any], most: int = 8) -> list[str]:
    """Describes an explanation, for a terminal: the words or columns that contribute most."""
    why = explanation["why"]
    head = f"{explanation['predicted']}, confidence {explanation['confidence']:.3f}"
    if why["type"] == "heat":
        return [head]
    pairs = [(row[0], row[-1]) for row in why[why["type"]]]
    pairs.sort(key=lambda pair: -abs(pair[1]))
    return [head, "  " + ", ".join(f"{name} {value:+.2f}" for name, value in pairs[:most])]
