"""The files of a run.

config.toml        the configuration: the resolved settings of a command, or the arguments of compile and fit
environment.json   versions and devices
data.json          the source of the data, with checksums
predictor.json     data for predictions besides the weights: the class names and the fitted preprocessor
metrics.jsonl      one line per epoch
summary.json       what the report shows of the test besides the metrics: curves, confusions, mistakes
results.json       the metrics of the test examples
reference.json     the distributions of the training inputs and of scores, to which new examples are compared
calibration.json   the calibration of the scores and the decision thresholds, with --calibrate
report.html        the report for a browser; jaxcls report writes it again
SHA256SUMS         checksums of the files that a prediction reads besides the weights, for sha256sum -c
evaluation-*.json  the metrics of a split that was evaluated later
checkpoints/       the states of the training
tensorboard/       event files, with --tensorboard
model/             the tested weights and the decision thresholds
"""

import contextlib
import functools
import json
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError
from jaxcls._utils.schemas import Schema
from jaxcls.reports import records

# The files that a prediction needs besides the weights; the checkpoint of the weights has its own checksums.
_CHECKED_FILES = ("config.toml", "data.json", "predictor.json")
_CALIBRATION, _REFERENCE = "calibration.json", "reference.json"


class RunDirectory:
    """The directory of one run. An existing run is continued. Nothing is written before ``begin``.

    Args:
      path: created if it is missing.
      config: the configuration as plain JSON and TOML values, without None.
      identity: the names in ``config`` whose values decide the result: a continued run must have the same. By default
        all of them.
      environment: packages, devices and flags of this process.
      data: the provenance of the data. A continued run must have the same checksums.
      predictor: what a prediction needs besides the configuration and the weights: the problem, the class names, and
        the record of the fitted preprocessor, or None for a model that takes arrays without preprocessing.
      increasing: names in ``config`` whose values a continued run may raise, though they decide the result.
      replaceable: names in ``config`` whose values a continued run may change, which are then recorded.
      advice: the names of other settings than those of the run -> what would be right.
      resume: whether an existing run may be continued.

    Raises:
      InputError: the directory holds a different run, or it holds one and ``resume`` is false.

    Attributes:
      continued: whether the directory already held this run.
      warnings: differences of the environment, which may change the last bits of the result.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        *,
        environment: Mapping[str, Any],
        data: Mapping[str, Any],
        predictor: Mapping[str, Any],
        identity: Collection[str] | None = None,
        increasing: Collection[str] = (),
        replaceable: Collection[str] = (),
        advice: Callable[[Sequence[str]], str] = lambda names: "Give another directory.",
        resume: bool = True,
    ):
        self.path, self._predictor = path, predictor
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.report = path / "report.html"
        self.warnings: list[str] = []
        self._changed: list[str] = []
        self._texts = {
            "environment.json": _json(environment),
            "data.json": _json(data),
            "predictor.json": _json(predictor),
            "config.toml": tomli_w.dumps(config),
        }
        with _usable(path):
            self.continued = (path / "config.toml").exists()
        if not self.continued:
            return
        if not resume:
            raise InputError(f"run directory {path} holds a run and resume is off; give another directory.")
        self._check_same_config(identity, increasing, replaceable, advice)
        self._check_same_data(environment, data)
        if not self.checkpoints.is_dir():
            raise InputError(
                f"run directory {path} holds a run without its {self.checkpoints.name}/: restore it; to start again, "
                "give another directory, or delete this one."
            )

    def begin(self) -> None:
        """Writes the first files of a new run; config.toml, which marks a run, comes last; it alone if values changed.

        Raises:
          InputError: they cannot be written.
        """
        with _usable(self.path):
            if not self.continued:
                self.path.mkdir(parents=True, exist_ok=True)
                for name, text in self._texts.items():
                    self._write(name, text)
            elif self._changed:
                self._write("config.toml", self._texts["config.toml"])
                if (self.path / "SHA256SUMS").exists():
                    self.write_checksums()

    def replace_predictor(self, predictor: Mapping[str, Any]) -> None:
        """Writes predictor.json again: the weights of an ensemble's members may be known only after training."""
        self._write("predictor.json", _json(predictor))

    def write_history(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Rewrites metrics.jsonl, so that it holds each epoch once after interruptions."""
        self._write("metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))

    def write_results(self, results: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Writes the last files of a run; results.json, which marks it as finished, comes last."""
        self.write_checksums()
        self._write("summary.json", json.dumps(summary, separators=(",", ":")) + "\n")
        self._write("results.json", _json(results))

    def write_calibration(self, record: Mapping[str, Any] | None) -> None:
        """Writes calibration.json, or removes that of an earlier test."""
        if record is not None:
            self._write(_CALIBRATION, json.dumps(record, separators=(",", ":")) + "\n")
        else:
            (self.path / _CALIBRATION).unlink(missing_ok=True)

    def write_reference(self, record: Mapping[str, Any]) -> None:
        """Writes reference.json."""
        self._write(_REFERENCE, json.dumps(record, separators=(",", ":")) + "\n")

    def write_checksums(self) -> None:
        """Writes SHA256SUMS, after which the directory can be loaded for predictions."""
        self._write("SHA256SUMS", functools.partial(checksums, self.path))

    def _write(self, name: str, text: str | Callable[[], str]) -> None:
        # Imports JAX, which reading a run does without.
        from jaxcls._utils import processes

        if processes.first():
            files.write_atomically(self.path / name, text if isinstance(text, str) else text())

    def _check_same_config(
        self,
        identity: Collection[str] | None,
        increasing: Collection[str],
        replaceable: Collection[str],
        advice: Callable[[Sequence[str]], str],
    ) -> None:
        # As the file would be read again, with lists for tuples.
        before, now = _read_config(self.path), tomllib.loads(self._texts["config.toml"])
        self._changed = [name for name in increasing if name in before and before[name] < now[name]]
        self._changed += [name for name in replaceable if before.get(name) != now.get(name)]
        differing = [
            name
            for name in _differing(before, now)
            if name not in self._changed and (identity is None or name in identity)
        ]
        if differing:
            changes = ", ".join(
                f"{name} (begun with {before.get(name)!r}, now {now.get(name)!r})" for name in differing
            )
            raise InputError(
                f"run directory {self.path} holds a run with other settings: {changes}. {advice(differing)}"
            )

    def _check_same_data(self, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        recorded = _read(self.path / "data.json", records.DATA)
        changed = _differing(recorded["sha256"], data["sha256"])
        if changed:
            raise InputError(
                f"run directory {self.path} holds a run on other data, from {recorded['location']}: now "
                f"{', '.join(sorted(changed))} from {data['location']} differ. Give the same data, or another "
                "directory."
            )
        predictor = _read(self.path / "predictor.json", records.PREDICTOR)
        before, now = (one.get("pretrained", {}).get("sha256", {}) for one in (predictor, self._predictor))
        if before != now:
            raise InputError(
                f"run directory {self.path} holds a run of another pretrained encoder: "
                f"{', '.join(_differing(before, now))} differ. Give the same one, or another directory."
            )
        # What an ensemble consists of may be known only after its members were trained.
        if "ensemble" not in predictor and _json(predictor) != self._texts["predictor.json"]:
            raise InputError(
                f"{self.path / 'predictor.json'} does not match the training examples: it is damaged, or other "
                "versions of the libraries fitted it. Give another run directory."
            )
        began = _flat(_read(self.path / "environment.json", records.ENVIRONMENT))
        current = _flat(environment)
        self.warnings += [
            f"{name} was {began.get(name)}, is {current.get(name)}" for name in _differing(began, current)
        ]


class FinishedRun(NamedTuple):
    """The contents of a finished run that predictions need.

    Attributes:
      config: the configuration as written.
      data: the provenance of its data.
      predictor: the problem, the class names and the record of the preprocessor.
      model: the folder of the weights.
      calibration: of the scores; None without one.
      reference: what new examples are compared to, see :mod:`jaxcls.reports.shift`; None without it.
    """

    config: dict[str, Any]
    data: dict[str, Any]
    predictor: dict[str, Any]
    model: Path
    calibration: dict[str, Any] | None
    reference: dict[str, Any] | None


def read(path: Path, *, finished: bool = True) -> FinishedRun:
    """Reads the contents of a finished run that predictions need.

    Args:
      finished: whether the run must have finished; otherwise its checksums are compared if it has.

    Raises:
      InputError: there is no run, it has not finished, or one of its files was changed.
    """
    if not (path / "config.toml").exists():
        raise InputError(f"run directory {path} holds no run; give the directory that training printed.")
    sums = path / "SHA256SUMS"
    if finished and not sums.exists():
        raise InputError(
            f"run directory {path}: this run has not finished. Continue it with python -m jaxcls.train --config "
            f"{path / 'config.toml'} --run-dir {path}, or with the call of fit that began it."
        )
    written = files.content(sums, folder=path).decode(errors="replace").splitlines() if sums.exists() else []
    is_calibrated = any(line.endswith(f"  {_CALIBRATION}") for line in written)
    if is_calibrated and not (path / _CALIBRATION).exists():
        raise InputError(f"{path / _CALIBRATION} is missing: restore it, or repeat the command that trained the run.")
    for line in checksums(path).splitlines() if sums.exists() else []:
        if line not in written:
            raise InputError(
                f"{path / line.split()[1]} is not as the run wrote it: its SHA-256 is not the one in {sums}. Restore "
                "it, or train again into another run directory."
            )
    predictor = _read(path / "predictor.json", records.PREDICTOR)
    records.check_predictor(predictor, str(path / "predictor.json"))
    data, calibration = _read(path / "data.json", records.DATA), None
    if is_calibrated:
        calibration = _read(path / _CALIBRATION, records.CALIBRATION)
        records.check_calibration(calibration, predictor, str(path / _CALIBRATION))
    reference = _read(path / _REFERENCE, records.REFERENCE) if (path / _REFERENCE).exists() else None
    return FinishedRun(_read_config(path), data, predictor, path / "model", calibration, reference)


class Records(NamedTuple):
    """The content of all files of a finished run that its report shows.

    Attributes:
      path: the run's directory.
      config, environment, data, predictor, results, summary: the files with these names.
      history: the lines of metrics.jsonl.
      explanations: that `jaxcls explain` wrote, or None.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    predictor: dict[str, Any]
    history: list[dict[str, Any]]
    results: dict[str, Any]
    summary: dict[str, Any]
    explanations: dict[str, Any] | None = None


def read_records(path: Path) -> Records:
    """Reads what the report of a finished run shows.

    Raises:
      InputError: there is no run, it has not finished, it has no summary, or a file is damaged.
    """
    run = read(path)
    if not (path / "results.json").exists() or not (path / "summary.json").exists():
        raise InputError(
            f"run directory {path} lacks results.json or summary.json, which its report needs. The "
            "command that trained it writes them without training again."
        )
    lines = files.content(path / "metrics.jsonl", folder=path).splitlines()
    if not lines:
        raise InputError(f"{path} is damaged: metrics.jsonl has no epoch; give another run directory.")
    results, summary = _read(path / "results.json", records.RESULTS), _read(path / "summary.json", records.SUMMARY)
    records.check_records(run.predictor["problem"], results, summary, str(path))
    history = [
        schemas.parse(line, records.EPOCH, f"{path / 'metrics.jsonl'}: line {number}")
        for number, line in enumerate(lines, 1)
    ]
    environment = _read(path / "environment.json", records.ENVIRONMENT)
    file = path / "explanations.json"
    explanations = _read(file, records.EXPLANATIONS) if file.exists() else None
    return Records(path, run.config, environment, run.data, run.predictor, history, results, summary, explanations)


def write_evaluation(path: Path, split: str, results: Mapping[str, Any]) -> Path:
    """Writes the metrics of a split into the directory of a finished run, and returns the file's path."""
    file = path / f"evaluation-{split}.json"
    files.write_atomically(file, _json(results))
    return file


def write_explanations(path: Path, explanations: Mapping[str, Any]) -> None:
    """Writes explanations into the directory of a finished run, where its report finds them."""
    files.write_atomically(path / "explanations.json", json.dumps(explanations) + "\n")


def checksums(path: Path) -> str:
    """Returns the content of SHA256SUMS for the files of a run."""
    names = [*_CHECKED_FILES, *(name for name in (_CALIBRATION, _REFERENCE) if (path / name).exists())]
    return files.sha256sums({name: files.content(path / name, folder=path) for name in names})


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"run directory {path} cannot be used ({error.strerror}); give another.") from error


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the names whose values differ, or that only one record has."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of a record, with nested records flattened."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.toml"
    try:
        config = tomllib.loads(files.content(file, folder=path).decode())
    # ValueError: also a number of thousands of digits. RecursionError: thousands of nested brackets.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a TOML file: {error}") from None
    schemas.check(config, records.CONFIG, str(file))
    return config


def _read(path: Path, schema: Schema) -> dict[str, Any]:
    try:
        record: dict[str, Any] = schemas.parse(files.content(path, folder=path.parent), schema, str(path))
    except InputError as error:
        raise InputError(f"{error} Give another run directory.") from None
    return record
