"""Texts: to rows of token numbers, by a tokenizer trained on the training texts.

The tokens are byte pairs (Sennrich et al. 2016, arXiv 1508.07909) over bytes (Radford et al. 2019), as learned and
applied by the `tokenizers` library: any text in any script has tokens, and none is unknown.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data.buckets import Buckets, of_sequences

if TYPE_CHECKING:
    import tokenizers

PADDING = "[PAD]"
# Every byte has a token, and so has the padding.
SMALLEST_VOCABULARY = 257
# No width is smaller: the overhead of a step outweighs what a narrower one saves.
_NARROWEST = 16
# And none is larger: a text of so many tokens would be a book.
_WIDEST = 1 << 20
# A width of its own pays for its compilation if so many of the texts fit into it, and not into a smaller one.
_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Texts:
    """What was fitted on training texts.

    Attributes:
      tokenizer: of the `tokenizers` library, as its JSON; token 0 is the padding.
      widths: the widths that batches are cut to, ascending. Tokens of a text past the last one are cut off.
    """

    tokenizer: str
    widths: tuple[int, ...]

    def transform(self, inputs: np.ndarray) -> np.ndarray:
        """str objects (N,) to int32 (N, widths[-1]); 0 is padding, and stands at the end.

        Raises:
          InputError: names the first row that is no text.

        >>> fitted = fit(np.array(["a film", "a good film"], object), vocabulary_size=300, max_length=8)
        >>> fitted.transform(np.array(["a film", ""], object)).tolist()
        [[..., 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
        """
        _check(inputs)
        tokens = np.zeros((len(inputs), self.widths[-1]), np.int32)
        for row, ids in enumerate(_token_ids(_loaded(self.tokenizer), inputs)):
            tokens[row, : len(ids)] = ids[: self.widths[-1]]
        return tokens

    def shapes(self, count: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, self.widths[-1]), np.int32)

    def normalize(self, compact: jax.Array) -> jax.Array:
        """Tokens are what a model takes."""
        return compact

    @property
    def buckets(self) -> Buckets:
        return of_sequences(self.widths)

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """How many tokens there are, the padding among them, and the length of the longest row."""
        return {
            "vocabulary_size": _loaded(self.tokenizer).get_vocab_size(),
            "max_length": self.widths[-1],
        }

    def as_record(self) -> dict[str, Any]:
        return {"kind": "texts", "tokenizer": self.tokenizer, "widths": [*self.widths]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, {"tokenizer": str, "widths": [int]}, "the preprocessor")
        widths = tuple(record["widths"])
        if not widths or widths[0] < 1 or widths[-1] > _WIDEST or any(a >= b for a, b in itertools.pairwise(widths)):
            raise InputError(f"the widths of texts are {widths}; they are damaged.")
        _check_tokenizer(record["tokenizer"])
        return cls(record["tokenizer"], widths)


def fit(texts: np.ndarray, *, vocabulary_size: int, max_length: int) -> Texts:
    """A tokenizer of the training texts, str objects (N,), and the widths that suit their lengths.

    Breaks in HTML, runs of white space and capitals are not told from single spaces and small letters.

    Args:
      vocabulary_size: the most tokens that it knows; 256 of them are the bytes.
      max_length: the most tokens of a text that are read.

    Raises:
      InputError: there is no text, a row is no text, or a number is too small.

    >>> fit(np.array(["so good"] * 3, object), vocabulary_size=300, max_length=100).widths
    (16,)
    """
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise InputError(f"vocabulary_size is {vocabulary_size}; it takes {SMALLEST_VOCABULARY} or more.")
    if max_length < 1:
        raise InputError(f"max_length is {max_length}; it takes 1 or more.")
    if not len(texts):
        raise InputError("there is no text to learn a vocabulary from.")
    _check(texts)
    tokenizer = _trained(texts, vocabulary_size)
    lengths = np.array([len(ids) for ids in _token_ids(tokenizer, texts)])
    return Texts(tokenizer.to_str(), _widths(lengths, max_length))


def _trained(texts: np.ndarray, vocabulary_size: int) -> "tokenizers.Tokenizer":
    tokenizer = _blank()
    from tokenizers import pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts.tolist(), trainer, length=len(texts))
    return tokenizer


def _blank() -> "tokenizers.Tokenizer":
    """A tokenizer that has learned nothing yet."""
    _prepare_environment()
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"(?i)<br\s*/?>"), " "),
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    # Words begin with their space; so does the first one, or it would be another word than in mid-sentence.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def _check_tokenizer(text: str) -> None:
    """Refuses a tokenizer that is not one of ours: in one from elsewhere, patterns may take for ever on some text, and
    what the library cannot read it does not always refuse in an orderly way."""
    form = {
        "added_tokens": [{}],
        "normalizer": {},
        "pre_tokenizer": {},
        "model": {"vocab": {str: int}, "merges": ([[str, str]], [str])},
    }
    record = schemas.parse(text, form, "the tokenizer")
    learned = record["model"]
    vocabulary, merges = learned.pop("vocab"), learned.pop("merges")
    blank = _blank()
    blank.add_special_tokens([PADDING])
    expected = json.loads(blank.to_str())
    del expected["model"]["vocab"], expected["model"]["merges"]
    parts = [(record.pop(name), expected.pop(name)) for name in ("added_tokens", "normalizer", "pre_tokenizer")]
    for given, wanted in ((record.pop("model"), expected.pop("model")), (record, expected)):
        # What is not asked for, an earlier version of the library leaves out.
        left_out = {name: wanted[name] for name in wanted.keys() - given.keys() if wanted[name] in (None, False)}
        parts.append((given | left_out, wanted))
    if any(json.dumps(given, sort_keys=True) != json.dumps(wanted, sort_keys=True) for given, wanted in parts):
        raise InputError("the tokenizer is damaged: it is none that jaxcls trains.")
    # Before it was 0.20, the library wrote a merge as one text.
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    whole = vocabulary.get(PADDING) == 0 and sorted(vocabulary.values()) == [*range(len(vocabulary))]
    if not whole or any(len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys() for pair in pairs):
        raise InputError("the tokenizer is damaged: its tokens do not belong together.")


def _token_ids(tokenizer: "tokenizers.Tokenizer", texts: np.ndarray) -> list[list[int]]:
    # A text that holds the name of the padding is no padding: encode_special_tokens reads it as any other.
    tokenizer.encode_special_tokens = True
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts.tolist(), add_special_tokens=False)]


@functools.lru_cache(maxsize=8)
def _loaded(tokenizer: str) -> "tokenizers.Tokenizer":
    _prepare_environment()
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer)


def _prepare_environment() -> None:
    # Unless it is told, the library warns of its threads in every process that is forked later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def _widths(lengths: np.ndarray, max_length: int) -> tuple[int, ...]:
    """Powers of two that each hold a share of the texts; the last one holds all, or is max_length.

    >>> _widths(np.array([10, 20, 21, 22, 70]), max_length=1000)
    (16, 32, 128)
    """
    longest = _NARROWEST
    while longest < lengths.max():
        longest *= 2
    widths: list[int] = []
    for width in itertools.takewhile(lambda width: width < min(longest, max_length), _powers(_NARROWEST)):
        inside = (lengths <= width) & (lengths > (widths[-1] if widths else -1))
        if inside.mean() >= _SHARE:
            widths.append(width)
    return (*widths, min(longest, max_length))


def _powers(first: int) -> Sequence[int]:
    return [first << shift for shift in range(32)]


def _check(texts: np.ndarray) -> None:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"the texts: row {row + 1} is {text!r}, which is no text.")
