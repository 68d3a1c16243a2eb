"""Data sets of images with boxes around objects: COCO's layout, Pascal VOC's, TFDS's, and a sample.

Inputs are a dict: ``image``, uint8 (N, S, S, C), each with its aspect ratio preserved, at the top left of a black
canvas; ``size``, int32 (N, 2), its height and width there; and ``scale``, float32 (N, 2), pixels of the canvas per
pixel of the original image, of height and of width.

Labels are a dict: ``boxes``, float32 (N, M, 4), x1, y1, x2, y2 in pixels of the canvas; ``classes``, int32 (N, M); and
``crowd``, bool (N, M), for objects that are neither trained on nor scored. M is the largest number of objects in an
image; beyond the objects of an image, the class is -1 and the box 0.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError
from jaxcls.data import sources
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import boxes, coco, images, voc
from jaxcls.data.formats.boxes import Annotated
from jaxcls.data.samples import scenes
from jaxcls.data.sources import AbsentError

# What TFDS may have prepared, in the order of `auto`.
TFDS = ("coco/2017", "voc/2012", "voc/2007")

_ROLES = ("train", "val", "test")
# Labels are padded to the largest number of objects in an image: a box, a class, and whether it is a crowd.
_BYTES_PER_OBJECT, _MAX_BYTES = 21, 1 << 33

_LAYOUTS = (
    "annotations/instances_train*.json and instances_val*.json or instances_test*.json with folders of images (COCO), "
    "or Annotations, JPEGImages and ImageSets/Main (Pascal VOC)"
)


class Layout(NamedTuple):
    """The annotations of a data set, before its images are decoded.

    Attributes:
      splits: 'train', 'val' and 'test', as far as they exist -> their annotations and the folder of their images.
      files: the files that were read.
      note: the layout, for the record.
    """

    splits: dict[str, tuple[Annotated, Path]]
    files: list[Path]
    note: str


def load(source: str = "auto", data_dir: str | Path | None = None, *, size: int, channels: int) -> Dataset:
    """Loads a data set for detection.

    Args:
      source: 'files' (`data_dir`, in the layout of COCO or of Pascal VOC), 'tfds' (the first of `TFDS` that TFDS has
        prepared as array_record), 'sample', or 'auto', the first of these that is available.
      data_dir: the folder of the user's data.
      size: height and width of the canvas, in pixels.
      channels: 1 for grayscale, 3 for RGB.

    Returns:
      A Dataset; `groups` are the names of the image files. The data set's val is the validation split if it has a test
      split with annotations, else the test split.

    Raises:
      InputError: the data is missing, or something in it is wrong, as :func:`jaxcls.data.formats.coco.read`,
        :func:`jaxcls.data.formats.voc.read` and :func:`jaxcls.data.formats.images.decode_all` say; the size of an image
        differs from that in its annotations; or the splits have different classes.
    """

    read = functools.partial(_read, size=size, channels=channels)
    read_scenes = functools.partial(read, note="scenes composed of real articles of Fashion-MNIST")
    others: sources.Loaders = {
        "tfds": lambda: _from_tfds(read),
        "sample": lambda: sources.load_sample(scenes.write, read_scenes),
    }
    needs = f"Set data_dir to a folder with {_LAYOUTS}, or source to sample."
    return sources.load("detection", source, data_dir, read, needs, others=others)


def read_unlabeled(path: Path, size: int, channels: int) -> Unlabeled:
    """Reads images to predict, of one file or of a folder; see :func:`jaxcls.data.formats.images.decode_path`."""
    ids, decoded = images.decode_path(path, size=size, channels=channels, pad=True)
    return Unlabeled(ids, canvases(decoded.images, decoded.sizes))


def canvases(pixels: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the inputs of a detector for images on canvases.

    Args:
      pixels: uint8 (N, S, S, C).
      sizes: (N, 2), original height and width.

    >>> canvases(np.zeros((1, 64, 64, 3), np.uint8), np.array([[50, 100]]))["size"].tolist()
    [[32, 64]]
    """
    side = pixels.shape[1]
    fitted = [images.fitted_size(height, width, side) for height, width in sizes.tolist()]
    size = np.array(fitted, np.int32).reshape(-1, 2)
    return {"image": pixels, "size": size, "scale": (size / sizes).astype(np.float32)}


def layout(folder: Path) -> Layout:
    """Finds and reads the annotations in a folder; opens no image.

    Raises:
      InputError: as :func:`load`, except for errors in the images themselves.
    """
    # Pascal VOC first: on some systems, annotations and Annotations are the same name.
    for root in (folder, *sorted(folder.glob("VOC20*")), *sorted(folder.glob("VOCdevkit/VOC20*"))):
        if (root / "JPEGImages").is_dir():
            return _voc(root, folder)
    if (folder / "annotations").is_dir():
        return _coco(folder)
    raise InputError(f"{folder}: has none of the known layouts: {_LAYOUTS}.")


def _coco(folder: Path) -> Layout:
    candidates = {role: sorted((folder / "annotations").glob(f"instances_{role}*.json")) for role in _ROLES}
    for role, paths_of_role in candidates.items():
        if len(paths_of_role) > 1:
            names = " and ".join(path.name for path in paths_of_role)
            raise InputError(f"{folder / 'annotations'}: holds {names}; there must be one for {role}. Remove the rest.")
    paths = {role: path for role, paths_of_role in candidates.items() for path in paths_of_role}
    _check_roles(paths, folder / "annotations", "instances_{}*.json", folder)
    splits: dict[str, tuple[Annotated, Path]] = {}
    notes = ["COCO's layout"]
    for role, path in paths.items():
        annotated, name = coco.read(path), path.stem.removeprefix("instances_")
        folders = (name, f"images/{name}", role, f"images/{role}", "images")
        root = next(filter(Path.is_dir, map(folder.joinpath, folders)), None)
        if root is None:
            raise InputError(f"{folder}: the images of {path.name} are in none of the folders {', '.join(folders)}.")
        splits[role] = annotated, root
        class_names = splits["train"][0].class_names
        if annotated.class_names != class_names:
            differing = ", ".join(sorted({*annotated.class_names} ^ {*class_names})) or "in their order"
            raise InputError(f"{path}: its categories must be those of {paths['train'].name}, but differ: {differing}.")
        missing = [name for name in annotated.names if not (root / name).is_file()]
        if missing:
            raise images.missing(path, missing, len(annotated.names))
        if annotated.left_out:
            notes.append(f"{path.name}: {annotated.left_out}")
    return Layout(splits, [*paths.values()], "; ".join(notes))


def _voc(root: Path, folder: Path) -> Layout:
    lists = {path.stem: path for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
    if "test" in lists and "trainval" in lists:
        # The usual protocol: train on everything that is not tested on.
        paths = {"train": lists["trainval"], "test": lists["test"]}
    else:
        paths = {role: lists[role] for role in _ROLES if role in lists}
    _check_roles(paths, root / "ImageSets" / "Main", "{}.txt", folder)
    splits: dict[str, tuple[Annotated, Path]] = {}
    names = {role: voc.read_list(path) for role, path in paths.items()}
    for role in paths:
        class_names = splits["train"][0].class_names if splits else None
        splits[role] = voc.read(root, names[role], class_names, inside=folder), root / "JPEGImages"
    return Layout(splits, [*paths.values()], "Pascal VOC's layout")


def _check_roles(paths: dict[str, Path], where: Path, pattern: str, folder: Path) -> None:
    if "train" not in paths or len(paths) == 1:
        needed = f"{pattern.format('train')}, and {pattern.format('val')} or {pattern.format('test')}"
        there = ", ".join(path.name for path in paths.values()) or "none of them"
        raise InputError(f"{where}: holds {there}; it must hold {needed}.")
    files.all_inside(folder, paths.values())


def _read(folder: Path, note: str = "", *, size: int, channels: int) -> Dataset:
    where = layout(folder)
    annotations = [annotated for annotated, _ in where.splits.values()]
    columns = max(1, *(len(corners) for annotated in annotations for corners in annotated.boxes))
    label_bytes = _BYTES_PER_OBJECT * columns * sum(len(annotated.names) for annotated in annotations)
    if label_bytes > _MAX_BYTES:
        size_of_labels = f"padded to these, the labels of all images take {label_bytes:,} bytes"
        raise InputError(f"{folder}: one image has {columns:,} objects; {size_of_labels}. Cut it into several.")
    splits: dict[str, Split] = {}
    checksums = sources.checksums(where.files)
    for role, (annotated, root) in where.splits.items():
        paths = [root / file for file in annotated.names]
        what = f"{role} images"
        decoded = images.decode_all(paths, size=size, channels=channels, root=root, what=what, pad=True, inside=folder)
        checksums[what] = decoded.sha256
        for row in np.flatnonzero((decoded.sizes != annotated.sizes).any(axis=1))[:1]:
            actual, declared = ("{1} x {0}".format(*sizes[row]) for sizes in (decoded.sizes, annotated.sizes))
            raise InputError(
                f"{paths[row]}: has {actual} pixels (width x height, rotated as its EXIF orientation says), but its "
                f"annotations say {declared}; its boxes would be wrong. Correct either."
            )
        inputs = canvases(decoded.images, decoded.sizes)
        # Float64, so that a box at the border of its image ends at the image's border on the canvas.
        scales = inputs["size"] / decoded.sizes
        corners = [rows * [x, y, x, y] for rows, (y, x) in zip(annotated.boxes, scales, strict=True)]
        labels = {
            "boxes": _padded(corners, np.zeros((columns, 4), np.float32)),
            "classes": _padded(annotated.classes, np.full(columns, -1, np.int32)),
            "crowd": _padded(annotated.crowd, np.zeros(columns, bool)),
        }
        splits[role] = Split(inputs, labels, groups=np.array(annotated.names, object))
    counts = [int(((split.labels["classes"] >= 0) & ~split.labels["crowd"]).sum()) for split in splits.values()]
    # The training split is the first.
    if not counts[0]:
        raise InputError(f"{folder}: no training image has an object in it; there must be one to learn from.")
    note = f"{note or where.note}; {' + '.join(f'{count:,}' for count in counts)} objects"
    if "test" not in splits:
        splits["test"] = splits.pop("val")
    record = Provenance("files", str(folder), checksums, note=note)
    return Dataset("detection", splits["train"], splits["test"], annotations[0].class_names, record, splits.get("val"))


def _padded(rows: Sequence[np.ndarray], blank: np.ndarray) -> np.ndarray:
    """Stacks the values of each image, padded with those of `blank`, of the greatest length."""
    padded = np.repeat(blank[None], len(rows), axis=0)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


def _from_tfds(read: Callable[[Path, str], Dataset]) -> Dataset:
    """Writes what TFDS has prepared into the cache once, in COCO's layout, and reads that."""
    # Imports in half a second.
    import tensorflow_datasets as tfds

    home = sources.tfds_directory()
    prepared = {name: sorted((home / name).glob("*.*.*/dataset_info.json")) for name in TFDS}
    name = next(filter(prepared.get, TFDS), None)
    if name is None:
        raise AbsentError(f"TFDS has prepared none of {', '.join(TFDS)} in {home}")
    # The newest version.
    info = prepared[name][-1]
    builder = tfds.builder_from_directory(info.parent)
    if builder.info.file_format.value != "array_record":
        raise AbsentError(
            f"TFDS has prepared {name} as {builder.info.file_format.value}, which it reads with TensorFlow alone; "
            "prepare it with file_format='array_record'"
        )
    version = sources.checksums([info])[info.name][:12]
    written = environment.cache_directory() / "tfds" / f"{name.replace('/', '-')}-{version}"
    sources.write_once(written, lambda partial: _write_prepared(builder, partial))
    dataset = read(written, f"TFDS {name} {info.parent.name}")
    return sources.with_provenance(dataset, location=str(info.parent))


def _write_prepared(builder: Any, folder: Path) -> None:
    """Writes the splits of a prepared data set that have boxes, in COCO's layout."""
    import tensorflow_datasets as tfds
    from PIL import Image
    from tqdm import tqdm

    class_names = builder.info.features["objects"]["label"].names
    (folder / "annotations").mkdir()
    for split, role in zip(("train", "validation", "test"), _ROLES, strict=True):
        if split not in builder.info.splits:
            continue
        examples = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        names: list[str] = []
        sizes: list[tuple[int, int]] = []
        objects: list[list[boxes.Object]] = []
        (folder / role).mkdir()
        for number, example in enumerate(tqdm(examples, desc=f"{split} images", leave=False, disable=None)):
            names.append(f"{number:06}{Path(os.fsdecode(example['image/filename'])).suffix.lower()}")
            path = folder / role / names[-1]
            path.write_bytes(example["image"])
            with Image.open(path) as image:
                width, height = image.size
            sizes.append((height, width))
            columns = example["objects"]
            crowd = columns.get("is_crowd", columns.get("is_difficult"))
            # TFDS's boxes are top, left, bottom, right, as fractions of the image.
            corners = np.array(columns["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]] * ([width, height] * 2)
            objects.append([boxes.Object(*item) for item in zip(columns["label"], corners, crowd, strict=True)])
        # The test images of COCO and of VOC 2012 have no published boxes.
        if any(objects):
            annotated = boxes.annotated(names, sizes, objects, dict(enumerate(class_names)))
            coco.write(folder / "annotations" / f"instances_{role}.json", annotated)
