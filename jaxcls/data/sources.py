"""Sources of a data set: the user's files, TFDS, or a sample; the first available one is loaded."""

import dataclasses
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data.dataset import Dataset

Loaders = dict[str, Callable[[], Dataset]]
SOURCES = ("auto", "files", "tfds", "sample")
# Why a source without a loader is not available.
_NO_LOADER = {"files": "no data_dir was given", "tfds": "TFDS does not offer it", "sample": "there is no sample of it"}


class AbsentError(Exception):
    """A source does not have the data set, so the next one may be tried. (Corrupt data is an InputError.)"""


def load(
    name: str,
    source: str,
    data_dir: str | Path | None,
    read: Callable[..., Dataset],
    needs: str,
    write_sample: Callable[[Path], None] | None = None,
    others: Mapping[str, Callable[[], Dataset]] = {},
    **options: Any,
) -> Dataset:
    """Loads a data set from the first source that has it.

    Args:
      name: the name of the task.
      source: 'files', 'tfds', 'sample', or 'auto', the first of these that is available.
      data_dir: the folder of the user's data, or None. It is never passed over for another source.
      read: ``(folder, **options) -> Dataset``, reads the data set from such a folder.
      needs: a sentence that says what to do if no source has it: the names of the files, where to get them.
      write_sample: writes a synthetic sample; see :func:`load_sample`.
      others: source -> loads the data set from there, or raises :class:`AbsentError`. 'files' are those that the system
        installed.
      options: for `read`.

    Raises:
      InputError: the data is missing or corrupt.
    """
    read = functools.partial(read, **options)
    if source not in SOURCES:
        raise unknown_name("source", source, SOURCES)
    if data_dir is not None:
        if source not in ("auto", "files"):
            raise InputError(f"data_dir goes with source files or auto, not with {source}: leave one out.")
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise InputError(f"data_dir {folder} is not a folder. {needs}")
        return read(folder)
    if write_sample is not None:
        others = {"sample": functools.partial(load_sample, write_sample, read), **others}
    absent: list[str] = []
    for candidate in SOURCES[1:] if source == "auto" else [source]:
        try:
            if candidate not in others:
                raise AbsentError(_NO_LOADER[candidate])
            return with_provenance(others[candidate](), source=candidate, passed_over=tuple(absent))
        except AbsentError as error:
            absent.append(f"{candidate}: {error}")
    raise InputError(f"{name} is not available ({'; '.join(absent)}). {needs}")


def load_sample(write: Callable[[Path], None], read: Callable[[Path], Dataset]) -> Dataset:
    """Loads a synthetic data set: files in the format of the real ones, written once and read like these.

    The files are stored in the user's cache under the checksum of the code that writes them.

    Args:
      write: writes the files into an empty folder; must be deterministic.
      read: reads them from there.
    """
    module = sys.modules[write.__module__]
    # Modules that several samples share are in the same package.
    shared = [
        value for value in vars(module).values() if inspect.ismodule(value) and value.__package__ == module.__package__
    ]
    code = "".join(map(inspect.getsource, [module, *shared]))
    version = hashlib.sha256(code.encode()).hexdigest()[:12]
    folder = environment.cache_directory() / "samples" / f"{module.__name__.rpartition('.')[2]}-{version}"
    write_once(folder, write)
    dataset = read(folder)
    note = f"generated, not real; {dataset.provenance.note}".removesuffix("; ")
    return with_provenance(dataset, source="sample", location=module.__name__, synthetic=True, note=note)


def require_files(folder: Path, names: Iterable[str], needs: str) -> list[Path]:
    """Returns the paths of files in a folder after checking that all exist and no link leads out of it.

    Raises:
      InputError: files are missing; the message ends with `needs`.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} does not hold {', '.join(missing)}. {needs}")
    return [files.inside(folder, folder / name) for name in names]


def with_provenance(dataset: Dataset, **changes: Any) -> Dataset:
    """Returns the data set with some fields of its provenance replaced."""
    return dataset._replace(provenance=dataclasses.replace(dataset.provenance, **changes))


def write_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Creates a folder atomically, by filling a temporary one and renaming it, unless it exists."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.new_folder(folder) as temporary:
            write(temporary)
    except OSError:
        # Another process may have been faster; a folder that is not empty is not replaced.
        if not folder.exists():
            raise


def check_packaged(path: Path, digest: str) -> None:
    """Raises InputError unless this is the SHA-256 of a file of the package, as listed in SHA256SUMS next to it."""
    if digest not in path.with_name("SHA256SUMS").read_text(encoding="utf-8"):
        raise InputError(f"{path}: its SHA-256 is not the one in SHA256SUMS. Install jaxcls again.")


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Returns file name -> SHA-256 of the content, for the record of a run."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
