"""The cheat sheet, measured: losses and optimizers on real problems, each with a tuned learning rate.

    python experiments/cheat_sheet.py --data-root FOLDER
    python experiments/cheat_sheet.py --data-root FOLDER --only spam caravan --optimizers adam lion muon
    python experiments/cheat_sheet.py --only mnist --seeds 3 --rates 3 --record /tmp/try.jsonl

Trains every loss that fits a problem with every optimizer. The learning rate is the best of a logarithmic grid by the
score of the validation examples, with one seed and by the same rule for all: while the best rate is at an end of the
grid, two more are tried beyond it, at most four times. Ten other seeds train at that rate, each with other initial
weights, another order and another nine tenths of the training examples, and are tested. The networks are small (one
hidden layer of 64, or logistic regression on n-grams), so that a run takes about a second.

A score that needs no threshold (accuracy of the highest class, ROC AUC, average precision) chooses rates and compares:
hinge losses have no probabilities, and the weights of a loss shift them. F1 is shown at threshold 0.5, a logit of 0,
and at the one that is best on the validation examples.

The test examples are divided into ten parts. The difference of a combination to Adam with cross-entropy is the mean
over seeds and parts, and its variance is that of the seeds plus that of the parts, so that it counts both the
training's chance and the sample of test examples. P values are Holm's, over all comparisons of a problem.

FOLDER holds what there is of tables/ (caravan.csv, default.csv and leaf_flavia.csv, of R's modeldata and ISLR),
go_emotions/ (train, validation and test.csv) and hate_speech/tweets.csv; the other problems train on samples that come
with jaxcls. A combination that is in the record with the same settings is left out, so that a killed run continues.
Writes the tables of cheat_sheet.md; what is above its line is written by hand.
"""

import argparse
import dataclasses
import functools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import processes
from scipy import special, stats

from jaxcls._utils import environment
from jaxcls.metrics.shift import holm
from jaxcls.training.settings import Settings

RECORD = Path(__file__).with_suffix(".jsonl")
LINE = "<!-- tables -->"
PARTS = 10
WIDEST = 8  # the most rates that are tried besides those of the grid
PLAIN = "cross-entropy"
BASELINE = (PLAIN, "adam")

# Name of a loss -> its name in jaxcls.losses and its options.
Losses = dict[str, tuple[str, dict[str, Any]]]
BINARY: Losses = {
    PLAIN: ("binary_crossentropy", {}),
    "weighted, balanced": ("weighted_crossentropy", {"class_weight": "balanced"}),
    "focal, gamma 2": ("focal_loss", {"gamma": 2.0}),
    "hinge": ("hinge", {}),
    "squared hinge": ("squared_hinge", {}),
}
MULTICLASS: Losses = {
    PLAIN: ("sparse_categorical_crossentropy", {}),
    "weighted, balanced": ("weighted_crossentropy", {"class_weight": "balanced"}),
    "focal, gamma 2": ("focal_loss", {"gamma": 2.0}),
    "categorical hinge": ("categorical_hinge", {}),
    "label smoothing 0.1": ("sparse_categorical_crossentropy", {"label_smoothing": 0.1}),
}
MULTILABEL: Losses = {
    PLAIN: ("binary_crossentropy", {}),
    "weighted, balanced": ("weighted_crossentropy", {"class_weight": "balanced"}),
    "focal, gamma 2": ("focal_loss", {"gamma": 2.0}),
    "asymmetric": ("asymmetric", {}),
}

# Settings of each optimizer, and the middle of its grid for a network and for n-grams, whose gradients are small.
OPTIMIZERS: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "sgd": ({"momentum": 0.9}, 0.05, 10.0),
    "rmsprop": ({}, 0.002, 0.03),
    "adam": ({}, 0.003, 0.1),
    "adamw": ({"weight_decay": 0.05}, 0.003, 0.1),
    "adagrad": ({}, 0.05, 1.0),
    "nadam": ({}, 0.003, 0.1),
    "lion": ({}, 0.0005, 0.01),
    "muon": ({}, 0.003, None),  # for hidden layers, which n-grams lack
    "schedule_free": ({}, 0.01, 0.3),
}
# Those of the cheat sheet.
DEFAULT_OPTIMIZERS = ["sgd", "rmsprop", "adam", "adamw", "adagrad", "nadam"]


class Problem(NamedTuple):
    """A problem of the cheat sheet.

    Attributes:
      about: a few words for the table.
      score: the metric that chooses rates and compares.
      losses: by the name in the table.
      epochs: of each training.
      settings: of the task; {root} stands for the folder of the data.
      examples: at most this many training examples.
    """

    about: str
    score: str
    losses: Losses
    epochs: int
    settings: dict[str, Any]
    examples: int = 6000

    def middle(self, optimizer: str) -> float | None:
        """The middle of the grid of rates; None if the optimizer does not suit the model."""
        _, of_network, of_ngrams = OPTIMIZERS[optimizer]
        return of_ngrams if "vocabulary_size" in self.settings else of_network


def _balanced(losses: Losses) -> Losses:
    """The losses where all classes are equally frequent: balanced weights would be 1."""
    return {name: loss for name, loss in losses.items() if not name.startswith("weighted")}


def _table(name: str, label: str) -> dict[str, Any]:
    return {
        "task": "csv", "data": f"{{root}}/tables/{name}.csv", "label_column": (label,), "drop_column": ("rownames",),
        "test_fraction": 0.4, "validation_fraction": 0.25, "dropout": 0.2, "batch_size": 64,
    }  # fmt: skip


_IMAGES = {"source": "sample", "dropout": 0.2, "batch_size": 128, "validation_fraction": 0.2}
_TEXTS = {"batch_size": 128, "max_length": 64, "vocabulary_size": 4000, "validation_fraction": 0.2}
_LABELED = {"task": "text_csv", **_TEXTS}
PROBLEMS = {
    "fashion_mnist": Problem(
        "Fashion-MNIST's sample, ten classes", "accuracy", _balanced(MULTICLASS), 10,
        {**_IMAGES, "task": "fashion_mnist"},
    ),
    "sentiment": Problem(
        "sentences of film reviews", "roc_auc", _balanced(BINARY), 5,
        {**_TEXTS, "task": "sentiment", "source": "sample"},
    ),
    "caravan": Problem("table, 6 % buy an insurance", "average_precision", BINARY, 6, _table("caravan", "Purchase")),
    "go_emotions": Problem(
        "GoEmotions, 28 labels of short texts", "average_precision", MULTILABEL, 5,
        {
            **_LABELED, "data": "{root}/go_emotions/train.csv", "text_column": "text",
            "validation_data": "{root}/go_emotions/validation.csv", "test_data": "{root}/go_emotions/test.csv",
            "validation_fraction": None, "batch_size": 256,
        },
        examples=4000,
    ),
    "spam": Problem("e-mails, a quarter is spam", "average_precision", BINARY, 5, _LABELED),
    "hate_speech": Problem(
        "tweets, three classes of 6, 77 and 17 %", "f1", MULTICLASS, 5,
        {
            **_LABELED, "data": "{root}/hate_speech/tweets.csv", "text_column": "tweet", "label_column": ("class",),
            "test_fraction": 0.3,
        },
    ),
    "default": Problem("table, 3 % default on a debt", "average_precision", BINARY, 6, _table("default", "default")),
    "mnist": Problem("MNIST's sample, ten digits", "accuracy", _balanced(MULTICLASS), 10, {**_IMAGES, "task": "mnist"}),
    "leaf_flavia": Problem(
        "table, 32 species of leaves", "accuracy", _balanced(MULTICLASS), 20, _table("leaf_flavia", "species")
    ),
    "chest_xray": Problem(
        "radiographs of PneumoniaMNIST's sample, 74 % ill", "roc_auc", BINARY, 10,
        {**_IMAGES, "task": "chest_xray", "image_size": 28, "batch_size": 64},
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="the folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=[*PROBLEMS], help="problems (default: all)")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=DEFAULT_OPTIMIZERS)
    parser.add_argument("--seeds", type=int, default=10, help="their number, at least 2 (default: 10)")
    parser.add_argument("--rates", type=int, default=5, help="of the grid, by factors of 3.2 (default: 5)")
    parser.add_argument("--record", type=Path, default=RECORD, metavar="FILE", help="its .md has the tables")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: an interval needs at least 2")
    environment.configure()
    for name in options.only:
        if options.data_root is None and "{root}" in str(PROBLEMS[name].settings):
            print(f"{name} needs --data-root and is left out")
            continue
        measure(name, options)
    write_tables(options.record)


def measure(name: str, options: argparse.Namespace) -> None:
    """Trains and tests the combinations of a problem that are not in the record, and adds them to it."""
    problem = PROBLEMS[name]
    budget = {"seeds": options.seeds, "rates": options.rates, "epochs": problem.epochs}
    done = {
        (row["loss"], row["optimizer"])
        for row in rows(options.record)
        if row["problem"] == name and row["budget"] == budget
    }
    data: Data | None = None
    for loss in problem.losses:
        fitting = [optimizer for optimizer in options.optimizers if problem.middle(optimizer)]
        left = [optimizer for optimizer in fitting if (loss, optimizer) not in done]
        if not left:
            continue
        data = data or Data(problem, options.data_root)
        for row in data.measure(loss, left, options.seeds, options.rates):
            line = {"problem": name, "budget": budget, "machine": processes.machine(), **row}
            with options.record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            best = f"rate {row['rate']:g}, {np.mean(row['parts']):.4f}, {row['seconds']:.2f} s"
            print(f"{name}: {loss} with {row['optimizer']}: {best}", flush=True)


class Data:
    """The examples of a problem as arrays, and its network."""

    def __init__(self, problem: Problem, root: Path | None):
        # Imported after environment.configure(), which must run before jax is imported.
        import jax

        from jaxcls.data import splits
        from jaxcls.models import tabular, text, vision
        from jaxcls.tasks import build
        from jaxcls.training.steps import no_augmentation

        networks: dict[str, Any] = {
            "csv": functools.partial(tabular.TabularMLP, hidden=(64,)),
            "texts": functools.partial(text.NGramClassifier, orders=2, buckets=1 << 14),
            "images": functools.partial(vision.MLP, hidden=(64,)),
        }
        filled = {key: _filled(value, root) for key, value in problem.settings.items()}
        task, settings = build.resolve(Settings(**filled))
        kind = "texts" if "vocabulary_size" in problem.settings else "csv" if task.name == "csv" else "images"
        task = dataclasses.replace(task, models={settings.model: networks[kind]})
        dataset, parts = build.load(task, settings)
        if parts.train.num_examples > problem.examples:
            chosen = np.random.default_rng(0).permutation(parts.train.num_examples)[: problem.examples]
            parts = parts._replace(train=parts.train.take(chosen))
        built = build.of_splits(task, settings, dataset, parts)
        self.problem, self.batch_size = problem, settings.batch_size
        self.kind: Any = task.problem
        self.experiment = dataclasses.replace(built.experiment, augment=no_augmentation)
        self.classes = len(dataset.class_names)
        preprocessor = self.experiment.preprocessor
        assert preprocessor is not None  # a task has one
        self.train = built.train
        self.validation, self.test = (build.preprocess(preprocessor, part) for part in (parts.validation, parts.test))
        self.parts = [chosen for _, chosen in splits.folds(splits.stratified, parts.test, PARTS, seed=0)]
        model, preprocess = self.experiment.model, self.experiment.preprocess
        # One program for all losses and optimizers. Logits, since probabilities of 1 tie.
        self._logits = jax.jit(
            lambda weights, inputs: model.apply(weights["params"], weights["model_state"], preprocess(inputs))[0]
        )

    def measure(self, loss: str, optimizers: Sequence[str], seeds: int, count: int) -> Iterable[dict[str, Any]]:
        """The rows of a loss with each optimizer."""
        experiments = {name: self._experiment(loss, name) for name in optimizers}
        tried: dict[str, dict[float, float]] = {name: {} for name in optimizers}
        wanted = {name: grid(self._middle(name), count) for name in optimizers}
        while any(wanted.values()):
            # By rate and then by optimizer: two threads that begin with the same one would both compile it.
            longest = max(map(len, wanted.values()))
            pairs = [
                (name, wanted[name][index]) for index in range(longest) for name in wanted if index < len(wanted[name])
            ]
            trained = self._trained(experiments, [(name, rate, seeds) for name, rate in pairs])
            for (name, rate), (weights, _) in zip(pairs, trained, strict=True):
                tried[name][rate] = self._score(self._scores(weights, self.validation), self.validation.labels)
            wanted = {name: beyond(tried[name]) if len(tried[name]) < count + WIDEST else [] for name in optimizers}
        best = {name: max(tried[name], key=tried[name].__getitem__) for name in optimizers}
        runs = [(name, best[name], seed) for seed in range(seeds) for name in optimizers]
        tested: dict[str, list[dict[str, Any]]] = {name: [] for name in optimizers}
        for (name, _, _), (weights, seconds) in zip(runs, self._trained(experiments, runs), strict=True):
            tested[name].append({"seconds": seconds, **self._tested(weights)})
        for name in optimizers:
            columns = {key: [one[key] for one in tested[name]] for key in tested[name][0]}
            yield {
                "loss": loss, "optimizer": name, "rate": best[name], "validation": rounded(tried[name][best[name]]),
                "tried": {f"{rate:.4g}": rounded(value) for rate, value in sorted(tried[name].items())},
                **columns, "seconds": float(np.median(columns["seconds"])),
            }  # fmt: skip

    def _middle(self, optimizer: str) -> float:
        # The loss is the mean over the labels, and SGD's steps are proportional to its gradient.
        labels = self.train.labels.shape[1] if self.kind == "multilabel" and optimizer == "sgd" else 1
        return (self.problem.middle(optimizer) or 0) * labels

    def _experiment(self, loss: str, optimizer: str) -> Any:
        from jaxcls import losses, optimizers
        from jaxcls.data.batching import steps_per_epoch
        from jaxcls.optimizers.hyperparameters import with_hyperparameters
        from jaxcls.training.objective import OutputSpec

        name, options = self.problem.losses[loss]
        if "class_weight" in options:
            weights = losses.resolve_class_weight("balanced", self.kind, self.classes, labels=self.train.labels)
            options = {"class_weight": weights.astype(np.float32)}
        steps = self.problem.epochs * steps_per_epoch(len(self._rows(0)), self.batch_size)
        # Schedule-free averages the weights instead of lowering the rate.
        schedule = "constant" if optimizer == "schedule_free" else "cosine"

        def make(learning_rate: Any) -> Any:
            rate = optimizers.schedule(
                schedule, learning_rate=learning_rate, total_steps=steps, warmup_steps=steps // 10
            )
            return optimizers.get(optimizer, learning_rate=rate, **OPTIMIZERS[optimizer][0])

        return dataclasses.replace(
            self.experiment,
            objective=OutputSpec(self.kind, losses.get(name, self.kind, normalizer="batch", **options)),
            optimizer=with_hyperparameters(make, {"learning_rate": 1.0}),
        )

    def _rows(self, seed: int) -> np.ndarray:
        """Nine tenths of the training examples."""
        count = len(self.train)
        return np.random.default_rng(seed).permutation(count)[: count - count // 10]

    def _trained(
        self, experiments: Mapping[str, Any], runs: Sequence[tuple[str, float, int]]
    ) -> list[tuple[Any, float]]:
        """The weights of each (optimizer, rate, seed), and the seconds of its training."""
        from jaxcls.training.loop import FitConfig
        from jaxcls.training.population import Member, train_members

        members = (
            Member(
                f"{name}-{rate:g}-{seed}", experiments[name],
                _take(self.train, self._rows(seed)), seed=seed, hyperparameters={"learning_rate": rate},
            )
            for name, rate, seed in runs
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            trained = train_members(
                members, FitConfig(self.problem.epochs, self.batch_size), folder=Path(folder), allow_divergence=True,
                say=lambda line: None,
            )  # fmt: skip
        return [(one.weights, sum(entry["seconds"] for entry in one.history)) for one in trained]

    def _scores(self, weights: Any, data: Any) -> np.ndarray:
        from jaxcls.data.batching import padded_batches

        logits = np.concatenate([self._logits(weights, batch) for batch in padded_batches(data.inputs, 500)])
        # Of a training that diverged, some may be infinite.
        logits = np.nan_to_num(logits[: len(data)].astype(np.float64))
        return logits if self.kind == "multiclass" else special.expit(logits)

    def _score(self, scores: np.ndarray, labels: np.ndarray, name: str = "", **options: Any) -> float:
        from jaxcls import metrics

        return float(metrics.get(name or self.problem.score, self.kind)(scores, labels, **options))

    def _tested(self, weights: Any) -> dict[str, Any]:
        """The score of each part of the test examples, and F1 of all."""
        from jaxcls import metrics

        scores, labels = self._scores(weights, self.test), self.test.labels
        tested: dict[str, Any] = {"parts": [rounded(self._score(scores[part], labels[part])) for part in self.parts]}
        tested["f1"] = rounded(self._score(scores, labels, "f1"))
        if self.kind != "multiclass":
            chosen = metrics.tune_threshold(
                self._scores(weights, self.validation), self.validation.labels, metric="f1", problem=self.kind
            )
            tested["tuned f1"] = rounded(self._score(scores, labels, "f1", threshold=chosen))
        return tested


def _take(data: Any, chosen: np.ndarray) -> Any:
    import jax

    return jax.tree.map(lambda leaf: leaf[chosen], data)


def _filled(value: Any, root: Path | None) -> Any:
    return Path(value.format(root=root)) if isinstance(value, str) and "{root}" in value else value


def rounded(value: float) -> float:
    return round(value, 5)


def grid(middle: float, count: int) -> list[float]:
    """Rates around the middle, by factors of 3.2, the root of 10.

    >>> [f"{rate:.2g}" for rate in grid(1.0, 3)]
    ['0.32', '1', '3.2']
    """
    return [float(middle * 10 ** ((index - (count - 1) / 2) / 2)) for index in range(count)]


def beyond(tried: Mapping[float, float]) -> list[float]:
    """The two rates beyond the end of a grid, if the best one is there.

    >>> [f"{rate:.2g}" for rate in beyond({0.1: 0.7, 1.0: 0.8, 10.0: 0.9})]
    ['32', '1e+02']
    >>> beyond({0.1: 0.7, 1.0: 0.9, 10.0: 0.8})
    []
    """
    rates = sorted(tried)
    best = max(rates, key=tried.__getitem__)
    if best not in (rates[0], rates[-1]):
        return []
    step = 0.5 if best == rates[-1] else -0.5
    return [float(best * 10 ** (step * index)) for index in (1, 2)]


class Estimate(NamedTuple):
    """A mean over seeds and parts, half the width of its 95 % interval, and the p value of a mean of 0."""

    mean: float
    half_width: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.half_width:.4f}"


def crossed(values: np.ndarray) -> Estimate:
    """The mean of (seeds, parts), both of which are samples.

    The variance of the mean is estimated by the mean squares of a two-way layout with random effects; the degrees of
    freedom are those of the smaller side, which is conservative.

    >>> crossed(np.zeros((3, 4)))
    Estimate(mean=0.0, half_width=0.0, p=1.0)
    """
    seeds, parts = values.shape
    mean, by_seed, by_part = values.mean(), values.mean(axis=1), values.mean(axis=0)
    residual = np.square(values - by_seed[:, None] - by_part[None] + mean).sum() / ((seeds - 1) * (parts - 1))
    squares = parts * by_seed.var(ddof=1), seeds * by_part.var(ddof=1)
    error = np.sqrt((sum(max(square, residual) for square in squares) - residual) / values.size)
    freedom = min(seeds, parts) - 1
    if error == 0:
        return Estimate(float(mean), 0.0, float(mean == 0))
    return Estimate(
        float(mean), float(stats.t.ppf(0.975, freedom) * error), float(2 * stats.t.sf(abs(mean) / error, freedom))
    )


def rows(record: Path) -> list[dict[str, Any]]:
    """The record; of a combination that was measured with several budgets, the last one."""
    if not record.exists():
        return []
    lines = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    return [*{(row["problem"], row["loss"], row["optimizer"]): row for row in lines}.values()]


def write_tables(record: Path) -> None:
    """Writes the part of the page below its line."""
    page = record.with_suffix(".md")
    text = page.read_text(encoding="utf-8") if page.exists() else f"# The cheat sheet, measured\n\n{LINE}\n"
    by_problem = {
        name: {(row["loss"], row["optimizer"]): row for row in rows(record) if row["problem"] == name}
        for name in PROBLEMS
    }
    measured = {name: cells for name, cells in by_problem.items() if BASELINE in cells}
    if not measured:
        return
    first = next(iter(measured.values()))[BASELINE]
    lines = [
        text.partition(LINE)[0] + LINE, "",
        f"Written by `python experiments/cheat_sheet.py --data-root FOLDER`, on {first['machine']}.",
        "", "## Losses", "",
        *summary(measured, "loss"),
        "", "## Optimizers", "",
        *summary(measured, "optimizer"),
        "", "## The best combination by validation examples", "",
        *winners(measured),
    ]  # fmt: skip
    for name, cells in measured.items():
        lines += ["", f"## {name}", "", *table(PROBLEMS[name], cells)]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


Cells = Mapping[tuple[str, str], dict[str, Any]]


def _parts(row: Mapping[str, Any]) -> np.ndarray:
    return np.array(row["parts"])


def summary(measured: Mapping[str, Cells], axis: str) -> list[str]:
    """A table of losses, or of optimizers, by problems: differences to cross-entropy, or to Adam.

    Each is averaged over the other axis, and bold where its p value, after Holm over the column, is below 0.05.
    """
    index = ("loss", "optimizer").index(axis)
    plain, others = BASELINE[index], ("optimizers", "losses")[index]
    names = list(dict.fromkeys(pair[index] for cells in measured.values() for pair in cells))
    columns = {problem: effects(cells, index) for problem, cells in measured.items()}
    lines = [
        f"Difference to {plain}, mean over {others}; bold: p < 0.05 after Holm over the column.", "",
        f"| {axis} | {' | '.join(f'{name}, {PROBLEMS[name].score}' for name in measured)} |"
        + (" time |" if index else ""),
        "|---" * (len(measured) + 1 + index) + "|",
    ]  # fmt: skip
    for name in names:
        if name == plain:
            continue
        shown = []
        for column in columns.values():
            adjusted = dict(zip(column, holm([one.p for one in column.values()]), strict=True))
            effect = column.get(name)
            shown.append("" if effect is None else f"**{effect}**" if adjusted[name] < 0.05 else str(effect))
        if index:
            shown.append(f"{_relative_time(measured, name):.2f}")
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def effects(cells: Cells, index: int) -> dict[str, Estimate]:
    """The difference of each loss (index 0) or optimizer (1) to that of the baseline, averaged over the other axis."""
    differences: dict[str, list[np.ndarray]] = {}
    for pair, row in cells.items():
        other = (BASELINE[0], pair[1]) if index == 0 else (pair[0], BASELINE[1])
        if pair != other and other in cells:
            differences.setdefault(pair[index], []).append(_parts(row) - _parts(cells[other]))
    return {name: crossed(np.mean(values, axis=0)) for name, values in differences.items()}


def _relative_time(measured: Mapping[str, Cells], optimizer: str) -> float:
    """The time of a training relative to Adam's, the median over losses and problems."""
    ratios = [
        row["seconds"] / cells[loss, "adam"]["seconds"]
        for cells in measured.values()
        for (loss, name), row in cells.items()
        if name == optimizer and (loss, "adam") in cells
    ]
    return float(np.median(ratios))


def winners(measured: Mapping[str, Cells]) -> list[str]:
    """For each problem, the combination with the highest score of the validation examples, tested."""
    lines = [
        "The highest score of one seed on the validation examples; the difference is to Adam with cross-entropy.", "",
        "| problem | score | loss | optimizer | tested | difference |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, cells in measured.items():
        best = max(cells, key=lambda pair: cells[pair]["validation"])
        score, difference = crossed(_parts(cells[best])), crossed(_parts(cells[best]) - _parts(cells[BASELINE]))
        lines.append(f"| {name} | {PROBLEMS[name].score} | {best[0]} | {best[1]} | {score.mean:.4f} | {difference} |")
    return lines


def table(problem: Problem, cells: Cells) -> list[str]:
    """All combinations of a problem, the best first."""
    differences = {pair: crossed(_parts(row) - _parts(cells[BASELINE])) for pair, row in cells.items()}
    others = [pair for pair in cells if pair != BASELINE]
    p = dict(zip(others, holm([differences[pair].p for pair in others]), strict=True))
    tuned = "tuned f1" in cells[BASELINE]
    names = ["loss", "optimizer", "rate", problem.score, "difference", "p (Holm)", "F1 at 0.5" if tuned else "F1"]
    names += ["F1, tuned threshold"] * tuned + ["seconds"]
    lines = [f"{problem.about}.", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for pair in sorted(cells, key=lambda pair: -differences[pair].mean):
        row, score = cells[pair], crossed(_parts(cells[pair]))
        shown = [*pair, f"{row['rate']:.2g}", f"{score.mean:.4f} ± {score.half_width:.4f}"]
        shown += ["", ""] if pair == BASELINE else [str(differences[pair]), f"{p[pair]:.3f}"]
        shown += [f"{np.mean(row[name]):.3f}" for name in ("f1", "tuned f1") if name in row] + [f"{row['seconds']:.2f}"]
        lines.append(f"| {' | '.join(shown)} |")
    return lines


if __name__ == "__main__":
    main()
