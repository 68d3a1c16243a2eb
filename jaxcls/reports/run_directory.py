"""What a run leaves on the disk: its settings, environment and data source, its history, and its results.

config.toml        the configuration: the resolved settings of a command, or the arguments of compile and fit
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
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError
from jaxcls.reports import records as record_schemas

# What a prediction needs beside the weights, whose checkpoint has fingerprints of its own.
_NEEDED = ("config.toml", "data.json", "predictor.json")


class RunDirectory:
    """The directory of one run. An existing run is continued. Nothing is written before ``begin``.

    Args:
      path: created if it is missing.
      config: the configuration as plain JSON and TOML values, without None.
      identity: the names in ``config`` whose values decide the result: a continued run must have the same. By default
        all of them.
      environment: packages, devices and flags of this process.
      data: the provenance of the data. A continued run must have the same checksums.
      predictor: what a prediction needs beside the configuration and the weights: the problem, the class names, and
        the record of the fitted preprocessor, or None where the model takes arrays as they are.
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
        resume: bool = True,
    ):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.report = path / "report.html"
        try:
            self.continued = (path / "config.toml").exists()
        except OSError as error:
            raise InputError(f"--run-dir {path} cannot be used ({error.strerror}); give another directory.") from error
        self.warnings: list[str] = []
        self._records = {
            "environment.json": _json(environment),
            "data.json": _json(data),
            "predictor.json": _json(predictor),
            "config.toml": tomli_w.dumps(config),
        }
        if self.continued:
            if not resume:
                raise InputError(
                    f"--run-dir {path} holds a run and --no-resume was given: give another directory, or "
                    "delete this one."
                )
            self._check_same_run(identity, environment, data)
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
        self.write_checksums()
        files.write_atomically(self.path / "summary.json", json.dumps(summary, separators=(",", ":")) + "\n")
        files.write_atomically(self.path / "results.json", _json(results))

    def write_checksums(self) -> None:
        """Writes SHA256SUMS, after which the directory can be loaded for predictions."""
        files.write_atomically(self.path / "SHA256SUMS", checksums(self.path))

    def _check_same_run(
        self, identity: Collection[str] | None, environment: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        begun = _read_config(self.path)
        # As a file gives it back: tuples are lists.
        now = tomllib.loads(self._records["config.toml"])
        differing = [
            f"{name} (begun with {begun.get(name)!r}, now {now.get(name)!r})"
            for name in sorted(begun.keys() | now.keys() if identity is None else identity)
            if begun.get(name) != now.get(name)
        ]
        if differing:
            raise InputError(
                f"--run-dir {self.path} holds a run with other settings: {', '.join(differing)}. Give another "
                f"--run-dir, or continue that run with the settings in {self.path / 'config.toml'}."
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
      config: the configuration, as it was written.
      data: the provenance of its data.
      predictor: what a prediction needs beside the configuration and the weights.
      model: the folder of the weights.
    """

    config: dict[str, Any]
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
    if not (path / "SHA256SUMS").exists():
        raise InputError(
            f"--run-dir {path}: this run has not finished. Continue it with "
            f"python -m jaxcls.train --config {path / 'config.toml'} --run-dir {path}"
        )
    sums = path / "SHA256SUMS"
    written = files.content(sums, folder=path).decode(errors="replace").splitlines() if sums.exists() else []
    for line in checksums(path).splitlines():
        if line not in written:
            raise InputError(
                f"{path / line.split()[1]} is not as the run wrote it: its SHA-256 is not the one in {sums}. Restore "
                "it, or train again into another --run-dir."
            )
    predictor = _read(path / "predictor.json", record_schemas.PREDICTOR)
    record_schemas.check_classes(predictor["problem"], predictor["class_names"], str(path / "predictor.json"))
    return Kept(_read_config(path), _read(path / "data.json", record_schemas.DATA), predictor, path / "model")


class Records(NamedTuple):
    """All that a finished run wrote down, as :func:`read_records` reads it.

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


def read_records(path: Path) -> Records:
    """Reads what a page shows of a finished run.

    Raises:
      InputError: there is no run, it has not finished, was made before there were pages, or a file is damaged.
    """
    kept = read(path)
    if not (path / "results.json").exists() or not (path / "summary.json").exists():
        raise InputError(
            f"--run-dir {path}: this run keeps no summary.json, from which a page is made. The command that trained it "
            "writes one, and does not train again."
        )
    problem = kept.predictor["problem"]
    history = path / "metrics.jsonl"
    lines = [
        schemas.parse(text, {str: schemas.ANYTHING}, f"{history}: line {number}")
        for number, text in enumerate(files.content(history, folder=path).splitlines(), 1)
    ]
    found = Records(
        path=path,
        config=kept.config,
        environment=_read(path / "environment.json", record_schemas.ENVIRONMENT),
        data=kept.data,
        history=lines,
        results=_read(path / "results.json", record_schemas.RESULTS[problem]),
        summary=_read(path / "summary.json", record_schemas.SUMMARY[problem]),
    )
    record_schemas.check_page(found.history, found.results, found.summary, str(path))
    return found


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


def checksums(path: Path) -> str:
    """The lines of SHA256SUMS."""
    return files.sha256sums({name: files.content(path / name, folder=path) for name in _NEEDED})


def _read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run."""
    file = path / "config.toml"
    try:
        config = tomllib.loads(files.content(file, folder=path).decode())
    # ValueError: also a number of thousands of digits. RecursionError: brackets within brackets.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a TOML file: {error}") from None
    schemas.check(config, record_schemas.CONFIG, str(file))
    return config


def _read(path: Path, schema: schemas.Schema) -> dict[str, Any]:
    """Reads a record that matches the schema."""
    try:
        record: dict[str, Any] = schemas.parse(files.content(path, folder=path.parent), schema, str(path))
    except InputError as error:
        raise InputError(f"{error} Give another --run-dir.") from None
    return record
