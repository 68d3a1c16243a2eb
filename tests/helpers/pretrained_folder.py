"""A small checkpoint of BERT with a tokenizer of a few words, and texts that it can learn."""

import shutil
from pathlib import Path

import numpy as np
from pretrained_oracle import FIXTURES
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
GOOD, BAD = ["good", "great", "lovely"], ["bad", "poor", "dull"]
OTHER = ["a", "film", "play", "plot", "very", "is", "this", "the"]


def write(folder: Path) -> Path:
    """Writes config.json, model.safetensors and tokenizer.json."""
    shutil.copytree(FIXTURES / "bert", folder, ignore=shutil.ignore_patterns("expected*"))
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *GOOD, *BAD, *OTHER])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_texts(path: Path, rows: int = 80) -> Path:
    """Writes a CSV file of texts and labels."""
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for row in range(rows):
        words = [*rng.choice(OTHER, 4), rng.choice(GOOD if row % 2 else BAD)]
        rng.shuffle(words)
        lines.append(f"{' '.join(words)},{'pos' if row % 2 else 'neg'}")
    path.write_text("\n".join(lines) + "\n")
    return path
