"""A run as StableHLO: programs of `jax.export`, the parameters beside them, and the loader that runs them.

model.json, tokenizer.json, SHA256SUMS  see :mod:`jaxcls.export.folder`
program.bin, program-*.bin              encoded inputs to scores; of what is padded one program for each size of it
parameters.npz                          what the programs take first: name -> array
loader.py                               runs it all with jax and numpy

Their probabilities are those of `jaxcls predict`, bit for bit on the same kind of machine. They hold no
native kernels, and attend to all texts at once: where the run did otherwise, its own scores differ in the last bits.
"""

import importlib.util
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from jaxcls._utils.errors import InputError
from jaxcls.export import folder, loader
from jaxcls.export.exportable import Exportable
from jaxcls.kernels import native

PyTree = Any

PLATFORMS = ("cpu", "cuda", "tpu")


def files(exportable: Exportable) -> dict[str, bytes]:
    """The files of the artifact, by name.

    Raises:
      InputError: the package that `jax.export` writes with is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("--format stablehlo needs the package flatbuffers: pip install 'jaxcls[export]'.")
    weights = folder.named_weights(exportable)
    exported = programs(exportable, weights)
    # That of each device, so that one alone runs the very same program as the run did on several.
    batch_size = -(-exportable.batch_size // jax.device_count())
    record = folder.describe(exportable, "stablehlo") | {
        "platforms": [*PLATFORMS],
        "programs": [*exported],
        "batch_size": batch_size,
    }
    parameters = io.BytesIO()
    np.savez(parameters, **weights)  # type: ignore[arg-type]
    return {
        "model.json": (json.dumps(record, indent=2) + "\n").encode(),
        "parameters.npz": parameters.getvalue(),
        "loader.py": Path(loader.__file__).read_bytes(),
        **folder.tokenizer(exportable),
        **{name: bytes(one.serialize()) for name, one in exported.items()},
    }


def programs(exportable: Exportable, weights: Mapping[str, np.ndarray]) -> dict[str, export.Exported]:
    """``(weights by name, encoded inputs) -> scores`` for any number of inputs, on every platform."""
    step = exportable.prediction_step
    tree = jax.tree.structure(exportable.weights)

    def scores(named: Mapping[str, jax.Array], inputs: PyTree) -> PyTree:
        # A dict comes back sorted by its keys; the leaves are in the order of the names that were given.
        restored = jax.tree.unflatten(tree, [named[name] for name in weights])
        return step(restored["params"], restored["model_state"], inputs)[0]

    taken = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    (count,) = export.symbolic_shape("count")
    whole = exportable.input_shapes(count)
    inputs = {"program.bin": whole}
    buckets = exportable.buckets
    if buckets is not None:
        inputs = {
            f"program-{'x'.join(map(str, size))}.bin": jax.eval_shape(
                lambda inputs, size=size: buckets.cut(inputs, size), whole
            )
            for size in buckets.sizes
        }
    write = export.export(jax.jit(scores), platforms=PLATFORMS)
    with native.portable():
        return {name: write(taken, shapes) for name, shapes in inputs.items()}
