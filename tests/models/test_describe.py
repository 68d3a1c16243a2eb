"""`jaxcls.describe` lists the layers, parameters and operations of a model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcls
from jaxcls.models import functional, tabular, text, vision

TABLE = {"bins": ((0.0, 1.0), ()), "flags": 1, "cardinalities": (3,)}
TOKENS = {"vocabulary_size": 50, "max_length": 12}


def columns():
    shapes = {"numeric": (2, "float32"), "missing": (1, "float32"), "categories": (1, "int32")}
    return {name: jax.ShapeDtypeStruct((4, width), kind) for name, (width, kind) in shapes.items()}


@pytest.mark.parametrize(
    ("build", "arguments", "inputs", "layer"),
    [
        (vision.CNN, {"input_shape": (16, 16, 1)}, ((4, 16, 16, 1), "float32"), "features.layers.0"),
        (vision.ResNet, {"input_shape": (16, 16, 1)}, ((4, 16, 16, 1), "float32"), "stages.layers.0.conv1"),
        (text.Transformer, TOKENS, ((4, 12), "int32"), "blocks.layers.1.attention.inward"),
        (text.NGramClassifier, {**TOKENS, "buckets": 8}, ((4, 12), "int32"), "votes"),
        (tabular.TabularMLP, TABLE, None, "embeddings.table"),
    ],
    ids=["cnn", "resnet", "transformer", "ngrams", "table"],
)
def test_every_layer_is_named_and_all_parameters_are_counted(build, arguments, inputs, layer):
    model = functional(lambda rngs: build(num_classes=3, rngs=rngs, **arguments))
    shapes = columns() if inputs is None else jax.ShapeDtypeStruct(*inputs)
    lines = jaxcls.describe(model, shapes).splitlines()
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert lines[1].split() == [".", build.__name__, "float32[4,3]", f"{count:,}"]
    assert layer in [line.split()[0] for line in lines[2:-2]]
    assert lines[-1].startswith(f"{count:,} parameters ({4 * count:,} bytes), ")
    # At least a multiplication and an addition for each parameter of the head.
    assert int(re.search(r", ([\d,]+) FLOPs", lines[-1])[1].replace(",", "")) > 2 * 4 * 3


def test_flops_of_a_matrix_product():
    description = jaxcls.describe(nnx.Linear(64, 32, use_bias=False, rngs=nnx.Rngs(0)), np.zeros((8, 64), np.float32))
    assert description.endswith(f"2,048 parameters (8,192 bytes), {2 * 8 * 64 * 32:,} FLOPs per batch")


class CustomModel(nnx.Module):
    """A user's model, with a layer that is used twice and one that learns without a gradient."""

    def __init__(self, rngs):
        self.twice = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, inputs):
        return {"scores": self.norm(self.twice(self.twice(inputs["x"])))}


def test_describe_does_not_change_the_model():
    model = CustomModel(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.state(model))
    description = jaxcls.describe(model, {"x": jnp.ones((2, 4))})
    assert [line.split()[0] for line in description.splitlines()[1:-2]] == [".", "twice", "twice", "norm"]
    assert "28 parameters" in description
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model))
    assert model.norm.use_running_average is not True
    assert nnx.Linear.__call__.__name__ == "__call__"
    with pytest.raises(TypeError):
        jaxcls.describe(model, {"x": jnp.ones((2, 5))})
    # The patched classes are restored even after an error.
    assert nnx.Linear.__call__.__qualname__ == "Linear.__call__"


def test_unknown_attribute_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'describ'"):
        _ = jaxcls.describ
