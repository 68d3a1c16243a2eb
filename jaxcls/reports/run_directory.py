"""What a run leaves on the disk: its settings, environment and data source, its history, and its results.

config.toml        the resolved settings; --config takes it back
environment.json   versions and devices
data.json          where the data came from, with checksums
predictor.json     what a prediction needs beside the weights: the names of the classes, the fitted preprocessor
metrics.jsonl      one line an epoch
summary.json       what the page shows of the test beside the scores: curves, confusions, mistakes
results.json       the scores on the test examples
report.html        the page, for a browser; jaxcls report writes it again
SHA256SUMS         of what a prediction reads beside the weights; sha256sum -c checks them
evaluation-*.json  the scores on a split that was evaluated later
checkpoints/       the states of the training
tensorboard/       event files, where --tensorboard was given
model/             the weights that were tested, and the thresholds of decisions
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError
from jaxcls.reports import records as record_schemas
from jaxcls.training import settings as settings_module
from jaxcls.training.settings import Settings

# What a prediction needs beside the weights, whose checkpoint has fingerprints of its own.
_NEEDED = ("config.toml", "data.json", "predictor.json")


class RunDirectory:
    """The directory of one run; one that is there already is continued. Nothing is written before ``begin``.

    Args:
      path: created if it is missing.
      settings: resolved. Those that decide the result must be the ones that the directory was begun with.
      environment: of this process.
      data: the provenance of the data; its checksums must be those that the run was begun with.
      predictor: what a prediction needs beside the settings and the weights.

    Raises:
      InputError: the directory holds another run, or ``settings.resume`` is off and it holds one.

    Attributes:
      continued: whether there was a run.
      warnings: what differs in the environment and may change the last bits of the result.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        environment: Mapping[str, Any],
        data: Mapping[str, Any],
        predictor: Mapping[str, Any],
    ):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.page = path / "report.html"
        try:
            self.continued = (path / "config.toml").exists()
        except OSError as error:
            raise InputError(f"--run-dir {path} cannot be used ({error.strerror}); give another directory.") from error
        self.warnings: list[str] = []
        record = settings_module.as_record(settings)
        of_the_command = ("config", "list_tasks", "profile", "resume")
        self._records = {
            "environment.json": _json(environment),
            "data.json": _json(data),
            "predictor.json": _json(predictor),
            "config.toml": tomli_w.dumps({name: record[name] for name in record if name not in of_the_command}),
        }
        if self.continued:
            if not settings.resume:
                raise InputError(
                    f"--run-dir {path} holds a run and --no-resume was given: give another directory, or "
                    "delete this one."
                )
            self._check_same_run(settings, environment, data)
            if not self.checkpoints.is_dir():
                raise InputError(
                    f"--run-dir {path} holds a run without its {self.checkpoints.name}/: bring it back; to start "
                    "afresh, give another directory, or delete this one."
                )

    def begin(self) -> None:
        """Writes what the run begins with, unless it is continued; config.toml, which marks a run, comes last.

        Raises:
          InputError: it cannot be written.
        """
        if not self.continued:
            try:
                for name, text in self._records.items():
                    files.write_atomically(self.path / name, text)
            except OSError as error:
                raise InputError(
                    f"--run-dir {self.path} cannot be written to ({error.strerror}); give another directory."
                ) from error

    def write_history(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Writes metrics.jsonl anew: whatever was interrupted, each epoch stands in it once."""
        files.write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))

    def write_results(self, results: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Writes what a run ends with; results.json, which marks it as finished, comes last."""
        files.write_atomically(self.path / "SHA256SUMS", _sums(self.path))
        files.write_atomically(self.path / "summary.json", json.dumps(summary, separators=(",", ":")) + "\n")
        files.write_atomically(self.path / "results.json", _json(results))

    def _check_same_run(self, settings: Settings, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        begun = settings_module.identity(settings_module.from_toml(self.path / "config.toml"))
        asked = settings_module.identity(settings)
        differing = [
            f"{name} (begun with {begun.get(name)!r}, now {asked.get(name)!r})"
            for name in sorted(begun.keys() | asked.keys())
            if begun.get(name) != asked.get(name)
        ]
        if differing:
            raise InputError(
                f"--run-dir {self.path} holds a run with other settings: {', '.join(differing)}. Give another "
                f"--run-dir, or continue that run with --config {self.path / 'config.toml'}."
            )
        before = _read(self.path / "data.json", record_schemas.DATA)
        names = before["sha256"].keys() | data["sha256"].keys()
        others = sorted(name for name in names if before["sha256"].get(name) != data["sha256"].get(name))
        if others:
            raise InputError(
                f"--run-dir {self.path} holds a run on other data, from {before['location']}: now "
                f"{', '.join(others)} from {data['location']} differ. Give the same data, or another --run-dir."
            )
        fitted = self.path / "predictor.json"
        if _json(_read(fitted, record_schemas.PREDICTOR)) != self._records["predictor.json"]:
            raise InputError(
                f"{fitted} is not what the training examples give: it is damaged, or was fitted by other versions of "
                "the libraries. Give another --run-dir."
            )
        recorded = _read(self.path / "environment.json", record_schemas.ENVIRONMENT)
        began, now = _flat(recorded), _flat(environment)
        self.warnings += [
            f"{name} was {began.get(name)}, is {now.get(name)}"
            for name in [*began, *(now.keys() - began.keys())]
            if began.get(name) != now.get(name)
        ]


class Kept(NamedTuple):
    """What :func:`read` gives back of a finished run.

    Attributes:
      settings: resolved.
      data: the provenance of its data.
      predictor: what a prediction needs beside the settings and the weights.
      model: the folder of the weights.
    """

    settings: Settings
    data: dict[str, Any]
    predictor: dict[str, Any]
    model: Path


def read(path: Path) -> Kept:
    """Reads what a prediction needs of a finished run.

    Raises:
      InputError: there is no run, it has not finished, or a file of it is not as it was written.
    """
    if not (path / "config.toml").exists():
        raise InputError(f"--run-dir {path} holds no run; give the directory that training printed.")
    if not (path / "results.json").exists():
        raise InputError(
            f"--run-dir {path}: this run has not finished. Continue it with "
            f"python -m jaxcls.train --config {path / 'config.toml'} --run-dir {path}"
        )
    sums = path / "SHA256SUMS"
    written = files.content(sums, folder=path).decode(errors="replace").splitlines() if sums.exists() else []
    for line in _sums(path).splitlines():
        if line not in written:
            raise InputError(
                f"{path / line.split()[1]} is not as the run wrote it: its SHA-256 is not the one in {sums}. Restore "
                "it, or train again into another --run-dir."
            )
    settings = settings_module.from_toml(path / "config.toml")
    predictor = _read(path / "predictor.json", record_schemas.PREDICTOR)
    record_schemas.check_classes(predictor["problem"], predictor["class_names"], str(path / "predictor.json"))
    return Kept(settings, _read(path / "data.json", record_schemas.DATA), predictor, path / "model")


class Records(NamedTuple):
    """All that a finished run wrote down, as :func:`records` reads it.

    Attributes:
      path: the run's directory.
      config, environment, data, results, summary: the content of the files of these names.
      history: the lines of metrics.jsonl.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    history: list[dict[str, Any]]
    results: dict[str, Any]
    summary: dict[str, Any]


def records(path: Path) -> Records:
    """Reads what a page shows of a finished run.

    Raises:
      InputError: there is no run, it has not finished, was made before there were pages, or a file is damaged.
    """
    kept = read(path)
    if not (path / "summary.json").exists():
        raise InputError(
            f"--run-dir {path}: this run keeps no summary.json, from which a page is made. The command that trained it "
            "writes one, and does not train again."
        )
    if kept.settings.model is None:
        raise InputError(f"{path / 'config.toml'} names no model, as that of every run does; give another --run-dir.")
    problem = kept.predictor["problem"]
    history = path / "metrics.jsonl"
    lines = [
        schemas.parse(text, {str: schemas.ANYTHING}, f"{history}: line {number}")
        for number, text in enumerate(files.content(history, folder=path).splitlines(), 1)
    ]
    found = Records(
        path=path,
        config=settings_module.as_record(kept.settings),
        environment=_read(path / "environment.json", record_schemas.ENVIRONMENT),
        data=kept.data,
        history=lines,
        results=_read(path / "results.json", record_schemas.RESULTS[problem]),
        summary=_read(path / "summary.json", record_schemas.SUMMARY[problem]),
    )
    record_schemas.check_page(found.history, found.results, found.summary, str(path))
    return found


def write_page(file: Path, html: str) -> None:
    """Writes a page, all of it or nothing."""
    files.write_atomically(file, html)


def write_evaluation(path: Path, split: str, results: Mapping[str, Any]) -> Path:
    """Writes the scores on a split into the directory of a finished run, and gives the file."""
    file = path / f"evaluation-{split}.json"
    files.write_atomically(file, _json(results))
    return file


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a record, and in the place of a record within it, its entries."""
    parts = (value.items() if isinstance(value, dict) else [(name, value)] for name, value in record.items())
    return dict(itertools.chain.from_iterable(parts))


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _sums(path: Path) -> str:
    """The lines of SHA256SUMS."""
    return files.sha256sums({name: files.content(path / name, folder=path) for name in _NEEDED})


def _read(path: Path, form: schemas.Form) -> dict[str, Any]:
    """A record of this form."""
    try:
        record: dict[str, Any] = schemas.parse(files.content(path, folder=path.parent), form, str(path))
    except InputError as error:
        raise InputError(f"{error} Give another --run-dir.") from None
    return record
