"""Data sets of images with boxes around objects: COCO's layout, Pascal VOC's, TFDS's, and a sample.

Inputs are a dict: ``image``, uint8 (N, S, S, C), each with its aspect kept, at the top left of a black canvas;
``size``, int32 (N, 2), the height and width of it there; and ``scale``, float32 (N, 2), pixels of the canvas for one of
the original, of height and of width.

Labels are a dict: ``boxes``, float32 (N, M, 4), x1, y1, x2, y2 in pixels of the canvas; ``classes``, int32 (N, M); and
``crowd``, bool (N, M), for what is neither learned from nor scored. M is the most objects of any image; where there are
fewer, the class is -1 and the box 0.
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
from jaxcls.data.formats import coco, images, voc
from jaxcls.data.formats.boxes import Annotated
from jaxcls.data.samples import scenes
from jaxcls.data.sources import AbsentError

# What TFDS may have prepared, in the order of `auto`.
TFDS = ("coco/2017", "voc/2012", "voc/2007")

# Every image has room for as many objects as that with the most of them: a box, a class, and whether it is a crowd.
_BYTES_AN_OBJECT, _MOST_BYTES = 21, 1 << 33

_LAYOUTS = (
    "annotations/instances_train*.json and instances_val*.json or instances_test*.json with folders of images (COCO), "
    "or Annotations, JPEGImages and ImageSets/Main (Pascal VOC)"
)


class _Source(NamedTuple):
    """A part before its images are decoded."""

    role: str
    annotated: Annotated
    images: Path
    # The folder that was given, out of which no link may lead.
    inside: Path


def load(
    name: str, source: str = "auto", data_dir: str | os.PathLike[str] | None = None, *, size: int, channels: int
) -> Dataset:
    """Loads a data set for detection.

    Args:
      name: the task's.
      source: 'files' (`data_dir`, in COCO's layout or in that of Pascal VOC), 'tfds' (the first of `TFDS` that TFDS has
        prepared as array_record), 'sample', or 'auto', the first of these that is there.
      data_dir: the user's own folder.
      size: height and width of the canvas, in pixels.
      channels: 1 for grey, 3 for red, green, blue.

    Returns:
      A Dataset; `groups` are the names of the image files. What the data set calls val is the validation part where
      there is a test part with annotations, and else the test part.

    Raises:
      InputError: the data is not there, or something in it is wrong, as :func:`jaxcls.data.formats.coco.read`,
      :func:`jaxcls.data.formats.voc.read` and :func:`jaxcls.data.formats.images.decode_all` say; an image has another
      size than its annotations say; or the parts have different classes.
    """
    made = functools.partial(_dataset, name, size=size, channels=channels)

    def read(folder: Path, note: str | None = None) -> Dataset:
        found = layout(folder)
        return made(found.sources, folder, found.files, note or found.note)

    def sample() -> Dataset:
        composed = "scenes composed of real articles of Fashion-MNIST"
        return sources.generated(scenes.write, lambda folder: read(folder, composed))

    return sources.choose(
        name,
        source,
        data_dir,
        read=read,
        others={"tfds": lambda: _from_tfds(made), "sample": sample},
        needs=f"Give --data-dir a folder with {_LAYOUTS}, or use --source sample.",
    )


def read_unlabeled(path: Path, size: int, channels: int) -> Unlabeled:
    """Reads images to predict, of one file or of a folder; see :func:`jaxcls.data.formats.images.decode_path`."""
    ids, decoded = images.decode_path(path, size=size, channels=channels, pad=True)
    return Unlabeled(ids, canvases(decoded.images, decoded.sizes))


def canvases(pixels: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of images on canvases.

    Args:
      pixels: uint8 (N, S, S, C).
      sizes: (N, 2), original height and width.

    >>> canvases(np.zeros((1, 64, 64, 3), np.uint8), np.array([[50, 100]]))["size"].tolist()
    [[32, 64]]
    """
    side = pixels.shape[1]
    fitted = np.array([images.fitted_size(height, width, side) for height, width in sizes.tolist()], np.int32).reshape(
        -1, 2
    )
    return {"image": pixels, "size": fitted, "scale": (fitted / sizes).astype(np.float32)}


class Layout(NamedTuple):
    """What a folder holds.

    Attributes:
      sources: its parts.
      files: those that were read.
      note: what it is, for the record.
    """

    sources: list[_Source]
    files: list[Path]
    note: str


def layout(folder: Path) -> Layout:
    """Finds and reads the annotations in a folder; opens no image.

    Raises:
      InputError: as :func:`load`, save for what the images themselves have wrong.
    """
    # On some systems annotations and Annotations are one name.
    for root in (folder, *sorted(folder.glob("VOC20*")), *sorted(folder.glob("VOCdevkit/VOC20*"))):
        if (root / "JPEGImages").is_dir():
            return _voc(root, folder)
    if (folder / "annotations").is_dir():
        return _coco(folder)
    raise InputError(f"{folder}: holds none of the layouts that are known: {_LAYOUTS}.")


def _coco(folder: Path) -> Layout:
    annotations: dict[str, Path] = {}
    for role in ("train", "val", "test"):
        found = sorted((folder / "annotations").glob(f"instances_{role}*.json"))
        if len(found) > 1:
            both = f"{found[0].name} and {found[1].name}"
            raise InputError(f"{folder / 'annotations'}: holds {both}; which of them is {role}? Leave one.")
        if found:
            annotations[role] = found[0]
    _check_roles(annotations, folder / "annotations", "instances_{}*.json")
    files.all_inside(folder, annotations.values())
    parts = {role: coco.read(path) for role, path in annotations.items()}
    for role, part in parts.items():
        if part.class_names != parts["train"].class_names:
            unlike = set(part.class_names) ^ set(parts["train"].class_names)
            raise InputError(
                f"{annotations[role]}: its categories differ from those of {annotations['train'].name} "
                f"({', '.join(sorted(unlike)) or 'in their order'}); all parts have the same ones."
            )
    folders = {role: _images_of(folder, path, role) for role, path in annotations.items()}
    for role, part in parts.items():
        _check_there(part, folders[role], annotations[role])
    notes = [
        "COCO's layout",
        *(f"{annotations[role].name}: {part.left_out}" for role, part in parts.items() if part.left_out),
    ]
    return Layout(
        [_Source(role, part, folders[role], folder) for role, part in parts.items()],
        list(annotations.values()),
        "; ".join(notes),
    )


def _images_of(folder: Path, file: Path, role: str) -> Path:
    """The folder of the images that instances_train2017.json speaks of."""
    name = file.stem.removeprefix("instances_")
    candidates = [folder / place for place in (name, f"images/{name}", role, f"images/{role}", "images")]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    there = ", ".join(str(candidate.relative_to(folder)) for candidate in candidates)
    raise InputError(f"{folder}: the images of {file.name} are in none of the folders {there}.")


def _check_there(part: Annotated, folder: Path, file: Path) -> None:
    missing = [name for name in part.names if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{file}: there is no image {folder / missing[0]}; {len(missing):,} of {len(part.names):,} are missing. "
            "Fetch them, or take them out of the file."
        )


def _voc(root: Path, folder: Path) -> Layout:
    lists = {path.stem: path for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
    if "test" in lists and "trainval" in lists:
        # As it is commonly done: what counts is tested, and all the rest is learned from.
        chosen = {"train": lists["trainval"], "test": lists["test"]}
    else:
        chosen = {role: lists[role] for role in ("train", "val", "test") if role in lists}
    _check_roles(chosen, root / "ImageSets" / "Main", "{}.txt")
    files.all_inside(folder, chosen.values())
    listed = {role: voc.read_list(path) for role, path in chosen.items()}
    train = voc.read(root, listed["train"], inside=folder)
    parts = {
        role: train if role == "train" else voc.read(root, listed[role], train.class_names, inside=folder)
        for role in listed
    }
    checked = [_Source(role, part, root / "JPEGImages", folder) for role, part in parts.items()]
    return Layout(checked, list(chosen.values()), "Pascal VOC's layout")


def _check_roles(files: dict[str, Path], folder: Path, form: str) -> None:
    if "train" not in files or len(files) == 1:
        needed = f"{form.format('train')}, and {form.format('val')} or {form.format('test')}"
        there = ", ".join(path.name for path in files.values()) or "none of them"
        raise InputError(f"{folder}: holds {there}; it must hold {needed}.")


def _dataset(
    name: str, parts: Sequence[_Source], folder: Path, files: Sequence[Path], note: str, *, size: int, channels: int
) -> Dataset:
    most = max(1, *(len(some) for part in parts for some in part.annotated.boxes))
    size_of_labels = _BYTES_AN_OBJECT * most * sum(len(part.annotated.names) for part in parts)
    if size_of_labels > _MOST_BYTES:
        raise InputError(
            f"{folder}: one image has {most:,} objects, and room for as many in each takes {size_of_labels:,} bytes; "
            "take it out, or cut it into several."
        )
    read: dict[str, Split] = {}
    checksums = sources.checksums(files)
    for part in parts:
        read[part.role], checksums[f"{part.role} images"] = _part(part, most, size=size, channels=channels)
    counts = {role: int(((part.labels["classes"] >= 0) & ~part.labels["crowd"]).sum()) for role, part in read.items()}
    if not counts["train"]:
        raise InputError(f"{folder}: no training image has an object in it; there must be one to learn from.")
    objects = " + ".join(f"{counts[role]:,}" for role in ("train", "val", "test") if role in counts)
    record = Provenance("files", str(folder), checksums, synthetic=False, note=f"{note}; {objects} objects")
    train, validation, test = (read.get(role) for role in ("train", "val", "test"))
    assert train is not None
    if test is None:
        validation, test = None, validation
    assert test is not None
    return Dataset(name, train, test, parts[0].annotated.class_names, record, validation)


def _part(part: _Source, most: int, *, size: int, channels: int) -> tuple[Split, str]:
    """A part, and the checksum of its images; an image has room for so many objects."""
    annotated, count = part.annotated, len(part.annotated.names)
    decoded = images.decode_all(
        [part.images / name for name in annotated.names],
        size=size,
        channels=channels,
        root=part.images,
        what=f"{part.role} images",
        pad=True,
        inside=part.inside,
    )
    for row in np.flatnonzero((decoded.sizes != annotated.sizes).any(axis=1))[:1]:
        (height, width), (said_height, said_width) = decoded.sizes[row], annotated.sizes[row]
        raise InputError(
            f"{part.images / annotated.names[row]}: has {width} x {height} pixels (width x height, turned as its EXIF "
            f"says), but its annotations say {said_width} x {said_height}; its boxes would be wrong. Correct either."
        )
    inputs = canvases(decoded.images, decoded.sizes)
    boxes = np.zeros((count, most, 4), np.float32)
    classes = np.full((count, most), -1, np.int32)
    crowd = np.zeros((count, most), bool)
    # In float64 from sizes in whole pixels, so that a box at the border of its image ends at that on the canvas.
    scale = inputs["size"] / decoded.sizes
    for row, some in enumerate(annotated.boxes):
        number = len(some)
        vertical, horizontal = scale[row]
        boxes[row, :number] = some * [horizontal, vertical, horizontal, vertical]
        classes[row, :number] = annotated.classes[row]
        crowd[row, :number] = annotated.crowd[row]
    labels: Any = {"boxes": boxes, "classes": classes, "crowd": crowd}
    return Split(inputs, labels, groups=np.array(annotated.names, object)), decoded.sha256


def _from_tfds(made: Callable[..., Dataset]) -> Dataset:
    """What TFDS has prepared, written as files once into the cache, since the way from files is a tested one."""
    # Half a second.
    import tensorflow_datasets as tfds

    home = Path(tfds.core.constants.get_default_data_dir()).expanduser()
    prepared = {name: sorted((home / name).glob("*.*.*/dataset_info.json")) for name in TFDS}
    there = {name: found[-1].parent for name, found in prepared.items() if found}
    if not there:
        raise AbsentError(f"TFDS has prepared none of {', '.join(TFDS)} in {home}")
    name, folder = next(iter(there.items()))
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format.value != "array_record":
        raise AbsentError(
            f"TFDS has prepared {name} as {builder.info.file_format.value}, which it reads with TensorFlow alone; "
            "prepare it with file_format='array_record'"
        )
    version = sources.checksums([folder / "dataset_info.json"])["dataset_info.json"][:12]
    written = environment.cache_directory() / "tfds" / f"{name.replace('/', '-')}-{version}"
    sources.write_once(written, lambda partial: _write_prepared(builder, partial))
    found = layout(written)
    dataset = made(found.sources, written, found.files, f"TFDS {name} {folder.name}")
    record = dataset.provenance
    return dataset._replace(
        provenance=Provenance("tfds", str(folder), record.sha256, synthetic=False, note=record.note)
    )


def _write_prepared(builder: Any, folder: Path) -> None:
    """Writes the splits of a prepared data set that have boxes, in COCO's layout."""
    import tensorflow_datasets as tfds
    from PIL import Image
    from tqdm import tqdm

    class_names = builder.info.features["objects"]["label"].names
    (folder / "annotations").mkdir()
    for split, role in (("train", "train"), ("validation", "val"), ("test", "test")):
        if split not in builder.info.splits:
            continue
        examples = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        names: list[str] = []
        sizes: list[tuple[int, int]] = []
        boxes, classes, crowd = [], [], []
        (folder / role).mkdir()
        for number, example in enumerate(tqdm(examples, desc=f"{split} images", leave=False, disable=None)):
            name = f"{number:06}{Path(os.fsdecode(example['image/filename'])).suffix.lower()}"
            path = folder / role / name
            path.write_bytes(example["image"])
            with Image.open(path) as image:
                width, height = image.size
            found = example["objects"]
            top, left, bottom, right = np.array(found["bbox"], np.float64).reshape(-1, 4).T
            names.append(name)
            sizes.append((height, width))
            boxes.append(np.stack([left * width, top * height, right * width, bottom * height], axis=1))
            classes.append(np.array(found["label"], np.int32))
            crowd.append(np.array(found.get("is_crowd", found.get("is_difficult")), bool))
        # The test images of COCO and of VOC 2012 have no published boxes.
        if any(map(len, boxes)):
            coco.write(
                folder / "annotations" / f"instances_{role}.json", names, sizes, boxes, classes, class_names, crowd
            )
