"""What each family of pretrained networks tells of itself, and the families by the names that checkpoints use."""

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from jaxcls._utils.errors import InputError, listed

# The "model_type" of a Hugging Face config.json -> the module with its networks.
_MODEL_TYPES = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "vit": "vit",
    "deit": "vit",
    "dinov2": "vit",
    "dinov2_with_registers": "vit",
    "resnet": "resnet",
    "convnext": "convnext",
    "convnextv2": "convnext",
}
# The "architecture" of a timm config.json -> the module with its networks.
_TIMM_NAMES = {
    r"(vit|deit3?)_.*": "vit",
    r"resnet\d+": "resnet",
    r"convnext(v2)?_.*": "convnext",
    r"(tf_)?efficientnet_.*": "efficientnet",
    r"(tf_)?mobilenetv[23]_.*": "mobilenet",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network with the sizes of one checkpoint, and the names of its tensors.

    Attributes:
      inputs: 'texts' or 'images'.
      build: ``(*, dtype, rngs, dropout) -> backbone``, an NNX module: token ids (N, width) to (N, width, features), or
        float images (N, height, width, 3) to (N, features). It has the attribute ``features``. ``dropout`` is the rate
        inside of the backbone; None takes that of the checkpoint's configuration.
      tensor: the name of a parameter of the backbone, with PyTorch's names of leaves and indices in place of lists,
        such as ``blocks.0.norm1.weight`` -> the name of the tensor in the checkpoint.
      depth: the same name -> the number of the layer, for learning rates by layer: 0 for embeddings and the stem, 1 for
        the first block, ..., ``layers`` for the last block and what follows it.
      layers: the number of blocks.
      head: the name of the classifier in the checkpoint, if it has one, such as ``classifier``.
      canonical: the name of a tensor in an older checkpoint, or in one of the backbone alone -> its name in one with a
        classifier, as in ``tensor``, ``head`` and ``other``.
      other: a pattern of the names of tensors that a classifier does not use, such as a masked language model's.
      padding: the token of padding.
      max_length: the number of positions of a text, including special tokens.
      width: the number of features of a token.
    """

    inputs: str
    build: Callable[..., nnx.Module]
    tensor: Callable[[str], str]
    depth: Callable[[str], int]
    layers: int
    head: str
    canonical: Callable[[str], str] = str
    other: str = r"(?!)"
    padding: int = 0
    max_length: int | None = None
    width: int | None = None


def find(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the architecture that a checkpoint's config.json describes.

    Args:
      config: the parsed file, of Hugging Face's transformers or of timm.
      where: the name of the checkpoint, for messages.

    Raises:
      InputError: no such architecture is known, or it has a variation that is not supported.
    """
    model_type, timm_name = config.get("model_type"), config.get("architecture")
    module = _MODEL_TYPES.get(str(model_type))
    if module is None:
        matching = (name for pattern, name in _TIMM_NAMES.items() if re.fullmatch(pattern, str(timm_name)))
        module = next(matching, None)
    if module is None:
        raise InputError(
            f"{where}: config.json names the architecture {timm_name or model_type!r}, which jaxcls does not have. It "
            f"has {listed([*_MODEL_TYPES])}, and timm's ViT, DeiT, ResNet, ConvNeXt, EfficientNet and MobileNet."
        )
    family = importlib.import_module(f"jaxcls.models.pretrained.{module}")
    architecture: Architecture = family.architecture(config, where)
    return architecture
