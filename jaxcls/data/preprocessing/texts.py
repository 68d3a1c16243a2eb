"""Text preprocessing: texts to rows of token ids, by a tokenizer trained on the training texts or a pretrained one.

Ours is byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) over bytes (Radford et al. 2019), trained and
applied by the `tokenizers` library: any text in any script has tokens, and none is unknown.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.array_cache import cached, cached_file, cached_record
from jaxcls._utils.clock import progress
from jaxcls._utils.errors import InputError
from jaxcls.data import rows
from jaxcls.data.batching import Buckets, sequence_buckets
from jaxcls.data.formats.stored_tables import StoredColumn
from jaxcls.data.rows import Pages

if TYPE_CHECKING:
    import tokenizers

PADDING = "[PAD]"
# One token per byte, and the padding.
MIN_VOCABULARY = 257
# Below this width, the overhead of a step outweighs what a narrower batch saves.
_MIN_WIDTH = 16
# The tokenizer is trained on about this many characters.
_TRAINING_CHARACTERS = 1 << 22
# From this many characters on, tokens are cached.
_CACHED_CHARACTERS = 1 << 20

# Texts that are tokenized at a time, and distinct words whose tokens are remembered.
_BLOCK_TEXTS, _MOST_WORDS = 1 << 15, 1 << 19

_LINE_BREAK = re.compile(r"(?i)<br[\t-\r ]*/?>")
# Other white space is left to the tokenizer.
_WORD = re.compile(r"[^ \t\n\r]+")


@dataclasses.dataclass(frozen=True)
class TextPreprocessor:
    """What was fitted on the training texts.

    Attributes:
      tokenizer: the JSON of a tokenizer of the `tokenizers` library.
      widths: the widths that batches are cropped to, ascending. A text of more tokens than the last one loses its
        middle: a quarter of the tokens that are left are from its start, the others from its end.
      padding: the token of padding, in a pretrained tokenizer; None in ours, where it is token 0.
    """

    tokenizer: str
    widths: tuple[int, ...]
    padding: int | None = None

    def transform(self, inputs: Any) -> Any:
        """Encodes str objects (N,) as int32 (N, widths[-1]), padded at the end.

        A pretrained tokenizer adds its special tokens, of which none is lost where a text is shortened.

        Raises:
          InputError: a row is not a text; the message names the first.

        >>> fitted = fit(np.array(["a film", "a good film"], object), vocabulary_size=300, max_length=8)
        >>> fitted.transform(np.array(["a film", ""], object)).tolist()
        [[..., 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
        """
        width = self.widths[-1]
        is_stored = isinstance(inputs, StoredColumn)
        if not is_stored:
            _check_texts(inputs)
        ids, lengths = _token_ids(self.tokenizer, inputs, width)
        if is_stored:
            source = _Tokens(ids, lengths, width, self.padding or 0)
            return rows.columns(source, jax.ShapeDtypeStruct((width,), np.int32), count=len(inputs))[0]
        tokens = np.full((len(inputs), width), self.padding or 0, np.int32)
        tokens[np.arange(width) < lengths[:, None]] = ids
        return tokens

    def words_of(self, tokens: np.ndarray, values: np.ndarray) -> list[tuple[str, float]]:
        """Returns the words of the tokens of a text, and the sum of the values of the tokens of each.

        Special tokens are left out.

        Args:
          tokens: int (width,).
          values: float (width,).

        >>> fitted = fit(np.array(["a good film", "a good"], object), vocabulary_size=265, max_length=16)
        >>> tokens = fitted.transform(np.array(["good film"], object))[0]
        >>> fitted.words_of(tokens, np.ones(16))
        [('good', 1.0), ('film', 2.0)]
        """
        from tokenizers import decoders

        tokenizer = _load(self.tokenizer)[0]
        pieces: list[str] = [tokenizer.id_to_token(token) or "" for token in tokens.tolist()]
        special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
        is_bytes = any(piece.startswith("\u0120") for piece in pieces)
        words: list[tuple[list[str], float]] = []
        for piece, value in zip(pieces, values.tolist(), strict=True):
            if piece in special:
                continue
            if words and (not piece.startswith("\u0120") if is_bytes else piece.startswith("##")):
                words[-1] = [*words[-1][0], piece], words[-1][1] + value
            else:
                words.append(([piece], value))
        decode = (decoders.ByteLevel() if is_bytes else decoders.WordPiece(cleanup=False)).decode
        return [(decode(parts).strip(), value) for parts, value in words]

    def shapes(self, count: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, self.widths[-1]), np.int32)

    def normalize(self, compact: jax.Array) -> jax.Array:
        """Returns the tokens unchanged."""
        return compact

    @property
    def buckets(self) -> Buckets:
        return sequence_buckets(self.widths, self.padding or 0)

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """The number of tokens, including the padding, and the length of the longest row."""
        return {"vocabulary_size": _load(self.tokenizer)[0].get_vocab_size(), "max_length": self.widths[-1]}

    @property
    def program(self) -> Hashable:
        """The number of tokens, the widths and the padding."""
        return "texts", self.model_arguments["vocabulary_size"], self.widths, self.padding or 0

    def as_record(self) -> dict[str, Any]:
        record = {"type": "texts", "tokenizer": self.tokenizer, "widths": [*self.widths]}
        return record if self.padding is None else record | {"padding": self.padding}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, {"tokenizer": str, "widths": [int]}, "the preprocessor")
        widths = tuple(record["widths"])
        if not widths or widths[0] < 1 or widths[-1] > 1 << 20 or any(a >= b for a, b in itertools.pairwise(widths)):
            raise InputError(f"the preprocessor is damaged: the widths of its texts are {widths}.")
        padding = record.get("padding")
        if padding is None:
            _check_tokenizer(record["tokenizer"])
        else:
            schemas.check(record, {"padding": int}, "the preprocessor")
            check_pretrained(record["tokenizer"], "the preprocessor")
        return cls(record["tokenizer"], widths, padding)


def fit(texts: Any, *, vocabulary_size: int, max_length: int) -> TextPreprocessor:
    """Trains a tokenizer on texts, str objects (N,), and chooses the widths that suit their lengths.

    HTML line breaks and runs of whitespace count as one space, and upper case as lower case.

    Args:
      vocabulary_size: the maximum number of tokens, 256 of which are the bytes.
      max_length: the length in tokens to which texts are shortened.

    Raises:
      InputError: there are no texts, a row is not a text, or a number is too small.

    >>> fit(np.array(["so good"] * 3, object), vocabulary_size=300, max_length=100).widths
    (16,)
    """
    if vocabulary_size < MIN_VOCABULARY:
        raise InputError(f"vocabulary_size is {vocabulary_size}; it must be {MIN_VOCABULARY} or more.")
    if max_length < 1:
        raise InputError(f"max_length is {max_length}; it must be 1 or more.")
    if not len(texts):
        raise InputError("there are no texts to learn a vocabulary from.")
    if not isinstance(texts, StoredColumn):
        _check_texts(texts)
        return _fit(texts, vocabulary_size, max_length)
    import tokenizers

    key = ["texts", texts.key(), vocabulary_size, max_length, tokenizers.__version__]
    record = cached_record("fitted", key, lambda: _fit(texts, vocabulary_size, max_length).as_record())
    return TextPreprocessor.from_record(record)


def _fit(texts: Any, vocabulary_size: int, max_length: int) -> TextPreprocessor:
    tokenizer = _untrained()
    from tokenizers import pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Of many texts, some that are spread over all teach the same.
    every = slice(None, None, 1 + int(num_characters(texts)) // _TRAINING_CHARACTERS)
    sample = np.asarray(rows.select(texts, every))
    tokenizer.train_from_iterator(sample.tolist(), trainer, length=len(sample))
    trained = tokenizer.to_str()
    return TextPreprocessor(trained, _choose_widths(_token_ids(trained, texts, max_length)[1], max_length))


def pretrained(
    tokenizer: str, texts: Any, *, padding: int, vocabulary_size: int, max_length: int, where: str
) -> TextPreprocessor:
    """Returns the preprocessor with a pretrained tokenizer, with widths that suit the lengths of the training texts.

    Args:
      tokenizer: the content of tokenizer.json.
      texts: the training texts, str objects (N,).
      padding: the token of padding.
      vocabulary_size: the number of tokens that the encoder knows.
      max_length: the length in tokens to which texts are truncated, special tokens included.
      where: the name of the checkpoint, for messages.

    Raises:
      InputError: there are no texts, a row is not a text, or the tokenizer is damaged or not supported.
    """
    if not len(texts):
        raise InputError("there are no texts to learn from.")
    if not isinstance(texts, StoredColumn):
        _check_texts(texts)
    check_pretrained(tokenizer, where)
    loaded, _ = _load(tokenizer)
    if loaded.get_vocab_size() > vocabulary_size:
        raise InputError(
            f"{where}: tokenizer.json has {loaded.get_vocab_size()} tokens and config.json {vocabulary_size}; give the "
            "folder as it was published."
        )
    return TextPreprocessor(tokenizer, _choose_widths(_token_ids(tokenizer, texts, max_length)[1], max_length), padding)


# What a pretrained tokenizer may consist of: its parts take time in proportion to the length of a text. A pattern could
# take forever, so that none is accepted but these.
_COMPONENTS = frozenset(
    ["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace",
     "Sequence", "Strip", "StripAccents", "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation",
     "Whitespace", "WhitespaceSplit", "BertProcessing", "RobertaProcessing", "TemplateProcessing", "BPE", "Unigram",
     "WordPiece"]
)  # fmt: skip
_PATTERNS = (" {2,}", r"\s+", " ")


def check_pretrained(tokenizer: str, where: str) -> None:
    """Checks a tokenizer of a checkpoint, which is data like any other.

    Raises:
      InputError: it is no tokenizer, is damaged, or contains something that could take forever.
    """
    where = f"the tokenizer of {where}"
    vocabulary = ({str: int}, [[str, float]])
    record = schemas.parse(
        tokenizer, {"model": {"vocab": vocabulary, str: schemas.ANYTHING}, str: schemas.ANYTHING}, where
    )
    components = {name: record.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor")}
    pending = [
        *components.values(),
        {key: value for key, value in record["model"].items() if key in ("type", "dropout")},
    ]
    while pending:
        component = pending.pop()
        if component is None:
            continue
        schemas.check(component, {"type": str, str: schemas.ANYTHING}, where)
        pattern = component.get("pattern", {"String": ""})
        is_safe = isinstance(pattern, dict) and ("String" in pattern or pattern.get("Regex") in _PATTERNS)
        if component["type"] not in _COMPONENTS or not is_safe or component.get("dropout"):
            raise InputError(f"{where} has the component {component}, which jaxcls does not support.")
        for name in ("normalizers", "pretokenizers", "processors"):
            pending += component.get(name, [])
    try:
        _load(tokenizer)
    except Exception as error:  # the library has no type of its own for what it raises
        raise InputError(f"{where} is damaged: {error}") from error


def _untrained() -> "tokenizers.Tokenizer":
    _set_parallelism()
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_LINE_BREAK.pattern), " "),
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    # A word includes the space before it. Prefixing one makes the first word the same as one in mid-sentence.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def _check_tokenizer(text: str) -> None:
    """Rejects tokenizers that were not trained here: their patterns may run forever on some texts, and the library may
    crash on malformed ones."""
    schema = {
        "added_tokens": [{}],
        "normalizer": {},
        "pre_tokenizer": {},
        "model": {"vocab": {str: int}, "merges": ([[str, str]], [str])},
    }
    record = schemas.parse(text, schema, "the tokenizer")
    vocabulary, merges = record["model"].pop("vocab"), record["model"].pop("merges")
    untrained = _untrained()
    untrained.add_special_tokens([PADDING])
    expected = json.loads(untrained.to_str())
    del expected["model"]["vocab"], expected["model"]["merges"]
    # Earlier versions of the library leave out settings that are off.
    for actual, wanted in ((record["model"], expected["model"]), (record, expected)):
        for name in wanted.keys() - actual.keys():
            if wanted[name] in (None, False):
                actual[name] = wanted[name]
    if json.dumps(record, sort_keys=True) != json.dumps(expected, sort_keys=True):
        raise InputError("the tokenizer is damaged: it was not trained by jaxcls.")
    # Before 0.20, the library wrote a merge as one string.
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    complete = vocabulary.get(PADDING) == 0 and sorted(vocabulary.values()) == [*range(len(vocabulary))]
    if not complete or any(len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys() for pair in pairs):
        raise InputError("the tokenizer is damaged: its vocabulary and merges do not match.")


def _token_ids(tokenizer: str, texts: Any, max_length: int) -> Sequence[np.ndarray]:
    """Returns the token ids of all texts, one after the other, and the number of tokens of each text.

    Those of many texts are read from the cache if they were computed before.
    """
    if isinstance(texts, StoredColumn):
        return _stored_token_ids(tokenizer, texts, max_length)
    if sum(map(len, texts)) < _CACHED_CHARACTERS:
        return _tokenize(tokenizer, texts, max_length)
    import tokenizers

    key = ["without the middle", _hash([tokenizer]), _hash(texts), max_length, tokenizers.__version__]
    return cached("texts", key, lambda: _tokenize(tokenizer, texts, max_length))


def _tokenize(tokenizer: str, texts: np.ndarray, max_length: int) -> list[np.ndarray]:
    blocks = (texts[first : first + _BLOCK_TEXTS] for first in range(0, len(texts), _BLOCK_TEXTS))
    none = np.zeros(0, np.int32)
    return [np.concatenate([none, *arrays]) for arrays in zip(*_tokens_of(tokenizer, blocks, max_length), strict=True)]


def _tokens_of(
    tokenizer: str, blocks: Iterable[np.ndarray], max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the token ids of the texts of each block, one text after the other, and the number of those of each."""
    loaded, split = _load(tokenizer)
    # Reads the name of a special token within a text as any other word.
    loaded.encode_special_tokens = True
    loaded.no_padding()
    loaded.no_truncation()
    before, after = _special_tokens(loaded)
    most = max(0, max_length - len(before) - len(after))
    words = _Words(loaded)
    for texts in blocks:
        if split is not None:
            ids, lengths = words.tokens([split(text) for text in texts])
        else:
            encoded = [one.ids for one in loaded.encode_batch_fast(texts.tolist(), add_special_tokens=False)]
            ids, lengths = _joined(encoded), np.array([*map(len, encoded)], np.int32)
        ids, lengths = _shortened(ids, lengths, most)
        ends = np.cumsum(lengths)
        positions = [ends - lengths] * len(before) + [ends] * len(after)
        if positions:
            ids = np.insert(ids, np.stack(positions, axis=1).ravel(), np.tile(np.append(before, after), len(lengths)))
        yield ids, lengths + np.int32(len(positions))


def _joined(rows: Iterable[Sequence[int]]) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32)


def _shortened(ids: np.ndarray, lengths: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Removes the middle of longer texts.

    A review often ends with its verdict. By 220 words of each review of IMDB, TF-IDF and logistic regression have a
    validation accuracy of 0.901, of 0.883 if these are the first ones, and of 0.899 if they are the last ones; Sun et
    al. (2019), "How to fine-tune BERT for text classification", chose a similar share of both.
    """
    excess = np.maximum(lengths - most, 0)
    if not excess.any():
        return ids, lengths
    index = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = most // 4
    return ids[(index < first) | (index >= first + np.repeat(excess, lengths))], lengths - excess


class _Words:
    """Tokenizes texts that are divided into words; each distinct word is tokenized once."""

    def __init__(self, tokenizer: "tokenizers.Tokenizer"):
        self._tokenizer = tokenizer
        self._forget()

    def _forget(self) -> None:
        # A new word gets the next number.
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__
        self._ids, self._counts = np.zeros((2, 0), np.int32)

    def tokens(self, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the token ids of all texts, one after the other, and the number of tokens of each text."""
        if len(self._numbers) > _MOST_WORDS:
            self._forget()
        known = len(self._numbers)
        words = np.fromiter(map(self._numbers.__getitem__, itertools.chain.from_iterable(texts)), np.int32)
        new = [*itertools.islice(self._numbers, known, None)]
        encoded = [one.ids for one in self._tokenizer.encode_batch_fast(new, add_special_tokens=False)]
        self._ids = np.append(self._ids, _joined(encoded))
        self._counts = np.append(self._counts, np.array([*map(len, encoded)], np.int32))
        counts, ends = self._counts[words], np.cumsum(self._counts)[words]
        # The index of each token among those of all words: where its word starts, and the tokens since then.
        stops = np.cumsum(counts)
        index = np.repeat(ends - stops, counts) + np.arange(counts.sum())
        before = np.append(0, stops)[np.cumsum([0, *map(len, texts)])]
        return self._ids[index], np.diff(before).astype(np.int32)


class _Tokens:
    """The token ids of texts as a source of rows, of one width.

    Attributes:
      lengths: the number of tokens of each text.
    """

    sample: np.ndarray | None = None

    def __init__(self, ids: np.ndarray, lengths: np.ndarray, width: int, padding: int):
        self._ids, self.lengths, self._width, self._padding = ids, lengths, width, padding
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths
        self._pages = Pages(ids)

    def read(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        tokens = np.full((len(rows), self._width), self._padding, np.int32)
        columns = np.arange(self._width)
        used = columns < self.lengths[rows][:, None]
        tokens[used] = self._ids[(self._starts[rows][:, None] + columns)[used]]
        self._pages.count(len(rows))
        return [tokens]


def _stored_token_ids(tokenizer: str, texts: StoredColumn, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_token_ids`, but the token ids are mapped into memory."""
    import tokenizers

    dtype = np.uint16 if _load(tokenizer)[0].get_vocab_size() <= 1 << 16 else np.int32

    def write(path: Path) -> None:
        lengths = []
        with path.open("wb") as file:
            for ids, of_block in _tokens_of(tokenizer, texts.blocks(), max_length):
                file.write(ids.astype(dtype).data)
                lengths.append(of_block)
                progress(sum(map(len, lengths)) / len(texts))
            file.write(np.concatenate(lengths).data)

    key = ["1", texts.key(), _hash([tokenizer]), tokenizers.__version__]
    path = cached_file("tokens", [*key, max_length], write)
    lengths = np.fromfile(path, np.int32, offset=path.stat().st_size - 4 * len(texts))
    if (width := _last_width(lengths, max_length)) < max_length:
        # Of the width that is chosen, the tokens are the same.
        cached_file("tokens", [*key, width], functools.partial(_copy, path))
    count = int(lengths.sum())
    return (np.memmap(path, dtype, "r", shape=(count,)) if count else np.zeros(0, dtype)), lengths


def _copy(path: Path, copy: Path) -> None:
    shutil.copyfile(path, copy)


def num_characters(texts: Any, most: float = math.inf) -> float:
    """Returns the number of characters of all texts, or `most` if there are more."""
    total = 0
    for block in texts.blocks() if isinstance(texts, StoredColumn) else [texts]:
        total += sum(map(len, block))
        if total >= most:
            return most
    return total


def _words(text: str) -> list[str]:
    return _WORD.findall(_LINE_BREAK.sub(" ", text) if "<" in text else text)


def _special_tokens(tokenizer: "tokenizers.Tokenizer") -> tuple[np.ndarray, np.ndarray]:
    """Returns the special tokens that a tokenizer adds before and after a text."""
    (text,) = tokenizer.encode_batch_fast(["a"], add_special_tokens=False)
    (whole,) = tokenizer.encode_batch_fast(["a"])
    before = whole.special_tokens_mask.index(0) if text.ids else len(whole.ids)
    return np.array(whole.ids[:before], np.int32), np.array(whole.ids[before + len(text.ids) :], np.int32)


def _hash(texts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for text in texts:
        content = text.encode(errors="surrogatepass")
        total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()


@functools.lru_cache(maxsize=8)
def _load(tokenizer: str) -> "tuple[tokenizers.Tokenizer, Callable[[str], list[str]] | None]":
    """Returns the tokenizer, and what divides a text into words whose tokens make those of the text.

    It is None unless white space only separates words, as in our tokenizers and those of BERT.
    """
    _set_parallelism()
    from tokenizers import Tokenizer

    loaded, record, ours = Tokenizer.from_str(tokenizer), json.loads(tokenizer), json.loads(_untrained().to_str())
    names = ("normalizer", "pre_tokenizer")
    # Other added tokens are found anywhere in a text.
    if not all(token["special"] for token in record["added_tokens"]):
        return loaded, None
    if [record[name] for name in names] == [ours[name] for name in names]:
        return loaded, _words
    of_bert = [record[name] and record[name]["type"] for name in names] == ["BertNormalizer", "BertPreTokenizer"]
    return loaded, _WORD.findall if of_bert else None


def _set_parallelism() -> None:
    # Unless this is set, the library prints a warning about its threads in every process that is forked later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def _choose_widths(lengths: np.ndarray, max_length: int) -> tuple[int, ...]:
    """Chooses the powers of two that save enough of the computing; the last width fits all, or is max_length.

    >>> _choose_widths(np.array([10, 20, 21, 22, 70]), max_length=1000)
    (16, 32, 128)

    A few texts that are much shorter than the longest one would take most of the time at its width:

    >>> _choose_widths(np.array([20] * 90 + [60] * 9 + [500]), max_length=1000)
    (32, 64, 512)
    """
    last = _last_width(lengths, max_length)
    widths: list[int] = []
    width = _MIN_WIDTH
    while width < last:
        fits = (lengths <= width) & (lengths > (widths[-1] if widths else -1))
        # Else it is not worth its compilation. Twice the width is as many tokens of padding again.
        if fits.mean() >= 0.1 or fits.sum() * width >= 0.2 * lengths.sum():
            widths.append(width)
        width *= 2
    return (*widths, last)


def _last_width(lengths: np.ndarray, max_length: int) -> int:
    return min(max(_MIN_WIDTH, 1 << (int(lengths.max()) - 1).bit_length()), max_length)


def _check_texts(texts: np.ndarray) -> None:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"the texts: row {row + 1} is {text!r}, which is not a text.")
