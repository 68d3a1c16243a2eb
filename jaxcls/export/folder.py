"""The folder of an export: what every format contains, and how it is written.

model.json      problem, class names, thresholds, preprocessing, versions, whether the data was synthetic
tokenizer.json  for texts: the tokenizer, in the format of the `tokenizers` library
SHA256SUMS      of every other file
"""

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.export import loader
from jaxcls.export.exportable import Exportable

PyTree = Any

# The module of each format; each needs other packages.
FORMATS = {"stablehlo": "stablehlo", "onnx": "onnx", "safetensors": "weights_file"}


def export(output: Path, exportable: Exportable, format: str) -> int:
    """Writes the whole folder, or nothing.

    Args:
      output: a new or empty folder.
      format: 'stablehlo', 'onnx' or 'safetensors'.

    Returns:
      The size of all files in bytes.
    """
    check_output(output)
    if format not in FORMATS:
        raise unknown_name("export format", format, FORMATS)
    module = importlib.import_module(f"jaxcls.export.{FORMATS[format]}")
    record = {"format": format, **describe(exportable)}
    added, contents = module.files(exportable, record)
    contents["model.json"] = (json.dumps(record | added, indent=2) + "\n").encode()
    encoding = exportable.preprocessor.as_record() if exportable.preprocessor is not None else {}
    if "tokenizer" in encoding:
        contents["tokenizer.json"] = encoding["tokenizer"].encode()
    contents[loader.SUMS] = files.sha256sums(contents).encode()
    with files.new_folder(output) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
    return sum(map(len, contents.values()))


def describe(exportable: Exportable) -> dict[str, Any]:
    """Returns the content of model.json that does not depend on the format."""
    preprocessor, buckets = exportable.preprocessor, exportable.buckets
    encoding = preprocessor.as_record() if preprocessor is not None else None
    versions = environment.record()
    return {
        "task": exportable.task,
        "model": exportable.model,
        "problem": exportable.problem,
        "class_names": exportable.class_names,
        "thresholds": jax.tree.map(lambda value: np.asarray(value).tolist(), exportable.thresholds),
        "synthetic": exportable.data["synthetic"],
        # Without the location, which may be a folder of the person who trained it.
        "data": {name: exportable.data[name] for name in ("source", "note", "sha256")},
        # The tokenizer is a file.
        "preprocessor": encoding and {name: value for name, value in encoding.items() if name != "tokenizer"},
        "buckets": [[*size] for size in buckets.sizes] if buckets else [],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(exportable.weights["params"])),
        "dtype": exportable.dtype,
        "packages": versions["packages"],
        "xla_flags": versions["xla_flags"],
    }


def named_arrays(weights: PyTree) -> dict[str, np.ndarray]:
    """Returns the arrays of a tree by path, such as "params/head/kernel", in the order of the leaves."""
    leaves, _ = jax.tree.flatten_with_path(weights)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def check_output(output: Path) -> None:
    """Raises InputError for a folder that cannot be written, before any work is done."""
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: give a new folder inside an existing one.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists already; name a new folder, or empty this one.")
