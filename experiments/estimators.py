"""JaxClassifier in scikit-learn: its checks, the time of repeated fits, and searches next to other classifiers.

    OMP_NUM_THREADS=1 python experiments/estimators.py --data-dir FOLDER --out experiments/estimators.md

FOLDER holds the tables of TABLES as CSV files, from R's packages modeldata and carData. Of each table a quarter is the
test, stratified, with seeds 0, 1 and 2; GridSearchCV chooses by the log loss of three folds of the other rows, and the
test rows are scored once. Logistic regression has standardized numbers, means for missing ones, and one-hot
categories; gradient boosting takes both directly. `csv` is the task with its defaults on the same rows. CPU seconds
are those of searching, fitting and predicting, compilation included: nothing is read from a cache on disk.
"""

import argparse
import contextlib
import functools
import io
import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import sklearn
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from jaxcls import JaxClassifier
from jaxcls.tasks import build
from jaxcls.training.settings import Settings

TABLES = {"attrition": "Attrition", "churn": "churn", "credit_data": "Status"}
EXPECTED = {"check_sample_weight_equivalence_on_dense_data": "batches are random, so a weight of 2 is no row twice"}
CHECKED = {
    "linear, 30 epochs at a rate of 0.05": JaxClassifier("linear", epochs=30, learning_rate=0.05),
    "the defaults": JaxClassifier(),
}


def cpu_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    before = os.times()
    result = function()
    after = os.times()
    return after.user - before.user + after.system - before.system, result


def checks() -> list[str]:
    lines = ["## check_estimator", ""]
    for name, estimator in CHECKED.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work = functools.partial(check_estimator, estimator, expected_failed_checks=EXPECTED, on_fail=None)
            seconds, results = cpu_seconds(work)
        by_status: dict[str, list[Any]] = {}
        for result in results:
            by_status.setdefault(result["status"], []).append(result)
        counts = ", ".join(f"{len(each)} {status}" for status, each in sorted(by_status.items()))
        lines += [f"With {name}: {counts}; {seconds:.0f} CPU seconds.", ""]
        for status in ("failed", "xfail", "skipped"):
            for result in by_status.get(status, []):
                error = str(result["exception"]).strip().splitlines()[0]
                reason = EXPECTED[result["check_name"]] if status == "xfail" else error
                lines.append(f"- {status}: `{result['check_name']}`, {reason}")
        passed = sorted({result["check_name"] for result in by_status["passed"]})
        lines += [f"- passed: {', '.join(f'`{check}`' for check in passed)}", ""]
    return lines


def repeated_fits() -> list[str]:
    """Fits 150 rows of 4 numbers, again with another seed and rate, and 149 rows."""
    X, y = load_iris(return_X_y=True)
    lines = ["| model | first fit | another seed and rate | one row less | predict, first | predict, again |"]
    lines.append("|---|---|---|---|---|---|")
    for model in ("ensemble", "mlp", "linear"):
        estimator = JaxClassifier(model)
        again = JaxClassifier(model, random_state=1, learning_rate=0.01)
        works: list[Callable[[], Any]] = [
            functools.partial(estimator.fit, X, y),
            functools.partial(again.fit, X, y),
            functools.partial(again.fit, X[1:], y[1:]),
            functools.partial(estimator.predict_proba, X),
            functools.partial(again.predict_proba, X),
        ]
        cells = [f"{cpu_seconds(work)[0]:.2f}" for work in works]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def contenders() -> dict[str, tuple[Any, dict[str, list[Any]]]]:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
    )
    return {
        "JaxClassifier": (JaxClassifier(), {"learning_rate": [3e-3, 7e-3, 1.5e-2]}),
        "LogisticRegression": (
            make_pipeline(columns, LogisticRegression(max_iter=2000)),
            {"logisticregression__C": [0.01, 0.1, 1.0]},
        ),
        "HistGradientBoosting": (
            HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0),
            {"learning_rate": [0.03, 0.1, 0.3]},
        ),
    }


def of_task(train: pd.DataFrame, test: pd.DataFrame, label: str) -> float:
    """The log loss of the task csv."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = [Path(folder) / name for name in ("train.csv", "test.csv")]
        for frame, path in zip((train, test), paths, strict=True):
            frame.to_csv(path, index=False)
        built = build.build(Settings(task="csv", data=paths[0], test_data=paths[1], label_column=(label,)))
        options, experiment = built.settings, built.experiment
        state, _ = experiment.fit(
            experiment.init(options.seed), built.train, options.epochs, batch_size=options.batch_size, verbose=False
        )
        scores = experiment.predict(state, built.splits.test.inputs)
    return float(log_loss(built.splits.test.labels, scores))


def searched(search: GridSearchCV, train: pd.DataFrame, test: pd.DataFrame, label: str) -> np.ndarray:
    search.fit(train.drop(columns=label), train[label])
    scores: np.ndarray = search.predict_proba(test.drop(columns=label))
    return scores


def searches(data: Path) -> list[str]:
    names = [*contenders()]
    lines = [f"| table | {' | '.join(names)} | csv | chosen rates of JaxClassifier |", "|---" * (len(names) + 3) + "|"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for table, label in TABLES.items():
        frame = pd.read_csv(data / f"{table}.csv").drop(columns="rownames")
        words = frame.select_dtypes(exclude="number").columns.drop(label)
        frame[words] = frame[words].astype("category")
        losses: dict[str, list[float]] = {name: [] for name in [*names, "csv"]}
        rates = []
        for seed in range(3):
            train, test = train_test_split(frame, test_size=0.25, stratify=frame[label], random_state=seed)
            for name, (estimator, grid) in contenders().items():
                search = GridSearchCV(estimator, grid, scoring="neg_log_loss", cv=3)
                spent, scores = cpu_seconds(functools.partial(searched, search, train, test, label))
                seconds[name].append(spent)
                losses[name].append(log_loss(test[label], scores))
                if name == "JaxClassifier":
                    rates.append(search.best_params_["learning_rate"])
            losses["csv"].append(of_task(train, test, label))
            print(table, seed, {name: round(each[-1], 4) for name, each in losses.items()}, flush=True)
        means = {name: float(np.mean(each)) for name, each in losses.items()}
        best = min(means[name] for name in names)
        cells = [f"**{mean:.4f}**" if mean == best else f"{mean:.4f}" for mean in means.values()]
        lines.append(f"| {table} | {' | '.join(cells)} | {', '.join(map(str, rates))} |")
    shown = " | ".join(f"{np.mean(each):.1f}" for each in seconds.values())
    lines.append(f"| CPU seconds of a search of 10 fits, mean | {shown} | | |")
    return lines


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    arguments = parser.parse_args()
    versions = f"scikit-learn {sklearn.__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    lines = ["# JaxClassifier in scikit-learn", ""]
    lines += ["`OMP_NUM_THREADS=1 python experiments/estimators.py --data-dir FOLDER --out experiments/estimators.md`;"]
    lines += [f"its docstring says how. {processor()}, {os.cpu_count()} cores, {versions}."]
    lines += ["", "## A search over the learning rate", "", "Mean log loss of the test rows of three splits.", ""]
    lines += searches(arguments.data_dir)
    lines += ["", "## Repeated fits", "", "CPU seconds of 150 rows of 4 numbers (iris), defaults.", ""]
    lines += [*repeated_fits(), ""]
    lines += checks()
    arguments.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
