"""Pretrained networks for images equal those of transformers and timm."""

import chex
import jax
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.models.pretrained import architecture as architectures
from jaxcls.models.pretrained import weights
from tests.helpers import pretrained_oracle as oracle

NAMES = [
    "vit", "deit", "dinov2", "vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "resnet", "resnet18", "convnext",
    "convnextv2", "convnext_atto",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_equal_those_of_the_reference(name):
    oracle.check_outputs_and_gradients(oracle.Fixture(name))


def test_batch_normalization_in_training_equals_that_of_the_reference():
    oracle.check_training(oracle.Fixture("resnet"))


@pytest.mark.parametrize("name", ["dinov2", "resnet", "convnext"])
def test_bfloat16_is_near_float32(name):
    oracle.check_bfloat16(oracle.Fixture(name))


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_belongs_to_a_layer_and_each_layer_has_parameters(name):
    fixture = oracle.Fixture(name)
    _, params, _ = fixture.model()
    names = [weights.dotted(path) for path, _ in jax.tree.flatten_with_path(params)[0]]
    assert {fixture.architecture.depth(name) for name in names} == set(range(fixture.architecture.layers + 1))


@pytest.mark.parametrize("name", ["vit", "resnet", "convnext"])
def test_weights_of_a_backbone_alone_are_read(name):
    fixture = oracle.Fixture(name)
    tensors = {
        key.removeprefix(f"{name}."): tensor for key, tensor in fixture.tensors.items() if "classifier" not in key
    }
    _, params, _ = fixture.model(tensors=tensors)
    chex.assert_trees_all_equal(params, fixture.model()[1])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vit", {"hidden_act": "relu"}, "hidden_act is 'relu'; it must be 'gelu'"),
        ("vit", {"hidden_size": 0}, "hidden_size is 0; it must be an integer from 1 to 65535"),
        ("vit", {"hidden_size": 9}, "2 heads do not divide 9 features evenly"),
        ("vit", {"patch_size": 17}, "patches of 17 pixels exceed the image"),
        ("vit", {"image_size": None}, "image_size is None; it must be an integer"),
        ("vit", {"layer_norm_eps": float("nan")}, "layer_norm_eps is nan; it must be a number from 0 to 1"),
        ("dinov2", {"use_swiglu_ffn": True}, "use_swiglu_ffn is True; it must be False"),
        ("vit_tiny_patch16_224", {"architecture": "vit_so400m_patch14_siglip_224"}, "vit_so400m_patch14_siglip_224"),
        ("vit_tiny_patch16_224", {"model_args": {"class_token": False}}, "class_token=False of timm is not supported"),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "model_args": {}}, "global_pool is 'avg'; it must be 'token'"),
        ("vit_tiny_patch16_224", {"pretrained_cfg": []}, "pretrained_cfg is list; it must be an object"),
        ("resnet", {"depths": [1, 0]}, r"depths is \[1, 0\]; it must be a list, each item an integer from 1 to 1023"),
        ("resnet", {"depths": [1]}, "one number for each stage"),
        ("resnet", {"num_channels": 1}, "num_channels is 1; it must be 3"),
        ("resnet18", {"architecture": "resnet200"}, "'resnet200'; of timm's residual networks"),
        ("convnext", {"hidden_sizes": "tiny"}, "hidden_sizes is 'tiny'; it must be a list"),
        ("convnext_atto", {"architecture": "convnext_zepto_rms"}, "'convnext_zepto_rms'; of ConvNeXt jaxcls has"),
    ],
)
def test_an_unsupported_config_is_refused_by_name(name, changes, message):
    with pytest.raises(InputError, match=message):
        architectures.find(oracle.Fixture(name).config | changes, "tiny")


def test_a_size_that_is_missing_is_named():
    config = oracle.Fixture("vit").config
    del config["patch_size"]
    with pytest.raises(InputError, match="patch_size is missing; it must be an integer"):
        architectures.find(config, "tiny")
