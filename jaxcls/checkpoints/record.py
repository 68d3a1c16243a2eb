"""The record of a checkpoint, which is saved next to its arrays: JSON text with its digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints.leaves import type_of
from jaxcls.checkpoints.reading import Damaged

_SCHEMA = {
    "step": int,
    "leaves": {str: [str, int]},
    "metadata": {str: schemas.ANYTHING},
    "metrics": {str: schemas.NUMBER},
    "identity": {str: schemas.ANYTHING},
}


class Record(NamedTuple):
    """What is saved with a state.

    Attributes:
      leaves: [type, hash] of each leaf, by path.
      metadata, metrics: the arguments of ``save``.
      identity: that of the run.
    """

    step: int
    leaves: dict[str, list[Any]]
    metadata: dict[str, Any]
    metrics: dict[str, float]
    identity: dict[str, Any]


def pack(record: Record) -> dict[str, str]:
    """Returns the record as text with its digest, so that a flipped bit in the record is noticed as well.

    Raises:
      InputError: a value is not JSON, or a metric is not a number.
    """
    try:
        metrics = {name: float(value) for name, value in record.metrics.items()}
        text = json.dumps(record._replace(metrics=metrics)._asdict())
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata must be JSON values, and metrics numbers: {error}.") from error
    return {"record": text, "sha256": _sha256(text)}


def unpack(step: int, packed: Mapping[str, Any] | None) -> Record:
    """Returns the record that :func:`pack` packed.

    Raises:
      Damaged: it was changed, or is the record of another step.
    """
    # Orbax returns None where its own file is no longer JSON.
    match packed:
        case {"record": str(text), "sha256": digest} if digest == _sha256(text):
            try:
                fields = schemas.parse(text, _SCHEMA, "its record")
            except InputError as error:  # with a valid digest: somebody changed the record on purpose
                raise Damaged(str(error)) from error
        case _:
            raise Damaged("its record is not the one that was saved")
    record = Record(*(fields[name] for name in Record._fields))
    if record.step != step:
        raise Damaged("it is a checkpoint of another step")
    return record


def check_compatible(path: Path, record: Record, identity: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
    """Raises InputError if the checkpoint is of another run or model, with the settings or leaves that differ."""
    # First the settings, which explain why leaves differ. Another release may have other settings.
    names = [
        name for name in sorted(record.identity.keys() & identity.keys()) if record.identity[name] != identity[name]
    ]
    if names:
        lines = [f"\n  {name}: saved {record.identity[name]!r}, now {identity[name]!r}" for name in names]
        raise InputError(
            f"checkpoint {path} is of another run; give the settings and the data that it was saved with, or another "
            f"directory.{''.join(lines)}"
        )
    saved = {name: kind for name, (kind, _) in record.leaves.items()}
    now = {name: type_of(leaf) for name, leaf in leaves.items()}
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if names:
        lines = [f"\n  {n}: saved {saved.get(n, 'nothing')}, now {now.get(n, 'nothing')}" for n in names[:10]]
        more = f"\n  and {len(names) - 10} more" if len(names) > 10 else ""
        raise InputError(
            f"checkpoint {path} is of another model or optimizer ({len(names)} leaves differ); use the "
            f"settings that it was saved with, or another directory.{''.join(lines)}{more}"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
