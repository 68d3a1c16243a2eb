"""Each model takes images and gives float32 logits, in each type of computation."""

import jax
import jax.numpy as jnp
import pytest

from jaxcls.models import vision
from jaxcls.models.functional import functional

BUILDERS = {
    "mlp": lambda rngs, **o: vision.MLP((12, 10, 1), 7, hidden=(16, 8), dropout=0.1, rngs=rngs, **o),
    "cnn": lambda rngs, **o: vision.CNN((12, 10, 1), 7, channels=(4, 8), dense=16, rngs=rngs, **o),
    "resnet": lambda rngs, **o: vision.ResNet((12, 10, 1), 7, widths=(4, 8), blocks=2, rngs=rngs, **o),
    "resnet-pooled": lambda rngs, **o: vision.ResNet((12, 10, 1), 7, widths=(4, 8), pooled_stem=True, rngs=rngs, **o),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BUILDERS)
def test_logits_are_float32_and_finite_whatever_the_computation(name, dtype):
    model = functional(lambda rngs: BUILDERS[name](rngs, dtype=jnp.dtype(dtype)))
    params, state = model.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(1), (3, 12, 10, 1))
    for key in (None, jax.random.key(2)):
        logits, _ = jax.jit(model.apply)(params, state, images, key=key)
        assert logits.shape == (3, 7)
        assert logits.dtype == jnp.float32
        assert bool(jnp.isfinite(logits).all())


def test_no_bias_stands_before_a_normalisation():
    params, _ = functional(BUILDERS["resnet"]).init(jax.random.key(0))
    paths = ["/".join(str(part.key) for part in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    with_bias = {path.removesuffix("/bias").rpartition("/")[2] for path in paths if path.endswith("/bias")}
    assert with_bias == {"norm", "norm1", "norm2", "head"}


@pytest.mark.parametrize(("widths", "blocks"), [((4,), 1), ((4, 8), 2), ((4, 8, 8), 1)])
def test_a_resnet_is_as_deep_as_it_says(widths, blocks):
    params, _ = functional(lambda rngs: vision.ResNet((8, 8, 1), 3, widths=widths, blocks=blocks, rngs=rngs)).init(
        jax.random.key(0)
    )
    layers = [
        path for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > 1 and "shortcut" not in str(path)
    ]  # fmt: skip
    assert len(layers) == 2 * len(widths) * blocks + 2
