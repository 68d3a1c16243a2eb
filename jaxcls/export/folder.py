"""The folder of an export: what every format contains, and how it is written.

model.json         problem, class names, thresholds, preprocessing, versions, whether the data was synthetic
tokenizer.json     for texts: the tokenizer, in the format of the `tokenizers` library; tokenizer-1.json, ... if the
                   members of an ensemble have different ones
SHA256SUMS         of every other file

The format safetensors, for the weights in another program, adds one file; the others are modules of their own.

model.safetensors  name -> array; its metadata is the content of model.json, with values that are not text as JSON

A fine-tuned encoder is written in the layout of its checkpoint, which transformers or timm load again: its tensors have
their names there, next to config.json. The format lora has what LoRA learned alone, in the layout of the library PEFT.

config.json                                      of the checkpoint, with the classes
adapter_config.json, adapter_model.safetensors   the low-rank changes and the classifier

With weights in 8 bits (see :mod:`jaxcls.export.quantization`), the array params/head/kernel, say, is the product of the
arrays params/head/kernel/values and params/head/kernel/scale.
"""

import importlib.util
import json
from pathlib import Path

import jax

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.export import loader, onnx, quantization, stablehlo
from jaxcls.export.exportable import Exportable, named_arrays

# The packages that each format needs, and the extra of jaxcls that installs them.
_PACKAGES = {
    "stablehlo": (["flatbuffers"], "export"),
    "safetensors": ([], ""),
    "lora": ([], ""),
    "onnx": (["jax2onnx", "onnxruntime"], "onnx"),
}

_WEIGHTS = ("float32", "int8")


def export(
    output: Path, exportable: Exportable, format: str, *, weights: str = "float32", with_preprocessing: bool = False
) -> int:
    """Writes the whole folder, or nothing.

    Args:
      output: a new or empty folder.
      format: 'stablehlo', 'onnx', 'safetensors' or 'lora'.
      weights: 'float32', or 'int8' for large arrays of weights in 8 bits.
      with_preprocessing: see :mod:`jaxcls.export.onnx_inputs`.

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
    if with_preprocessing and format != "onnx":
        raise InputError(f"--with-preprocessing is for --format onnx, not for {format}.")
    if weights not in _WEIGHTS:
        raise unknown_name("type of weights", weights, _WEIGHTS)
    if weights == "int8" and (format == "lora" or (format == "safetensors" and exportable.pretrained is not None)):
        raise InputError(
            f"the weights of a checkpoint in the format {format} are for programs that read no int8; choose stablehlo "
            "or onnx, or leave out --weights int8."
        )
    preprocessor = exportable.preprocessor.as_record() if exportable.preprocessor is not None else {}
    # Members of an ensemble may have one each.
    each = preprocessor.get("preprocessors", [preprocessor])
    tokenizers = [one.pop("tokenizer") for one in each if "tokenizer" in one]
    versions = environment.record()
    record = {
        "format": format,
        **exportable.record,
        "preprocessor": preprocessor or None,
        "weights": weights,
        "buckets": [[*size] for size in exportable.buckets.sizes] if exportable.buckets else [],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(exportable.weights["params"])),
        "packages": versions["packages"],
        "xla_flags": versions["xla_flags"],
    }
    if weights == "int8":
        exportable = quantization.quantized(exportable)
    match format:
        case "stablehlo":
            added, contents = stablehlo.files(exportable)
        case "onnx":
            added, contents = onnx.files(exportable, with_preprocessing=with_preprocessing)
        case "lora":
            added, contents = {}, _adapter(exportable)
        case _:
            from safetensors.numpy import save

            metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
            arrays, contents = named_arrays(exportable.weights), {}
            if exportable.pretrained is not None:
                # transformers reads no file without this.
                metadata["format"] = "pt"
                arrays = exportable.pretrained.tensors(exportable.weights["params"], exportable.weights["model_state"])
                contents["config.json"] = _with_classes(exportable)
            added, contents["model.safetensors"] = {}, save(arrays, metadata=metadata)
    contents["model.json"] = (json.dumps(record | added, indent=2) + "\n").encode()
    contents |= {loader.tokenizer_name(number): tokenizer.encode() for number, tokenizer in enumerate(tokenizers)}
    contents[loader.SUMS] = files.sha256sums(contents).encode()
    with files.new_folder(output) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
    return sum(map(len, contents.values()))


def _with_classes(exportable: Exportable) -> bytes:
    """Returns the config.json of the checkpoint with the classes, as transformers and timm write them."""
    assert exportable.pretrained is not None
    config, record = dict(exportable.pretrained.record["config"]), exportable.record
    names = record["class_names"]
    if isinstance(names, dict):
        names = [name for output in names.values() for name in output]
    labels = names[1:] if record["problem"] == "binary" else names
    if "architecture" in config:
        config |= {"num_classes": len(labels), "label_names": [*labels]}
    else:
        problem = "single_label_classification" if record["problem"] == "multiclass" else "multi_label_classification"
        ids = {str(index): label for index, label in enumerate(labels)}
        config |= {"id2label": ids, "label2id": {label: int(index) for index, label in ids.items()}}
        config["problem_type"] = problem
    return (json.dumps(config, indent=2) + "\n").encode()


def _adapter(exportable: Exportable) -> dict[str, bytes]:
    model = exportable.pretrained
    if model is None or model.settings.lora_rank is None:
        raise InputError("the format lora is for a run with --lora-rank; choose safetensors, which has all weights.")
    from safetensors.numpy import save

    tensors, config = model.adapter(exportable.weights["params"])
    return {
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "adapter_model.safetensors": save(tensors, metadata={"format": "pt"}),
    }


def check_output(output: Path) -> None:
    """Raises InputError for a folder that cannot be written, before any work is done."""
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: give a new folder inside an existing one.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists already; name a new folder, or empty this one.")
