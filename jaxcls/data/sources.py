"""Sources: which of the places that may have a data set is read, and what is kept of that."""

import dataclasses
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data.dataset import Dataset

SOURCES = ("auto", "files", "tfds", "sample")


class AbsentError(Exception):
    """A source does not have the data set, so the next one may be tried. (Corrupt data is an InputError.)"""


def choose(
    name: str,
    source: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    read: Callable[[Path], Dataset],
    others: Mapping[str, Callable[[], Dataset]],
    needs: str,
) -> Dataset:
    """Loads a data set from the first source that has it.

    Args:
      name: the task's.
      source: 'files', 'tfds', 'sample', or 'auto', the first of these that is there.
      data_dir: the user's own folder. Given one, it is never passed over for another source.
      read: reads the data set from such a folder.
      others: source -> reads it from there, or raises :class:`AbsentError`. 'files' is what the system installed.
      needs: what to do where no source has it, as a sentence: the names of the files, where they are to be had.

    Raises:
      InputError: the data is not there, is corrupt, or does not fit together.
    """
    if source not in SOURCES:
        raise unknown_name("source", source, SOURCES)
    if data_dir is not None:
        if source not in ("auto", "files"):
            raise InputError(f"--data-dir goes with --source files or auto, not with {source}: leave one out.")
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise InputError(f"--data-dir {folder} is not a folder. {needs}")
        return read(folder)
    absent = []
    for candidate in SOURCES[1:] if source == "auto" else [source]:
        try:
            dataset = others.get(candidate, _missing[candidate])()
        except AbsentError as error:
            absent.append(f"{candidate}: {error}")
        else:
            provenance = dataclasses.replace(dataset.provenance, passed_over=tuple(absent))
            return dataset._replace(provenance=provenance)
    raise InputError(f"{name} is not there ({'; '.join(absent)}). {needs}")


def generated(write: Callable[[Path], None], read: Callable[[Path], Dataset]) -> Dataset:
    """A synthetic data set: files in the format of the real ones, written once, read as the real ones are.

    They are kept in the user's cache under the checksum of the code that writes them.

    Args:
      write: writes the files into an empty folder; it is deterministic.
      read: reads them from there.
    """
    module = sys.modules[write.__module__]
    kind = module.__name__.rpartition(".")[2]
    # What draws for several samples stands in a file of its own.
    shared = [
        value for value in vars(module).values() if inspect.ismodule(value) and value.__package__ == module.__package__
    ]
    code = "".join(inspect.getsource(part) for part in [module, *shared])
    version = hashlib.sha256(code.encode()).hexdigest()[:12]
    folder = environment.cache_directory() / "samples" / f"{kind}-{version}"
    write_once(folder, write)
    dataset = read(folder)
    provenance = dataclasses.replace(
        dataset.provenance,
        source="sample",
        location=module.__name__,
        synthetic=True,
        note=f"generated, not real; {dataset.provenance.note}".removesuffix("; "),
    )
    return dataset._replace(provenance=provenance)


def write_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Makes a folder by filling a temporary one and renaming it: there is all of it, or none."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.new_folder(folder) as temporary:
            write(temporary)
    except OSError:
        # Another process was faster; a folder that is not empty is not replaced.
        if not folder.exists():
            raise


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """File name -> SHA-256 of the content, for the record of a run."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _no(reason: str) -> Callable[[], Dataset]:
    def absent() -> Dataset:
        raise AbsentError(reason)

    return absent


_missing = {
    "files": _no("no --data-dir was given"),
    "tfds": _no("TFDS does not offer it"),
    "sample": _no("the package holds no sample of it"),
}
