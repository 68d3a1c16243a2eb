"""Checkpoints as models: what learns, what is refused, and what is written back."""

import json
import shutil

import jax
import numpy as np
import pretrained_folder
import pytest
from pretrained_oracle import FIXTURES
from safetensors.numpy import load_file, save_file

import jaxcls
from jaxcls import optimizers
from jaxcls._utils.errors import InputError
from jaxcls.models import pretrained
from jaxcls.models.pretrained import checkpoint

BERT = FIXTURES / "bert"
TOKENS = np.array([[2, 5, 6, 3], [2, 7, 3, 0]] * 4, np.int32)
LABELS = np.arange(8) % 2


def weights(model, state):
    return model.tensors(state.params, state.model_state)


def fitted(model, **options):
    compiled = jaxcls.compile(model, optimizers.sgd(0.1, **options), "sparse_categorical_crossentropy")
    before = compiled.init()
    after, _ = compiled.fit(before, (TOKENS, LABELS), epochs=1, batch_size=8, verbose=False)
    return compiled, before, after


def changed(model, before, after):
    old, new = weights(model, before), weights(model, after)
    return {name for name in old if (old[name] != new[name]).any()}


def test_the_weights_are_those_of_the_checkpoint_and_the_classifier_is_new():
    model = pretrained.load(BERT, 2)
    compiled = jaxcls.compile(model, "sgd", "sparse_categorical_crossentropy")
    tensors, stored = weights(model, compiled.init()), load_file(BERT / "model.safetensors")
    assert {name for name in tensors if (tensors[name] != stored[name]).any()} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert compiled.features(compiled.init(), TOKENS).shape == (8, 16)


def test_without_num_classes_the_classifier_is_that_of_the_checkpoint():
    params, _ = pretrained.load(FIXTURES / "resnet18").init(jax.random.key(0))
    stored = load_file(FIXTURES / "resnet18" / "model.safetensors")
    np.testing.assert_array_equal(params["head"]["kernel"].T, stored["fc.weight"])
    with pytest.raises(InputError, match="no linear classifier"):
        pretrained.load(BERT)


@pytest.mark.parametrize(
    ("freeze", "learning"),
    [
        ("backbone", {"classifier"}),
        ("1", {"classifier", "layer.1"}),
        ("embeddings", {"classifier", "layer.0", "layer.1"}),
        ("nothing", {"classifier", "layer.0", "layer.1", "embeddings"}),
    ],
)
def test_frozen_layers_do_not_learn(freeze, learning):
    model = pretrained.load(BERT, 2, freeze=freeze)
    _, before, after = fitted(model)
    names = changed(model, before, after)
    assert {
        part for part in ("classifier", "layer.0", "layer.1", "embeddings") if any(part in name for name in names)
    } == (learning)


def test_lora_starts_as_the_checkpoint_and_changes_the_attention_alone():
    model = pretrained.load(BERT, 2, lora_rank=2, dropout=0.0)
    compiled, before, after = fitted(model)
    plain = jaxcls.compile(pretrained.load(BERT, 2, dropout=0.0), "sgd", "sparse_categorical_crossentropy")
    np.testing.assert_array_equal(compiled.features(before, TOKENS), plain.features(plain.init(), TOKENS))
    assert {name.split(".")[-2] for name in changed(model, before, after)} <= {"classifier", "query", "value"}
    assert sum(leaf.size for leaf in jax.tree.leaves(after.params)) < 600
    # The merged weights compute what the model computes.
    merged = model.settings.merged(after.params, after.model_state)
    tokens = plain.predict(after._replace(params={**merged[0], **merged[1]}, model_state={}), TOKENS)
    np.testing.assert_allclose(tokens, compiled.predict(after, TOKENS), rtol=1e-5)


def test_layers_far_from_the_classifier_learn_at_lower_rates_and_the_classifier_may_learn_first():
    model = pretrained.load(BERT, 2, dropout=0.0)
    scale = model.learning_rate_scale(decay=0.5, head_first=1)
    factors = scale(model.init(jax.random.key(0))[0])
    blocks = factors["backbone"]["blocks"]["layers"]
    values = [
        factors["backbone"]["word_embeddings"]["embedding"],
        *(blocks[index]["query"]["kernel"] for index in (0, 1)),
    ]
    assert [float(value(1)) for value in values] == [0.125, 0.25, 0.5]
    _, before, after = fitted(model, learning_rate_scale=scale)
    assert changed(model, before, after) == {"classifier.weight", "classifier.bias"}


def copy(tmp_path):
    return shutil.copytree(BERT, tmp_path / "copy", ignore=shutil.ignore_patterns("expected*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("bert.embeddings.LayerNorm.weight"), "lacks bert.embeddings.LayerNorm.weight"),
        (lambda tensors: tensors.update(extra=np.zeros(1, np.float32)), "has unused extra"),
        (
            lambda tensors: tensors.update({"bert.embeddings.LayerNorm.weight": np.zeros(3, np.float32)}),
            r"other shapes: bert.embeddings.LayerNorm.weight \(3,\)",
        ),
        (
            lambda tensors: tensors["bert.embeddings.LayerNorm.weight"].fill(np.nan),
            "bert.embeddings.LayerNorm.weight has values that are not finite",
        ),
    ],
    ids=["missing", "unused", "misshaped", "not finite"],
)
def test_every_tensor_is_accounted_for(tmp_path, change, message):
    folder = copy(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        pretrained.load(folder, 2)


def test_shards_are_read_and_missing_ones_refused(tmp_path):
    folder = copy(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {f"model-{index}.safetensors": names[index::2] for index in range(2)}
    for name, group in shards.items():
        save_file({key: tensors[key] for key in group}, folder / name)
    index = {"weight_map": {key: name for name, group in shards.items() for key in group}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = checkpoint.find(folder)
    assert loaded.tensors().keys() == tensors.keys()
    assert loaded.sha256.keys() == {"config.json", *shards}
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match="lacks some of the files"):
        pretrained.load(folder, 2)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    folder = copy(tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])
    with pytest.raises(InputError, match="is damaged"):
        pretrained.load(folder, 2)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model.safetensors. pytorch_model.bin is not read"):
        pretrained.load(folder, 2)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        pretrained.load(folder, 2)


def test_a_name_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="hf download owner/model"):
        pretrained.load("owner/model", 2)
    with pytest.raises(InputError, match="no name on the Hugging Face hub"):
        pretrained.load("no/such/folder", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"freeze": "3"}, "a number of blocks up to 2"), ({"lora_rank": 2, "lora_targets": ["qkv"]}, "no layer qkv")],
)
def test_options_that_do_not_fit_the_network_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        pretrained.load(BERT, 2, **options)


def test_a_folder_of_the_helper_is_a_checkpoint(tmp_path):
    assert "tokenizer.json" in checkpoint.find(pretrained_folder.write(tmp_path / "bert")).sha256
