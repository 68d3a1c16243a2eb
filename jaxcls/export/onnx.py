"""Exports a model as ONNX, converted by `jax2onnx` and checked with `onnxruntime`.

model.onnx  encoded inputs to scores, for any number of inputs

Texts are padded to the largest width, and images of detection to the whole canvas. The inputs are called "images",
"tokens", or "categories", "missing" and "numeric" of tables; "image" and "size" of detectors; without a preprocessor
"inputs", or by the keys of the dict; "tokens_0", "tokens_1", ... where the members of an ensemble encode inputs
differently. An input without elements (of a table without categories, say) is left out. With preprocessing, the inputs
are those of :mod:`jaxcls.export.onnx_inputs`. The
output is "probabilities"; of detectors "boxes", "classes" and "scores".
"""

import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.extend import core

from jaxcls._utils.errors import InputError
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.data.preprocessing.ensemble import EnsemblePreprocessor
from jaxcls.export import onnx_inputs
from jaxcls.export.exportable import Exportable, PyTree, named_arrays
from jaxcls.kernels import native

# The largest difference between the converted model and the original: float32 sums in another order.
TOLERANCE = 1e-5


def files(exportable: Exportable, *, with_preprocessing: bool = False) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns what the format adds to model.json, and its files by name.

    Args:
      with_preprocessing: the model takes images of any size, or the columns of a table; see
        :mod:`jaxcls.export.onnx_inputs`.

    Raises:
      InputError: the model does not compute in float32, or uses operations that the format cannot express.
    """
    dtype = exportable.record["dtype"]
    if dtype != "float32":
        raise InputError(f"the format onnx takes models that compute in float32, not in {dtype}.")
    preprocessor = exportable.preprocessor
    if with_preprocessing:
        onnx_inputs.check(preprocessor)
    import onnxruntime

    model, inputs, outputs = _convert(exportable)
    if with_preprocessing:
        assert preprocessor is not None
        model, inputs = onnx_inputs.prepend(model, preprocessor, inputs)
    content = model.SerializeToString()
    # 3: errors only. It warns of shapes that jax2onnx notes in another layout than inferred, which has no effect.
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    # Checked on random inputs, in two batch sizes.
    differences = []
    for count in (5, 1):
        if with_preprocessing:
            named, arrays = onnx_inputs.example(preprocessor, np.random.default_rng(0), count)  # type: ignore[arg-type]
        else:
            arrays = _random_inputs(exportable, count)
            named = _named_inputs(arrays, exportable)
        expected = jax.device_get(_named_outputs(exportable.scores(exportable.weights, arrays)))
        results = session.run(outputs, {name: named[name] for name in inputs})
        differences.append(difference(dict(zip(outputs, results, strict=True)), expected))
    largest = max(differences)
    if not largest <= TOLERANCE:
        raise RuntimeError(
            f"the ONNX model differs from the original by {largest}; this is an error of the conversion."
        )
    added = {"inputs": inputs, "outputs": outputs, "largest_difference": largest}
    return added | {"with_preprocessing": with_preprocessing}, {"model.onnx": content}


def _convert(exportable: Exportable) -> tuple[Any, list[str], list[str]]:
    """Returns the model, and the names of its inputs and outputs."""
    # It logs, with a traceback, each plugin that the installed jax is too new for (none that is needed here; a missing
    # one raises), and each intermediate constant whose type it does not write.
    for name in ("jax2onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import jax2onnx
    from onnx.numpy_helper import from_array

    shapes = exportable.input_shapes(export.symbolic_shape("count")[0])
    named, tree = _named_inputs(shapes, exportable), jax.tree.structure(shapes)
    # ONNX has no inputs without elements.
    inputs = {name: shape for name, shape in named.items() if 0 not in shape.shape}
    weights, structure = named_arrays(exportable.weights), jax.tree.structure(exportable.weights)
    # What is quantized is an input until it is converted, as jax2onnx would compute constants.
    stored = {name: array for name, array in weights.items() if name.endswith("/values")}

    def scores(*operands: jax.Array) -> PyTree:
        arrays = dict(zip([*inputs, *stored], operands, strict=True))
        rows, known = operands[0].shape[0], {**weights, **{name: arrays[name] for name in stored}}
        leaves = [
            arrays[name] if name in arrays else jnp.zeros((rows, *shape.shape[1:]), shape.dtype)
            for name, shape in named.items()
        ]
        unflattened = jax.tree.unflatten(structure, [known[name] for name in weights])
        return exportable.scores(unflattened, jax.tree.unflatten(tree, leaves))

    # Traced here: when jax2onnx traces, it replaces functions of Flax with its own, which do not fit every version.
    with native.portable():
        traced, result = jax.make_jaxpr(scores, return_shape=True)(*inputs.values(), *stored.values())
    outputs = [*_named_outputs(result)]
    converted = jax2onnx.to_onnx(
        lambda *arrays: evaluate(traced.jaxpr, traced.consts, arrays),
        [*inputs.values(), *(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in stored.values())],
        model_name=f"jaxcls-{exportable.record['task']}",
        input_names=[*inputs, *stored],
        output_names=outputs,
    )
    del converted.graph.input[len(inputs) :]
    converted.graph.initializer.extend(from_array(array, name) for name, array in stored.items())
    return converted, [*inputs], outputs


def difference(results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Returns the largest difference of probabilities, or of the scores and relative box coordinates of detections.

    Two detections of nearly the same score may be in either order, so a box is compared with the nearest of the same
    class and score; but those with the score of the last one are not, as more of them may have been cut off.
    """
    if "boxes" not in expected:
        return max(float(np.abs(results[name] - expected[name]).max()) for name in expected)
    largest = float(np.abs(results["scores"] - expected["scores"]).max())
    side = max(1.0, float(expected["boxes"].max()))
    for image, index in np.argwhere(expected["scores"] > expected["scores"][:, -1:] + TOLERANCE):
        same_score = np.abs(results["scores"][image] - expected["scores"][image, index]) <= TOLERANCE
        same_class = results["classes"][image] == expected["classes"][image, index]
        distances = np.abs(results["boxes"][image] - expected["boxes"][image, index]).max(axis=1) / side
        largest = max(largest, float(distances[same_score & same_class].min(initial=1.0)))
    return largest


def _named_outputs(scores: PyTree) -> dict[str, Any]:
    return dict(sorted(scores.items())) if isinstance(scores, dict) else {"probabilities": scores}


def _named_inputs(inputs: PyTree, exportable: Exportable) -> dict[str, Any]:
    """Returns the inputs by their names in the ONNX model, in the order of the leaves."""
    return _named(inputs, exportable.preprocessor)


def _named(inputs: PyTree, preprocessor: Preprocessor | None) -> dict[str, Any]:
    if isinstance(preprocessor, EnsemblePreprocessor):
        one = preprocessor.encoders[0]
        return {
            f"{name}_{number}": leaf
            for number, each in sorted(inputs.items())
            for name, leaf in _named(each, one).items()
        }
    if isinstance(inputs, dict):
        return dict(sorted(inputs.items()))
    return {{"images": "images", "texts": "tokens"}.get(_input_type(preprocessor), "inputs"): inputs}


def _input_type(preprocessor: Preprocessor | None) -> str:
    return "arrays" if preprocessor is None else str(preprocessor.as_record()["type"])


def _random_inputs(exportable: Exportable, count: int) -> PyTree:
    """Draws valid encoded inputs."""
    random, preprocessor = np.random.default_rng(0), exportable.preprocessor
    if isinstance(preprocessor, EnsemblePreprocessor):
        each = enumerate(preprocessor.encoders)
        return {str(number): _random_arrays(random, one, one.shapes(count), count) for number, one in each}
    return _random_arrays(random, preprocessor, exportable.input_shapes(count), count)


def _random_arrays(
    random: np.random.Generator, preprocessor: Preprocessor | None, shapes: PyTree, count: int
) -> PyTree:
    arguments = preprocessor.model_arguments if preprocessor is not None else {}
    match _input_type(preprocessor):
        case "detection":
            side = shapes["image"].shape[1]
            size = random.integers(side // 2, side + 1, shapes["size"].shape).astype(np.int32)
            # Blocks of one gray, in which there are more detections than in noise.
            blocks = random.integers(0, 256, (count, -(-side // 16), -(-side // 16), shapes["image"].shape[3]))
            image = blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :side, :side].astype(np.uint8)
            return {"image": image, "size": size}
        case "texts":
            tokens = random.integers(1, arguments["vocabulary_size"], shapes.shape)
            lengths = random.integers(1, shapes.shape[1] + 1, (count, 1))
            return np.where(np.arange(shapes.shape[1]) < lengths, tokens, 0).astype(shapes.dtype)
        case "tables":
            return {
                "numeric": random.normal(size=shapes["numeric"].shape).astype(np.float32),
                "missing": random.integers(0, 2, shapes["missing"].shape, np.uint8),
                "categories": random.integers(0, arguments["cardinalities"], shapes["categories"].shape, np.int32),
            }
        case "images":
            return random.integers(0, 256, shapes.shape).astype(shapes.dtype)
        case _:
            return jax.tree.map(lambda leaf: random.uniform(0, 2, leaf.shape).astype(leaf.dtype), shapes)


def evaluate(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluates a jaxpr, replacing operations that jax2onnx cannot convert for a symbolic number of rows.

    They are pad and rem, for which the newest jax2onnx that admits the required orbax-checkpoint, 0.13.0, raises
    InconclusiveDimensionOperation, and stack, which is newer than that version. Scans are unrolled.
    """
    known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        operands = [value(atom) for atom in equation.invars]
        match equation.primitive.name, equation.params:
            case ("pjit" | "jit", {"jaxpr": inner}) | ("custom_jvp_call" | "custom_vjp_call", {"call_jaxpr": inner}):
                results = evaluate(inner.jaxpr, inner.consts, operands)
            # ONNX takes the default branch of operations that depend on the platform.
            case "platform_index", _:
                results = [np.int32(0)]
            case "cond", {"branches": branches, "branches_platforms": (*platforms, None)}:
                other = branches[len(platforms)]
                results = evaluate(other.jaxpr, other.consts, operands[1:])
            # The members of an ensemble, one after the other; jax2onnx would not replace what is inside.
            case "scan", {"jaxpr": inner, "length": length, "num_consts": fixed, "num_carry": carried}:
                results = _unroll(inner, length, operands[:fixed], operands[fixed : fixed + carried],
                                  operands[fixed + carried :])  # fmt: skip
            case "pad", {"padding_config": config}:
                results = [_pad(operands[0], operands[1], config)]
            case "stack", {"axis": axis}:
                results = [lax.concatenate([lax.expand_dims(part, (axis,)) for part in operands], axis)]
            case "rem", _:
                results = [operands[0] - lax.div(*operands) * operands[1]]
            case _:
                bound = equation.primitive.bind(*operands, **equation.params)
                results = bound if equation.primitive.multiple_results else [bound]
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _unroll(inner: Any, length: int, consts: Sequence[Any], carry: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    """Returns the results of a scan, forward."""
    carry, stacked = [*carry], []
    for index in range(length):
        # Of arrays that are known, rows are constants, too.
        each = [leaf[index] if isinstance(leaf, np.ndarray) else lax.index_in_dim(leaf, index, keepdims=False)
                for leaf in rows]  # fmt: skip
        outputs = evaluate(inner.jaxpr, inner.consts, [*consts, *carry, *each])
        carry = outputs[: len(carry)]
        stacked.append([lax.expand_dims(output, (0,)) for output in outputs[len(carry) :]])
    return [*carry, *(lax.concatenate(column, 0) for column in zip(*stacked, strict=True))]


def _pad(array: jax.Array, value: jax.Array, config: Sequence[tuple[int, int, int]]) -> jax.Array:
    """Returns `lax.pad` as a concatenation."""
    for axis, (before, after, interior) in enumerate(config):
        if min(before, after) < 0 or interior:
            raise InputError("the format onnx cannot express the model: it uses negative or interior padding.")
        front, back = (
            [lax.broadcast(value, (*array.shape[:axis], size, *array.shape[axis + 1 :]))] if size else []
            for size in (before, after)
        )
        array = lax.concatenate([*front, array, *back], axis)
    return array
