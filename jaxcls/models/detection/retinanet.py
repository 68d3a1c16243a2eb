"""RetinaNet (Lin et al. 2017, arXiv:1708.02002): a residual network, a feature pyramid on it, and two shared towers."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcls import kernels
from jaxcls.models.batch_norm import BatchNorm
from jaxcls.models.convolution import Conv
from jaxcls.models.detection import OnCanvas, for_canvas
from jaxcls.models.vision import MOMENTUM, ResidualBlock

# The strides of the backbone's stages that the pyramid stands on are 8, 16 and 32.
_FIRST, _LAST = 3, 5


class RetinaNet(nnx.Module):
    """A detector: float images (N, height, width, channels) to what it says of every anchor of that canvas.

    It gives a :class:`jaxcls.models.detection.OnCanvas` of float32 arrays: "class_logits" (N, A, num_classes), which are to go
    through a sigmoid, and "box_deltas" (N, A, 4), offsets from the anchors of a canvas of the images' size.

    Args:
      input_shape: (height, width, channels). It may see other images, too, whose longer side is the same.
      widths: channels of the backbone's stages, of strides 4, 8, 16 and 32. ResNet-50's would be 256 to 2048.
      blocks: residual blocks of each stage; ResNet-50 has 3, 4, 6 and 3.
      features: channels of the pyramid and of the towers; 256 in the paper.
      depth: convolutions of a tower; 4 in the paper.
      prior: what the probability of every class begins at, so that the many negative anchors do not drown the few
        others in the first steps; None begins at one half.
      dropout: of what the towers end with.
      dtype: of the computation.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        widths: Sequence[int] = (32, 64, 128, 128),
        blocks: Sequence[int] = (1, 1, 1, 1),
        features: int = 64,
        depth: int = 2,
        prior: float | None = 0.01,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.anchors = anchors = for_canvas(*input_shape[:2])
        self.num_classes = num_classes
        self.stem = Conv(
            input_shape[-1], widths[0], kernel_size=(7, 7), strides=2, use_bias=False, dtype=dtype, rngs=rngs
        )
        stages, previous = [], widths[0]
        # Stages above the highest level of a small canvas' pyramid would see nothing.
        for stage, width in enumerate(widths[: min(anchors.levels[-1], _LAST) - 1]):
            layers = []
            for block in range(blocks[stage]):
                strides = 2 if stage and not block else 1
                layers.append(ResidualBlock(previous, width, strides, dtype=dtype, rngs=rngs))
                previous = width
            stages.append(nnx.Sequential(*layers))
        # To hold layers, here and below: nnx.List is not in Flax 0.11, and a plain list is refused by 0.12.
        self.stages = nnx.Sequential(*stages)
        self.pyramid = Pyramid(widths[1 : len(stages)], anchors.levels, features, dtype=dtype, rngs=rngs)
        tower = functools.partial(
            Tower, features, depth, levels=len(anchors.levels), dropout=dropout, dtype=dtype, rngs=rngs
        )
        bias = 0.0 if prior is None else -math.log((1 - prior) / prior)
        self.class_tower = tower(anchors.per_place * num_classes, bias=bias)
        self.box_tower = tower(anchors.per_place * 4, bias=0.0)

    def __call__(self, images: jax.Array) -> OnCanvas:
        chex.assert_rank(images, 4)
        height, width = images.shape[1:3]
        chex.assert_equal(for_canvas(height, width), self.anchors)
        x = kernels.max_pool(self.stem(images))
        stages = []
        for stage in self.stages.layers:
            x = stage(x)
            stages.append(x)
        levels = self.pyramid(stages[1:])

        def of_all(tower: Tower, size: int) -> jax.Array:
            return jnp.concatenate([said.reshape(images.shape[0], -1, size) for said in tower(levels)], axis=1)

        said = {
            "class_logits": of_all(self.class_tower, self.num_classes),
            "box_deltas": of_all(self.box_tower, 4),
        }
        return OnCanvas(said, (height, width))


class Pyramid(nnx.Module):
    """A feature pyramid (Lin et al. 2016, arXiv:1612.03144): maps of the backbone from 3 on to maps of all levels.

    What a map sees is added to those below it, which have more places. Levels above the backbone's are further
    convolutions of stride 2, of its last map.
    """

    def __init__(self, widths: Sequence[int], levels: Sequence[int], features: int, *, dtype: Any, rngs: nnx.Rngs):
        conv = functools.partial(Conv, dtype=dtype, rngs=rngs)
        # A residual network with pre-activation ends its stages without one.
        self.norms = nnx.Sequential(*(BatchNorm(width, momentum=MOMENTUM, dtype=dtype, rngs=rngs) for width in widths))
        self.laterals = nnx.Sequential(*(conv(width, features, kernel_size=(1, 1)) for width in widths))
        self.outputs = nnx.Sequential(*(conv(features, features) for _ in widths))
        above = [level for level in levels if level > _LAST]
        self.above = nnx.Sequential(
            *(conv(features if place else widths[-1], features, strides=2) for place in range(len(above)))
        )

    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        maps = [nnx.relu(norm(map)) for norm, map in zip(self.norms.layers, maps, strict=True)]
        merged = [lateral(map) for lateral, map in zip(self.laterals.layers, maps, strict=True)]
        for place in reversed(range(len(merged) - 1)):
            merged[place] += doubled(merged[place + 1], merged[place].shape)
        levels = [output(map) for output, map in zip(self.outputs.layers, merged, strict=True)]
        x = maps[-1]
        for place, conv in enumerate(self.above.layers):
            x = conv(nnx.relu(x) if place else x)
            levels.append(x)
        return levels


class Tower(nnx.Module):
    """Convolutions with ReLU that all levels of a pyramid share, and one that gives ``outputs`` numbers a place.

    What a convolution gives is normalised level by level, as in EfficientDet (Tan et al. 2019, arXiv:1911.09070), since
    levels differ in their statistics. RetinaNet's paper normalises nothing there; it begins with weights from ImageNet.
    """

    def __init__(
        self,
        features: int,
        depth: int,
        outputs: int,
        levels: int,
        *,
        bias: float,
        dropout: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        def norms() -> nnx.Sequential:
            return nnx.Sequential(
                *(BatchNorm(features, momentum=MOMENTUM, dtype=dtype, rngs=rngs) for _ in range(levels))
            )

        self.hidden = nnx.Sequential(
            *(Conv(features, features, use_bias=False, dtype=dtype, rngs=rngs) for _ in range(depth))
        )
        self.norms = nnx.Sequential(*(norms() for _ in range(depth)))
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.last = Conv(features, outputs, dtype=dtype, rngs=rngs)
        # Small, as in the paper: at the beginning every anchor says nearly the same.
        self.last.kernel[...] = 0.01 * jax.random.normal(rngs.params(), self.last.kernel.shape)
        self.last.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        held: Any = self.norms.layers
        for conv, norms in zip(self.hidden.layers, held, strict=True):
            maps = [nnx.relu(norm(conv(x))) for norm, x in zip(norms.layers, maps, strict=True)]
        return [self.last(self.dropout(x)).astype(jnp.float32) for x in maps]


def doubled(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """A map (N, H, W, C) with every place four times, cut to height and width of that shape.

    >>> doubled(jnp.arange(2.0).reshape(1, 1, 2, 1), (1, 2, 3, 1))[0, :, :, 0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    """
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : shape[1], : shape[2]]
