"""A task with a pretrained encoder, from the command line to its exports."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pretrained_folder
import pytest
from PIL import Image
from pretrained_oracle import FIXTURES
from safetensors.numpy import load_file

from jaxcls._utils import environment
from jaxcls.cli.main import main
from jaxcls.models import pretrained
from jaxcls.reports import run_directory
from jaxcls.tasks import build, predictor
from jaxcls.tasks import pretrained as pretrained_task
from jaxcls.training.run import RunData
from jaxcls.training.settings import Settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pretrained_folder.write_texts(tmp_path_factory.mktemp("data") / "texts.csv")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return pretrained_folder.write(tmp_path_factory.mktemp("encoder") / "bert")


def train(data, encoder, directory, *options):
    words = ["train", "--task", "text_csv", "--data", data, "--text-column", "text", "--label-column", "label"]
    words += ["--pretrained", encoder, "--epochs", "2", "--batch-size", "16", "--quiet", "--run-dir", directory]
    return main([str(word) for word in (*words, *options)])


MODES = {
    "all": ["--head-epochs", "1", "--layer-decay", "0.8", "--no-restore-best"],
    "frozen": ["--freeze", "backbone", "--learning-rate", "0.1"],
    "lora": ["--lora-rank", "2", "--lora-alpha", "8"],
}


@pytest.fixture(scope="module", params=MODES)
def run(request, data, encoder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / request.param
    assert train(data, encoder, directory, *MODES[request.param]) == 0
    return request.param, directory


def test_a_run_predicts_without_its_checkpoint(run, data, tmp_path):
    _, directory = run
    learned = predictor.load(directory)
    files = learned.experiment.pretrained.record["sha256"].keys()
    assert files == {"config.json", "model.safetensors", "tokenizer.json"}
    texts = np.array(["a good film", "a dull play"], object)
    probabilities = learned.predict(texts)
    output = tmp_path / "export"
    assert main(["export", "--run-dir", str(directory), "--output", str(output)]) == 0
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    command = [sys.executable, output / "loader.py", "--input", tmp_path / "texts.txt", "--output", tmp_path / "p.csv"]
    subprocess.run(command, check=True)
    with (tmp_path / "p.csv").open() as file:
        exported = [float(row["probability_pos"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(exported, probabilities, atol=1e-6)


def test_the_weights_are_exported_in_the_layout_of_the_checkpoint(run, encoder, tmp_path):
    mode, directory = run
    output = tmp_path / "export"
    assert main(["export", "--run-dir", str(directory), "--output", str(output), "--format", "safetensors"]) == 0
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "pos"}
    learned = predictor.load(directory)
    # What is written is read again, and computes the same.
    model, texts = pretrained.load(output), np.array(["the plot is poor"], object)
    encoded = learned.experiment.preprocessor.transform(texts)
    logits, _ = jax.jit(model.apply)(*model.init(jax.random.key(0)), encoded)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), learned.predict(texts), rtol=1e-4)
    name = "bert.embeddings.word_embeddings.weight"
    before, after = (load_file(folder / "model.safetensors")[name] for folder in (encoder, output))
    assert (before == after).all() == (mode != "all")
    if mode == "lora":
        words = ["export", "--run-dir", str(directory), "--output", str(tmp_path / "lora"), "--format", "lora"]
        assert main(words) == 0
        names = load_file(tmp_path / "lora" / "adapter_model.safetensors").keys()
        assert "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight" in names
        assert "base_model.model.classifier.weight" in names


def test_a_run_continues_from_another_with_the_weights_that_it_did_not_change(run, data, encoder, tmp_path):
    mode, directory = run
    words = [*MODES[mode], "--continue-from", directory, "--epochs", "1"]
    assert train(data, encoder, tmp_path / "next", *words) == 0
    before, after = (predictor.load(folder).weights["model_state"] for folder in (directory, tmp_path / "next"))
    assert jax.tree.all(jax.tree.map(lambda one, other: (one == other).all(), before, after))
    saved, whole = (
        sum(path.stat().st_size for path in (directory / name).rglob("*") if path.is_file())
        for name in ("checkpoints", "model")
    )
    assert (saved < 2 * whole) == (mode != "all")


def test_the_same_command_continues_and_another_checkpoint_is_refused(run, data, encoder, tmp_path, capsys):
    mode, directory = run
    assert train(data, encoder, directory, *MODES[mode]) == 0
    other = pretrained_folder.write(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
    assert train(data, other, directory, *MODES[mode]) == 2
    assert "of another pretrained encoder: tokenizer.json differ" in capsys.readouterr().err


def test_a_killed_run_ends_with_the_same_bits(data, encoder, tmp_path):
    hashes = []
    for name, stops in (("whole", []), ("stopped", [1])):
        for epochs in (*stops, 2):
            options = ["--schedule", "constant", "--warmup", "0", "--freeze", "1", "--epochs", epochs]
            assert train(data, encoder, tmp_path / name, *options) == 0
        hashes.append(run_directory.read_records(tmp_path / name).results["params_sha256"])
    assert hashes[0] == hashes[1]


def test_features_are_cached_by_example(data, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "cache_directory", lambda: tmp_path)
    user = Settings(task="text_csv", data=data, text_column="text", label_column=("label",), pretrained=str(encoder))
    built = build.build(dataclasses.replace(user, freeze="backbone"), say=lambda line: None)

    def features(rows):
        examples = jax.tree.map(lambda leaf: leaf[rows], built.train)
        arguments = (built.experiment.init(0), RunData(examples), built.settings, lambda line: None)
        return pretrained_task.on_features(built.experiment, *arguments)[1].train.inputs

    whole = features(slice(None))
    (path,) = tmp_path.rglob("*.npy")
    np.testing.assert_array_equal(features(slice(30, 10, -1)), whole[30:10:-1])
    assert [*tmp_path.rglob("*.npy")] == [path]
    # A damaged file is not read, and in other batches the features are the same.
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(features(slice(40, 5, -1)), whole[40:5:-1])
    assert len([*tmp_path.rglob("*.npy")]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "cnn"], "--pretrained replaces --model cnn"),
        (["--lora-rank", "2", "--freeze", "backbone"], "leave out --freeze backbone"),
        (["--lora-alpha", "2"], "--lora-alpha goes with --lora-rank"),
        (["--freeze", "9"], "a number of blocks up to 2"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(data, encoder, tmp_path, capsys, options, message):
    assert train(data, encoder, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err


def test_other_tasks_and_options_without_an_encoder_are_refused(encoder, capsys):
    assert main(["train", "--task", "csv", "--pretrained", str(encoder)]) == 2
    assert "takes no --pretrained" in capsys.readouterr().err
    assert main(["train", "--task", "image_folder", "--pretrained", str(encoder)]) == 2
    assert "takes encoders of images" in capsys.readouterr().err
    assert main(["train", "--task", "sentiment", "--freeze", "backbone"]) == 2
    assert "give --pretrained" in capsys.readouterr().err


@pytest.fixture(scope="module")
def image_encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "resnet18"
    shutil.copytree(FIXTURES / "resnet18", folder, ignore=shutil.ignore_patterns("expected*"))
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 16, 16]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_images_are_scaled_as_the_checkpoint_says(image_encoder, tmp_path, mode, channels):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 50), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.uint8(np.clip(rng.normal(level, 20, (16, 16, 3)), 0, 255))
            Image.fromarray(pixels).convert(mode).save(tmp_path / "images" / name / f"{index}.png")
    words = ["train", "--task", "image_folder", "--data", tmp_path / "images", "--pretrained", image_encoder]
    words += ["--epochs", "1", "--batch-size", "8", "--freeze", "backbone", "--run-dir", tmp_path / "run", "--quiet"]
    assert main(list(map(str, words))) == 0
    learned = predictor.load(tmp_path / "run")
    preprocessor = learned.experiment.preprocessor
    assert preprocessor.shape == (16, 16, 3)
    white = preprocessor.normalize(np.full((1, 1, 1, channels), 255, np.uint8))
    cfg = learned.experiment.pretrained.record["config"]["pretrained_cfg"]
    expected = (1 - np.array(cfg["mean"])) / np.array(cfg["std"])
    np.testing.assert_allclose(white[0, 0, 0], expected, rtol=1e-5)
    assert learned.predict(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2,)
