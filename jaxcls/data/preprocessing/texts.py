"""Text preprocessing: texts to rows of token ids, by a tokenizer trained on the training texts or a pretrained one.

Ours is byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) over bytes (Radford et al. 2019), trained and
applied by the `tokenizers` library: any text in any script has tokens, and none is unknown.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.array_cache import cached
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Buckets, sequence_buckets

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

    def transform(self, inputs: np.ndarray) -> np.ndarray:
        """Encodes str objects (N,) as int32 (N, widths[-1]), padded at the end.

        A pretrained tokenizer adds its special tokens, of which none is lost where a text is shortened.

        Raises:
          InputError: a row is not a text; the message names the first.

        >>> fitted = fit(np.array(["a film", "a good film"], object), vocabulary_size=300, max_length=8)
        >>> fitted.transform(np.array(["a film", ""], object)).tolist()
        [[..., 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
        """
        _check_texts(inputs)
        ids, lengths = _token_ids(self.tokenizer, inputs, self.widths[-1])
        tokens = np.full((len(inputs), self.widths[-1]), self.padding or 0, np.int32)
        tokens[np.arange(self.widths[-1]) < lengths[:, None]] = ids
        return tokens

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


def fit(texts: np.ndarray, *, vocabulary_size: int, max_length: int) -> TextPreprocessor:
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
    _check_texts(texts)
    tokenizer = _untrained()
    from tokenizers import pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Of many texts, some that are spread over all teach the same.
    sample = texts[:: 1 + sum(map(len, texts)) // _TRAINING_CHARACTERS]
    tokenizer.train_from_iterator(sample.tolist(), trainer, length=len(sample))
    trained = tokenizer.to_str()
    return TextPreprocessor(trained, _choose_widths(_token_ids(trained, texts, max_length)[1], max_length))


def pretrained(
    tokenizer: str, texts: np.ndarray, *, padding: int, vocabulary_size: int, max_length: int, where: str
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


def _token_ids(tokenizer: str, texts: np.ndarray, max_length: int) -> Sequence[np.ndarray]:
    """Returns the token ids of all texts, one after the other, and the number of tokens of each text.

    Those of many texts are read from the cache if they were computed before.
    """
    if sum(map(len, texts)) < _CACHED_CHARACTERS:
        return _tokenize(tokenizer, texts, max_length)
    import tokenizers

    key = ["without the middle", _hash([tokenizer]), _hash(texts), max_length, tokenizers.__version__]
    return cached("texts", key, lambda: _tokenize(tokenizer, texts, max_length))


def _tokenize(tokenizer: str, texts: np.ndarray, max_length: int) -> list[np.ndarray]:
    loaded, split = _load(tokenizer)
    # Reads the name of a special token within a text as any other word.
    loaded.encode_special_tokens = True
    loaded.no_padding()
    loaded.no_truncation()
    before, after = _special_tokens(loaded)
    most = max(0, max_length - len(before) - len(after))
    if split is not None:
        rows = _tokenize_words(loaded, [split(text) for text in texts], most)
    else:
        encoded = loaded.encode_batch_fast(texts.tolist(), add_special_tokens=False)
        rows = [_shortened(np.array(encoding.ids, np.int32), most) for encoding in encoded]
    rows = [np.concatenate([before, ids, after]) for ids in rows]
    return [np.concatenate([np.zeros(0, np.int32), *rows]), np.array([len(ids) for ids in rows], np.int32)]


def _shortened(tokens: np.ndarray, most: int) -> np.ndarray:
    """Removes the middle of a longer text.

    A review often ends with its verdict. By 220 words of each review of IMDB, TF-IDF and logistic regression have a
    validation accuracy of 0.901, of 0.883 if these are the first ones, and of 0.899 if they are the last ones; Sun et
    al. (2019), "How to fine-tune BERT for text classification", chose a similar share of both.
    """
    first = most // 4
    return tokens if len(tokens) <= most else np.delete(tokens, slice(first, first + len(tokens) - most))


def _tokenize_words(tokenizer: "tokenizers.Tokenizer", texts: Sequence[Sequence[str]], most: int) -> list[np.ndarray]:
    """Returns the token ids of texts that are divided into words. Each distinct word is tokenized once."""
    numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))
    rows = [np.array([*map(numbers.__getitem__, words)], np.int32) for words in texts]
    encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast([*numbers], add_special_tokens=False)]
    counts = np.array([*map(len, encoded)], np.int32)
    ids = np.array([*itertools.chain.from_iterable(encoded)], np.int32)
    starts = np.cumsum(counts) - counts

    def of_text(words: np.ndarray) -> np.ndarray:
        count = counts[words]
        # The index of each token among those of all words: where its word starts, and the tokens since then.
        first = np.cumsum(count) - count
        index = np.repeat(starts[words] - first, count) + np.arange(count.sum())
        return ids[_shortened(index, most)]

    return [of_text(words) for words in rows]


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
    longest = max(_MIN_WIDTH, 1 << (int(lengths.max()) - 1).bit_length())
    last = min(longest, max_length)
    widths: list[int] = []
    width = _MIN_WIDTH
    while width < last:
        fits = (lengths <= width) & (lengths > (widths[-1] if widths else -1))
        # Else it is not worth its compilation. Twice the width is as many tokens of padding again.
        if fits.mean() >= 0.1 or fits.sum() * width >= 0.2 * lengths.sum():
            widths.append(width)
        width *= 2
    return (*widths, last)


def _check_texts(texts: np.ndarray) -> None:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"the texts: row {row + 1} is {text!r}, which is not a text.")
