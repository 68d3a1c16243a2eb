"""The folder of an artifact: what every format holds, and how it is written and sealed.

model.json      the problem, the names of the classes, thresholds, how inputs are encoded, versions, whether synthetic
tokenizer.json  of texts: the tokenizer, as the `tokenizers` library reads it
SHA256SUMS      of every other file
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError
from jaxcls.export import loader
from jaxcls.export.predictor import Predictor

PyTree = Any


def named_weights(learned: Predictor) -> dict[str, np.ndarray]:
    """Every array of the weights by its path in the tree, such as "params/head/kernel", in the order of the leaves."""
    leaves, _ = jax.tree.flatten_with_path(learned.weights)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def describe(learned: Predictor, kind: str) -> dict[str, Any]:
    """What model.json holds of a run, whatever the format; ``kind`` is the format's name."""
    preprocessor = learned.preprocessor.as_record()
    preprocessor.pop("tokenizer", None)
    here = environment.record()
    buckets = learned.preprocessor.buckets
    return {
        "format": kind,
        "task": learned.task.name,
        "model": learned.settings.model,
        "problem": learned.task.problem,
        "class_names": [*learned.class_names],
        "thresholds": np.asarray(learned.thresholds).tolist(),
        "synthetic": learned.data["synthetic"],
        # Without its location, which may be a folder of whoever trained.
        "data": {name: learned.data[name] for name in ("source", "note", "sha256")},
        "preprocessor": preprocessor,
        "buckets": [[*size] for size in buckets.sizes] if buckets else [],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(learned.weights["params"])),
        "dtype": learned.settings.dtype,
        "packages": here["packages"],
        "xla_flags": here["xla_flags"],
    }


def tokenizer(learned: Predictor) -> dict[str, bytes]:
    """tokenizer.json where there is a tokenizer."""
    record = learned.preprocessor.as_record()
    return {"tokenizer.json": record["tokenizer"].encode()} if "tokenizer" in record else {}


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
