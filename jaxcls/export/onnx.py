"""A run as an ONNX model, converted by `jax2onnx` and checked with `onnxruntime`.

model.json, tokenizer.json, SHA256SUMS  see :mod:`jaxcls.export.folder`
model.onnx                              encoded inputs to scores, for any number of inputs

Texts are padded to the widest width, and images of detection to the whole canvas. The inputs are called "images",
"tokens", or "categories", "missing" and "numeric", or, of a detector, "image" and "size"; the output "probabilities",
or "boxes", "classes" and "scores" of what was found. An input that a table does not have (it has no categories, say) is
not there.
"""

import importlib.util
import json
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import export, lax
from jax.extend import core

from jaxcls._utils.errors import InputError
from jaxcls.export import folder
from jaxcls.export.exportable import Exportable
from jaxcls.kernels import native

PyTree = Any

# What the converted model may differ by: float32 sums in another order.
TOLERANCE = 1e-5


def files(exportable: Exportable) -> dict[str, bytes]:
    """The files of the artifact, by name.

    Raises:
      InputError: a package is not installed, or the model does not compute in float32.
    """
    for package in ("jax2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--format onnx needs the package {package}: pip install 'jaxcls[onnx]'.")
    if exportable.dtype != "float32":
        raise InputError(f"--format onnx takes models that compute in float32, not in {exportable.dtype}.")
    content, inputs, outputs = _converted(exportable)
    difference = _checked(content, exportable)
    record = folder.describe(exportable, "onnx") | {
        "inputs": inputs,
        "outputs": outputs,
        "largest_difference": difference,
    }
    return {
        "model.json": (json.dumps(record, indent=2) + "\n").encode(),
        "model.onnx": content,
        **folder.tokenizer(exportable),
    }


def _converted(exportable: Exportable) -> tuple[bytes, list[str], list[str]]:
    """The model, and the names of its inputs and its outputs."""
    # It tells, with a traceback, of each plugin that the installed jax is too new for (none that is needed here; one
    # that is missing raises), and of each intermediate constant whose type it does not write down.
    for name in ("jax2onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import jax2onnx

    shapes = exportable.input_shapes(export.symbolic_shape("count")[0])
    named = _named(shapes, _kind(exportable))
    tree = jax.tree.structure(shapes)
    step = exportable.prediction_step
    weights = jax.tree.map(np.asarray, exportable.weights)

    def scores(*leaves: jax.Array) -> PyTree:
        return step(weights["params"], weights["model_state"], jax.tree.unflatten(tree, leaves))[0]

    # Traced here: while it traces itself, jax2onnx puts functions of its own in the place of Flax's, which do not fit
    # every version of it.
    with native.portable():
        traced, found = jax.make_jaxpr(scores, return_shape=True)(*named.values())
    outputs = [*_as_outputs(found)]
    # An input without elements is none to ONNX.
    taken = {name: shape for name, shape in named.items() if 0 not in shape.shape}

    def of_taken(*leaves: jax.Array) -> list[jax.Array]:
        given = dict(zip(taken, leaves, strict=True))
        rows = leaves[0].shape[0]
        filled = [
            given[name] if name in given else jax.numpy.zeros((rows, *shape.shape[1:]), shape.dtype)
            for name, shape in named.items()
        ]
        return _evaluated(traced.jaxpr, traced.consts, filled)

    model = jax2onnx.to_onnx(
        of_taken,
        [*taken.values()],
        model_name=f"jaxcls-{exportable.task}",
        input_names=[*taken],
        output_names=outputs,
    )
    return model.SerializeToString(), [*taken], outputs


def _checked(content: bytes, exportable: Exportable, *, seed: int = 0) -> float:
    """The largest difference from the run's own scores, of drawn inputs, in batches of two sizes."""
    import onnxruntime

    # 3: errors. It warns of shapes that jax2onnx notes in another layout than it infers, which changes no result.
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    step = exportable.prediction_step
    largest = 0.0
    for count in (5, 1):
        inputs = _drawn(exportable, count, seed)
        expected = _as_outputs(step(exportable.weights["params"], exportable.weights["model_state"], inputs)[0])
        named = _named(inputs, _kind(exportable))
        got = session.run([*expected], {one.name: named[one.name] for one in session.get_inputs()})
        largest = max(largest, _difference(dict(zip(expected, got, strict=True)), jax.device_get(expected)))
    if not largest <= TOLERANCE:
        raise RuntimeError(f"the ONNX model differs from the run by {largest}; this is an error of the conversion.")
    return largest


def _difference(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest difference of probabilities; of detectors that of the scores of what was found, or of its boxes, as
    shares of the largest number in them.

    Two finds of nearly the same score may stand in the other order, so boxes are compared with any of their class
    and score; but not those with the score of the last one, of which there may have been more.
    """
    if "probabilities" in expected:
        return float(np.abs(got["probabilities"] - expected["probabilities"]).max())
    largest = float(np.abs(got["scores"] - expected["scores"]).max())
    side = max(1.0, float(expected["boxes"].max()))
    for image, place in np.argwhere(expected["scores"] > expected["scores"][:, -1:] + TOLERANCE):
        score, kind = expected["scores"][image, place], expected["classes"][image, place]
        alike = (np.abs(got["scores"][image] - score) <= TOLERANCE) & (got["classes"][image] == kind)
        apart = np.abs(got["boxes"][image] - expected["boxes"][image, place]).max(axis=1) / side
        largest = max(largest, float(apart[alike].min(initial=1.0)))
    return largest


def _kind(exportable: Exportable) -> str:
    """Returns the kind of inputs."""
    return "arrays" if exportable.preprocessor is None else str(exportable.preprocessor.as_record()["type"])


def _as_outputs(scores: PyTree) -> dict[str, Any]:
    """The scores by the names that they have in the model."""
    return dict(sorted(scores.items())) if isinstance(scores, dict) else {"probabilities": scores}


def _named(inputs: PyTree, kind: str) -> dict[str, Any]:
    """The inputs by the names that they have in the model."""
    if isinstance(inputs, dict):
        return dict(sorted(inputs.items()))
    return {{"images": "images", "texts": "tokens"}.get(kind, "inputs"): inputs}


def _drawn(exportable: Exportable, count: int, seed: int) -> PyTree:
    """Encoded inputs that are valid, drawn at random."""
    random = np.random.default_rng(seed)
    arguments = exportable.preprocessor.model_arguments if exportable.preprocessor else {}
    shapes = exportable.input_shapes(count)
    match _kind(exportable):
        case "arrays":
            return jax.tree.map(lambda leaf: random.uniform(0, 2, leaf.shape).astype(leaf.dtype), shapes)
        case "images":
            return random.integers(0, 256, shapes.shape).astype(shapes.dtype)
        case "detection":
            side = shapes["image"].shape[1]
            size = random.integers(side // 2, side + 1, shapes["size"].shape).astype(np.int32)
            # Blocks of one grey, in which a detector finds something sooner than in single pixels.
            blocks = random.integers(0, 256, (count, -(-side // 16), -(-side // 16), shapes["image"].shape[3]))
            # What lies beside an image is no business of the model: it is replaced before.
            return {
                "image": blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :side, :side].astype(np.uint8),
                "size": size,
            }
        case "texts":
            tokens = random.integers(1, arguments["vocabulary_size"], shapes.shape)
            lengths = random.integers(1, shapes.shape[1] + 1, (count, 1))
            return np.where(np.arange(shapes.shape[1]) < lengths, tokens, 0).astype(shapes.dtype)
        case _:
            drawn = {
                "numeric": random.normal(size=shapes["numeric"].shape),
                "missing": random.integers(0, 2, shapes["missing"].shape),
                "categories": random.integers(0, np.array(arguments["cardinalities"], int), shapes["categories"].shape),
            }
            return {name: array.astype(shapes[name].dtype) for name, array in drawn.items()}


def _evaluated(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """What was traced, with other operations in place of those that jax2onnx cannot convert on an open number of rows.

    Those are pad, rem and stack: for the first two the newest jax2onnx that admits our orbax-checkpoint, 0.13.0, raises
    InconclusiveDimensionOperation, and the third is newer than it is.
    """
    known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        given = [value(atom) for atom in equation.invars]
        match equation.primitive.name, equation.params:
            case ("pjit" | "jit", {"jaxpr": inner}) | ("custom_jvp_call" | "custom_vjp_call", {"call_jaxpr": inner}):
                results = _evaluated(inner.jaxpr, inner.consts, given)
            # ONNX is none of the platforms that have forms of their own: it takes the one for all others.
            case "platform_index", _:
                results = [np.int32(0)]
            case "cond", {"branches": branches, "branches_platforms": (*platforms, None)}:
                other = branches[len(platforms)]
                results = _evaluated(other.jaxpr, other.consts, given[1:])
            case "pad", {"padding_config": config}:
                results = [_padded(given[0], given[1], config)]
            case "stack", {"axis": axis}:
                results = [lax.concatenate([lax.expand_dims(part, (axis,)) for part in given], axis)]
            case "rem", _:
                results = [given[0] - lax.div(*given) * given[1]]
            case _:
                bound = equation.primitive.bind(*given, **equation.params)
                results = bound if equation.primitive.multiple_results else [bound]
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _padded(array: jax.Array, filling: jax.Array, config: Sequence[tuple[int, int, int]]) -> jax.Array:
    """`lax.pad`, as a concatenation."""
    for axis, (before, after, between) in enumerate(config):
        if min(before, after) < 0 or between:
            raise InputError("--format onnx: the model takes a pad that cuts or spreads, which is not converted.")
        shapes = [(*array.shape[:axis], size, *array.shape[axis + 1 :]) for size in (before, after)]
        front, back = (lax.broadcast(filling, shape) for shape in shapes)
        parts = [*([front] if before else []), array, *([back] if after else [])]
        array = lax.concatenate(parts, axis) if len(parts) > 1 else array
    return array
