"""EfficientNet and MobileNet against timm, and what their config.json may say."""

import jax
import pytest
from flax import nnx
from pretrained_oracle import Fixture, check_bfloat16, check_outputs, check_outputs_and_gradients, check_training

from jaxcls._utils.errors import InputError
from jaxcls.models.pretrained.architecture import find


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "mobilenetv3_small_100"])
def test_outputs_gradients_and_training(name):
    fixture = Fixture(name)
    check_outputs_and_gradients(fixture)
    # The last layers normalize by the statistics of three pixels, which magnifies rounding errors.
    check_training(fixture, tolerance=1e-3)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv2_100"])
def test_outputs(name):
    check_outputs(Fixture(name))


def test_bfloat16():
    check_bfloat16(Fixture("efficientnet_lite0"))


def test_training_leaves_out_a_block_for_some_images():
    network = Fixture("efficientnet_lite0").architecture.build(rngs=nnx.Rngs(0), dropout=0.9)
    images = jax.random.normal(jax.random.key(1), (16, 2, 2, 8))
    block = network.blocks.layers[4]
    unchanged = (block(images) == images).all(axis=(1, 2, 3))
    assert 0 < unchanged.sum() < 16
    block.eval()
    assert not (block(images) == images).any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "efficientnet_b9"}, "efficientnet_b9"),
        ({"architecture": "mobilenetv3_large_150d"}, "mobilenetv3_large_150d"),
        ({"architecture": "mobilenetv2_100", "model_args": {"act_layer": "gelu"}}, "act_layer='gelu'"),
        ({"architecture": "efficientnet_b0", "model_args": {"depth_multiplier": 1e9}}, "depth_multiplier"),
    ],
)
def test_variations_that_are_not_supported_are_errors(config, message):
    with pytest.raises(InputError, match=f"tiny.*{message}"):
        find(config, "tiny")
