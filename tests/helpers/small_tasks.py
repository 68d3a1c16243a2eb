"""A few examples of every task, in the files of the real ones, with the flags of a short run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import chest_drawings
import kaggle_leaves
import numpy as np
import small_data
from idx_files import write_idx

from jaxcls.data.datasets import idx_images, sentiment
from jaxcls.data.formats import tables
from jaxcls.data.samples import disease_tagging, fraud, image_folder, toxic_comment
from jaxcls.tasks import mnist


class Small(NamedTuple):
    """A few examples of a task.

    Attributes:
      write: writes its files, in the format of the real ones, into an empty folder.
      queries: the file or folder to predict.
      flags: of a short run; '{}' is the folder.
    """

    write: Callable[[Path], Any]
    queries: str
    flags: str = "--data-dir {}"


def _few_digits(folder: Path) -> None:
    sample = idx_images.load(mnist.IMAGES, "sample")
    for prefix, part in (("train", sample.train), ("t10k", sample.test)):
        rows = np.sort(np.argsort(part.labels, kind="stable")[:: len(part.labels) // 100])
        write_idx(folder / f"{prefix}-images-idx3-ubyte", part.inputs[rows, :, :, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", part.labels[rows].astype(np.uint8))


def _few_reviews(folder: Path) -> None:
    part = sentiment.load_sample(0.5).train.take(np.arange(300))
    words = np.array(sentiment.CLASS_NAMES, object)[part.labels]
    tables.write_csv(folder / sentiment.KAGGLE, {"review": part.inputs, "sentiment": words})


_few_comments = partial(toxic_comment.write, train_rows=300, test_rows=60)
_few_payments = partial(fraud.write, rows=2000, fraud=0.05)
FEW_TOKENS = "--vocabulary-size 300 --max-length 16"

# Enough training examples for every class on both sides of every split. test_detection.py has that of detection.
TASKS = {
    "mnist": Small(_few_digits, "t10k-images-idx3-ubyte", "--data-dir {} --model mlp"),
    "fashion_mnist": Small(small_data.write, "t10k-images-idx3-ubyte.gz"),
    "fashion_mnist_groups": Small(small_data.write, "t10k-images-idx3-ubyte.gz", "--data-dir {} --model mlp"),
    "sentiment": Small(_few_reviews, sentiment.KAGGLE, f"--data-dir {{}} {FEW_TOKENS}"),
    "toxic_comment": Small(_few_comments, "test.csv", f"--data-dir {{}} {FEW_TOKENS}"),
    "text_csv": Small(
        _few_comments,
        "test.csv",
        f"--data {{}}/train.csv --text-column comment_text --label-column toxic insult {FEW_TOKENS}",
    ),
    "csv": Small(_few_payments, "creditcard.csv", "--data {}/creditcard.csv --label-column Class"),
    "image_folder": Small(
        partial(image_folder.write, train=8, test=2), "test", "--data {} --image-size 16 --batch-size 16"
    ),
    "chest_xray": Small(
        partial(chest_drawings.write, train=60, test=12),
        "chest_xray/test/NORMAL",
        "--data-dir {} --image-size 16 --model cnn",
    ),
    "disease_tagging": Small(
        partial(disease_tagging.write, images=150),
        "images_001/images",
        "--data-dir {} --image-size 16 --model cnn",
    ),
    "leaf": Small(partial(kaggle_leaves.write, species=4), "test.csv"),
    "fraud": Small(_few_payments, "creditcard.csv"),
}


def train(task: str, root: Path) -> tuple[Path, Path]:
    """Trains a task for one epoch by its command.

    Args:
      task: its name.
      root: an empty folder.

    Returns:
      The directory of the run, and the folder of its data.
    """
    from jaxcls.cli.main import main

    data, directory = root / "data", root / "run"
    data.mkdir()
    TASKS[task].write(data)
    flags = [word.replace("{}", str(data)) for word in TASKS[task].flags.split()]
    assert main(["train", "--task", task, "--epochs", "1", "--run-dir", str(directory), *flags]) == 0
    return directory, data
