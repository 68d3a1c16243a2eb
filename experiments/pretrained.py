"""Pretrained encoders against their own libraries.

    python experiments/pretrained.py embeddings --checkpoint all-MiniLM-L6-v2/ --oracle PYTHON
    python experiments/pretrained.py logits --checkpoint efficientnet_lite0/ --images PHOTOGRAPHS --oracle PYTHON
    python experiments/pretrained.py exports --checkpoint all-MiniLM-L6-v2/ --oracle PYTHON
    python experiments/pretrained.py exports --checkpoint tests/models/pretrained/fixtures/vit --oracle PYTHON

PYTHON is one with torch, transformers, timm and, for exports, peft.

embeddings: the mean of the features of the tokens, divided by its norm, of 200 sentences of the sample of the sentiment
task, as sentence-transformers has it. Expected for all-MiniLM-L6-v2: the largest difference is below 1e-4 (it was
2.6e-7).

logits: of 50 photographs in a folder, by timm and here. Expected for EfficientNet-Lite0 (convert_efficientnet_lite.py
makes its folder): the largest difference is below 1e-3 (it was 9.5e-6), and every photograph has the same first class.

exports: the encoder learns random labels of random inputs, all weights and, of texts, with LoRA. transformers and PEFT
compute the logits of the exports again: of images by AutoModelForImageClassification, of texts by the encoder of
AutoModel, the mean of its tokens and the exported classifier. Expected: the largest difference is below 1e-5 of the
largest logit (it was 3.0e-7 for BERT, 2.5e-7 with LoRA, of the fixtures, and 2.3e-7 for ViT).
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageOps

import jaxcls
from jaxcls import optimizers
from jaxcls.data.formats.tables import read_csv
from jaxcls.data.preprocessing import texts
from jaxcls.models import pretrained
from jaxcls.models.pretrained import checkpoint as checkpoints

SENTENCES = Path(jaxcls.__file__).parent / "data" / "samples" / "sentiment" / "sentences.csv.gz"
MAX_LENGTH = 128

TRANSFORMERS = f"""
import json, sys
import numpy as np, torch, transformers
folder, sentences, result = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModel.from_pretrained(folder).eval()
options = dict(padding=True, truncation=True, max_length={MAX_LENGTH}, return_tensors="pt")
tokens = tokenizer(json.load(open(sentences)), **options)
with torch.no_grad():
    features = model(**tokens).last_hidden_state
mask = tokens["attention_mask"][..., None]
np.save(result, torch.nn.functional.normalize((features * mask).sum(1) / mask.sum(1)).numpy())
"""

TIMM = """
import sys
import numpy as np, timm, torch
folder, images, result = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
with torch.no_grad():
    np.save(result, model(torch.from_numpy(np.load(images)).permute(0, 3, 1, 2)).numpy())
"""

EXPORTED = """
import sys
import numpy as np, peft, torch, transformers
from safetensors.torch import load_file
base, whole, adapter, inputs, result, classes = sys.argv[1:]
inputs = torch.from_numpy(np.load(inputs))

def pooled(encoder):
    mask = (inputs != encoder.config.pad_token_id).long()
    features, mask = encoder(input_ids=inputs.long(), attention_mask=mask).last_hidden_state, mask[..., None]
    return (features * mask).sum(1) / mask.sum(1)

with torch.no_grad():
    if inputs.ndim == 2:
        tensors = load_file(f"{whole}/model.safetensors")
        features = pooled(transformers.AutoModel.from_pretrained(whole).eval())
        logits = {"whole": features @ tensors["classifier.weight"].T + tensors["classifier.bias"]}
        new = transformers.AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=int(classes), ignore_mismatched_sizes=True
        )
        adapted = peft.PeftModel.from_pretrained(new, adapter).eval().base_model.model
        logits["adapter"] = adapted.classifier(pooled(adapted.base_model))
    else:
        model = transformers.AutoModelForImageClassification.from_pretrained(whole).eval()
        logits = {"whole": model(inputs.permute(0, 3, 1, 2), interpolate_pos_encoding=True).logits}
np.savez(result, **{name: value.numpy() for name, value in logits.items()})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=["embeddings", "logits", "exports"])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a folder in Hugging Face's layout")
    parser.add_argument("--images", type=Path, help="a folder of photographs, for logits")
    parser.add_argument("--oracle", required=True, help="a Python with torch, transformers and timm")
    arguments = parser.parse_args()
    if arguments.comparison == "embeddings":
        embeddings(arguments.checkpoint, arguments.oracle)
    elif arguments.comparison == "exports":
        exports(arguments.checkpoint, arguments.oracle)
    elif arguments.images is None:
        parser.error("logits needs --images")
    else:
        logits(arguments.checkpoint, arguments.images, arguments.oracle)


def embeddings(folder: Path, oracle: str) -> None:
    sentences = read_csv(SENTENCES, text=["text"])["text"][:200]
    with tempfile.TemporaryDirectory() as scratch:
        names = [str(Path(scratch, name)) for name in ("sentences.json", "embeddings.npy")]
        Path(names[0]).write_text(json.dumps(sentences.tolist()), encoding="utf-8")
        subprocess.run([oracle, "-c", TRANSFORMERS, str(folder), *names], check=True)
        expected = np.load(names[1])
    checkpoint = checkpoints.find(folder)
    preprocessor = texts.pretrained(
        checkpoint.tokenizer, sentences, padding=0, vocabulary_size=checkpoint.config["vocab_size"],
        max_length=MAX_LENGTH, where=checkpoint.name,
    )  # fmt: skip
    model = pretrained.load(folder, 2)
    features = np.asarray(model.features(*model.init(jax.random.key(0)), preprocessor.transform(sentences)))
    difference = np.abs(features / np.linalg.norm(features, axis=1, keepdims=True) - expected).max()
    print(f"largest difference of {len(expected)} embeddings: {difference:.1e}")


def logits(folder: Path, photographs: Path, oracle: str) -> None:
    size, mean, std = checkpoints.find(folder).pixels
    paths = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, 50).astype(int)]
    cropped = [ImageOps.fit(Image.open(path).convert("RGB"), (size, size), Image.Resampling.BICUBIC) for path in chosen]
    images = ((np.stack([np.asarray(image) for image in cropped]) / 255 - mean) / std).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        names = [str(Path(scratch, name)) for name in ("images.npy", "logits.npy")]
        np.save(names[0], images)
        subprocess.run([oracle, "-c", TIMM, str(folder), *names], check=True)
        expected = np.load(names[1])
    model = pretrained.load(folder)
    actual, _ = jax.jit(model.apply)(*model.init(jax.random.key(0)), images)
    difference, same = np.abs(actual - expected).max(), (actual.argmax(1) == expected.argmax(1)).sum()
    print(f"largest difference of the logits of {len(images)} images: {difference:.1e}; same first class: {same}")


def exports(folder: Path, oracle: str) -> None:
    checkpoint, rng, classes = checkpoints.find(folder), np.random.default_rng(0), 3
    # transformers 5 has other names of ViT's layers than its checkpoints, and PEFT does not find them.
    learned = {"whole": (None, "safetensors"), "adapter": (4, "lora")}
    if "vocab_size" in checkpoint.config:
        inputs = rng.integers(5, checkpoint.config["vocab_size"], (64, 12), dtype=np.int32)
        inputs[::2, 7:] = checkpoint.config.get("pad_token_id", 0)
    else:
        side = checkpoint.config["image_size"]
        del learned["adapter"]
        inputs = rng.normal(size=(64, side, side, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(scratch, name) for name in ("whole", "adapter", "inputs.npy", "logits.npz")}
        logits = {}
        for name, (rank, format) in learned.items():
            model = pretrained.load(folder, classes, lora_rank=rank)
            compiled = jaxcls.compile(model, optimizers.adamw(1e-3), "sparse_categorical_crossentropy")
            labels = rng.integers(0, classes, len(inputs))
            state, _ = compiled.fit(compiled.init(), (inputs, labels), epochs=3, batch_size=16, verbose=False)
            compiled.export(state, paths[name], inputs, format)
            logits[name], _ = jax.jit(model.apply)(state.params, state.model_state, inputs)
        np.save(paths["inputs.npy"], inputs)
        subprocess.run([oracle, "-c", EXPORTED, folder, *paths.values(), str(classes)], check=True)
        expected = np.load(paths["logits.npz"])
        for name, actual in logits.items():
            difference = np.abs(actual - expected[name]).max() / np.abs(actual).max()
            print(f"largest difference of the logits, {name}: {difference:.1e} of the largest")


if __name__ == "__main__":
    main()
