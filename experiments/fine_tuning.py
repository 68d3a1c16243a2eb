"""Fine-tuning of pretrained encoders on real data: scores and times, next to n-grams and scikit-learn.

    python experiments/fine_tuning.py --checkpoint all-MiniLM-L6-v2/ --splits 0 1 2 --freeze backbone
    python experiments/fine_tuning.py --checkpoint all-MiniLM-L6-v2/ --data sst2 --data-root FOLDER
    python experiments/fine_tuning.py --data sst2 --data-root FOLDER

Trains on the sample of the sentiment task or on a data set of FOLDER, and adds a row to experiments/fine_tuning.md.
Without --checkpoint, the rows are those of the task's own recipe, of n-grams, and of scikit-learn. Other flags are
passed to jaxcls train. FOLDER holds sst2/{train,test}.csv (columns text and positive), hate_speech/tweets.csv (id,
tweet, class; a fifth of the rows is the test) and go_emotions/{train,test}.csv (id, text and 28 columns of labels).
Recipes are chosen by the scores of validation examples.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.data.datasets import sentiment
from jaxcls.data.formats.tables import read_csv
from jaxcls.tasks import build

TABLE = Path(__file__).with_suffix(".md")
# The columns of the data sets that are one table, or two.
TABLES = {
    "sst2": ["--text-column", "text", "--label-column", "positive"],
    "hate_speech": ["--text-column", "tweet", "--label-column", "class", "--id-column", "id"],
    "go_emotions": ["--text-column", "text", "--id-column", "id", "--label-column"],
}
# Those that are scored by accuracy; the others by macro F1.
ACCURACY = ("sample", "sst2")
TRAIN = """
import dataclasses, sys
from jaxcls import tasks
from jaxcls.cli.main import main
from jaxcls.data.datasets import sentiment
split, *words = sys.argv[1:]
sample = dataclasses.replace(tasks.TASKS["sentiment"], load=lambda _: sentiment.load_sample(0.2, seed=int(split)))
tasks.TASKS["sentiment"] = sample
sys.exit(main(["train", *words]))
"""
HEAD = """# Fine-tuning on real data

Written by `python experiments/fine_tuning.py`, on {}.
Scores are those of the test examples: accuracy, or macro F1 for hate speech and emotions; means of the splits of the
sample, or of the seeds for other data. The validation accuracy is that of the last epoch. The seconds are those of the
whole process, while other programs ran; the seconds of processor time depend less on that.

| data | what learns | splits or seeds | test score | validation accuracy | seconds | processor seconds |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a folder in Hugging Face's layout")
    parser.add_argument("--data", choices=["sample", *TABLES], default="sample")
    parser.add_argument("--data-root", type=Path, help="the folder of the data sets")
    parser.add_argument("--splits", type=int, nargs="+", default=[0], help="of the sample; the seeds of other data")
    arguments, flags = parser.parse_known_args()
    words = flags if arguments.checkpoint is None else [*flags, "--pretrained", str(arguments.checkpoint)]
    runs = [train(arguments, [*data_flags(arguments, split), *words], split) for split in arguments.splits]
    recipe = " ".join(flags) or "the recipe"
    add_row(arguments, f"{'n-grams' if arguments.checkpoint is None else 'encoder'}, {recipe}", runs)
    if arguments.checkpoint is None:
        peers = [logistic_regression(arguments, split) for split in arguments.splits]
        add_row(arguments, "scikit-learn, TF-IDF of 1-2-grams and logistic regression", peers)


def add_row(arguments: argparse.Namespace, name: str, runs: list[tuple[float, float, float, float]]) -> None:
    test, validation, seconds, spent = (statistics.mean(values) for values in zip(*runs, strict=True))
    splits = " ".join(map(str, arguments.splits))
    row = f"| {arguments.data} | {name} | {splits} | {test:.4f} | {validation:.4f} | {seconds:.0f} | {spent:.0f} |\n"
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else HEAD.format(processor())
    TABLE.write_text(text + row, encoding="utf-8")
    print(row)


def data_flags(arguments: argparse.Namespace, split: int) -> list[str]:
    if arguments.data == "sample":
        return ["--task", "sentiment"]
    folder = arguments.data_root / arguments.data
    tables = sorted(folder.glob("t*.csv"), reverse=True)  # train.csv, test.csv; or one table
    words = ["--task", "text_csv", "--data", str(tables[0]), "--seed", str(split), *TABLES[arguments.data]]
    if arguments.data == "go_emotions":
        words += [*read_csv(tables[0], text=["id", "text"])][2:]
    return [*words, "--test-data", str(tables[1])] if len(tables) > 1 else words


def train(arguments: argparse.Namespace, words: list[str], split: int) -> tuple[float, float, float, float]:
    """The scores of the test and of the validation, and the seconds of the process and of its processors."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "run")
        start, before = time.perf_counter(), os.times()
        command = [sys.executable, "-c", TRAIN, str(split), *words, "--run-dir", str(directory)]
        subprocess.run(command, check=True)
        seconds, after = time.perf_counter() - start, os.times()
        results = json.loads((directory / "results.json").read_text())
        epochs = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    print(results["metrics"], f"{seconds:.0f} s")
    scores = [label["f1"] for label in results["labels"].values()]
    score = results["metrics"]["accuracy"] if arguments.data in ACCURACY else statistics.mean(scores)
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return score, epochs[-1]["val_accuracy"], seconds, spent


def logistic_regression(arguments: argparse.Namespace, split: int) -> tuple[float, float, float, float]:
    """As :func:`train`, of scikit-learn's model, fitted on all training rows; without a score of the validation."""
    start, before = time.perf_counter(), time.process_time()
    task, settings = build.resolve(parse(Train, data_flags(arguments, split)))
    data = sentiment.load_sample(0.2, seed=split) if arguments.data == "sample" else task.load(settings)
    classifier = LogisticRegression(max_iter=1000)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        OneVsRestClassifier(classifier) if data.train.labels.ndim == 2 else classifier,
    )
    predictions = model.fit(data.train.inputs, data.train.labels).predict(data.test.inputs)
    if arguments.data in ACCURACY:
        score = (predictions == data.test.labels).mean()
    else:
        score = f1_score(data.test.labels, predictions, average="macro")
    return score, np.nan, time.perf_counter() - start, time.process_time() - before


def processor() -> str:
    """The name of the processor and the number of its cores that are used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict([part.strip() for part in line.split(":", 1)] for line in lines if ":" in line)
    kind = f"{fields['model name']}, family {fields['cpu family']}, model {fields['model']}"
    return f"{len(os.sched_getaffinity(0))} cores of {kind}"


if __name__ == "__main__":
    main()
