"""RetinaNet: its outputs, initialization and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls.models import detection, functional
from jaxcls.models import retinanet as models

SMALL = {"widths": (4, 6, 8, 8), "features": 8, "depth": 1}


def build(shape, num_classes=3, **options):
    return functional(lambda rngs: models.RetinaNet(shape, num_classes, rngs=rngs, **SMALL | options))


@pytest.mark.parametrize("shape", [(64, 64, 1), (128, 96, 3), (100, 70, 1), (256, 300, 3)])
def test_outputs_have_one_row_per_anchor_of_the_canvas(shape):
    model = build(shape)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    outputs, _ = jax.eval_shape(model.apply, params, state, images)
    count = len(detection.canvas_anchors(*shape[:2]).boxes(*shape[:2]))
    assert outputs.canvas == shape[:2]
    assert outputs.outputs["class_logits"].shape == (2, count, 3)
    assert outputs.outputs["box_deltas"].shape == (2, count, 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_are_float32_and_finite_and_every_parameter_learns(dtype):
    model = build((64, 64, 1), dropout=0.1, dtype=jnp.dtype(dtype))
    params, state = model.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(1), (3, 64, 64, 1))

    def total(params):
        outputs, _ = model.apply(params, state, images, key=jax.random.key(2))
        assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(outputs))

    gradient = jax.jit(jax.grad(total))(params)
    assert all(bool(jnp.isfinite(leaf).all()) and bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("prior", "expected"), [(0.01, 0.01), (None, 0.5)])
def test_initial_probabilities_are_near_the_prior(prior, expected):
    model = build((64, 64, 1), prior=prior)
    images = jax.random.normal(jax.random.key(1), (2, 64, 64, 1))
    outputs, _ = jax.jit(model.apply)(*model.init(jax.random.key(0)), images, key=jax.random.key(2))
    np.testing.assert_allclose(jax.nn.sigmoid(outputs.outputs["class_logits"]), expected, rtol=0.5)


def test_logits_of_an_anchor_depend_on_the_pixels_under_it():
    """The logits of an anchor depend on the pixels under it: outputs are in the order of the anchors."""
    model, grid = build((128, 64, 1), depth=0), detection.canvas_anchors(128, 64)
    params, state = model.init(jax.random.key(0))
    anchors, first = grid.boxes(128, 64), grid.counts(128, 64)[0]
    centers = (anchors[:first, :2] + anchors[:first, 2:]) / 2

    def logits(images):
        return model.apply(params, state, images)[0].outputs["class_logits"][0, :first, 0]

    seen = jnp.abs(jax.jit(jax.jacrev(logits))(jnp.ones((1, 128, 64, 1))))[:, 0, :, :, 0]
    for anchor in (0, 100, 301, first - 1):
        rows, columns = np.nonzero(np.asarray(seen[anchor]) > np.quantile(seen[anchor], 0.99))
        np.testing.assert_allclose([columns.mean(), rows.mean()], centers[anchor], atol=12)


def test_one_model_takes_all_canvases_with_the_same_longer_side():
    model = build((128, 128, 1))
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    for canvas in ((96, 128), (128, 64)):
        outputs, _ = jax.eval_shape(model.apply, params, state, jax.ShapeDtypeStruct((2, *canvas, 1), jnp.float32))
        assert outputs.canvas == canvas
        count = len(detection.canvas_anchors(*canvas).boxes(*canvas))
        assert outputs.outputs["class_logits"].shape == (2, count, 3)
    with pytest.raises(AssertionError, match="levels"):
        jax.eval_shape(model.apply, params, state, jax.ShapeDtypeStruct((2, 64, 64, 1), jnp.float32))


def test_layers_before_normalization_have_no_bias():
    params, _ = jax.eval_shape(build((64, 64, 1)).init, jax.random.key(0))
    paths = ["/".join(str(part.key) for part in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    stages = [path for path in paths if path.startswith(("stem", "stages")) and path.endswith("/bias")]
    assert all("norm" in path for path in stages)


def test_upsampled_maps_are_cropped_to_the_next_level():
    assert models.upsample(jnp.ones((1, 3, 2, 1)), (1, 5, 4, 1)).shape == (1, 5, 4, 1)
