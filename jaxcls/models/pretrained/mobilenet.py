"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and V3 (Howard et al. 2019, arXiv 1905.02244), as in timm."""

import re
from collections.abc import Mapping
from typing import Any

from flax import nnx

from jaxcls._utils.errors import InputError
from jaxcls.models.pretrained import inverted_residuals
from jaxcls.models.pretrained.architecture import Architecture
from jaxcls.models.pretrained.inverted_residuals import Row, Squeeze, rounded

_RELU, _RELU6, _SWISH = nnx.relu, nnx.relu6, nnx.hard_swish
# Tables 2 of V2, and 2 and 1 of V3: kernel, strides, expansion, channels, repeats, squeeze-and-excitation, activation.
_V2 = (
    [Row(3, 1, 1, 16, 1, False, _RELU6)],
    [Row(3, 2, 6, 24, 2, False, _RELU6)],
    [Row(3, 2, 6, 32, 3, False, _RELU6)],
    [Row(3, 2, 6, 64, 4, False, _RELU6)],
    [Row(3, 1, 6, 96, 3, False, _RELU6)],
    [Row(3, 2, 6, 160, 3, False, _RELU6)],
    [Row(3, 1, 6, 320, 1, False, _RELU6)],
)
_V3_SMALL = (
    [Row(3, 2, 1, 16, 1, True, _RELU)],
    [Row(3, 2, 4.5, 24, 1, False, _RELU), Row(3, 1, 3.67, 24, 1, False, _RELU)],
    [Row(5, 2, 4, 40, 1, True, _SWISH), Row(5, 1, 6, 40, 2, True, _SWISH)],
    [Row(5, 1, 3, 48, 2, True, _SWISH)],
    [Row(5, 2, 6, 96, 3, True, _SWISH)],
    [Row(0, 1, 1, 576, 1, False, _SWISH)],
)
_V3_LARGE = (
    [Row(3, 1, 1, 16, 1, False, _RELU)],
    [Row(3, 2, 4, 24, 1, False, _RELU), Row(3, 1, 3, 24, 1, False, _RELU)],
    [Row(5, 2, 3, 40, 3, True, _RELU)],
    [Row(3, 2, 6, 80, 1, False, _SWISH), Row(3, 1, 2.5, 80, 1, False, _SWISH), Row(3, 1, 2.3, 80, 2, False, _SWISH)],
    [Row(3, 1, 6, 112, 2, True, _SWISH)],
    [Row(5, 2, 6, 160, 3, True, _SWISH)],
    [Row(0, 1, 1, 960, 1, False, _SWISH)],
)
# Factors of the repeats, for names that end in d.
_DEPTHS = {"mobilenetv2_110d": 1.2, "mobilenetv2_120d": 1.4}


def architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Returns the architecture of mobilenetv2_NNN, or of mobilenetv3_small_NNN or mobilenetv3_large_NNN.

    NNN is a factor of the channels in percent, such as 100; for V3 "tf_" can be in front.

    Raises:
      InputError: the name or one of its "model_args" is not supported.
    """
    name = str(config["architecture"])
    match = re.fullmatch(r"mobilenetv2_(\d{3})|(?:tf_)?mobilenetv3_(small|large)_(\d{3})", name.removesuffix("d"))
    if match is None or name.endswith("d") != (name in _DEPTHS):
        raise InputError(
            f"{where}: config.json names the architecture {name!r}; of MobileNet jaxcls has V2 and V3, such as "
            "mobilenetv2_100, mobilenetv3_small_100, mobilenetv3_large_100 and tf_mobilenetv3_large_100."
        )
    percent, size = match[1] or match[3], match[2]
    depth = _DEPTHS.get(name, 1.0)
    arguments = inverted_residuals.arguments(config, where, width=int(percent) / 100, depth=depth)
    width = arguments["channel_multiplier"]
    is_fixed = name in _DEPTHS if size is None else width < 0.75
    stem = 32 if size is None else 16
    stem = stem if is_fixed else rounded(stem * width)
    stages = inverted_residuals.scaled(
        {None: _V2, "small": _V3_SMALL, "large": _V3_LARGE}[size], stem, width=width,
        depth=arguments["depth_multiplier"], fixed_ends=is_fixed,
        squeeze=lambda previous, expanded: Squeeze(rounded(expanded / 4), nnx.relu, nnx.hard_sigmoid),
    )  # fmt: skip
    if size is None:
        features = 1280 if is_fixed else max(1280, rounded(1280 * width))
        activation = nnx.relu6
    else:
        features, activation = {"small": 1024, "large": 1280}[size], nnx.hard_swish
    return inverted_residuals.architecture(
        arguments, stem=stem, stages=stages, features=features, activation=activation, pools_first=size is not None
    )
