"""Keras 3 on JAX or TensorFlow, trained on arrays as in its guides: model.compile and model.fit."""

import math
import os
from collections.abc import Callable
from typing import Any

from peers import workloads
from peers.workloads import Train, Workload


def keras_jax(workload: Workload) -> tuple[int, Train]:
    return _fit("jax", workload)


def keras_tensorflow(workload: Workload) -> tuple[int, Train]:
    return _fit("tensorflow", workload)


def _fit(backend: str, workload: Workload) -> tuple[int, Train]:
    workloads.refuse_newer(workload)
    os.environ["KERAS_BACKEND"] = backend
    import keras

    inputs = workload.inputs if workload.model == "transformer" else workloads.normalized(workload.inputs)
    network = {"mlp": _mlp, "cnn": _cnn, "resnet": _resnet, "transformer": _transformer}[workload.model]()
    network.compile(
        optimizer=keras.optimizers.Adam(workloads.LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def train(count: int, epochs: int, turn: Callable[[], None]) -> None:
        callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: turn())
        network.fit(
            inputs[:count],
            workload.labels[:count],
            batch_size=workload.batch_size,
            epochs=epochs,
            shuffle=True,
            verbose=0,
            callbacks=[callback],
        )

    return sum(math.prod(weight.shape) for weight in network.trainable_weights), train


def _mlp() -> Any:
    import keras
    from keras import layers

    hidden = [layers.Dense(width, activation="relu") for width in workloads.HIDDEN]
    return keras.Sequential([keras.Input(workloads.IMAGE), layers.Flatten(), *hidden, layers.Dense(workloads.ARTICLES)])


def _cnn() -> Any:
    import keras
    from keras import layers

    network = keras.Sequential([keras.Input(workloads.IMAGE)])
    for channels in workloads.CHANNELS:
        network.add(layers.Conv2D(channels, 3, padding="same", activation="relu"))
        network.add(layers.MaxPooling2D())
    network.add(layers.Flatten())
    network.add(layers.Dense(workloads.DENSE, activation="relu"))
    network.add(layers.Dense(workloads.ARTICLES))
    return network


def _resnet() -> Any:
    import keras
    from keras import layers

    def norm_relu(x: Any) -> Any:
        norm = layers.BatchNormalization(momentum=workloads.BATCH_NORM_MOMENTUM, epsilon=workloads.BATCH_NORM_EPSILON)
        return layers.ReLU()(norm(x))

    def conv(x: Any, channels: int, window: int = 3, strides: int = 1) -> Any:
        return layers.Conv2D(channels, window, strides=strides, padding="same", use_bias=False)(x)

    images = keras.Input(workloads.IMAGE)
    previous = workloads.WIDTHS[0]
    x = conv(images, previous)
    for stage, width in enumerate(workloads.WIDTHS):
        strides = 2 if stage else 1
        activated = norm_relu(x)
        shortcut = conv(activated, width, 1, strides) if previous != width else x
        x = layers.Add()([shortcut, conv(norm_relu(conv(activated, width, strides=strides)), width)])
        previous = width
    pooled = layers.GlobalAveragePooling2D()(norm_relu(x))
    return keras.Model(images, layers.Dense(workloads.ARTICLES)(pooled))


def _transformer() -> Any:
    import keras
    from keras import layers, ops

    width = workloads.FEATURES

    class TokensAndPositions(layers.Layer):
        """The block of Keras's example of text classification with a transformer."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = layers.Embedding(workloads.VOCABULARY, width)
            self.positions = layers.Embedding(workloads.LENGTH, width)

        def build(self, shape: Any) -> None:
            self.tokens.build(shape)
            self.positions.build((workloads.LENGTH,))

        def call(self, tokens: Any) -> Any:
            return self.tokens(tokens) + self.positions(ops.arange(workloads.LENGTH))

    def norm() -> Any:
        return layers.LayerNormalization(epsilon=workloads.LAYER_NORM_EPSILON)

    tokens = keras.Input((workloads.LENGTH,), dtype="int32")
    present = ops.not_equal(tokens, 0)
    x = layers.Dropout(workloads.DROPOUT)(TokensAndPositions()(tokens))
    for _ in range(workloads.LAYERS):
        attention = layers.MultiHeadAttention(workloads.HEADS, width // workloads.HEADS, use_bias=False)
        y = norm()(x)
        y = attention(y, y, attention_mask=ops.expand_dims(present, 1))
        x = layers.Add()([x, layers.Dropout(workloads.DROPOUT)(y)])
        y = layers.Dense(4 * width)(norm()(x))
        y = layers.Dense(width)(layers.Activation(_gelu)(y))
        x = layers.Add()([x, layers.Dropout(workloads.DROPOUT)(y)])
    average = layers.GlobalAveragePooling1D()(norm()(x), mask=present)
    return keras.Model(tokens, layers.Dense(workloads.SENTIMENTS)(layers.Dropout(workloads.DROPOUT)(average)))


def _gelu(x: Any) -> Any:
    from keras import ops

    return ops.gelu(x, approximate=True)
