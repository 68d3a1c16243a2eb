"""From the named tensors of a checkpoint to the parameters of a network, and back.

PyTorch stores the kernel of a dense layer as (outputs, inputs) and of a convolution as (outputs, inputs, height,
width); here they are (inputs, outputs) and (height, width, inputs, outputs).
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcls._utils.errors import InputError, listed
from jaxcls.models.pretrained.architecture import Architecture

PyTree = Any

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}


def from_tensors(
    architecture: Architecture, shapes: PyTree, tensors: Mapping[str, np.ndarray], where: str, *, with_head: bool
) -> list[np.ndarray | None]:
    """Returns the array of the checkpoint for every leaf, and None for those that are new.

    Args:
      architecture: the one of the checkpoint.
      shapes: (params, model_state) of the model.
      tensors: all tensors of the checkpoint, by name.
      where: the name of the checkpoint, for messages.
      with_head: take the classifier of the checkpoint, too.

    Raises:
      InputError: a tensor is missing, has another shape, or is neither used nor known to be of another head; the
        message names them.
    """
    tensors = {architecture.canonical(name): tensor for name, tensor in tensors.items()}
    missing, misshaped, used = [], [], set()

    def take(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray | None:
        name, transposed = _tensor(architecture, path)
        if name is None or (name.startswith(f"{architecture.head}.") and not with_head):
            return None
        used.add(name)
        if name not in tensors:
            missing.append(name)
            return None
        value = np.asarray(tensors[name], np.float32)
        value = _transposed(value) if transposed else value
        if value.shape != leaf.shape:
            misshaped.append(f"{name} {tensors[name].shape} gives {value.shape}, not {leaf.shape}")
        return np.ascontiguousarray(value)

    leaves, _ = jax.tree.flatten_with_path(shapes)
    taken = [take(path, leaf) for path, leaf in leaves]
    known = re.compile(rf"({architecture.other})|(?:{re.escape(architecture.head)}\..*)|(?:.*num_batches_tracked)")
    unused = [name for name in tensors if name not in used and not known.fullmatch(name)]
    for what, names in (("lacks", missing), ("has tensors of other shapes:", misshaped), ("has unused", unused)):
        if names:
            raise InputError(
                f"{where} {what} {listed(names, most=5)}: its weights do not fit its config.json; give the folder as "
                "it was published."
            )
    return taken


def to_tensors(architecture: Architecture, weights: PyTree) -> dict[str, np.ndarray]:
    """Returns the leaves of (params, model_state) of a classifier under their names in a checkpoint."""
    leaves, _ = jax.tree.flatten_with_path(weights)
    tensors = {}
    for path, leaf in leaves:
        name, transposed = _tensor(architecture, path)
        assert name is not None
        value = np.asarray(leaf)
        tensors[name] = np.ascontiguousarray(_transposed(value, back=True) if transposed else value)
    return tensors


def dotted(path: Any) -> str:
    """Returns the path of a parameter with PyTorch's names of leaves, such as 'backbone.blocks.0.norm1.weight'.

    >>> dotted(tuple(map(jax.tree_util.DictKey, ("blocks", "layers", 0, "norm1", "scale"))))
    'blocks.0.norm1.weight'
    """
    keys = [str(entry.key) for entry in path]
    keys = [key for index, key in enumerate(keys) if key != "layers" or not keys[index + 1].isdigit()]
    return ".".join([*keys[:-1], _LEAVES.get(keys[-1], keys[-1])])


def _tensor(architecture: Architecture, path: Any) -> tuple[str | None, bool]:
    """Returns the name of the tensor of a leaf, None if it is of an adapter, and whether its axes are transposed."""
    keys = [entry.key for entry in path[1:]]  # the first is the index of the tree
    if keys[0] == "lora":
        return None, False
    module, _, name = dotted(path[2:] if keys[0] == "model" else path[1:]).partition(".")
    return architecture.tensor(name) if module == "backbone" else f"{architecture.head}.{name}", keys[-1] == "kernel"


def _transposed(value: np.ndarray, *, back: bool = False) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1) if back else value.transpose(2, 3, 1, 0)
    return value.T
