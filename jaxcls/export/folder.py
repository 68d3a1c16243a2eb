"""The folder of an artifact: what every format holds, and how it is written and sealed.

model.json      the problem, the names of the classes, thresholds, how inputs are encoded, versions, whether synthetic
tokenizer.json  of texts: the tokenizer, as the `tokenizers` library reads it
SHA256SUMS      of every other file
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.export import loader
from jaxcls.export.exportable import Exportable

PyTree = Any
FORMATS = ("stablehlo", "onnx", "safetensors")


def named_weights(exportable: Exportable) -> dict[str, np.ndarray]:
    """Every array of the weights by its path in the tree, such as "params/head/kernel", in the order of the leaves."""
    leaves, _ = jax.tree.flatten_with_path(exportable.weights)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def describe(exportable: Exportable, kind: str) -> dict[str, Any]:
    """What model.json holds of a run, whatever the format; ``kind`` is the format's name."""
    preprocessor = None if exportable.preprocessor is None else exportable.preprocessor.as_record()
    if preprocessor is not None:
        preprocessor.pop("tokenizer", None)
    here = environment.record()
    buckets = exportable.buckets
    return {
        "format": kind,
        "task": exportable.task,
        "model": exportable.model,
        "problem": exportable.problem,
        "class_names": exportable.class_names,
        "thresholds": jax.tree.map(lambda value: np.asarray(value).tolist(), exportable.thresholds),
        "synthetic": exportable.data["synthetic"],
        # Without its location, which may be a folder of whoever trained.
        "data": {name: exportable.data[name] for name in ("source", "note", "sha256")},
        "preprocessor": preprocessor,
        "buckets": [[*size] for size in buckets.sizes] if buckets else [],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(exportable.weights["params"])),
        "dtype": exportable.dtype,
        "packages": here["packages"],
        "xla_flags": here["xla_flags"],
    }


def tokenizer(exportable: Exportable) -> dict[str, bytes]:
    """tokenizer.json where there is a tokenizer."""
    record = {} if exportable.preprocessor is None else exportable.preprocessor.as_record()
    return {"tokenizer.json": record["tokenizer"].encode()} if "tokenizer" in record else {}


def export(output: Path, exportable: Exportable, format: str) -> int:
    """Exports in a format, and returns the bytes written.

    Args:
      format: 'stablehlo', 'onnx' or 'safetensors', each of which needs packages of its own.
    """
    if format not in FORMATS:
        raise unknown_name("export format", format, FORMATS)
    module = importlib.import_module(f"jaxcls.export.{format}")
    files: dict[str, bytes] = module.files(exportable)
    write(output, files)
    return sum(map(len, files.values()))


def check_free(output: Path) -> None:
    """Refuses a folder that cannot be written, before there is anything to lose."""
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: give a new folder inside of one that is there.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output} is there already; name a new folder, or empty this one.")


def write(output: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the files and their checksums: all of them or nothing."""
    with files.new_folder(output) as temporary:
        for name, content in {**contents, loader.SUMS: files.sha256sums(contents).encode()}.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
