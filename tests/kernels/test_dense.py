"""Convolutions and dense layers of the models go through `ops`, where native kernels can take their place."""

import pytest
from flax import nnx

from jaxcls import kernels
from jaxcls.models import tabular, vision
from jaxcls.models.layers import Conv, Linear, PooledConv

MODELS = {
    "mlp": lambda rngs: vision.MLP((8, 8, 1), 3, hidden=(4,), rngs=rngs),
    "cnn": lambda rngs: vision.CNN((8, 8, 1), 3, channels=(4,), dense=4, rngs=rngs),
    "resnet": lambda rngs: vision.ResNet((8, 8, 1), 3, widths=(4, 8), rngs=rngs),
    "linear": lambda rngs: tabular.TabularLinear(3, bins=[[0.0, 1.0]], flags=0, cardinalities=(), rngs=rngs),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_convolution_and_dense_layer_uses_the_kernels(name):
    module = nnx.eval_shape(lambda: MODELS[name](nnx.Rngs(0)))
    nodes = [node for _, node in nnx.iter_graph(module)]
    products = [node for node in nodes if isinstance(node, nnx.Linear)]
    convolutions = [type(node) for node in nodes if isinstance(node, nnx.Conv)]
    assert products
    assert all(isinstance(node, Linear) or node.dot_general is kernels.dot_general for node in products)
    assert set(convolutions) <= {Conv, PooledConv}
