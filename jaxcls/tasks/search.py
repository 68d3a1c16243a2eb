"""A search for settings: trials that differ in some of them, of which the best train to the end.

What is compared is a metric of the validation examples; test examples are not used. A search is a folder:

search.toml     what decides its result: the space, the sampler, the other settings and the checksums of the data
trials.jsonl    one line for each training of a trial up to a rung
trials/         checkpoints of trials that can still be promoted
winner.toml     the settings of the best trial, for jaxcls train --config
report.html     parallel coordinates, the effect of each setting, all trials and the command that trains the best one
"""

import contextlib
import ctypes
import dataclasses
import gc
import hashlib
import itertools
import json
import math
import shlex
import shutil
import time
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tomli_w

from jaxcls import metrics
from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError, error_context, flag, listed
from jaxcls._utils.interruption import Interrupted, watched
from jaxcls._utils.labels import ProblemName
from jaxcls._utils.text_table import text_table
from jaxcls.data.batching import Examples
from jaxcls.models import layers
from jaxcls.reports import html_report, records
from jaxcls.tasks import build
from jaxcls.tasks.task import Task
from jaxcls.training import halving, search_space, settings, steps
from jaxcls.training.experiment import Experiment
from jaxcls.training.halving import Job
from jaxcls.training.loop import FitConfig
from jaxcls.training.population import Member, Trained, train_members
from jaxcls.training.search_space import Space
from jaxcls.training.settings import Settings

Say = Callable[[str], None]

# Settings that one compiled step takes as arguments. Others decide what is compiled, such as whether there is momentum.
TRACED = (
    *("learning_rate", "weight_decay", "b1", "b2", "eps", "decay", "initial_accumulator_value"),
    *("clipnorm", "global_clipnorm", "clipvalue"),
    *("label_smoothing", "pos_weight", "gamma", "alpha", "epsilon", "gamma_negative", "gamma_positive", "clip", "tau"),
    "dropout",
)
# Fewer validation examples choose by chance; see jaxcls.tasks.csv.
VALIDATION_FRACTION = 0.2
# Trainings between two decisions. A constant, so that a search has the same result on any number of cores.
JOBS_AT_ONCE = 8
# Between two versions of the page of a search that runs.
PAGE_SECONDS = 30.0
# Experiments that are kept with their compiled programs, which take 16 MiB for the smallest network.
_MOST_EXPERIMENTS = 16
# What decides how the data is read and preprocessed.
_OF_DATA = (
    *settings.names(settings.TaskSettings),
    *settings.names(settings.DataSettings),
    *settings.names(settings.PretrainedSource),
    "model",
)


class Options(NamedTuple):
    """How to search.

    Attributes:
      trials: how many points of the space are tried.
      minutes: of training in all, after which the search ends; those of earlier processes included.
      sampler: see :func:`jaxcls.training.search_space.sample`.
      rungs, reduction: see :func:`jaxcls.training.halving.rungs`.
    """

    trials: int = 64
    minutes: float | None = None
    sampler: Literal["sobol", "random"] = "sobol"
    rungs: int = 3
    reduction: int = 3


class Trial(NamedTuple):
    """A point of the space.

    Attributes:
      point: the values of the searched settings; of options, those that its loss, optimizer and schedule take.
      user_settings: as a user would give them.
      task, resolved: as :func:`jaxcls.tasks.build.resolve` returns them.
    """

    point: dict[str, Any]
    user_settings: Settings
    task: Task
    resolved: Settings


class Result(NamedTuple):
    """The result of a search.

    Attributes:
      directory: of the search.
      winner: the record of the best trial, a line of trials.jsonl.
      command: that trains it and tests it.
      record: what the report shows.
    """

    directory: Path
    winner: dict[str, Any]
    command: str
    record: dict[str, Any]


def search(
    user_settings: Settings,
    space: Space,
    options: Options,
    directory: Path | None = None,
    *,
    say: Say = print,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Searches for the settings with the best validation metric, or continues a search.

    Args:
      user_settings: of all trials; those in the space are replaced.
      directory: of the search; by default one in runs/ named after what decides its result.
      say: takes lines for the user.
      stop: polled between dispatches; the search is saved and stops when it returns True.

    Raises:
      InputError: something given is wrong, or the directory holds another search.
      Interrupted: ``stop`` returned True.
    """
    _check(options)
    user_settings = _compared(user_settings, space, say)
    trials = _trials(user_settings, space, options, say)
    trainer = _Trainer(trials, say)
    with watched(user_settings.stall_seconds):
        data, validation = trainer.data(trials[0])
        identity = _identity(user_settings, space, options, data.dataset.provenance.sha256)
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        directory = directory or Path("runs") / f"search-{user_settings.task}-{digest}"
        done = _begin(directory, identity, trials)
        say(f"{'continuing' if done else 'saving'} this search in {directory}")
        epochs = halving.rungs(trials[0].resolved.epochs, options.rungs, options.reduction)
        log = _Log(directory, done, trials, epochs, trainer, say)
        running = _Running(
            directory, space, options, trials, epochs, trainer, log, len(validation), data.dataset.provenance.synthetic
        )
        del data, validation  # those of other trials may not fit into memory with it
        say(
            f"{len(trials)} trials; up to {' and '.join(map(str, epochs[:-1])) or 'no'} epochs one of "
            f"{options.reduction} is promoted, to {epochs[-1]}; {trainer.monitor} of {running.examples:,} validation "
            "examples decides"
        )
        ended = _run(running, stop)
    if not log.scores:
        raise InputError(f"{ended} before a trial ended; continue it with more --minutes.")
    if not any(map(math.isfinite, log.scores.values())):
        raise InputError(f"no trial of {directory} has a finite {trainer.monitor}; search lower learning rates.")
    return _report(running, ended)


class _Running(NamedTuple):
    """A search.

    Attributes:
      examples: the number of validation examples.
      synthetic: whether the data was generated.
    """

    directory: Path
    space: Space
    options: Options
    trials: Sequence[Trial]
    epochs: Sequence[int]
    trainer: "_Trainer"
    log: "_Log"
    examples: int
    synthetic: bool


def _run(running: _Running, stop: Callable[[], bool]) -> str:
    """Trains what is to be trained next until nothing is, and writes the page; returns why it ended."""
    directory, _, options, trials, epochs, trainer, log, *_ = running
    written = -math.inf
    began, before = time.monotonic(), sum(record["seconds"] for record in log.done.values())

    def over() -> bool:
        return options.minutes is not None and before + time.monotonic() - began > 60 * options.minutes

    def stopping() -> bool:
        return over() or stop()

    halved = {"trials": len(trials), "rungs": len(epochs), "reduction": options.reduction}
    while jobs := halving.next_jobs(log.scores, **halved, most=JOBS_AT_ONCE):
        # Those that a killed process had finished are not trained again; decisions are made as it would have made them.
        try:
            for group in trainer.groups([job for job in jobs if job not in log.done]):
                trainer.train(group, epochs, directory / "trials", log.add, stopping)
        except Interrupted:
            log.decide([job for job in jobs if job in log.done])
            if over():
                return f"the {options.minutes:g} minutes were over"
            raise
        log.decide(jobs)
        for job in jobs:
            if job.rung == len(epochs) - 1 or not halving.may_go_on(
                log.scores, job, trials=len(trials), reduction=options.reduction
            ):
                shutil.rmtree(directory / "trials" / trainer.name(job.trial), ignore_errors=True)
        if time.monotonic() - written > PAGE_SECONDS and any(map(math.isfinite, log.scores.values())):
            _report(running, "", is_running=True)
            written = time.monotonic()
    return ""


class _Trainer:
    """Trains trials. The data that was read last and a few experiments are kept for others."""

    def __init__(self, trials: Sequence[Trial], say: Say):
        self._trials, self._say = trials, say
        self._data: dict[Any, tuple[build.Data, Examples]] = {}
        # With the constants of its model, and which of them are rates of dropout.
        self._experiments: dict[str, tuple[Experiment, list[np.ndarray | None], list[bool]]] = {}
        self.monitor = trials[0].resolved.monitor
        self.mode = "min" if self.monitor.endswith("loss") else metrics.direction(self.monitor)

    def data(self, trial: Trial) -> tuple[build.Data, Examples]:
        """Returns the data of a trial, and its preprocessed validation examples."""
        key = _data_key(trial)
        if key not in self._data:
            # Before the next is read: two may not fit into memory.
            self._data.clear()
            self._experiments.clear()
            loaded = build.load(trial.task, trial.resolved, say=self._say)
            data = build.preprocessed(trial.task, trial.resolved, *loaded, say=self._say)
            self._data[key] = data, build.preprocess(data.preprocessor, data.splits.validation)
        return self._data[key]

    def members(self, name: str, trial: Trial) -> list[Member]:
        """Returns a trial as members, one for each seed.

        Their experiment is shared with trials that differ in traced values only.
        """
        (data, validation), resolved = self.data(trial), trial.resolved
        traced = {one: trial.point[one] for one in TRACED if one in trial.point}
        if resolved.optimizer == "schedule_free":
            traced.pop("b1", None)
        # A network without dropout has no such layer, and that of a pretrained encoder is its own.
        if not traced.get("dropout") or resolved.pretrained:
            traced.pop("dropout", None)
        # The step must know that it accumulates.
        if (resolved.gradient_accumulation_steps or 1) > 1:
            traced = {}
        key = json.dumps({**settings.identity(resolved), **dict.fromkeys(traced, "")}, sort_keys=True)
        if key not in self._experiments:
            built = build.of_data(trial.task, resolved, data, traced=[*traced])
            build.check_step(built)
            model = built.experiment.model
            self._experiments[key] = built.experiment, steps.initial_constants(model), layers.are_rates(model)
        experiment, constants, are_rates = self._experiments[key]
        if (rate := traced.pop("dropout", None)) is not None:
            pairs = zip(constants, are_rates, strict=True)
            constants = [np.asarray(rate, np.float32) if is_rate else constant for constant, is_rate in pairs]
        seeds = {f"{name}/seed{seed}": seed for seed in resolved.seeds or ()} or {name: resolved.seed}
        return [
            Member(
                name, experiment, data.train, validation, seed=seed, hyperparameters=traced, constants=constants
            )
            for name, seed in seeds.items()
        ]  # fmt: skip

    def name(self, trial: int) -> str:
        """Returns the name of a trial's folder, which says what it learned from which settings."""
        return f"{trial:04d}-{settings.digest(self._trials[trial].resolved, {})}"

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Returns the jobs that can train at the same time: on the same data, in steps of one size, to one rung."""
        groups: dict[Any, list[Job]] = {}
        for job in jobs:
            trial = self._trials[job.trial]
            groups.setdefault((_data_key(trial), job.rung, trial.resolved.batch_size), []).append(job)
        return list(groups.values())

    def train(
        self,
        jobs: Sequence[Job],
        epochs: Sequence[int],
        folder: Path,
        on_trained: Callable[[Job, list[Trained]], None],
        stop: Callable[[], bool],
    ) -> None:
        if len(self._experiments) > _MOST_EXPERIMENTS:
            self._experiments.clear()
            _free_programs()
        members: dict[Job, list[Member]] = {}
        for job in jobs:
            trial = self._trials[job.trial]
            with error_context(f"trial {job.trial}: {_shown(trial.point)}"):
                members[job] = self.members(self.name(job.trial), trial)
        job_of = {member.name: job for job in jobs for member in members[job]}
        trained: dict[str, Trained] = {}

        def on_member(one: Trained) -> None:
            trained[one.name] = one
            job = job_of[one.name]
            if all(member.name in trained for member in members[job]):
                on_trained(job, [trained[member.name] for member in members[job]])

        resolved = self._trials[jobs[0].trial].resolved
        values: dict[str, Any] = vars(resolved) | {"mode": self.mode, "epochs": epochs[jobs[0].rung]}
        train_members(
            [member for job in jobs for member in members[job]],
            FitConfig(**{name: values[name] for name in FitConfig._fields}),
            folder=folder,
            restore_best=resolved.restore_best,
            allow_divergence=True,
            on_member=on_member,
            say=lambda line: None,
            stop=stop,
        )


class _Log:
    """The results so far: those of all jobs that were trained, and the scores of those that were decided by."""

    def __init__(
        self,
        directory: Path,
        done: dict[Job, dict[str, Any]],
        trials: Sequence[Trial],
        epochs: Sequence[int],
        trainer: _Trainer,
        say: Say,
    ):
        self.done, self.scores = done, dict[Job, float]()
        self._directory, self._trials, self._epochs, self._trainer = directory, trials, epochs, trainer
        self._say, self._last = say, time.monotonic()

    def add(self, job: Job, trained: Sequence[Trained]) -> None:
        """Records the training of a job, of each seed, and tells the user."""
        name, trial = self._trainer.monitor, self._trials[job.trial]
        by_seed = [[_finite(entry[f"val_{name}"]) for entry in one.history] for one in trained]
        values = [_mean(values) for values in itertools.zip_longest(*by_seed)]
        now = time.monotonic()
        self.done[job] = {
            **job._asdict(),
            "settings": json.loads(json.dumps(trial.point)),
            "values": values,
            **({"by_seed": by_seed} if len(by_seed) > 1 else {}),
            "seconds": round(now - self._last, 3),
            "diverged": any(one.diverged for one in trained),
        }
        self._last = now
        text = "".join(json.dumps(record) + "\n" for record in self.done.values())
        files.write_atomically(self._directory / "trials.jsonl", text)
        score = self.value(job)
        result = "diverged" if score is None else f"{name} {score:.4f}"
        self._say(f"trial {job.trial:3}  epoch {len(values):2}/{self._epochs[-1]}  {result}  {_shown(trial.point)}")

    def value(self, job: Job) -> float | None:
        """Returns the value that the weights of a job would be reported with, the mean of its seeds.

        None if one is not finite.
        """
        record = self.done[job]
        if record["diverged"]:
            return None
        runs = record.get("by_seed", [record["values"]])
        if self._trials[job.trial].resolved.restore_best:
            best = max if self._trainer.mode == "max" else min
            return _mean([best([one for one in values if one is not None], default=None) for values in runs])
        return _mean([values[-1] if values else None for values in runs])

    def by_rung(self, last: Job) -> list[float | None]:
        """Returns the values of a trial in each rung that it has reached."""
        return [self.value(Job(last.trial, rung)) for rung in range(last.rung + 1)]

    def decide(self, jobs: Sequence[Job]) -> None:
        """Adds the scores of jobs to those that decide what is trained next."""
        sign = 1 if self._trainer.mode == "max" else -1
        for job in jobs:
            value = self.value(job)
            self.scores[job] = -math.inf if value is None else sign * value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values of the seeds; None if one has none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _check(options: Options) -> None:
    for name, least in (("trials", 1), ("rungs", 1), ("reduction", 2)):
        if getattr(options, name) < least:
            raise InputError(f"{flag(name)} is {getattr(options, name)}; it must be {least} or more.")
    if options.minutes is not None and not options.minutes > 0:
        raise InputError(f"--minutes is {options.minutes}; it must be above 0.")


def _compared(user_settings: Settings, space: Space, say: Say) -> Settings:
    """Returns the settings with a metric that can compare the trials, of enough validation examples."""
    chosen = build.with_data_dir(user_settings)
    task = build.specialized(chosen)
    if chosen.seeds and task.problem == "detection":
        raise InputError("--seeds is not for detection: boxes of several models have no mean.")
    recipe = task.recipe(chosen.preset)
    monitor = chosen.monitor or recipe.monitor
    by_loss = [name for name in space if name in settings.names(settings.LossSettings)]
    if by_loss and chosen.monitor == "loss":
        raise InputError(f"--monitor loss cannot compare trials whose {by_loss[0]} differs; give --monitor log_loss.")
    if chosen.monitor is None and monitor == "loss" and task.problem in typing.get_args(ProblemName):
        monitor = "log_loss"
    chosen = dataclasses.replace(chosen, monitor=monitor)
    # Of the user's own validation data, all is used.
    fraction = recipe.validation_fraction
    unset = chosen.validation_fraction is None and chosen.validation_data is None
    if unset and fraction is not None and fraction < VALIDATION_FRACTION:
        say(
            f"{VALIDATION_FRACTION:.0%} of the training examples are for validation (--validation-fraction): they "
            f"decide, and the {fraction:.0%} of the recipe are few"
        )
        chosen = dataclasses.replace(chosen, validation_fraction=VALIDATION_FRACTION)
    return chosen


def _trials(user_settings: Settings, space: Space, options: Options, say: Say) -> list[Trial]:
    """Returns the trials, each checked as if a user had given its settings, before data is read."""
    tasks: dict[Any, Task] = {}
    trials: dict[str, Trial] = {}
    # Points that differ in nothing, or only in an option that they do not take, are one trial.
    for factor in (1, 4, 16):
        if len(trials) < options.trials:
            points = search_space.sample(
                space, factor * options.trials, sampler=options.sampler, seed=user_settings.seed
            )
            for point in points:
                trial = _trial(user_settings, point, space, tasks)
                trials.setdefault(json.dumps(trial.point, sort_keys=True), trial)
    distinct = list(trials.values())[: options.trials]
    if len(distinct) < options.trials:
        say(f"the space has no more than {len(distinct)} points that differ")
    unused = [name for name in space if not any(name in trial.point for trial in distinct)]
    if unused:
        raise InputError(
            f"--space: {listed(unused)} is taken by no loss, optimizer or schedule of the {len(distinct)} trials; "
            "leave it out."
        )
    return distinct


def _trial(user_settings: Settings, point: Mapping[str, Any], space: Space, tasks: dict[Any, Task]) -> Trial:
    chosen = dataclasses.replace(user_settings, **point)
    # To specialize a task may take the reading of a file.
    key = [getattr(chosen, name) for name in (*_OF_DATA, *settings.names(settings.FineTuningSettings))]
    task = tasks[str(key)] = tasks.get(str(key)) or build.specialized(chosen)
    for name, (group, takes) in build.options(task).items():
        if name in space:
            taken = takes.get(getattr(chosen, name), settings.names(group))
            left_out = [option for option in settings.names(group) if option not in taken]
            chosen = dataclasses.replace(chosen, **_unset(left_out))
    used = {name: getattr(chosen, name) for name in point if getattr(chosen, name) is not None}
    with error_context(f"--space: {_shown(used)}"):
        resolved = build.with_recipe(task, chosen)
    return Trial(used, chosen, task, resolved)


def _free_programs() -> None:
    """Frees the memory of compiled programs, which are read from the cache on the disk when they are needed again."""
    # An experiment and its programs refer to each other, so only the collector frees them.
    gc.collect()
    jax.clear_caches()
    # The C library would keep what several threads have freed: 9 MiB of each program.
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _unset(names: Sequence[str]) -> dict[str, Any]:
    return dict.fromkeys(names, settings.UNSET)


def _identity(user_settings: Settings, space: Space, options: Options, sha256: Mapping[str, str]) -> dict[str, Any]:
    """Returns what decides the result, as JSON and TOML values; more trials and minutes continue a search."""
    decided = {name: value for name, value in settings.identity(user_settings).items() if value is not None}
    how = {name: value for name, value in options._asdict().items() if name not in ("trials", "minutes")}
    identity = {"space": search_space.as_record(space), "search": how, "settings": decided, "data": dict(sha256)}
    result: dict[str, Any] = json.loads(json.dumps(identity))
    return result


def _begin(directory: Path, identity: Mapping[str, Any], trials: Sequence[Trial]) -> dict[Job, dict[str, Any]]:
    """Returns the jobs that an earlier process has trained, or begins the folder of a new search."""
    file = directory / "search.toml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            if any(directory.iterdir()):
                raise InputError(f"--search-dir {directory} holds other files; give another.")
            files.write_atomically(file, tomli_w.dumps(identity))
            return {}
    except OSError as error:
        raise InputError(f"--search-dir {directory} cannot be used ({error.strerror}); give another.") from error
    try:
        before = tomllib.loads(files.content(file, folder=directory).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}; give another --search-dir.") from None
    differing = [
        f"{name} (begun with {began!r}, now {now!r})"
        for part in identity
        for name in {**before.get(part, {}), **identity[part]}
        if (began := before.get(part, {}).get(name)) != (now := identity[part].get(name))
    ]
    if differing:
        raise InputError(f"--search-dir {directory} holds another search: {listed(differing)}. Give another.")
    done = {}
    path = directory / "trials.jsonl"
    lines = files.content(path, folder=directory).splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        record = schemas.parse(line, records.TRIAL, f"{path}: line {number}")
        job = Job(record["trial"], record["rung"])
        if job.trial < len(trials) and record["settings"] != json.loads(json.dumps(trials[job.trial].point)):
            raise InputError(f"{path}: line {number}: other versions sampled other trials; give another --search-dir.")
        done[job] = record
    return done


def _report(running: _Running, ended: str, *, is_running: bool = False) -> Result:
    """Writes winner.toml and report.html."""
    directory, space, options, trials, epochs, trainer, log, *_ = running
    ranking = halving.ranking(log.scores)
    best = ranking[0]
    trial = trials[best.trial]
    shown = command(trial.user_settings)
    winner = log.done[best] | {"value": log.value(best)}
    text = f"# {shown}\n{tomli_w.dumps(settings.as_record(_lasting(trial.resolved)))}"
    files.write_atomically(directory / "winner.toml", text)
    record = {
        "task": trial.task.name,
        "directory": directory.name,
        "synthetic": running.synthetic,
        "monitor": trainer.monitor,
        "mode": trainer.mode,
        "examples": running.examples,
        "seeds": len(trial.resolved.seeds or ()),
        "sampler": options.sampler,
        "reduction": options.reduction,
        "trials": len(trials),
        "epochs": list(epochs),
        "ended": ended,
        "running": is_running,
        "space": search_space.as_record(space),
        # The last one of each trial, the best first.
        "jobs": [log.done[job] | {"value": log.value(job), "by_rung": log.by_rung(job)} for job in ranking],
        "command": shown,
    }
    files.write_atomically(directory / "report.html", html_report.render_search(record))
    return Result(directory, winner, shown, record)


def table(result: Result, most: int = 5) -> str:
    """Returns the best trials as a table."""
    names = [*result.record["space"]]
    rows = [("trial", "epochs", result.record["monitor"], *names)]
    for job in result.record["jobs"][:most]:
        point = [html_report.plain(job["settings"].get(name, "")) for name in names]
        rows.append((str(job["trial"]), str(len(job["values"])), html_report.score(job["value"]), *point))
    return text_table(rows, left=0)


def command(user_settings: Settings) -> str:
    """Returns the command that trains with these settings.

    >>> command(Settings(task="csv", label_column=("a", "b c"), nesterov=False))
    "jaxcls train --task csv --label-column a 'b c' --no-nesterov"
    """
    words = ["jaxcls", "train", "--task", user_settings.task]
    lasting = _lasting(user_settings)
    for field in dataclasses.fields(Settings):
        value = getattr(lasting, field.name)
        if field.name == "task" or value is None or value == field.default:
            continue
        if isinstance(value, bool):
            words.append(flag(field.name) if value else f"--no-{flag(field.name)[2:]}")
        else:
            words += [flag(field.name), *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def _lasting(chosen: Settings) -> Settings:
    """Returns the settings without those of how a command is executed."""
    defaults = {name: getattr(Settings(), name) for name in settings.names(settings.ExecutionSettings)}
    return dataclasses.replace(chosen, **defaults)


def _data_key(trial: Trial) -> tuple[Any, ...]:
    return tuple(getattr(trial.resolved, name) for name in _OF_DATA)


def _shown(point: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name} {html_report.plain(list(value) if isinstance(value, tuple) else value)}"
        for name, value in point.items()
    )
