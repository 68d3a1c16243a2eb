"""Toxic comments (Kaggle 2018, Jigsaw): six labels of 160,000 comments of Wikipedia's talk pages.

    python -m jaxcls.train --task toxic_comment
    python -m jaxcls.train --task toxic_comment --data-dir FOLDER    # with Kaggle's four CSV files, unpacked

Traps: over half of the test rows are not scored; their labels are -1, and they are left out here. test.csv and
test_labels.csv are joined by id, not by place. An id such as 0000e12345678901 is no number. TFDS calls three labels
otherwise. The columns of a submission are in the order of LABELS. The labels are rare (threat 0.3%) and the score is
the mean of their ROC AUC, each of which counts the same; accuracy says nothing.
"""

import functools
import shutil
import zipfile
from pathlib import Path

import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError
from jaxcls.data import downloads, sources, user_tables
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats.tables import Table, numbers, read_csv, require
from jaxcls.data.samples import toxic_comment as sample
from jaxcls.models import text
from jaxcls.tasks import texts
from jaxcls.tasks.task import Preset, Task
from jaxcls.training.settings import Settings

# toxic, severe_toxic, obscene, threat, insult, identity_hate.
LABELS = sample.LABELS
# As TFDS calls them, and after it the data sets that followed.
RENAMED = {"toxicity": "toxic", "severe_toxicity": "severe_toxic", "identity_attack": "identity_hate"}
FILES = ("train.csv", "test.csv", "test_labels.csv")
TFDS_FILES = ("wikidata_train.csv", "wikidata_test.csv")
NEEDS = (
    f"Give --data-dir a folder with {', '.join(FILES)} of Kaggle's jigsaw-toxic-comment-classification-challenge, "
    "unpacked, or use --source sample."
)


def load(settings: Settings) -> Dataset:
    """All of the training comments, and the scored ones of the test."""
    return sources.load(
        "toxic_comment",
        settings.source,
        settings.data_dir,
        read=_from_folder,
        others={"tfds": _from_tfds, "sample": lambda: sources.load_sample(sample.write, _from_folder)},
        needs=NEEDS,
    )


def read(path: Path, settings: Settings) -> Unlabeled:
    """The comments of a file such as Kaggle's test.csv."""
    table = _read(path)
    return Unlabeled(table["id"], table["comment_text"])


def _from_folder(folder: Path) -> Dataset:
    paths = [folder / name for name in FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{folder} does not hold {', '.join(missing)}. {NEEDS}")
    files.all_inside(folder, paths)
    train_path, test_path, labels_path = paths
    train = _labelled(train_path, learned=True)
    test, answers = _read(test_path), _read(labels_path, comments=False)
    rows = user_tables.match_ids(test["id"], answers["id"], str(test_path), str(labels_path))
    labels = _labels_of_test(answers, labels_path)[rows]
    scored = labels[:, 0] >= 0
    note = f"{scored.sum():,} of {len(scored):,} test rows are scored, the labels of the others are -1"
    record = Provenance("files", str(folder), sources.checksums(paths), synthetic=False, note=note)
    return Dataset("toxic_comment", train, Split(test["comment_text"][scored], labels[scored]), LABELS, record)


def _labels_of_test(table: Table, path: Path) -> np.ndarray:
    """0 and 1, and -1 throughout the rows that are not scored."""
    labels = _labels(table, path, allowed=(0, 1, -1))
    unknown = labels == -1
    for row in np.flatnonzero(unknown.any(axis=1) & ~unknown.all(axis=1))[:1]:
        raise InputError(f"{path}: row {row + 1} is -1 in some columns; a row is scored in all of them or in none.")
    if unknown.all():
        raise InputError(f"{path}: all labels are -1, so no row can be scored; Kaggle added the labels later.")
    return labels


def _from_tfds() -> Dataset:
    name = "wikipedia_toxicity_subtypes"
    registered = downloads.registered(name)
    url = next(url for url in registered if url.endswith("_v0.3.zip"))
    folder, fetched = downloads.fetch(name, {"archive": url}, registered)
    archive = fetched["archive"]
    # TFDS verifies what it downloads, and not what it finds in its cache.
    (digest,) = sources.checksums([archive]).values()
    if digest != registered[url].checksum:
        raise InputError(f"{archive}: the SHA-256 of the content is not the registered one. Delete it and run again.")
    unpacked = environment.cache_directory() / "unpacked" / f"{name}-{digest[:12]}"
    sources.write_once(unpacked, lambda empty: _unpack(archive, empty))
    train, test = (_labelled(unpacked / file, learned=file == TFDS_FILES[0]) for file in TFDS_FILES)
    note = f"TFDS {name}, SHA-256 verified; holds the scored test rows alone"
    record = Provenance("tfds", str(folder), {archive.name: digest}, synthetic=False, note=note)
    return Dataset("toxic_comment", train, test, LABELS, record)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as members:
            for name in TFDS_FILES:
                with members.open(name) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{archive}: not the archive that TFDS registers ({error}).") from error


def _labelled(path: Path, *, learned: bool) -> Split:
    table = _read(path)
    labels = _labels(table, path, allowed=(0, 1))
    for column in np.flatnonzero(np.all(labels == labels[0], axis=0))[: int(learned)]:
        raise InputError(
            f"{path}: column {LABELS[column]!r} is {labels[0, column]:g} in every row; there is nothing to learn."
        )
    return Split(table["comment_text"], labels)


def _read(path: Path, *, comments: bool = True) -> Table:
    table = read_csv(path, text=("id", "comment_text"))
    for name in ("id", "comment_text") if comments else ("id",):
        require(table, name, path)
    user_tables.check_unique(table["id"], "id", str(path))
    return {RENAMED.get(name, name): column for name, column in table.items()}


def _labels(table: Table, path: Path, *, allowed: tuple[int, ...]) -> np.ndarray:
    """float32 (N, 6), in the order of LABELS whatever that of the columns."""
    labels = np.stack([numbers(table, name, path) for name in LABELS], axis=1)
    for row, column in np.argwhere(~np.isin(labels, allowed))[:1]:
        raise InputError(
            f"{path}: row {row + 1} of column {LABELS[column]!r} is {labels[row, column]:g}; "
            f"labels are {', '.join(map(str, allowed))}."
        )
    return labels.astype(np.float32)


DEFAULT = Settings(
    model="ngrams",
    epochs=16,
    batch_size=128,
    dropout=0.0,
    loss="binary_crossentropy",
    # Steps proportional to the gradients: Adam's, as long for a rare n-gram as for a common one, learn the rare ones by
    # heart. They are long because texts are vectors of length 1 and the loss is the mean of six labels.
    optimizer="sgd",
    momentum=0.9,
    learning_rate=80.0,
    schedule="cosine",
    vocabulary_size=8000,
    max_length=256,
    validation_fraction=0.05,
    monitor="roc_auc",
    # With few examples of a label its AUC is noise, and the rate ends at zero: the last epoch is the one to keep.
    restore_best=False,
)

TASK = Task(
    name="toxic_comment",
    summary="six kinds of toxic comments, of which one comment may be several",
    problem="multilabel",
    load=load,
    read=read,
    fit_preprocessor=texts.fit_preprocessor,
    models={"ngrams": functools.partial(text.NGrams, orders=2), "cnn": text.CNN, "transformer": text.Transformer},
    presets={"default": Preset(DEFAULT)},
    metrics=["roc_auc", "average_precision"],
    specialize=texts.specialize,
)
