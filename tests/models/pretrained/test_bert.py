"""BERT, RoBERTa and DistilBERT against transformers, and what a config.json may say."""

import re

import chex
import jax.numpy as jnp
import pytest
from pretrained_oracle import Fixture, check_bfloat16, check_outputs_and_gradients, check_padding

from jaxcls._utils.errors import InputError
from jaxcls.models.pretrained import architecture


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def fixture(request):
    return Fixture(request.param)


def test_outputs_and_gradients_are_those_of_transformers(fixture):
    check_outputs_and_gradients(fixture)


def test_outputs_are_independent_of_padding(fixture):
    check_padding(fixture)


def test_bfloat16_is_near_float32(fixture):
    check_bfloat16(fixture)


def test_names_of_older_checkpoints_and_of_the_encoder_alone_are_known():
    fixture = Fixture("bert")
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {
        re.sub("|".join(older), lambda match: older[match[0]], name).removeprefix("bert."): tensor
        for name, tensor in fixture.tensors.items()
    }
    tensors["embeddings.position_ids"] = jnp.arange(13)[None]
    chex.assert_trees_all_equal(fixture.model(tensors=tensors)[1], fixture.model()[1])


def test_xlm_roberta_and_configs_without_optional_keys():
    fixture = Fixture("roberta")
    config = {**fixture.config, "model_type": "xlm-roberta"}
    del config["pad_token_id"]
    encoder = architecture.find(config, "tiny")
    assert (encoder.padding, encoder.max_length, encoder.layers, encoder.width) == (1, 11, 2, 16)


def test_depth_counts_the_blocks():
    encoder = Fixture("distilbert").architecture
    names = ("word_embeddings.weight", "LayerNorm.bias", "blocks.0.query.bias", "blocks.1.norm2.weight")
    assert [encoder.depth(name) for name in names] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"hidden_act": "swish"}, "config.json is damaged: hidden_act is 'swish'; it must be gelu or gelu_new"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder is True"),
        ("bert", {"hidden_size": 15}, "hidden_size is 15; it must be a multiple of num_attention_heads, 2"),
        ("bert", {"pad_token_id": 24}, "pad_token_id is 24; it must be 0 to 23"),
        ("bert", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must be 1 to 1000"),
        ("bert", {"layer_norm_eps": "1"}, "layer_norm_eps is '1'; it must be a number"),
        ("bert", {"hidden_dropout_prob": 5}, "hidden_dropout_prob is 5; it must be 0 to 1"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings is 2; it must be 3 to"),
        ("distilbert", {"dim": -16}, "dim is -16; it must be 1 to"),
        ("distilbert", {"n_heads": None}, "n_heads is None; it must be an integer"),
    ],
)
def test_other_variations_and_damaged_configs_are_refused(family, changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        architecture.find({**Fixture(family).config, **changes}, "tiny")
    assert str(error.value).startswith("tiny: config.json")


def test_missing_sizes_are_refused():
    with pytest.raises(InputError, match="vocab_size is missing"):
        architecture.find({"model_type": "bert"}, "tiny")
