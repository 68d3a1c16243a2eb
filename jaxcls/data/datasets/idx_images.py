"""Data sets of images in four IDX files, such as MNIST and its relatives."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import downloads, sources
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import idx
from jaxcls.data.sources import AbsentError


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


def load(spec: IdxImages, source: str = "auto", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
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
    >>> data = load(spec, "sample")
    >>> data.train.inputs.shape, data.test.labels.dtype
    ((10000, 28, 28, 1), dtype('int32'))
    >>> data.provenance.location
    'jaxcls/data/samples/fashion_mnist'
    """
    return sources.choose(
        spec.name,
        source,
        data_dir,
        read=lambda folder: _from_data_dir(spec, folder),
        others={
            "files": lambda: _from_debian(spec),
            "tfds": lambda: _from_tfds(spec),
            "sample": lambda: _from_sample(spec),
        },
        needs=_remedies(spec),
    )


def read(path: Path) -> Unlabeled:
    """The images of an IDX file, to predict; each is called by its row, from 0."""
    images = idx.read_idx(path)
    _check_images(path, images)
    return Unlabeled(
        np.arange(len(images)).astype(str).astype(object), images if images.ndim == 4 else images[..., None]
    )


def _remedies(spec: IdxImages) -> str:
    ways = [f"give --data-dir a folder with {', '.join(spec.sha256)} (plain or .gz)"]
    if spec.debian:
        ways.append(f"install the Debian package {spec.debian[0]}")
    if spec.sample:
        ways.append("use --source sample")
    return f"One of these helps: {'; '.join(ways)}."


def _from_data_dir(spec: IdxImages, data_dir: Path) -> Dataset:
    folders = [data_dir, data_dir / "raw"]
    if spec.torchvision:
        folders += [data_dir / spec.torchvision / "raw"]
    found = {folder: _find(folder, spec.sha256, data_dir) for folder in folders}
    folder = max(folders, key=lambda folder: len(found[folder]))
    missing = [name for name in spec.sha256 if name not in found[folder]]
    if missing:
        raise InputError(
            f"{folder} does not hold {', '.join(missing)}. --data-dir needs the four IDX files of "
            f"{spec.name}: {', '.join(spec.sha256)}, each plain or with .gz, all in one folder."
        )
    dataset = _decode(spec, found[folder], source="files", location=str(folder), note="SHA-256 verified")
    others = _differing(dataset, spec.sha256)
    if not others:
        return dataset
    note = f"own data: not the official content of {', '.join(others)}"
    return dataset._replace(provenance=dataclasses.replace(dataset.provenance, note=note))


def _from_debian(spec: IdxImages) -> Dataset:
    if spec.debian is None:
        raise AbsentError("no --data-dir was given")
    package, folder = spec.debian[0], Path(spec.debian[1])
    found = _find(folder, spec.sha256)
    if not found:
        raise AbsentError(f"no --data-dir was given and the Debian package {package} is not installed")
    # A file of an installed package that is not there is damage, and `_decode` says so.
    paths = {name: found.get(name, folder / f"{name}.gz") for name in spec.sha256}
    note = f"Debian package {package}, SHA-256 verified"
    dataset = _decode(spec, paths, source="files", location=str(folder), note=note)
    if others := _differing(dataset, spec.sha256):
        raise InputError(
            f"{folder}: {', '.join(others)}: the SHA-256 of the content is not the official one. Install "
            f"the Debian package {package} again, or give --data-dir {folder} to use them as your own data."
        )
    return dataset


def _from_tfds(spec: IdxImages) -> Dataset:
    if spec.tfds is None:
        raise AbsentError("TFDS does not offer it")
    registered = downloads.registered(spec.tfds)
    addresses = {url.rpartition("/")[2].removesuffix(".gz"): url for url in registered}
    urls = {name: addresses[name] for name in spec.sha256}
    folder, paths = downloads.fetch(spec.tfds, urls, registered)
    location = str(folder)
    note = f"TFDS {spec.tfds}, SHA-256 verified"
    dataset = _decode(spec, paths, source="tfds", location=location, note=note)
    # TFDS verifies what it downloads, and not what it finds in its cache.
    if others := _differing(dataset, spec.sha256):
        raise InputError(
            f"{location}: {', '.join(others)}: the SHA-256 of the content is not the official one. "
            "Delete this folder and run again."
        )
    return dataset


def _from_sample(spec: IdxImages) -> Dataset:
    if spec.sample is None:
        raise AbsentError("the package holds no sample of it")
    location = f"jaxcls/data/samples/{spec.sample}"
    with resources.as_file(resources.files("jaxcls.data.samples") / spec.sample) as folder:
        paths = {name: folder / f"{name}.gz" for name in spec.sha256}
        note = "a part of the real data set, SHA-256 verified"
        dataset = _decode(spec, paths, source="sample", location=location, note=note)
        lines = (folder / "SHA256SUMS").read_text().splitlines()
    if others := _differing(dataset, {name: digest for digest, name in map(str.split, lines)}):
        raise InputError(
            f"{location}: {', '.join(others)}: the SHA-256 of the content is not the one in SHA256SUMS. "
            "Install jaxcls again."
        )
    return dataset


def _find(folder: Path, names: Iterable[str], inside: Path | None = None) -> dict[str, Path]:
    """The files of these names that are in a folder, under any name in use for them; no link may leave ``inside``."""
    found = {}
    for name in names:
        dotted = name.replace("-idx", ".idx")
        for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
            if (folder / candidate).is_file():
                found[name] = files.inside(inside or folder, folder / candidate)
                break
    return found


def _decode(
    spec: IdxImages, found: Mapping[str, Path], *, source: Literal["files", "tfds", "sample"], location: str, note: str
) -> Dataset:
    paths = [found[name] for name in spec.sha256]
    arrays = [idx.read_idx(path) for path in paths]
    digests = {name: idx.idx_sha256(array) for name, array in zip(spec.sha256, arrays, strict=True)}
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


def _split(images_path: Path, images: np.ndarray, labels_path: Path, labels: np.ndarray, classes: int) -> Split:
    _check_images(images_path, images)
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
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


def _check_images(path: Path, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise InputError(
            f"{path}: {images.dtype} of shape {images.shape}; images must be uint8 of shape "
            "(N, height, width) or (N, height, width, channels), with at least one."
        )
