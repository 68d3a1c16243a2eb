"""Networks as Flax NNX modules, and :class:`Model`: a network as two pure functions, which training takes.

Submodules and the names below are imported on first use.

>>> from jaxcls import models
>>> model = models.functional(lambda rngs: models.MLP((8, 8, 1), num_classes=3, rngs=rngs))
"""

from typing import TYPE_CHECKING

from jaxcls._utils.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from jaxcls.models import activations, detection, layers, pretrained, tabular, text, vision
    from jaxcls.models.activations import describe
    from jaxcls.models.model import Model, from_linen, functional
    from jaxcls.models.retinanet import RetinaNet
    from jaxcls.models.tabular import TabularLinear, TabularMLP
    from jaxcls.models.text import NGramClassifier, TextCNN, Transformer
    from jaxcls.models.vision import CNN, MLP, VGG, ResNet

__all__ = [
    "CNN", "MLP", "VGG", "Model", "NGramClassifier", "ResNet", "RetinaNet", "TabularLinear", "TabularMLP", "TextCNN",
    "Transformer", "activations", "describe", "detection", "from_linen", "functional", "layers", "pretrained",
    "tabular", "text", "vision",
]  # fmt: skip
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "retinanet": ["RetinaNet"],
        "activations": ["describe"],
        "model": ["Model", "from_linen", "functional"],
        "tabular": ["TabularLinear", "TabularMLP"],
        "text": ["NGramClassifier", "TextCNN", "Transformer"],
        "vision": ["CNN", "MLP", "VGG", "ResNet"],
    },
    ["activations", "detection", "layers", "pretrained", "tabular", "text", "vision"],
)
