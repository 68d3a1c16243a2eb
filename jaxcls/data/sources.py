"""Sources of a data set: the user's files, TFDS, or a sample; the first available one is loaded.

TFDS needs TensorFlow to prepare most of its data sets, but not for their addresses, and not for its download manager,
which verifies checksums; the files are decoded by jaxcls.
"""

import dataclasses
import functools
import hashlib
import inspect
import sys
import threading
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
# Seconds after which a server that does not answer counts as out of reach.
TIMEOUT = 5.0


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


def from_package(dataset: Dataset, files: Iterable[Path], note: str) -> Dataset:
    """Verifies and records the files of a real sample, in the order of the data set's checksums."""
    for path, digest in zip(files, dataset.provenance.sha256.values(), strict=True):
        check_packaged(path, digest)
    location = f"jaxcls/data/samples/{path.parent.name}"
    return with_provenance(dataset, source="sample", location=location, note=f"real: {note}")


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Returns file name -> SHA-256 of the content, for the record of a run."""
    return {path.name: files.sha256(path) for path in paths}


def fetch(name: str, urls: Mapping[str, str], registered: Mapping[str, Any]) -> tuple[Path, dict[str, Path]]:
    """Downloads files into TFDS's folder, unless they are there already.

    TFDS verifies what it downloads, but not what is in its cache: verify the content of the files.

    Args:
      name: the name of the data set in TFDS.
      urls: a name for each file -> its address.
      registered: address -> TFDS's record of its size and checksum, from :func:`registered`.

    Returns:
      The folder, and the path of each file by its name.

    Raises:
      AbsentError: the files cannot be downloaded.
    """
    # Imports in half a second.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import resource
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    downloads = tfds_directory() / "downloads"
    cached = all(
        resource.is_locally_cached(downloads / name / resource.get_dl_fname(url, registered[url].checksum))
        for url in urls.values()
    )
    # TFDS retries for minutes: ten times with growing pauses and no timeout.
    if not cached:
        _check_reachable(next(iter(urls.values())))
    try:
        manager = tfds.download.DownloadManager(
            download_dir=downloads, dataset_name=name, url_infos=registered, force_checksums_validation=True
        )
        paths = {file: Path(path) for file, path in manager.download(dict(urls)).items()}
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise AbsentError(f"the download failed: {str(error).partition(chr(10))[0]}") from error
    return downloads / name, paths


def fetch_archive(name: str, suffix: str) -> tuple[Path, str]:
    """Downloads the archive of a data set whose address ends in `suffix`; returns its path and SHA-256.

    Raises:
      AbsentError: it cannot be downloaded.
      InputError: its content is not the registered one.
    """
    addresses = registered(name)
    url = next(url for url in addresses if url.endswith(suffix))
    archive = fetch(name, {suffix: url}, addresses)[1][suffix]
    (digest,) = checksums([archive]).values()
    if digest != addresses[url].checksum:
        raise InputError(f"{archive}: its SHA-256 is not the registered one. Delete it and run again.")
    return archive, digest


def tfds_directory() -> Path:
    """Returns the folder of TFDS's data sets.

    Raises:
      AbsentError: it would be in the home directory, and there is none.
    """
    import tensorflow_datasets as tfds

    try:
        return Path(tfds.core.constants.get_default_data_dir()).expanduser()
    except RuntimeError:
        raise AbsentError("TFDS's folder is unknown, as there is no home directory; set TFDS_DATA_DIR") from None


def registered(name: str) -> Mapping[str, Any]:
    """Returns the addresses that TFDS registers for a data set, each with the size and SHA-256 of its content.

    They are read from the package's files: ``tfds.builder_cls`` imports every data set of the same field first, and
    fails if one of them needs a package that TFDS does not require (its text data sets need h5py).

    Raises:
      AbsentError: the installed TFDS does not have the data set.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import load_url_infos

    package = Path(tfds.__file__).parent
    for path in (package / "url_checksums" / f"{name}.txt", package / "datasets" / name / "checksums.tsv"):
        if path.is_file():
            return load_url_infos(path)
    raise AbsentError(f"the installed tensorflow-datasets {tfds.__version__} does not register {name}")


def _check_reachable(url: str) -> None:
    """Raises AbsentError unless an address answers within TIMEOUT seconds."""
    from http.client import HTTPException
    from urllib.parse import urlsplit
    from urllib.request import build_opener

    host = urlsplit(url).netloc
    reasons = [f"{host} did not answer within {TIMEOUT:g} seconds"]

    def request() -> None:
        try:
            # Not urlopen, which keeps the proxy settings of its first call.
            build_opener().open(url, timeout=TIMEOUT).close()
            reasons.clear()
        except (OSError, HTTPException) as error:
            reasons[0] = f"{host} is out of reach: {error}"

    # A thread, because no socket timeout bounds name resolution, or the sum over addresses.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if reasons:
        raise AbsentError(reasons[0])
