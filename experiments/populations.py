"""Populations next to the same trainings one after the other in one process, and as processes.

    python experiments/populations.py --data-root FOLDER
    python experiments/populations.py --data-root FOLDER --only mlp --rounds 1

FOLDER holds tables/churn.csv (R's modeldata) and sst2/ (train, validation and test.csv, columns text and positive).
Each contender is a whole process, imports and reports included, with a warm compilation cache. Of the single
trainings, some stand for all: the mean of those after the first, in one process, and one as a process. Writes
populations.md.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import processes

TABLE = Path(__file__).with_suffix(".md")


class Case(NamedTuple):
    """A population.

    Attributes:
      population: the flags that train all members, after `jaxcls`.
      single: the flags of one member, after `jaxcls train`; {member} is its number.
      members: how many there are.
    """

    population: str
    single: str
    members: int


CHURN = "--task csv --data {root}/tables/churn.csv --label-column churn --id-column rownames"
SST2 = (
    "--task text_csv --data {root}/sst2/train.csv --validation-data {root}/sst2/validation.csv "
    "--test-data {root}/sst2/test.csv --text-column text --label-column positive"
)
SEEDS = " ".join(map(str, range(16)))
CASES = {
    "mlp: 16 seeds of the MLP on Fashion-MNIST's sample": Case(
        f"train --task fashion_mnist --source sample --model mlp --seeds {SEEDS}",
        "--task fashion_mnist --source sample --model mlp --split-seed 0 --seed {member}",
        16,
    ),
    "churn: 10 folds x 5 seeds of csv on 5,000 rows": Case(
        f"train {CHURN} --folds 10 --seeds 0 1 2 3 4",
        # A tenth of the rows is not learned from, as in a fold.
        f"{CHURN} --validation-fraction 0.1 --seed {{member}}",
        50,
    ),
    "rates: 32 learning rates of n-grams on SST-2": Case(
        f"search {SST2} --space {{space}} --trials 32 --rungs 1 --sampler random",
        f"{SST2} --learning-rate 0.{{member}}",
        32,
    ),
}
SPACE = "[learning_rate]\nlow = 0.1\nhigh = 0.9\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="cases, by their first word")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measured", type=int, default=6, help="trainings that are run one after the other")
    arguments = parser.parse_args()
    rows: dict[str, list[Round]] = {}
    for name, case in CASES.items():
        if arguments.only and name.split(":")[0] not in arguments.only:
            continue
        measure(case, arguments)  # fills the compilation cache
        rows[name] = [measure(case, arguments) for _ in range(arguments.rounds)]
        write(rows, arguments)


class Round(NamedTuple):
    """Seconds of all members: as a population, one after the other in one process, and as processes."""

    population: float
    one_process: float
    processes: float


def measure(case: Case, arguments: argparse.Namespace) -> Round:
    with tempfile.TemporaryDirectory() as folder:
        values = {"root": arguments.data_root.resolve(), "space": Path(folder) / "space.toml"}
        values["space"].write_text(SPACE)
        population = [sys.executable, "-m", "jaxcls", *case.population.format(**values).split(), "--quiet"]
        single = [case.single.format(**values, member=member + 1).split() for member in range(arguments.measured)]
        whole = processes.run(population, cwd=folder, env=ENVIRONMENT).seconds
        child = [sys.executable, "-c", ONE_PROCESS, json.dumps(single)]
        times = json.loads(processes.run(child, capture=True, cwd=folder, env=ENVIRONMENT).output.splitlines()[-1])
        separate = processes.run(
            [sys.executable, "-m", "jaxcls", "train", *single[0], "--quiet"], cwd=folder, env=ENVIRONMENT
        ).seconds
    in_turn = times[0] + (case.members - 1) * statistics.mean(times[1:])
    return Round(whole, in_turn, case.members * separate)


# Prints the seconds of each training; the first includes the imports.
ONE_PROCESS = """
import json, sys, time
began, times = time.perf_counter(), []
from jaxcls._utils import environment
environment.configure()
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.tasks.train import train_task
for number, flags in enumerate(json.loads(sys.argv[1])):
    train_task(parse(Train, [*flags, "--run-dir", f"one-{number}", "--quiet"]), say=lambda line: None)
    times.append(time.perf_counter() - began)
    began = time.perf_counter()
print(json.dumps(times))
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def write(rows: dict[str, list[Round]], arguments: argparse.Namespace) -> None:
    lines = [
        "# Populations",
        "",
        f"Written by `python experiments/populations.py` on {processes.machine()}.",
        "",
        f"Seconds of whole processes with a warm compilation cache, medians of {arguments.rounds} rounds.",
        f"Of the single trainings, {arguments.measured} in one process and one as a process stand for all.",
        "",
        "| population | as one run | one after the other, one process | as processes | ratios |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in rows.items():
        whole, in_turn, separate = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = [statistics.median(getattr(one, other) / one.population for one in rounds)
                  for other in ("one_process", "processes")]  # fmt: skip
        lines.append(
            f"| {name.partition(': ')[2]} | {whole:.1f} | {in_turn:.0f} | {separate:.0f} | "
            f"{ratios[0]:.1f}, {ratios[1]:.1f} |"
        )
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
