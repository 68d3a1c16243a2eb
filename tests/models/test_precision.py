"""In bfloat16 every family learns as in float32, and keeps its weights and statistics in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcls import losses
from jaxcls.data import batching
from jaxcls.data.preprocessing import tables
from jaxcls.models import functional, tabular, text, vision
from jaxcls.training import steps

COUNT, CLASSES = 48, 3
RNG = np.random.default_rng(0)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
IMAGES = (RNG.normal(size=(COUNT, 8, 8, 1)) + LABELS[:, None, None, None]).astype(np.float32)
TOKENS = (RNG.integers(1, 12, (COUNT, 8)) + 12 * LABELS[:, None]).astype(np.int32)
COLUMNS = {"size": RNG.normal(size=COUNT) + LABELS, "colour": np.array(["red", "green", "blue"], object)[LABELS]}
FITTED = tables.fit(COLUMNS)

IMAGE = {"input_shape": (8, 8, 1)}
TEXT = {"vocabulary_size": 40, "max_length": 8}
FAMILIES = {
    "mlp": (functools.partial(vision.MLP, hidden=(16,), **IMAGE), IMAGES),
    "cnn": (functools.partial(vision.CNN, channels=(4, 8), dense=16, **IMAGE), IMAGES),
    "resnet": (functools.partial(vision.ResNet, widths=(4, 8), **IMAGE), IMAGES),
    "vgg": (functools.partial(vision.VGG, stages=((4,), (8,)), **IMAGE), IMAGES),
    "ngrams": (functools.partial(text.NGramClassifier, buckets=512, **TEXT), TOKENS),
    "text-cnn": (functools.partial(text.TextCNN, embedding=8, channels=8, **TEXT), TOKENS),
    "transformer": (functools.partial(text.Transformer, features=16, heads=2, **TEXT), TOKENS),
    "linear": (functools.partial(tabular.TabularLinear, **FITTED.model_arguments), FITTED.transform(COLUMNS)),
    "tabular-mlp": (
        functools.partial(tabular.TabularMLP, hidden=(8,), **FITTED.model_arguments),
        FITTED.transform(COLUMNS),
    ),
}


def trained(family, dtype):
    build, inputs = FAMILIES[family]
    model = functional(lambda rngs: build(num_classes=CLASSES, dropout=0.0, dtype=jnp.dtype(dtype), rngs=rngs))
    optimizer = optax.adam(1e-2)
    loss = losses.get("softmax_cross_entropy", normalizer="batch")
    prepare = FITTED.normalize if isinstance(inputs, dict) else lambda inputs: inputs
    chunk = steps.make_train_chunk(steps.make_train_step(model, loss, optimizer, preprocess=prepare))
    state = steps.init_state(model, optimizer, 0)
    one = batching.take(batching.examples(inputs, LABELS), np.arange(COUNT), np.ones(COUNT, bool))
    state, metrics = chunk(state, jax.tree.map(lambda leaf: np.stack([leaf] * 8), one))
    assert bool(metrics.applied.all())
    return state, np.asarray(metrics.loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_in_bfloat16_as_in_float32(family):
    _, exact = trained(family, "float32")
    state, rough = trained(family, "bfloat16")
    assert exact[-1] < exact[0] - 0.02
    # A number of bfloat16 has eight bits: the rounding of some layers is a few hundredths.
    np.testing.assert_allclose(rough, exact, atol=0.05)
    assert not np.array_equal(rough, exact), "it was computed in bfloat16"
    assert rough.dtype == np.float32
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert kinds == {np.dtype("float32")}
