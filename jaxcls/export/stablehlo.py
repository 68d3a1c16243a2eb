"""Exports a model as StableHLO: programs of `jax.export`, their parameters, and the loader that runs them.

program.bin, program-*.bin  (parameters, encoded inputs) -> scores; one for each size that padded inputs are cut to
parameters.npz              name -> array
loader.py                   runs the programs with jax and numpy
pixels.py                   decodes image files with Pillow, for a model of images

The scores are those of `jaxcls predict`, bit for bit on the same type of machine. The programs contain no native
kernels and compute the attention of all texts at once; a training run that did otherwise differs in the last bits.
"""

import inspect
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from jaxcls.data.formats import columns, pixels
from jaxcls.data.preprocessing.images import DetectionPreprocessor, ImagePreprocessor
from jaxcls.export import loader
from jaxcls.export.exportable import Exportable, PyTree, named_arrays
from jaxcls.kernels import native

PLATFORMS = ("cpu", "cuda", "tpu")


def files(exportable: Exportable) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns what the format adds to model.json, and its files by name."""
    named, tree = named_arrays(exportable.weights), jax.tree.structure(exportable.weights)

    def scores(arrays: Mapping[str, jax.Array], inputs: PyTree) -> PyTree:
        # The leaves in their own order; a dict that goes through jit is sorted by its keys.
        weights = jax.tree.unflatten(tree, [arrays[name] for name in named])
        return exportable.scores(weights, inputs)

    # Programs for any number of inputs, on every platform.
    (count,) = export.symbolic_shape("count")
    shapes, buckets = {"program.bin": exportable.input_shapes(count)}, exportable.buckets
    if buckets is not None:
        shapes = {
            f"program-{'x'.join(map(str, size))}.bin": jax.eval_shape(
                lambda inputs, size=size: buckets.cut(inputs, size), shapes["program.bin"]
            )
            for size in buckets.sizes
        }
    write = export.export(jax.jit(scores), platforms=PLATFORMS)
    with native.portable():
        programs = {name: bytes(write(named, inputs).serialize()) for name, inputs in shapes.items()}
    parameters = io.BytesIO()
    np.savez(parameters, **named)  # type: ignore[arg-type]
    added = {
        "platforms": [*PLATFORMS],
        "programs": [*programs],
        # That of one device, so that one alone runs the same program as each of several did.
        "batch_size": -(-exportable.batch_size // jax.device_count()),
        "inputs": jax.tree.map(
            lambda leaf: {"dtype": leaf.dtype.name, "shape": [*leaf.shape[1:]]}, exportable.input_shapes(1)
        ),
    }
    # With the module of columns instead of its import, the loader is one file that does not need jaxcls.
    source = Path(loader.__file__).read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [inspect.getsource(columns) if line.startswith("from jaxcls.") else line for line in source]
    contents = {"parameters.npz": parameters.getvalue(), "loader.py": "".join(lines).encode(), **programs}
    if isinstance(exportable.preprocessor, ImagePreprocessor | DetectionPreprocessor):
        contents["pixels.py"] = Path(pixels.__file__).read_bytes()
    return added, contents
