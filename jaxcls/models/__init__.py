"""Networks as Flax NNX modules, and :class:`Model`: a network as two pure functions, which training takes.

Submodules and the names below are imported on first use.

>>> from jaxcls import models
>>> model = models.functional(lambda rngs: models.MLP((8, 8, 1), num_classes=3, rngs=rngs))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcls.models import activations, detection, layers, tabular, text, vision
    from jaxcls.models.detection.retinanet import RetinaNet
    from jaxcls.models.linen import from_linen
    from jaxcls.models.model import Model, functional
    from jaxcls.models.summary import describe
    from jaxcls.models.tabular import TabularLinear, TabularMLP
    from jaxcls.models.text import NGramClassifier, TextCNN, Transformer
    from jaxcls.models.vision import CNN, MLP, VGG, ResNet

__all__ = [
    "CNN", "MLP", "VGG", "Model", "NGramClassifier", "ResNet", "RetinaNet", "TabularLinear", "TabularMLP", "TextCNN",
    "Transformer", "activations", "describe", "detection", "from_linen", "functional", "layers", "tabular", "text",
    "vision",
]  # fmt: skip

_MODULES = {
    "CNN": "vision", "MLP": "vision", "VGG": "vision", "ResNet": "vision",
    "NGramClassifier": "text", "TextCNN": "text", "Transformer": "text",
    "TabularLinear": "tabular", "TabularMLP": "tabular", "RetinaNet": "detection.retinanet",
    "Model": "model", "functional": "model", "from_linen": "linen", "describe": "summary",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    value = getattr(module, name) if name in _MODULES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
