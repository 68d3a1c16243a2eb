"""Generated toxic comments: the recipe of the task against TF-IDF with one logistic regression per label.

    python experiments/toxic_comment.py
    python experiments/toxic_comment.py --seeds 8 9 10 11 12
    python experiments/toxic_comment.py --seeds 1 2 5 6 7 --learning-rate 40    # how the recipe was chosen

The comments are SYNTHETIC, so nothing follows for real ones. Expected over thirteen seeds: a mean column-wise AUC
0.005 above that of scikit-learn's TF-IDF with its default logistic regression, equal to C=10, and 0.003 below C=10
with balanced classes. The test rows of a seed have about five threats, which change the mean of the six labels by up
to 0.02. The recipe was chosen on the seeds 1, 2, 5, 6 and 7. jaxcls holds out some training rows for validation;
scikit-learn trains on all. Other flags are passed to jaxcls train. Adds its rows to experiments/toxic_comment.md.
"""

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from jaxcls import tasks
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.data.dataset import Dataset
from jaxcls.data.datasets import kaggle_tables
from jaxcls.data.samples import toxic_comment as sample
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

TABLE = Path(__file__).with_suffix(".md")
HEAD = """# Toxic comments (SYNTHETIC)

Written by `python experiments/toxic_comment.py`: ROC AUC on the scored test rows of generated comments, with 6,000
training rows, by the seed of the generator: the mean of the six labels, and the AUC of `toxic` alone.
scikit-learn's models use TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).

| classifier | seeds | mean of the labels | mean of the seeds | toxic | mean of the seeds |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 3, 4])
    options, flags = parser.parse_known_args()
    settings = parse(Train, ["--task", "toxic_comment", *flags])
    datasets = [generated(seed) for seed in options.seeds]
    rows = ""
    for name, results in (
        (" ".join(["jaxcls", *flags]), [trained(dataset, settings) for dataset in datasets]),
        *(
            (f"scikit-learn, {model}", [regressed(dataset, model) for dataset in datasets])
            for model in (
                LogisticRegression(max_iter=1000),
                LogisticRegression(C=10, max_iter=1000),
                LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
            )
        ),
    ):
        columns = [
            f"{', '.join(f'{a:.4f}' for a in scores)} | {statistics.mean(scores):.4f}"
            for scores in zip(*results, strict=True)
        ]
        rows += f"| {name} | {', '.join(map(str, options.seeds))} | {' | '.join(columns)} |\n"
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else HEAD
    TABLE.write_text(text + rows, encoding="utf-8")
    print(rows)


def generated(seed: int) -> Dataset:
    """The comments of this seed, read from their files."""
    with tempfile.TemporaryDirectory() as folder:
        sample.write(Path(folder), seed=seed)
        return kaggle_tables.load_toxic_comment("files", Path(folder))


def trained(dataset: Dataset, settings: Settings) -> tuple[float, float]:
    """The mean ROC AUC of the recipe of the task, and that of `toxic`."""
    tasks.TASKS["toxic_comment"] = dataclasses.replace(tasks.TASKS["toxic_comment"], load=lambda _: dataset)
    with tempfile.TemporaryDirectory() as folder:
        report = train_task(dataclasses.replace(settings, run_dir=Path(folder, "run"))).report
    return report["metrics"]["roc_auc"], report["labels"]["toxic"]["roc_auc"]


def regressed(dataset: Dataset, classifier: LogisticRegression) -> tuple[float, float]:
    """The same for scikit-learn's TF-IDF with one classifier per label, fitted on all training rows."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        OneVsRestClassifier(classifier),
    )
    model.fit(dataset.train.inputs, dataset.train.labels)
    by_label = roc_auc_score(dataset.test.labels, model.predict_proba(dataset.test.inputs), average=None)
    return by_label.mean(), by_label[0]


if __name__ == "__main__":
    main()
