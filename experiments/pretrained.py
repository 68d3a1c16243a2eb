"""Pretrained encoders against their own libraries.

    python experiments/pretrained.py embeddings --checkpoint all-MiniLM-L6-v2/ --oracle PYTHON

embeddings: the mean of the features of the tokens, divided by its norm, of 200 sentences of the sample of the sentiment
task, as sentence-transformers has it. PYTHON is one with torch and transformers. Expected for all-MiniLM-L6-v2: the
largest difference is below 1e-4 (it was 2.6e-7).
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np

import jaxcls
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=["embeddings"])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a folder in Hugging Face's layout")
    parser.add_argument("--oracle", required=True, help="a Python with torch and transformers")
    arguments = parser.parse_args()
    embeddings(arguments.checkpoint, arguments.oracle)


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


if __name__ == "__main__":
    main()
