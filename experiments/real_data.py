"""The recipes of the tasks on real data, next to simple models on the same test examples.

    python experiments/real_data.py --data-root FOLDER --text-encoder MiniLM/ --image-encoder lite0/
    python experiments/real_data.py --data-root FOLDER --only sst2 hate_speech --models default --seeds 0
    python experiments/real_data.py --data-root FOLDER --others --peers-python PYTHON

Trains the default recipe and pretrained encoders on texts and photographs. Each run is a process of its own, of `jaxcls
train` with the flags of the table. Its scores and times are added to real_data.jsonl, and real_data.md is written from
all of them; a run that is in the record with the same flags is left out. With --others, it runs the experiments that
compare the recipes with other models: texts.py, own_tables.py, leaves.py, chest_xray.py and detection.py. Recipes were
chosen by validation examples; the test examples are used for the tables alone.

FOLDER holds what there is of imdb/ (aclImdb_v1.tar.gz), sst2/ (train, validation and test.csv, columns text and
positive), go_emotions/ (likewise, id, text and 28 labels), hate_speech/tweets.csv (id, tweet, class), chest_xray/
(Kaggle's), pneumoniamnist/, ants_bees/ (torchvision's tutorial), bccd/ and tables/ (*.csv, of R's modeldata). PYTHON
has lightgbm, xgboost, catboost, scikit-learn and pandas.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import processes

RECORD = Path(__file__).with_suffix(".jsonl")
TABLE = Path(__file__).with_suffix(".md")
FROM_ENCODER = "--pretrained {text_encoder} --dtype bfloat16"
FROM_IMAGES = "--pretrained {image_encoder}"


class Data(NamedTuple):
    """A data set.

    Attributes:
      flags: of `jaxcls train`.
      score: the metric that models are compared by, and that is shown with its interval.
      other: a second metric.
      models: the flags of each model besides the default recipe.
    """

    flags: str
    score: str
    other: str
    models: dict[str, str]


ENCODERS = {"encoder": FROM_ENCODER, "encoder, frozen": f"{FROM_ENCODER} --freeze backbone"}
IMAGE_ENCODERS = {"encoder": FROM_IMAGES, "encoder, frozen": f"{FROM_IMAGES} --freeze backbone"}
DATA = {
    "sentiment sample": Data("--task sentiment --source sample", "accuracy", "roc_auc", ENCODERS),
    "sst2": Data(
        "--task text_csv --data {root}/sst2/train.csv --validation-data {root}/sst2/validation.csv "
        "--test-data {root}/sst2/test.csv --text-column text --label-column positive",
        "accuracy", "roc_auc", ENCODERS,
    ),
    "imdb": Data("--task sentiment --data-dir {root}/imdb", "accuracy", "roc_auc", ENCODERS),
    "hate_speech": Data(
        "--task text_csv --data {root}/hate_speech/tweets.csv --text-column tweet --label-column class --id-column id",
        "f1", "accuracy", ENCODERS,
    ),
    "go_emotions": Data(
        "--task text_csv --data {root}/go_emotions/train.csv --validation-data {root}/go_emotions/validation.csv "
        "--test-data {root}/go_emotions/test.csv --text-column text",
        "f1", "roc_auc", ENCODERS,
    ),
    "chest_xray": Data("--task chest_xray --data-dir {root}/chest_xray", "accuracy", "roc_auc", IMAGE_ENCODERS),
    "pneumoniamnist": Data(
        "--task chest_xray --data-dir {root}/pneumoniamnist", "accuracy", "roc_auc", IMAGE_ENCODERS
    ),
    "ants_bees": Data(
        "--task image_folder --data {root}/ants_bees/train --test-data {root}/ants_bees/val",
        "accuracy", "roc_auc", IMAGE_ENCODERS,
    ),
}  # fmt: skip
# The experiments that compare recipes with other models, and where each finds its data.
OTHERS = {
    "texts": "--data-root {root}",
    "own_tables": "--data-dir {root}/tables --peers-python {python} --out {folder}/own_tables.md",
    "leaves": "--peers {python}",
    "chest_xray": "--data-dir {root}/chest_xray --runs runs/ --seeds 0 1 2",
    "detection": "--data {root}/bccd",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, metavar="FOLDER", help="the folder of the data sets")
    parser.add_argument("--text-encoder", type=Path, metavar="FOLDER", help="a pretrained encoder of texts")
    parser.add_argument("--image-encoder", type=Path, metavar="FOLDER", help="a pretrained encoder of images")
    parser.add_argument("--only", nargs="+", choices=DATA, default=[*DATA], help="data sets (default: all)")
    parser.add_argument("--models", nargs="+", help="models of the table (default: all)")
    parser.add_argument("--flags", default="", help="further flags of jaxcls train, such as --flags='--epochs 4'")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--others", action="store_true", help="run the experiments with other models instead")
    parser.add_argument("--peers-python", metavar="PYTHON", help="a Python with boosted trees")
    options = parser.parse_args()
    if options.others:
        if options.peers_python is None:
            parser.error("--others needs --peers-python")
        folder = Path(__file__).parent
        for name, flags in OTHERS.items():
            words = flags.format(root=options.data_root, python=options.peers_python, folder=folder).split()
            subprocess.run([sys.executable, folder / f"{name}.py", *words], check=True)
        return
    done = {(row["data"], row["model"], row["seed"], row["flags"]) for row in rows()}
    for name, model, flags, seed in runs(options):
        if (name, model, seed, flags) not in done:
            result = train(flags, seed, options)
            row = {"data": name, "model": model, "seed": seed, "flags": flags, "machine": processes.machine(), **result}
            with RECORD.open("a", encoding="utf-8") as record:
                record.write(json.dumps(row) + "\n")
            print(name, model, seed, {key: round(value, 4) for key, value in result["metrics"].items()})
            TABLE.write_text(table(), encoding="utf-8")


def runs(options: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """The data set, the model, its flags and the seed of each run."""
    for name in options.only:
        data = DATA[name]
        for model, flags in {"default": "", **data.models}.items():
            lacking = [kind for kind in ("text", "image") if f"{{{kind}_encoder}}" in flags]
            if any(getattr(options, f"{kind}_encoder") is None for kind in lacking):
                continue
            if options.models is None or model in options.models:
                yield from (
                    (name, model, " ".join(filter(None, [data.flags, flags, options.flags])), seed)
                    for seed in options.seeds
                )


def train(flags: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The scores of a run of jaxcls, and its times."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "run")
        words = [*arguments(flags, options), "--seed", str(seed), "--run-dir", str(directory)]
        # The sample has a test part for each seed.
        program = ["-c", OF_SPLIT, str(seed)] if "--source sample" in flags else ["-m", "jaxcls"]
        seconds, spent, _ = processes.run([sys.executable, *program, "train", *words])
        results = json.loads((directory / "results.json").read_text())
        summary = json.loads((directory / "summary.json").read_text())
        epochs = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    validation = {key: value for key, value in epochs[-1].items() if key.startswith("val_")}
    return {
        "metrics": {key: value for key, value in results["metrics"].items() if isinstance(value, float)},
        "intervals": summary["intervals"]["metrics"], "validation": validation,
        "seconds": seconds, "processor_seconds": spent,
    }  # fmt: skip


OF_SPLIT = """
import dataclasses, sys
from jaxcls import tasks
from jaxcls.cli.main import main
from jaxcls.data.datasets import sentiment
split, *words = sys.argv[1:]
task = tasks.TASKS["sentiment"]
tasks.TASKS["sentiment"] = dataclasses.replace(task, load=lambda _: sentiment.load_sample(0.2, seed=int(split)))
sys.exit(main(words))
"""


def arguments(flags: str, options: argparse.Namespace) -> list[str]:
    """The words of flags, with the folders of the options."""
    folders = {"root": options.data_root, "text_encoder": options.text_encoder, "image_encoder": options.image_encoder}
    return flags.format(**folders).split()


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORD.read_text().splitlines()] if RECORD.exists() else []


def table() -> str:
    """The record as Markdown: a row for each model and flags, with means of the seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows():
        groups.setdefault((row["data"], row["model"], row["flags"]), []).append(row)
    lines = [HEAD.format("; ".join(dict.fromkeys(row["machine"] for row in rows())))]
    for name, data in DATA.items():
        models = {(model, flags): runs for (of, model, flags), runs in groups.items() if of == name}
        if not models:
            continue
        lines += [
            f"\n## {name}\n\n`{data.flags}`\n",
            f"| model | seeds | {data.score} | 95 % interval | {data.other} | seconds | processor seconds |",
            "|---|---|---|---|---|---|---|",
        ]
        for (model, flags), runs in models.items():
            score, other, seconds, spent = (
                statistics.mean(values)
                for values in zip(
                    *((run["metrics"][data.score], run["metrics"].get(data.other, np.nan), run["seconds"],
                       run["processor_seconds"]) for run in runs), strict=True,
                )
            )  # fmt: skip
            bounds = [run["intervals"][data.score] for run in runs if data.score in run["intervals"]]
            interval = " to ".join(f"{statistics.mean(ends):.4f}" for ends in zip(*bounds, strict=True))
            seeds = " ".join(str(run["seed"]) for run in runs)
            more = flags.removeprefix(data.flags).strip()
            title = f"{model}, `{more}`" if more else model
            lines.append(
                f"| {title} | {seeds} | {score:.4f} | {interval} | {other:.4f} | {seconds:.0f} | {spent:.0f} |"
            )
    return "\n".join(lines) + "\n"


HEAD = """# Real data

Written by `python experiments/real_data.py`, whose help tells what each data set is, on {}.

Scores are those of the test examples, means of the seeds; the interval tells what other test examples may give (the
mean of the intervals of the seeds). A seed decides the initial weights, the order of the examples and, where the data
has no validation part, which training examples validate; for the sentiment sample also the test part. Metrics are those
of the report of a run, f1 the mean of the classes. Seconds are those of the whole process, while other
programs ran."""


if __name__ == "__main__":
    main()
