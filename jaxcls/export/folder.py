"""The folder of an export: what every format contains, and how it is written.

model.json         problem, class names, thresholds, preprocessing, versions, whether the data was synthetic
tokenizer.json     for texts: the tokenizer, in the format of the `tokenizers` library
SHA256SUMS         of every other file

The format safetensors, for the weights in another program, adds one file; the others are modules of their own.

model.safetensors  name -> array; its metadata is the content of model.json, with values that are not text as JSON
"""

import importlib.util
import json
from pathlib import Path

import jax

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.export import loader, onnx, stablehlo
from jaxcls.export.exportable import Exportable, named_arrays

# The packages that each format needs, and the extra of jaxcls that installs them.
_PACKAGES = {
    "stablehlo": (["flatbuffers"], "export"),
    "safetensors": ([], ""),
    "onnx": (["jax2onnx", "onnxruntime"], "onnx"),
}


def export(output: Path, exportable: Exportable, format: str) -> int:
    """Writes the whole folder, or nothing.

    Args:
      output: a new or empty folder.
      format: 'stablehlo', 'onnx' or 'safetensors'.

    Returns:
      The size of all files in bytes.

    Raises:
      InputError: the folder cannot be written, the format is unknown, it needs a package that is not installed, or it
        cannot express the model.
    """
    check_output(output)
    if format not in _PACKAGES:
        raise unknown_name("export format", format, _PACKAGES)
    packages, extra = _PACKAGES[format]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"the format {format} needs the package {package}: pip install 'jaxcls[{extra}]'.")
    preprocessor = exportable.preprocessor.as_record() if exportable.preprocessor is not None else {}
    tokenizer = preprocessor.pop("tokenizer", None)
    versions = environment.record()
    record = {
        "format": format,
        **exportable.record,
        "preprocessor": preprocessor or None,
        "buckets": [[*size] for size in exportable.buckets.sizes] if exportable.buckets else [],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(exportable.weights["params"])),
        "packages": versions["packages"],
        "xla_flags": versions["xla_flags"],
    }
    match format:
        case "stablehlo":
            added, contents = stablehlo.files(exportable)
        case "onnx":
            added, contents = onnx.files(exportable)
        case _:
            from safetensors.numpy import save

            metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
            added, contents = {}, {"model.safetensors": save(named_arrays(exportable.weights), metadata=metadata)}
    contents["model.json"] = (json.dumps(record | added, indent=2) + "\n").encode()
    if tokenizer is not None:
        contents["tokenizer.json"] = tokenizer.encode()
    contents[loader.SUMS] = files.sha256sums(contents).encode()
    with files.new_folder(output) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
    return sum(map(len, contents.values()))


def check_output(output: Path) -> None:
    """Raises InputError for a folder that cannot be written, before any work is done."""
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: give a new folder inside an existing one.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists already; name a new folder, or empty this one.")
