"""RetinaNet (Lin et al. 2017, arXiv 1708.02002): a residual network, a feature pyramid and two shared towers."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls.models.detection import DetectorOutput, canvas_anchors
from jaxcls.models.layers import BatchNorm, Conv
from jaxcls.models.vision import residual_stage

# The last stage of the backbone has stride 2^5; the pyramid starts at 2^3.
_LAST_STAGE = 5


class RetinaNet(nnx.Module):
    """A detector: maps float images (N, height, width, channels) to a :class:`jaxcls.models.detection.DetectorOutput`.

    Its outputs are float32: "class_logits" (N, A, num_classes), to which a sigmoid is applied, and "box_deltas"
    (N, A, 4), relative to the anchors of a canvas of the size of the images.

    Args:
      input_shape: (height, width, channels). Images of other sizes are accepted if their longer side is the same.
      widths: channels of the backbone's stages, of strides 4, 8, 16 and 32; ResNet-50 has 256 to 2048.
      blocks: residual blocks of each stage; ResNet-50 has 3, 4, 6 and 3.
      features: channels of the pyramid and the towers; 256 in the paper.
      depth: hidden convolutions of each tower; 4 in the paper.
      prior: initial probability of each class, so that the many negative anchors do not dominate the first steps; None
        means one half.
      dropout: rate before the last convolution of each tower.
      dtype: type of the computation.
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, *, widths: Sequence[int] = (32, 64, 128, 128),
        blocks: Sequence[int] = (1, 1, 1, 1), features: int = 64, depth: int = 2, prior: float | None = 0.01,
        dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.anchors = anchors = canvas_anchors(*input_shape[:2])
        self.num_classes = num_classes
        conv = functools.partial(Conv, kernel_size=(7, 7), strides=2, use_bias=False, dtype=dtype, rngs=rngs)
        self.stem = conv(input_shape[-1], widths[0])
        stages, previous = [], widths[0]
        # Small canvases have no pyramid levels for the last stages.
        for stage, width in enumerate(widths[: min(anchors.levels[-1], _LAST_STAGE) - 1]):
            layers = residual_stage(previous, width, blocks[stage], halve=stage > 0, dtype=dtype, rngs=rngs)
            stages.append(nnx.Sequential(*layers))
            previous = width
        # A Sequential as a list, here and below: nnx.List is not in Flax 0.11, and 0.12 rejects plain lists of modules.
        self.stages = nnx.Sequential(*stages)
        self.pyramid = Pyramid(widths[1 : len(stages)], anchors.levels, features, dtype=dtype, rngs=rngs)
        tower = functools.partial(
            Tower, features, depth, levels=len(anchors.levels), dropout=dropout, dtype=dtype, rngs=rngs
        )
        bias = 0.0 if prior is None else -math.log((1 - prior) / prior)
        self.class_tower = tower(anchors.per_position * num_classes, bias=bias)
        self.box_tower = tower(anchors.per_position * 4, bias=0.0)

    def __call__(self, images: jax.Array) -> DetectorOutput:
        chex.assert_rank(images, 4)
        height, width = images.shape[1:3]
        chex.assert_equal(canvas_anchors(height, width), self.anchors)
        x = kernels.max_pool(self.stem(images))
        stages = []
        for stage in self.stages.layers:
            x = stage(x)
            stages.append(x)
        levels = self.pyramid(stages[1:])

        def apply(tower: Tower, size: int) -> jax.Array:
            return jnp.concatenate([y.reshape(images.shape[0], -1, size) for y in tower(levels)], axis=1)

        outputs = {"class_logits": apply(self.class_tower, self.num_classes), "box_deltas": apply(self.box_tower, 4)}
        return DetectorOutput(outputs, (height, width))


class Pyramid(nnx.Module):
    """A feature pyramid (Lin et al. 2016, arXiv 1612.03144): from backbone maps to a map of each level.

    Each map is upsampled and added to the one below it. Levels above the backbone come from its last map by
    convolutions of stride 2. All maps are (N, height, width, channels).

    Args:
      widths: channels of the backbone maps, from level 3.
      levels: levels of the pyramid.
      features: channels of the pyramid.
      dtype: type of the computation.
    """

    def __init__(self, widths: Sequence[int], levels: Sequence[int], features: int, *, dtype: Any, rngs: nnx.Rngs):
        conv = functools.partial(Conv, dtype=dtype, rngs=rngs)
        # The stages of a pre-activation network end without normalization and ReLU.
        self.norms = nnx.Sequential(*(BatchNorm(width, dtype=dtype, rngs=rngs) for width in widths))
        self.laterals = nnx.Sequential(*(conv(width, features, kernel_size=(1, 1)) for width in widths))
        self.outputs = nnx.Sequential(*(conv(features, features) for _ in widths))
        above = sum(level > _LAST_STAGE for level in levels)
        self.above = nnx.Sequential(
            *(conv(features if index else widths[-1], features, strides=2) for index in range(above))
        )

    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        maps = [nnx.relu(norm(map)) for norm, map in zip(self.norms.layers, maps, strict=True)]
        merged = [lateral(map) for lateral, map in zip(self.laterals.layers, maps, strict=True)]
        for index in reversed(range(len(merged) - 1)):
            merged[index] += upsample(merged[index + 1], merged[index].shape)
        levels = [output(map) for output, map in zip(self.outputs.layers, merged, strict=True)]
        x = maps[-1]
        for index, conv in enumerate(self.above.layers):
            x = conv(nnx.relu(x) if index else x)
            levels.append(x)
        return levels


class Tower(nnx.Module):
    """Convolutions with ReLU that all levels share, and a last one with ``outputs`` channels.

    Each level has its own normalization, as in EfficientDet (Tan et al. 2019, arXiv 1911.09070), since the statistics
    of levels differ. The RetinaNet paper has no normalization there, but starts from weights pretrained on ImageNet.

    Args:
      features: channels of the inputs and of the hidden convolutions.
      depth: number of hidden convolutions.
      outputs: channels of the outputs.
      levels: number of levels.
      bias: initial bias of the last convolution.
      dropout: rate before the last convolution.
      dtype: type of the computation.
    """

    def __init__(
        self, features: int, depth: int, outputs: int, levels: int, *, bias: float, dropout: float, dtype: Any,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        def norms() -> nnx.Sequential:
            return nnx.Sequential(*(BatchNorm(features, dtype=dtype, rngs=rngs) for _ in range(levels)))

        conv = functools.partial(Conv, features, dtype=dtype, rngs=rngs)
        self.hidden = nnx.Sequential(*(conv(features, use_bias=False) for _ in range(depth)))
        self.norms = nnx.Sequential(*(norms() for _ in range(depth)))
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.last = conv(outputs)
        # Small, as in the paper: initially the outputs of all anchors are nearly equal.
        self.last.kernel[...] = 0.01 * jax.random.normal(rngs.params(), self.last.kernel.shape)
        self.last.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        norms_of_layers: Any = self.norms.layers
        for conv, norms in zip(self.hidden.layers, norms_of_layers, strict=True):
            maps = [nnx.relu(norm(conv(x))) for norm, x in zip(norms.layers, maps, strict=True)]
        return [self.last(self.dropout(x)).astype(jnp.float32) for x in maps]


def upsample(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Doubles height and width of (N, H, W, C) by repetition and crops the result to the size of ``shape``.

    >>> upsample(jnp.arange(2.0).reshape(1, 1, 2, 1), (1, 2, 3, 1))[0, :, :, 0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    """
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : shape[1], : shape[2]]
