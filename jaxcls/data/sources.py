"""Sources: where a data set comes from (files, TFDS, the sample in the package), and the record of it."""

import dataclasses
import os
import threading
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxcls.data import formats
from jaxcls.errors import InputError, unknown_name

Source = Literal["files", "tfds", "sample"]
SOURCES = ("auto", "files", "tfds", "sample")
# Seconds that a server has to answer before it counts as out of reach.
PATIENCE = 5.0


class Arrays(NamedTuple):
    """The examples of one split, decoded and compact; row i of `labels` belongs to row i of `inputs`.

    Images are uint8 (N, H, W, C); class labels are int32 (N,).
    """

    inputs: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a data set came from, for the first line of output and for the record of a run.

    Attributes:
      source: 'files', 'tfds' or 'sample'.
      location: the folder, or the name in the package.
      sha256: file name -> SHA-256 of its unpacked content.
      synthetic: True if the data was generated; no score on it may stand beside a real one without that word.
      note: what a reader should know: how it was verified, that it is a part, that it is the user's own.
      passed_over: why each source that `auto` tried before this one was not there.
    """

    source: Source
    location: str
    sha256: Mapping[str, str]
    synthetic: bool
    note: str
    passed_over: tuple[str, ...] = ()


class Dataset(NamedTuple):
    """A decoded data set: its splits, the names of its classes, and where it came from."""

    name: str
    train: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    provenance: Provenance


@dataclasses.dataclass(frozen=True)
class IdxImages:
    """A data set of images in four IDX files, and where it can be had.

    Attributes:
      name: the task's name.
      class_names: the name of label 0, 1, ...
      sha256: file name -> SHA-256 of the official file's unpacked content, in the order training images,
        training labels, test images, test labels.
      debian: (package, folder) of the Debian package that holds the files.
      torchvision: the subfolder that torchvision makes for it.
      tfds: the name under which TFDS registers the addresses of the files.
      sample: the folder in jaxcls/data/samples.
    """

    name: str
    class_names: tuple[str, ...]
    sha256: Mapping[str, str]
    debian: tuple[str, str] | None = None
    torchvision: str | None = None
    tfds: str | None = None
    sample: str | None = None


def load_idx_images(spec: IdxImages, source: str = "auto", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a data set of images from the first source that has it, decoded, in the order of its IDX files.

    Args:
      spec: the data set.
      source: 'files' (the four IDX files in `data_dir`, else in the folder of the Debian package), 'tfds'
        (fetched and verified by TFDS into its own folder), 'sample' (the part that comes with this package),
        or 'auto', the first of these that is there.
      data_dir: a folder with the four files, plain or gzipped, also in torchvision's layout. They may hold
        the user's own data; the provenance then says so. Every other source must be the official data.

    Returns:
      A Dataset of uint8 images (N, H, W, C) and int32 labels (N,).

    Raises InputError if the data is not there, is corrupt, or does not fit together. Given a `data_dir`, that
    is never passed over for another source.

    >>> parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    >>> official = {f"{part}-ubyte": "SHA-256 of the full file" for part in parts}
    >>> spec = IdxImages("fashion_mnist", tuple("0123456789"), official, sample="fashion_mnist")
    >>> data = load_idx_images(spec, "sample")
    >>> data.train.inputs.shape, data.test.labels.dtype
    ((10000, 28, 28, 1), dtype('int32'))
    >>> print(describe(data))
    fashion_mnist: 10,000 + 2,000 examples from jaxcls/data/samples/fashion_mnist (a part of the real ...
    """
    if source not in SOURCES:
        raise unknown_name("source", source, SOURCES)
    if data_dir is not None:
        if source not in ("auto", "files"):
            raise InputError(f"data_dir goes with source 'files' or 'auto', not with {source!r}: leave one out.")
        return _from_data_dir(spec, Path(data_dir).expanduser())

    loaders = {"files": _from_debian, "tfds": _from_tfds, "sample": _from_sample}
    absent: list[str] = []
    for name in loaders if source == "auto" else [source]:
        try:
            dataset = loaders[name](spec)
        except _AbsentError as error:
            absent.append(f"{name}: {error}")
        else:
            provenance = dataclasses.replace(dataset.provenance, passed_over=tuple(absent))
            return dataset._replace(provenance=provenance)
    raise InputError(f"{spec.name} is not there ({'; '.join(absent)}). {_remedies(spec)}")


def describe(dataset: Dataset) -> str:
    """One line that says what was loaded and from where, for the first line of a run's output.

    >>> two = Arrays(np.zeros((2, 3), np.float32), np.array([0, 1], np.int32))
    >>> record = Provenance("sample", "jaxcls/data/samples/toy", {}, True, "drawn from two Gaussians")
    >>> describe(Dataset("toy", two, two, ("no", "yes"), record))
    'toy: 2 + 2 synthetic examples from jaxcls/data/samples/toy (drawn from two Gaussians)'
    """
    record = dataset.provenance
    synthetic = "synthetic " if record.synthetic else ""
    passed_over = "".join(f"; not {reason}" for reason in record.passed_over)
    return (
        f"{dataset.name}: {len(dataset.train.labels):,} + {len(dataset.test.labels):,} {synthetic}examples "
        f"from {record.location} ({record.note}{passed_over})"
    )


class _AbsentError(Exception):
    """A source does not have the data set, so the next one may be tried. (Corrupt data is an InputError.)"""


def _remedies(spec: IdxImages) -> str:
    ways = [f"give --data-dir a folder with {', '.join(spec.sha256)} (plain or .gz)"]
    if spec.debian:
        ways.append(f"install the Debian package {spec.debian[0]}")
    if spec.sample:
        ways.append("use --source sample")
    return f"One of these helps: {'; '.join(ways)}."


def _from_data_dir(spec: IdxImages, data_dir: Path) -> Dataset:
    if not data_dir.is_dir():
        raise InputError(f"--data-dir {data_dir} is not a folder.")
    folders = [data_dir, data_dir / "raw"]
    if spec.torchvision:
        folders += [data_dir / spec.torchvision / "raw"]
    files = {folder: _find(folder, spec.sha256) for folder in folders}
    folder = max(folders, key=lambda folder: len(files[folder]))
    missing = [name for name in spec.sha256 if name not in files[folder]]
    if missing:
        raise InputError(
            f"{folder} does not hold {', '.join(missing)}. --data-dir needs the four IDX files of "
            f"{spec.name}: {', '.join(spec.sha256)}, each plain or with .gz, all in one folder."
        )
    dataset = _decode(spec, files[folder], source="files", location=str(folder), note="SHA-256 verified")
    others = _differing(dataset, spec.sha256)
    if not others:
        return dataset
    note = f"own data: not the official content of {', '.join(others)}"
    return dataset._replace(provenance=dataclasses.replace(dataset.provenance, note=note))


def _from_debian(spec: IdxImages) -> Dataset:
    if spec.debian is None:
        raise _AbsentError("no --data-dir was given")
    package, folder = spec.debian[0], Path(spec.debian[1])
    files = _find(folder, spec.sha256)
    if not files:
        raise _AbsentError(f"no --data-dir was given and the Debian package {package} is not installed")
    # A file of an installed package that is not there is damage, and `_decode` says so.
    files = {name: files.get(name, folder / f"{name}.gz") for name in spec.sha256}
    note = f"Debian package {package}, SHA-256 verified"
    dataset = _decode(spec, files, source="files", location=str(folder), note=note)
    if others := _differing(dataset, spec.sha256):
        raise InputError(
            f"{folder}: {', '.join(others)}: the SHA-256 of the content is not the official one. Install "
            f"the Debian package {package} again, or give --data-dir {folder} to use them as your own data."
        )
    return dataset


def _from_tfds(spec: IdxImages) -> Dataset:
    if spec.tfds is None:
        raise _AbsentError("TFDS does not offer it")
    # Half a second; and TFDS is asked for addresses, checksums and the download only, because it cannot
    # prepare this data without TensorFlow.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import resource
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    registered = tfds.builder_cls(spec.tfds).url_infos
    addresses = {url.rpartition("/")[2].removesuffix(".gz"): url for url in registered}
    urls = {name: addresses[name] for name in spec.sha256}
    downloads = Path(tfds.core.constants.get_default_data_dir()).expanduser() / "downloads"

    cached = all(
        resource.is_locally_cached(downloads / spec.tfds / resource.get_dl_fname(url, registered[url].checksum))
        for url in urls.values()
    )
    # TFDS alone would try for minutes, ten times with growing pauses and no timeout.
    if not cached and (reason := _out_of_reach(next(iter(urls.values())))):
        raise _AbsentError(reason)
    try:
        manager = tfds.download.DownloadManager(
            download_dir=downloads,
            dataset_name=spec.tfds,
            url_infos=registered,
            force_checksums_validation=True,
        )
        files = {name: Path(path) for name, path in manager.download(urls).items()}
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise _AbsentError(f"the download failed: {str(error).partition(chr(10))[0]}") from error

    location = str(downloads / spec.tfds)
    note = f"TFDS {spec.tfds}, SHA-256 verified"
    dataset = _decode(spec, files, source="tfds", location=location, note=note)
    # TFDS verifies what it downloads, and not what it finds in its cache.
    if others := _differing(dataset, spec.sha256):
        raise InputError(
            f"{location}: {', '.join(others)}: the SHA-256 of the content is not the official one. "
            "Delete this folder and run again."
        )
    return dataset


def _from_sample(spec: IdxImages) -> Dataset:
    if spec.sample is None:
        raise _AbsentError("the package holds no sample of it")
    location = f"jaxcls/data/samples/{spec.sample}"
    with resources.as_file(resources.files("jaxcls.data.samples") / spec.sample) as folder:
        files = {name: folder / f"{name}.gz" for name in spec.sha256}
        note = "a part of the real data set, SHA-256 verified"
        dataset = _decode(spec, files, source="sample", location=location, note=note)
        lines = (folder / "SHA256SUMS").read_text().splitlines()
    if others := _differing(dataset, {name: digest for digest, name in map(str.split, lines)}):
        raise InputError(
            f"{location}: {', '.join(others)}: the SHA-256 of the content is not the one in SHA256SUMS. "
            "Install jaxcls again."
        )
    return dataset


def _find(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files of these names that are in a folder, under any name in use for them."""
    found = {}
    for name in names:
        dotted = name.replace("-idx", ".idx")
        for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
            if (folder / candidate).is_file():
                found[name] = folder / candidate
                break
    return found


def _decode(spec: IdxImages, files: Mapping[str, Path], *, source: Source, location: str, note: str) -> Dataset:
    paths = [files[name] for name in spec.sha256]
    arrays = [formats.read_idx(path) for path in paths]
    digests = {name: formats.idx_sha256(array) for name, array in zip(spec.sha256, arrays, strict=True)}
    train = _split(paths[0], arrays[0], paths[1], arrays[1], len(spec.class_names))
    test = _split(paths[2], arrays[2], paths[3], arrays[3], len(spec.class_names))
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise InputError(
            f"{paths[2]}: images of shape {test.inputs.shape[1:]}, but those of {paths[0]} have "
            f"{train.inputs.shape[1:]}; the test images must have the shape of the training images."
        )
    provenance = Provenance(source, location, digests, synthetic=False, note=note)
    return Dataset(spec.name, train, test, spec.class_names, provenance)


def _differing(dataset: Dataset, expected: Mapping[str, str]) -> list[str]:
    found = dataset.provenance.sha256
    return [name for name in expected if found[name] != expected[name]]


def _split(images_path: Path, images: np.ndarray, labels_path: Path, labels: np.ndarray, classes: int) -> Arrays:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise InputError(
            f"{images_path}: {images.dtype} of shape {images.shape}; images must be uint8 of shape "
            "(N, height, width) or (N, height, width, channels), with at least one."
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"{labels_path}: {labels.dtype} of shape {labels.shape}; labels must be integers of shape (N,)."
        )
    if len(images) != len(labels):
        raise InputError(
            f"{labels_path}: {len(labels):,} labels for the {len(images):,} images of {images_path}; there "
            "must be one for each."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise InputError(
            f"{labels_path}: row {wrong[0]} has label {labels[wrong[0]]}; labels must be 0 to {classes - 1}."
        )
    return Arrays(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


def _out_of_reach(url: str) -> str | None:
    """Why an address does not answer within PATIENCE seconds, or None if it does."""
    from http.client import HTTPException
    from urllib.parse import urlsplit
    from urllib.request import build_opener

    host = urlsplit(url).netloc
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            # Not urlopen, which keeps the proxy settings that it saw at its first call.
            with build_opener().open(url, timeout=PATIENCE):
                outcome.append(None)
        except (OSError, HTTPException) as error:
            outcome.append(f"{host} is out of reach: {error}")

    # A thread, because no timeout of a socket bounds the look-up of a name, or the sum over addresses.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return outcome[0] if outcome else f"{host} did not answer within {PATIENCE:g} seconds"
