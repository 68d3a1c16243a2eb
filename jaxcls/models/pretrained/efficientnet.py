"""EfficientNet (Tan and Le 2019, arXiv 1905.11946) and EfficientNet-Lite, with timm's names."""

import re
from collections.abc import Mapping
from typing import Any

from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.pretrained import inverted_residuals
from jaxcls.models.pretrained.architecture import Architecture
from jaxcls.models.pretrained.inverted_residuals import Row, Squeeze, rounded

# Table 1 of the paper: kernel, strides, expansion, channels, repeats.
_TABLE = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
# Factors of the channels and the repeats, of B0 to B8.
_FACTORS = (
    (1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1), (2.2, 3.6),
)  # fmt: skip


def architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the architecture of efficientnet_b0 to b8 or efficientnet_lite0 to lite4, also with "tf_" in front.

    EfficientNet-Lite has no squeeze-and-excitation, ReLU6 instead of swish, and ends that are not scaled.

    Raises:
      InputError: the name or one of its "model_args" is not supported.
    """
    match = re.fullmatch(r"(?:tf_)?efficientnet_(?:b([0-8])|(lite)([0-4]))", str(config["architecture"]))
    if match is None:
        raise InputError(
            f"{where}: config.json names the architecture {config['architecture']!r}; of EfficientNet jaxcls has b0 to "
            "b8 and lite0 to lite4, such as efficientnet_b0 and tf_efficientnet_lite0."
        )
    is_lite = match[2] is not None
    width, depth = _FACTORS[int(match[1] or match[3])]
    arguments = inverted_residuals.arguments(config, where, width=width, depth=depth)
    width = arguments["channel_multiplier"]
    activation = nnx.relu6 if is_lite else nnx.silu
    stem = 32 if is_lite else rounded(32 * width)
    stages = inverted_residuals.scaled(
        [[Row(*row, squeeze=not is_lite, activation=activation)] for row in _TABLE], stem, width=width,
        depth=arguments["depth_multiplier"], fixed_ends=is_lite,
        squeeze=lambda previous, expanded: Squeeze(previous // 4, nnx.silu, nnx.sigmoid),
    )  # fmt: skip
    features = 1280 if is_lite else rounded(1280 * width)
    return inverted_residuals.architecture(
        arguments, stem=stem, stages=stages, features=features, activation=activation
    )
