"""Vision models return float32 logits for images of any size and in any compute type."""

import jax
import jax.numpy as jnp
import pytest

from jaxcls.models import functional, vision

BUILDERS = {
    "mlp": lambda rngs, **o: vision.MLP((12, 10, 1), 7, hidden=(16, 8), dropout=0.1, rngs=rngs, **o),
    "cnn": lambda rngs, **o: vision.CNN((12, 10, 1), 7, channels=(4, 8), dense=16, rngs=rngs, **o),
    "resnet": lambda rngs, **o: vision.ResNet((12, 10, 1), 7, widths=(4, 8), blocks=2, rngs=rngs, **o),
    "resnet-pooled": lambda rngs, **o: vision.ResNet((12, 10, 1), 7, widths=(4, 8), pooled_stem=True, rngs=rngs, **o),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BUILDERS)
def test_logits_are_float32_and_finite_in_any_compute_dtype(name, dtype):
    model = functional(lambda rngs: BUILDERS[name](rngs, dtype=jnp.dtype(dtype)))
    params, state = model.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(1), (3, 12, 10, 1))
    for key in (None, jax.random.key(2)):
        logits, _ = jax.jit(model.apply)(params, state, images, key=key)
        assert logits.shape == (3, 7)
        assert logits.dtype == jnp.float32
        assert bool(jnp.isfinite(logits).all())


def test_layers_before_normalization_have_no_bias():
    params, _ = jax.eval_shape(functional(BUILDERS["resnet"]).init, jax.random.key(0))
    paths = ["/".join(str(part.key) for part in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    with_bias = {path.removesuffix("/bias").rpartition("/")[2] for path in paths if path.endswith("/bias")}
    assert with_bias == {"norm", "norm1", "norm2", "head"}


@pytest.mark.parametrize(("widths", "blocks"), [((4,), 1), ((4, 8), 2), ((4, 8, 8), 1)])
def test_resnet_depth(widths, blocks):
    model = functional(lambda rngs: vision.ResNet((8, 8, 1), 3, widths=widths, blocks=blocks, rngs=rngs))
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    layers = [
        path for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > 1 and "shortcut" not in str(path)
    ]  # fmt: skip
    assert len(layers) == 2 * len(widths) * blocks + 2


def parameter_shapes(build, shape):
    """The parameter shapes of a network for images of this shape, without computing anything."""
    model = functional(lambda rngs: build(shape, 5, rngs=rngs))
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    logits, _ = jax.eval_shape(model.apply, params, state, images)
    assert logits.shape == (2, 5)
    return [leaf.shape for leaf in jax.tree.leaves(params)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 33, 64, 65, 95, 96, 127, 224])
@pytest.mark.parametrize("build", [vision.MLP, vision.CNN, vision.ResNet])
def test_networks_accept_images_of_any_size(build, size, channels):
    parameter_shapes(build, (size, size - 1, channels))


@pytest.mark.parametrize(("size", "convolutions"), [(12, 3), (28, 3), (64, 3), (65, 4), (96, 4), (128, 4), (224, 5)])
def test_a_cnn_grows_with_the_image_and_its_dense_layer_does_not(size, convolutions):
    shapes = parameter_shapes(vision.CNN, (size, size, 1))
    assert sum(len(shape) == 4 for shape in shapes) == convolutions
    assert max(shape[0] for shape in shapes if len(shape) == 2) <= 8 * 8 * 128


@pytest.mark.parametrize(("size", "kernel"), [(28, 3), (95, 3), (96, 7), (224, 7)])
def test_resnet_stem_is_larger_for_large_images(size, kernel):
    assert (kernel, kernel, 3, 32) in parameter_shapes(vision.ResNet, (size, size, 3))


@pytest.mark.parametrize(("build", "size"), [(vision.CNN, 101), (vision.ResNet, 101), (vision.ResNet, 27)])
def test_networks_of_odd_sizes_have_finite_gradients(build, size):
    shape = (size, size - 2, 3)
    small = {"channels": (4, 8), "dense": 16} if build is vision.CNN else {"widths": (2, 4)}
    model = functional(lambda rngs: build(shape, 2, rngs=rngs, **small))
    params, state = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, *shape))

    @jax.jit
    @jax.grad
    def gradient(params):
        logits, _ = model.apply(params, state, images, key=jax.random.key(2))
        return jnp.sum(logits**2)

    assert all(bool(jnp.isfinite(leaf).all()) and bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient(params)))
