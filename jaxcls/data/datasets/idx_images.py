"""Data sets of images in four IDX files, such as MNIST and its relatives."""

import dataclasses
import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.data import sources
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import idx
from jaxcls.data.sources import AbsentError


@dataclasses.dataclass(frozen=True)
class IdxImages:
    """A data set of images in four IDX files, and its sources.

    Attributes:
      name: the name of the task.
      class_names: the names of labels 0, 1, ...
      sha256: file name -> SHA-256 of the official file's uncompressed content, in the order training images,
        training labels, test images, test labels.
      debian: the Debian package that holds the files, and the folder where it installs them.
      torchvision: the subfolder that torchvision creates for it.
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


def load(spec: IdxImages, source: str = "auto", data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set of images from the first source that has it, in the order of its files.

    Args:
      spec: the data set.
      source: 'files' (the four IDX files in `data_dir`, else in the folder of the Debian package), 'tfds' (downloaded
        and verified by TFDS), 'sample' (a subset that comes with jaxcls), or 'auto', the first of these that is
        available.
      data_dir: a folder with the four files, plain or gzipped, also in torchvision's layout; it is never passed over.
        The files may hold the user's own data, which the provenance then says. All other sources must hold the official
        data.

    Returns:
      A Dataset of uint8 images (N, H, W, C) and int32 labels (N,).

    Raises:
      InputError: the data is missing or corrupt, or the files do not fit together.

    >>> files = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    >>> official = {f"{file}-ubyte": "SHA-256 of the full file" for file in files}
    >>> spec = IdxImages("fashion_mnist", tuple("0123456789"), official, sample="fashion_mnist")
    >>> data = load(spec, "sample")
    >>> data.train.inputs.shape, data.test.labels.dtype
    ((10000, 28, 28, 1), dtype('int32'))
    >>> data.provenance.location
    'jaxcls/data/samples/fashion_mnist'
    """
    others: sources.Loaders = {}
    needs = f"One of these helps: set data_dir to a folder with {', '.join(spec.sha256)} (plain or .gz)"
    if spec.debian:
        others["files"] = functools.partial(_from_debian, spec, *spec.debian)
        needs += f"; install the Debian package {spec.debian[0]}"
    if spec.tfds:
        others["tfds"] = functools.partial(_from_tfds, spec, spec.tfds)
    if spec.sample:
        others["sample"] = functools.partial(_from_sample, spec, spec.sample)
        needs += "; set source to sample"
    return sources.load(spec.name, source, data_dir, _from_data_dir, f"{needs}.", others=others, spec=spec)


def read_unlabeled(path: Path) -> Unlabeled:
    """Reads the images of an IDX file, to predict; their ids are their row numbers from 0."""
    images = _checked_images(path, idx.read_idx(path))
    return Unlabeled(np.arange(len(images)).astype(str).astype(object), images)


def _from_data_dir(data_dir: Path, spec: IdxImages) -> Dataset:
    folders = [data_dir, data_dir / "raw", data_dir / (spec.torchvision or "") / "raw"]
    matches = {folder: _find(spec, folder, data_dir) for folder in folders}
    folder = max(folders, key=lambda folder: len(matches[folder]))
    missing = [name for name in spec.sha256 if name not in matches[folder]]
    if missing:
        needed = ", ".join(spec.sha256)
        raise InputError(f"{folder} lacks {', '.join(missing)}. data_dir must hold {needed}, each plain or with .gz.")
    return _decode(spec, matches[folder], folder, "SHA-256 verified")


def _from_debian(spec: IdxImages, package: str, location: str) -> Dataset:
    folder = Path(location)
    matches = _find(spec, folder, folder)
    if not matches:
        raise AbsentError(f"no data_dir was given and the Debian package {package} is not installed")
    # If the package is installed, a missing file is damage, which `_decode` reports.
    paths = {name: matches.get(name, folder / f"{name}.gz") for name in spec.sha256}
    remedy = f"Install the Debian package {package} again, or set data_dir to {folder} to use them as your own data."
    return _decode(spec, paths, folder, f"Debian package {package}, SHA-256 verified", remedy)


def _from_tfds(spec: IdxImages, name: str) -> Dataset:
    registered = sources.registered(name)
    addresses = {url.rpartition("/")[2].removesuffix(".gz"): url for url in registered}
    folder, paths = sources.fetch(name, {file: addresses[file] for file in spec.sha256}, registered)
    # TFDS verifies what it downloads, but not what is in its cache.
    remedy = "Delete this folder and run again."
    return _decode(spec, paths, folder, f"TFDS {name}, SHA-256 verified", remedy)


def _from_sample(spec: IdxImages, name: str) -> Dataset:
    location, note = f"jaxcls/data/samples/{name}", "a subset of the real data set, SHA-256 verified"
    with resources.as_file(resources.files("jaxcls.data.samples") / name) as folder:
        paths = {file: folder / f"{file}.gz" for file in spec.sha256}
        dataset = _decode(spec, paths, folder)
        for file, digest in dataset.provenance.sha256.items():
            sources.check_packaged(paths[file], digest)
    return sources.with_provenance(dataset, location=location, note=note)


def _find(spec: IdxImages, folder: Path, inside: Path) -> dict[str, Path]:
    """Finds the files of a data set in a folder, under any name in use for them; no link may leave `inside`."""
    matches = {}
    for name in spec.sha256:
        names = [f"{stem}{suffix}" for stem in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
        if path := next(filter(Path.is_file, map(folder.joinpath, names)), None):
            matches[name] = files.inside(inside, path)
    return matches


def _decode(spec: IdxImages, paths: Mapping[str, Path], location: Path, note: str = "", remedy: str = "") -> Dataset:
    """Decodes the files of a folder; with a remedy, content that is not the official one is an error."""
    arrays = {name: idx.read_idx(paths[name]) for name in spec.sha256}
    digests = {name: idx.idx_sha256(array) for name, array in arrays.items()}
    train_images, train_labels, test_images, test_labels = ((paths[name], arrays[name]) for name in spec.sha256)
    train = _split(train_images, train_labels, len(spec.class_names))
    test = _split(test_images, test_labels, len(spec.class_names))
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        shapes = f"{test.inputs.shape[1:]}, but those of {train_images[0]} of {train.inputs.shape[1:]}"
        raise InputError(f"{test_images[0]}: images of shape {shapes}; they must have the same shape.")
    if others := ", ".join(name for name, digest in digests.items() if digest != spec.sha256[name]):
        if remedy:
            raise InputError(f"{location}: {others}: the SHA-256 of the content is not the official one. {remedy}")
        note = f"user data: not the official content of {others}"
    return Dataset(spec.name, train, test, spec.class_names, Provenance("files", str(location), digests, note=note))


def _split(images: tuple[Path, np.ndarray], labels: tuple[Path, np.ndarray], num_classes: int) -> Split:
    pixels = _checked_images(*images)
    path, values = labels
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise InputError(f"{path}: {values.dtype} of shape {values.shape}; labels must be integers of shape (N,).")
    if len(pixels) != len(values):
        raise InputError(f"{path}: {len(values):,} labels for the {len(pixels):,} images of {images[0]}.")
    for row in np.flatnonzero((values < 0) | (values >= num_classes))[:1]:
        raise InputError(f"{path}: row {row} has label {values[row]}; labels must be 0 to {num_classes - 1}.")
    return Split(pixels, values.astype(np.int32))


def _checked_images(path: Path, images: np.ndarray) -> np.ndarray:
    """The images as (N, height, width, channels)."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        needed = "uint8 of shape (N, height, width) or (N, height, width, channels), with at least one"
        raise InputError(f"{path}: {images.dtype} of shape {images.shape}; images must be {needed}.")
    return images if images.ndim == 4 else images[..., None]
