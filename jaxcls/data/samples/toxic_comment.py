"""Synthetic comments in the four files of Kaggle's Toxic Comment Classification Challenge.

Nobody wrote these comments. They are made-up words on topics; mild insults indicate a label, but only after a hostile
word ("you clown", not "never clown"), and both occur in harmless comments too. 8% of the toxic comments contain no such
phrase, and 1% of the others do contain one, so that no model can classify all of them. As in the real files, labels are
rare and correlated: severe_toxic implies toxic, threat is 0.3%.

Mean column-wise ROC AUC on the test split: logistic regression of TF-IDF 0.94 on words and 0.96 with pairs of words;
the number of hostile phrases, which is nearly all the information there is, 0.98.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxcls.data.formats.tables import write_csv

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")

_INSULTS = {
    "toxic": ["rubbish", "garbage", "nonsense", "drivel", "disgrace", "pathetic"],
    "obscene": ["crap", "arse", "bollocks", "turd", "knob", "piss"],
    "threat": ["thrashing", "beating", "payback", "doom"],
    "insult": ["idiot", "fool", "moron", "clown", "loser", "liar"],
    "identity_hate": ["zorbians", "quillites", "tandrians", "osmerites"],
}
_HOSTILE = ["you", "utter", "damned"]
_HARMLESS = ["not", "never", "without"]
_COMMON = [
    "the", "of", "and", "to", "a", "in", "is", "it", "that", "for", "on", "was", "as", "with", "be", "this", "by",
    "have", "from", "or", "at", "are", "an", "page", "article", "edit", "please", "talk", "I", "we", "they", "he",
    "my", "your", "if", "so", "but", "there", "can", "will", "has", "more", "which", "when", "would", "source", "link",
]  # fmt: skip
_QUIRKS = (
    '"{}"', "== {} ==", "'{}'", "{},", "{}.", "{}?", "caf\u00e9 {}", "{} \u2014", "\u201c{}\u201d", "{}\u2026",
    "\u043f\u0440\u0438\u0432\u0435\u0442 {}", "{} \U0001f642", "::{}", "{}\n\n", "\n{}", "{} 89.205.38.27", "{}\t",
)  # fmt: skip
# Read as numbers, these ids are invalid or equal: 0 and infinity.
_TREACHEROUS_IDS = ("0000e12345678901", "0000e98765432109", "1e99999999999999", "2e99999999999999", "0123456789012345")


def write(folder: Path, *, train_rows: int = 6000, test_rows: int = 4000, seed: int = 0) -> None:
    """Writes train.csv, test.csv, test_labels.csv and sample_submission.csv, quoted as Kaggle's are.

    Rows are sorted by id. 42% of the test rows are scored; the labels of the others are -1. Some test comments are in
    train.csv too.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write(folder, train_rows=30, test_rows=20)
    >>> (folder / "sample_submission.csv").read_text().splitlines()[:2]
    ['id,toxic,severe_toxic,obscene,threat,insult,identity_hate', '0123456789012345,0.5,0.5,0.5,0.5,0.5,0.5']
    """
    import pyarrow
    from pyarrow import csv

    rng = random.Random(seed)
    # Eight lists of made-up words, the most common first.
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstv", "aeiou")]
    words = sorted({"".join(rng.choices(syllables, k=rng.choice([2, 3, 3, 4]))) for _ in range(1700)})
    rng.shuffle(words)
    topics = [words[start : start + 200] for start in range(0, 1600, 200)]
    # The last two comments of each split have all labels, so that small splits contain every label too.
    every = dict.fromkeys(LABELS, True)
    train, test = (
        [_comment(rng, topics, every if row >= rows - 2 else _draw_labels(rng)) for row in range(rows)]
        for rows in (train_rows, test_rows)
    )
    for copy in range(test_rows // 300):
        test[copy] = train[copy]
    # Distinct ids of 16 hexadecimal digits.
    distinct = dict.fromkeys(_TREACHEROUS_IDS)
    while len(distinct) < train_rows + test_rows:
        distinct[f"{rng.getrandbits(64):016x}"] = None
    ids = list(distinct)
    rng.shuffle(ids)
    train_ids, test_ids = sorted(ids[:train_rows]), sorted(ids[train_rows:])
    scored = {*rng.sample(range(test_rows - 2), round(0.418 * test_rows) - 2), test_rows - 2, test_rows - 1}
    names = ("id", "comment_text", *LABELS)
    train_columns = dict(zip(names, (train_ids, *zip(*train, strict=True)), strict=True))
    test_columns: dict[str, Sequence[str | int]] = dict(zip(names, (test_ids, *zip(*test, strict=True)), strict=True))
    # Arrow encloses every text in quotes, as Kaggle's train.csv does.
    csv.write_csv(pyarrow.table(train_columns), folder / "train.csv")
    write_csv(folder / "test.csv", {name: test_columns[name] for name in names[:2]})
    for label in LABELS:
        test_columns[label] = [value if row in scored else -1 for row, value in enumerate(test_columns[label])]
    write_csv(folder / "test_labels.csv", {name: test_columns[name] for name in ("id", *LABELS)})
    half = dict.fromkeys(LABELS, [0.5] * test_rows)
    write_csv(folder / "sample_submission.csv", {"id": test_ids, **half})


# Zipf-like word frequencies.
_CUMULATIVE_FREQUENCIES = list(itertools.accumulate(1 / (rank + 5) for rank in range(200)))


def _comment(rng: random.Random, topics: Sequence[list[str]], labels: Mapping[str, bool]) -> list[str | int]:
    """A comment and its labels."""
    length = min(400, max(3, round(rng.lognormvariate(3.3, 0.8))))
    topic = rng.choice(topics)
    words = [
        rng.choice(_COMMON) if rng.random() < 0.45 else word
        for word in rng.choices(topic, cum_weights=_CUMULATIVE_FREQUENCIES, k=length)
    ]
    phrases = [f"{rng.choice(_HOSTILE)} {word}" for word in _insults(rng, labels)]
    if rng.random() < 0.5:
        phrases += [f"{rng.choice(_HARMLESS)} {word}" for word in _random_insults(rng, rng.choice([1, 1, 2, 3]))]
    # Neither kind of word indicates a label by itself.
    phrases += [f"{rng.choice(_HOSTILE + _HARMLESS)} {rng.choice(topic)}" for _ in range(rng.choice([0, 1, 2, 3]))]
    for phrase in phrases:
        words.insert(rng.randrange(len(words) + 1), phrase)
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        index = rng.randrange(len(words))
        words[index] = rng.choice(_QUIRKS).format(words[index])
    text = " ".join(words)
    text = text[0].upper() + text[1:]
    if rng.random() < (0.4 if labels["severe_toxic"] else 0.02):
        text = text.upper() + "!!!"
    return [text, *(int(labels[label]) for label in LABELS)]


def _draw_labels(rng: random.Random) -> dict[str, bool]:
    toxic = rng.random() < 0.096
    severe = toxic and rng.random() < 0.10
    rates = (0.95, 0.08, 0.87, 0.2) if severe else (0.5, 0.03, 0.48, 0.08)
    others = {label: toxic and rng.random() < rate for label, rate in zip(LABELS[2:], rates, strict=True)}
    return {"toxic": toxic, "severe_toxic": severe, **others}


def _insults(rng: random.Random, labels: Mapping[str, bool]) -> list[str]:
    """Words that indicate the labels; some comments with labels have none, and some without labels have one."""
    if not labels["toxic"]:
        return _random_insults(rng, 1) if rng.random() < 0.01 else []
    if rng.random() < 0.08:
        return []
    present = [label for label in LABELS[2:] if labels[label]]
    counts = [3, 4, 5] if labels["severe_toxic"] else [1, 1, 2]
    return [word for label in present or ["toxic"] for word in rng.choices(_INSULTS[label], k=rng.choice(counts))]


def _random_insults(rng: random.Random, count: int) -> list[str]:
    labels = rng.choices(list(_INSULTS), [0.35, 0.5, 0.05, 0.48, 0.15], k=count)
    return [rng.choice(_INSULTS[label]) for label in labels]
