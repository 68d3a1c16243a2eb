"""What stands beside the arrays of a checkpoint: a text with its digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints.reading import Damaged

_RECORD = {
    "step": int,
    "leaves": {str: [str, int]},
    "metadata": {str: schemas.ANYTHING},
    "metrics": {str: schemas.NUMBER},
    "identity": {str: schemas.ANYTHING},
}


class Record(NamedTuple):
    """What is known of a checkpoint: each leaf's type and hash by its path, and what the caller gave."""

    leaves: dict[str, list[Any]]
    metadata: dict[str, Any]
    metrics: dict[str, float]
    identity: dict[str, Any]


def pack(
    step: int,
    leaves: dict[str, list[Any]],
    metadata: Mapping[str, Any],
    metrics: Mapping[str, float],
    identity: Mapping[str, Any],
) -> dict[str, str]:
    """The record as text with its digest, so that a flipped bit in the record itself is noticed as well.

    Raises:
      InputError: there is what JSON cannot hold, or a metric that is no number.
    """
    try:
        numbers = {name: float(value) for name, value in metrics.items()}
        record = {"step": step, "leaves": leaves, "metadata": dict(metadata), "metrics": numbers, "identity": identity}
        text = json.dumps(record)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata must be what JSON can hold, and metrics numbers: {error}.") from error
    return {"record": text, "sha256": _sha256(text)}


def unpack(step: int, custom_metadata: Mapping[str, Any] | None) -> Record:
    """The record of what `pack` gave.

    Raises:
      Damaged: it is not what was packed, or of another step.
    """
    # Orbax gives None where its own file is no longer JSON.
    match custom_metadata:
        case {"record": str(text), "sha256": digest} if digest == _sha256(text):
            try:
                record = schemas.parse(text, _RECORD, "its record")
            except InputError as error:  # nothing that we wrote; whoever hands on a run may have changed it
                raise Damaged(str(error)) from error
        case _:
            raise Damaged("its record is not the one that was saved")
    if record["step"] != step:
        raise Damaged("it is a checkpoint of another step")
    return Record(record["leaves"], record["metadata"], record["metrics"], record["identity"])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def check_same_run(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError, with all that differ, where a setting is known to both and is not the same."""
    # Another release may know other settings.
    differing = [name for name in sorted(saved.keys() & now.keys()) if saved[name] != now[name]]
    if differing:
        lines = [f"\n  {name}: saved {saved[name]!r}, now {now[name]!r}" for name in differing]
        raise InputError(
            f"checkpoint {path} is of another run; give the settings and the data that it was saved with, or another "
            f"directory.{''.join(lines)}"
        )
