"""Synthetic comments in the four files of Kaggle's Toxic Comment Classification Challenge.

Nobody wrote these comments. They are made-up words on topics; mild words tell of a label, but only where the word
before them is hostile ("you clown", not "never clown"), and words of both kinds stand in harmless comments too. Of the
toxic comments 8% say nothing that tells, and 1% of the others are let pass with a word that does: no model can know.
The labels are as rare, and go together, as in the real files: severe_toxic implies toxic, threat is 0.3%.

Mean column-wise ROC AUC on the test: logistic regression of TF-IDF 0.94 on words and 0.96 with pairs of words, and of
the number of hostile pairs that tell, which is nearly all there is to know, 0.98.
"""

import csv
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")

_TELLS = {
    "toxic": ["rubbish", "garbage", "nonsense", "drivel", "disgrace", "pathetic"],
    "obscene": ["crap", "arse", "bollocks", "turd", "knob", "piss"],
    "threat": ["thrashing", "beating", "payback", "doom"],
    "insult": ["idiot", "fool", "moron", "clown", "loser", "liar"],
    "identity_hate": ["zorbians", "quillites", "tandrians", "osmerites"],
}
_HOSTILE = ["you", "utter", "damned"]
_HARMLESS = ["not", "never", "without"]
# fmt: off
_COMMON = [
    "the", "of", "and", "to", "a", "in", "is", "it", "that", "for", "on", "was", "as", "with", "be", "this", "by",
    "have", "from", "or", "at", "are", "an", "page", "article", "edit", "please", "talk", "I", "we", "they", "he",
    "my", "your", "if", "so", "but", "there", "can", "will", "has", "more", "which", "when", "would", "source", "link",
]
# fmt: on
_QUIRKS = (
    '"{}"',
    "== {} ==",
    "'{}'",
    "{},",
    "{}.",
    "{}?",
    "caf\u00e9 {}",
    "{} \u2014",
    "\u201c{}\u201d",
    "{}\u2026",
    "\u043f\u0440\u0438\u0432\u0435\u0442 {}",
    "{} \U0001f642",
    "::{}",
    "{}\n\n",
    "\n{}",
    "{} 89.205.38.27",
    "{}\t",
)  # fmt: skip
# They look like numbers, and as numbers several are the same: 0 and infinity.
_TREACHEROUS_IDS = ("0000e12345678901", "0000e98765432109", "1e99999999999999", "2e99999999999999", "0123456789012345")


def write(folder: Path, *, train_rows: int = 6000, test_rows: int = 4000, seed: int = 0) -> None:
    """Writes train.csv, test.csv, test_labels.csv and sample_submission.csv, quoted as Kaggle's are.

    Rows are in the order of their ids. Of the test rows, 42% are scored; the labels of the others are -1. Some test
    comments stand in train.csv too.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write(folder, train_rows=30, test_rows=20)
    >>> (folder / "sample_submission.csv").read_text().splitlines()[:2]
    ['id,toxic,severe_toxic,obscene,threat,insult,identity_hate', '0123456789012345,0.5,0.5,0.5,0.5,0.5,0.5']
    """
    rng = random.Random(seed)
    topics = _topics(rng)
    # Two comments with all labels end each part, so that small ones have every label too.
    every = dict.fromkeys(LABELS, True)
    train, test = (
        [_comment(rng, topics, every if row >= rows - 2 else _draw_labels(rng)) for row in range(rows)]
        for rows in (train_rows, test_rows)
    )
    for copy in range(test_rows // 300):
        test[copy] = train[copy]
    ids = _ids(rng, train_rows + test_rows)
    train_ids, test_ids = sorted(ids[:train_rows]), sorted(ids[train_rows:])
    scored = {*rng.sample(range(test_rows - 2), round(0.418 * test_rows) - 2), test_rows - 2, test_rows - 1}
    unknown = [-1] * len(LABELS)

    _write_rows(
        folder / "train.csv",
        ["id", "comment_text", *LABELS],
        ([name, text, *labels] for name, (text, labels) in zip(train_ids, train, strict=True)),
        quoting=csv.QUOTE_NONNUMERIC,
    )
    _write_rows(
        folder / "test.csv",
        ["id", "comment_text"],
        ([name, text] for name, (text, _) in zip(test_ids, test, strict=True)),
    )
    _write_rows(
        folder / "test_labels.csv",
        ["id", *LABELS],
        (
            [name, *(labels if row in scored else unknown)]
            for row, (name, (_, labels)) in enumerate(zip(test_ids, test, strict=True))
        ),
    )
    _write_rows(folder / "sample_submission.csv", ["id", *LABELS], ([name, *[0.5] * len(LABELS)] for name in test_ids))


def _write_rows(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], quoting: int = csv.QUOTE_MINIMAL
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
        writer.writerow(header)
        writer.writerows(rows)


def _topics(rng: random.Random) -> list[list[str]]:
    """Eight lists of made-up words, the common ones first."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstv", "aeiou")]
    words = sorted({"".join(rng.choices(syllables, k=rng.choice([2, 3, 3, 4]))) for _ in range(1700)})
    rng.shuffle(words)
    return [words[start : start + 200] for start in range(0, 1600, 200)]


_RANKS = list(itertools.accumulate(1 / (rank + 5) for rank in range(200)))


def _comment(rng: random.Random, topics: Sequence[list[str]], labels: Mapping[str, bool]) -> tuple[str, list[int]]:
    """A comment and its labels."""
    length = min(400, max(3, round(rng.lognormvariate(3.3, 0.8))))
    topic = rng.choice(topics)
    words = [
        rng.choice(_COMMON) if rng.random() < 0.45 else word
        for word in rng.choices(topic, cum_weights=_RANKS, k=length)
    ]
    phrases = [f"{rng.choice(_HOSTILE)} {word}" for word in _hostile_words(rng, labels)]
    if rng.random() < 0.5:
        phrases += [f"{rng.choice(_HARMLESS)} {word}" for word in _any_tells(rng, rng.choice([1, 1, 2, 3]))]
    # Neither kind of word tells anything by itself.
    phrases += [f"{rng.choice(_HOSTILE + _HARMLESS)} {rng.choice(topic)}" for _ in range(rng.choice([0, 1, 2, 3]))]
    for phrase in phrases:
        words.insert(rng.randrange(len(words) + 1), phrase)
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        place = rng.randrange(len(words))
        words[place] = rng.choice(_QUIRKS).format(words[place])
    text = " ".join(words)
    text = text[0].upper() + text[1:]
    if rng.random() < (0.4 if labels["severe_toxic"] else 0.02):
        text = text.upper() + "!!!"
    return text, [int(labels[label]) for label in LABELS]


def _draw_labels(rng: random.Random) -> dict[str, bool]:
    toxic = rng.random() < 0.096
    severe = toxic and rng.random() < 0.10
    rates = {"obscene": 0.5, "threat": 0.03, "insult": 0.48, "identity_hate": 0.08}
    if severe:
        rates = {"obscene": 0.95, "threat": 0.08, "insult": 0.87, "identity_hate": 0.2}
    kinds = {label: toxic and rng.random() < rate for label, rate in rates.items()}
    return {"toxic": toxic, "severe_toxic": severe, **kinds}


def _hostile_words(rng: random.Random, labels: Mapping[str, bool]) -> list[str]:
    """The words that tell of the labels; for some comments there is none, and for some without labels there is."""
    if not labels["toxic"]:
        return _any_tells(rng, 1) if rng.random() < 0.01 else []
    if rng.random() < 0.08:
        return []
    kinds = [label for label in ("obscene", "threat", "insult", "identity_hate") if labels[label]]
    counts = [3, 4, 5] if labels["severe_toxic"] else [1, 1, 2]
    return [word for kind in kinds or ["toxic"] for word in rng.choices(_TELLS[kind], k=rng.choice(counts))]


def _any_tells(rng: random.Random, count: int) -> list[str]:
    kinds = rng.choices(list(_TELLS), [0.35, 0.5, 0.05, 0.48, 0.15], k=count)
    return [rng.choice(_TELLS[kind]) for kind in kinds]


def _ids(rng: random.Random, count: int) -> list[str]:
    """Different ids of 16 hexadecimal digits."""
    ids = dict.fromkeys(_TREACHEROUS_IDS)
    while len(ids) < count:
        ids[f"{rng.getrandbits(64):016x}"] = None
    shuffled = list(ids)
    rng.shuffle(shuffled)
    return shuffled
