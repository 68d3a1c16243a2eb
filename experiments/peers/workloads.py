"""The data and models that all contenders train, and the floating-point operations per example.

mlp: two dense layers with ReLU. cnn: two 3 x 3 convolutions with ReLU, each followed by 2 x 2 max pooling, and a
dense layer. resnet: three stages of one pre-activation residual block. transformer: a pre-norm encoder without biases
in the attention, with learned positions and masked mean pooling. minilm: a post-norm encoder of the sizes of
all-MiniLM-L6-v2 with random weights, all of which learn, as in fine-tuning. retinanet: the detector of
`--task detection`, with focal loss of the classes and smooth L1 of the boxes.
"""

import itertools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

IMAGE = (28, 28, 1)
ARTICLES = 10

HIDDEN = (512, 256)
CHANNELS = (32, 64)
DENSE = 256
WIDTHS = (32, 64, 128)

LAYERS, FEATURES, HEADS = 2, 128, 4
VOCABULARY, LENGTH, SENTIMENTS = 8000, 256, 2
DROPOUT = 0.1
TEXTS = 2048
# As in a config.json of transformers.
MINILM: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
    "hidden_dropout_prob": DROPOUT, "layer_norm_eps": 1e-12,
}  # fmt: skip
MINILM_LENGTH = 128

CANVAS = (128, 128, 1)
STAGES = (32, 64, 128, 128)
PYRAMID = (3, 4, 5)
TOWER, TOWER_DEPTH = 64, 2
ANCHORS_PER_POSITION = 9
SCENES, MOST_OBJECTS = 512, 8
GAMMA, ALPHA, BETA, PRIOR = 2.0, 0.25, 1 / 9, 0.01

LEARNING_RATE = 1e-3
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5
LAYER_NORM_EPSILON = 1e-6


class Workload(NamedTuple):
    """A model, its training examples and the batch size.

    Attributes:
      inputs: uint8 images (N, H, W, 1), or int32 tokens (N, 256), of minilm (N, 128), without padding.
      labels: int32 (N,); for the detector a dict of boxes (N, M, 4), classes (N, M), -1 for padding, and crowd.
    """

    model: str
    batch_size: int
    inputs: np.ndarray
    labels: Any

    @property
    def size(self) -> int:
        return len(self.inputs)

    @property
    def classes(self) -> int:
        return SENTIMENTS if self.is_text else ARTICLES

    @property
    def is_text(self) -> bool:
        return self.model in ("transformer", "minilm")


# (count, epochs, callback): trains on the first `count` examples, shuffled, and calls back after each epoch, when all
# of its computation has finished.
Train = Callable[[int, int, Callable[[], None]], None]
# Builds the model; returns the number of trainable parameters and the training function.
Contender = Callable[[Workload], tuple[int, Train]]


def load(model: str, batch_size: int) -> Workload:
    """The real Fashion-MNIST, or generated tokens and scenes for the transformers and the detector.

    The variable FASHION_MNIST may name the folder of its files.
    """
    if model == "retinanet":
        return _scenes(batch_size)
    if model in ("transformer", "minilm"):
        is_minilm = model == "minilm"
        length, vocabulary = (MINILM_LENGTH, MINILM["vocab_size"]) if is_minilm else (LENGTH, VOCABULARY)
        generator, count = np.random.default_rng(0), max(TEXTS, 2 * batch_size)
        tokens = generator.integers(1, vocabulary, (count, length), dtype=np.int32)
        return Workload(model, batch_size, tokens, generator.integers(0, SENTIMENTS, count, dtype=np.int32))

    from jaxcls.data.datasets import idx_images
    from jaxcls.data.datasets.fashion_mnist import IMAGES

    dataset = idx_images.load(IMAGES, data_dir=os.environ.get("FASHION_MNIST"))
    if dataset.provenance.source == "sample":
        raise SystemExit("this experiment needs the real Fashion-MNIST: install Debian's dataset-fashion-mnist")
    return Workload(model, batch_size, dataset.train.inputs, dataset.train.labels)


def _scenes(batch_size: int) -> Workload:
    generator, count = np.random.default_rng(0), max(SCENES, 2 * batch_size)
    images = generator.integers(0, 256, (count, *CANVAS), dtype=np.uint8)
    corners = generator.uniform(0, 80, (count, MOST_OBJECTS, 2))
    sides = generator.uniform(16, 48, (count, MOST_OBJECTS, 2))
    classes = generator.integers(0, ARTICLES, (count, MOST_OBJECTS), dtype=np.int32)
    # One to eight objects.
    absent = np.arange(MOST_OBJECTS) > generator.integers(0, MOST_OBJECTS, (count, 1))
    boxes = np.where(absent[..., None], 0, np.concatenate([corners, corners + sides], axis=2)).astype(np.float32)
    labels = {"boxes": boxes, "classes": np.where(absent, -1, classes), "crowd": np.zeros_like(absent)}
    return Workload("retinanet", batch_size, images, labels)


def refuse_newer(workload: Workload) -> None:
    """For the frameworks for which the last two models are not implemented: all but jaxcls and PyTorch."""
    if workload.model in ("minilm", "retinanet"):
        raise SystemExit(f"{workload.model} is not implemented for it")


def normalized(images: np.ndarray) -> np.ndarray:
    """Converts uint8 images to float32 with mean 0 and variance 1."""
    return ((images - np.float32(images.mean())) / np.float32(images.std())).astype(np.float32)


def training_flops(model: str) -> int:
    """Floating-point operations per training example: those of the forward pass, and twice as many for gradients.

    The gradient with respect to images is not needed, so the first layer counts twice, not three times. Products with
    padding, other operations and the optimizer are not counted.
    """
    forward = _products(model)
    without = 0 if model in ("transformer", "minilm") else forward[0]
    return 3 * sum(forward) - without


def _products(model: str) -> list[int]:
    """Operations of each matrix product and convolution in the forward pass of one example."""
    if model == "mlp":
        return [_dense(*sizes) for sizes in itertools.pairwise((math.prod(IMAGE), *HIDDEN, ARTICLES))]
    if model == "cnn":
        side, previous = IMAGE[0], IMAGE[-1]
        products = []
        for channels in CHANNELS:
            products.append(_conv(side, previous, channels))
            side, previous = side // 2, channels
        return [*products, _dense(side * side * previous, DENSE), _dense(DENSE, ARTICLES)]
    if model == "resnet":
        side, previous = IMAGE[0], WIDTHS[0]
        products = [_conv(side, IMAGE[-1], previous)]
        for stage, width in enumerate(WIDTHS):
            stride = 2 if stage else 1
            products.append(_conv(side, previous, width, stride=stride))
            products += [_conv(side, previous, width, window=1, stride=stride)] if previous != width else []
            side, previous = -(-side // stride), width
            products.append(_conv(side, width, width))
        return [*products, _dense(previous, ARTICLES)]
    if model == "retinanet":
        side, previous = CANVAS[0], STAGES[0]
        products = [_conv(side, CANVAS[-1], previous, window=7, stride=2)]
        side, levels = side // 4, []
        for stage, width in enumerate(STAGES):
            stride = 2 if stage else 1
            products.append(_conv(side, previous, width, stride=stride))
            products += [_conv(side, previous, width, window=1, stride=stride)] if stage or previous != width else []
            side, previous = side // stride, width
            products.append(_conv(side, width, width))
            levels += [(side, width)] if stage else []
        for side, width in levels:
            products += [_conv(side, width, TOWER, window=1), _conv(side, TOWER, TOWER)]
            products += [_conv(side, TOWER, TOWER)] * (2 * TOWER_DEPTH)
            products += [_conv(side, TOWER, ANCHORS_PER_POSITION * outputs) for outputs in (ARTICLES, 4)]
        return products
    if model in ("transformer", "minilm"):
        length, features, layers = LENGTH, FEATURES, LAYERS
        if model == "minilm":
            length, features, layers = MINILM_LENGTH, MINILM["hidden_size"], MINILM["num_hidden_layers"]
        projections = 4 * length * _dense(features, features)
        attention = 2 * length * _dense(length, features)
        perceptron = 2 * length * _dense(features, 4 * features)
        return [projections, attention, perceptron] * layers + [_dense(features, SENTIMENTS)]
    raise ValueError(model)


def _dense(inputs: int, outputs: int) -> int:
    return 2 * inputs * outputs


def _conv(side: int, inputs: int, outputs: int, *, window: int = 3, stride: int = 1) -> int:
    """Operations of a convolution of a square image with "same" padding, not counting products with the padding."""
    positions = -(-side // stride)
    before = max((positions - 1) * stride + window - side, 0) // 2
    covered = sum(0 <= i * stride - before + tap < side for i in range(positions) for tap in range(window))
    return covered**2 * _dense(inputs, outputs)
