"""Exports a model as StableHLO: programs of `jax.export`, their parameters, and the loader that runs them.

program.bin, program-*.bin  (parameters, encoded inputs) -> scores; one for each size that padded inputs are cut to
parameters.npz              name -> array
loader.py                   runs the programs with jax and numpy

The scores are those of `jaxcls predict`, bit for bit on the same type of machine. The programs contain no native
kernels and compute the attention of all texts at once; a training run that did otherwise differs in the last bits.
"""

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from jaxcls._utils.errors import InputError
from jaxcls.export import loader
from jaxcls.export.exportable import Exportable
from jaxcls.export.folder import named_arrays
from jaxcls.kernels import native

PyTree = Any

PLATFORMS = ("cpu", "cuda", "tpu")


def files(exportable: Exportable, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns what the format adds to model.json, and its files by name.

    Raises:
      InputError: the package with which `jax.export` writes is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("the format stablehlo needs the package flatbuffers: pip install 'jaxcls[export]'.")
    parameters = io.BytesIO()
    np.savez(parameters, **named_arrays(exportable.weights))  # type: ignore[arg-type]
    exported = programs(exportable)
    added = {
        "platforms": [*PLATFORMS],
        "programs": [*exported],
        # That of one device, so that one alone runs the same program as each of several did.
        "batch_size": -(-exportable.batch_size // jax.device_count()),
        # For inputs without a preprocessor.
        "inputs": jax.tree.map(
            lambda leaf: {"dtype": leaf.dtype.name, "shape": [*leaf.shape[1:]]}, exportable.input_shapes(1)
        ),
    }
    return added, {
        "parameters.npz": parameters.getvalue(),
        "loader.py": Path(loader.__file__).read_bytes(),
        **{name: bytes(program.serialize()) for name, program in exported.items()},
    }


def programs(exportable: Exportable) -> dict[str, export.Exported]:
    """Returns programs ``(arrays by name, encoded inputs) -> scores`` for any number of inputs, on every platform."""
    named, tree = named_arrays(exportable.weights), jax.tree.structure(exportable.weights)

    def scores(arrays: Mapping[str, jax.Array], inputs: PyTree) -> PyTree:
        # The leaves in their own order; a dict that goes through jit is sorted by its keys.
        weights = jax.tree.unflatten(tree, [arrays[name] for name in named])
        return exportable.prediction_step(weights["params"], weights["model_state"], inputs)[0]

    write = export.export(jax.jit(scores), platforms=PLATFORMS)
    parameters = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in named.items()}
    (count,) = export.symbolic_shape("count")
    whole, buckets = exportable.input_shapes(count), exportable.buckets
    with native.portable():
        if buckets is None:
            return {"program.bin": write(parameters, whole)}
        return {
            f"program-{'x'.join(map(str, size))}.bin": write(
                parameters, jax.eval_shape(lambda inputs, size=size: buckets.cut(inputs, size), whole)
            )
            for size in buckets.sizes
        }
