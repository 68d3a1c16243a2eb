"""Data sets of images with boxes around objects: COCO's layout, Pascal VOC's, TFDS's, and a sample.

Inputs are a dict: ``image``, uint8 (N, S, S, C), each with its aspect ratio preserved, at the top left of a black
canvas; ``size``, int32 (N, 2), its height and width there; and ``scale``, float32 (N, 2), pixels of the canvas per
pixel of the original image, of height and of width.

Labels are a dict: ``boxes``, float32 (N, M, 4), x1, y1, x2, y2 in pixels of the canvas; ``classes``, int32 (N, M); and
``crowd``, bool (N, M), for objects that are neither trained on nor scored. M is the largest number of objects in an
image; beyond the objects of an image, the class is -1 and the box 0.
"""

import collections
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils import environment, files
from jaxcls._utils.errors import InputError
from jaxcls.data import sources, user_tables
from jaxcls.data import splits as data_splits
from jaxcls.data.dataset import Dataset, Provenance, Split, Unlabeled
from jaxcls.data.formats import boxes, coco, images, voc
from jaxcls.data.formats.boxes import Annotated
from jaxcls.data.formats.columns import composed
from jaxcls.data.formats.pixels import DEEP_WHITE, fitted_size
from jaxcls.data.samples import scenes
from jaxcls.data.sources import AbsentError

# What TFDS may have prepared, in the order of `auto`.
TFDS = ("coco/2017", "voc/2012", "voc/2007")

_ROLES = ("train", "val", "test")
# Labels are padded to the largest number of objects in an image: a box, a class, and whether it is a crowd.
_BYTES_PER_OBJECT, _MAX_BYTES = 21, 1 << 33

_LAYOUTS = (
    "annotations/instances_train*.json and instances_val*.json or instances_test*.json with folders of images (COCO), "
    "Annotations and JPEGImages (Pascal VOC), or train, valid and test with files of either next to their images"
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


def load(
    source: str = "auto",
    data_dir: str | Path | None = None,
    *,
    size: int,
    channels: int,
    test_fraction: float = 0.2,
    strict: bool = False,
) -> Dataset:
    """Loads a data set for detection.

    Args:
      source: 'files' (`data_dir`, in the layout of COCO or of Pascal VOC), 'tfds' (the first of `TFDS` that TFDS has
        prepared as array_record), 'sample', or 'auto', the first of these that is available.
      data_dir: the folder of the user's data.
      size: height and width of the canvas, in pixels.
      channels: 1 for grayscale, 3 for RGB.
      test_fraction: the fraction of the images that is held out for testing if there is neither val nor test.
      strict: whether annotations that are not as they should be and images that cannot be decoded are an error; else
        they are repaired or left out, which the provenance says.

    Returns:
      A Dataset; `groups` are the names of the image files. The data set's val is the validation split if it has a test
      split with annotations, else the test split.

    Raises:
      InputError: the data is missing, or something in it is wrong, as :func:`jaxcls.data.formats.coco.read`,
        :func:`jaxcls.data.formats.voc.read` and :func:`jaxcls.data.formats.images.decode_all` say; the size of an image
        differs from that in its annotations; or the splits have different classes.
    """

    read = functools.partial(_read, size=size, channels=channels, test_fraction=test_fraction, strict=strict)
    read_scenes = functools.partial(read, note="scenes composed of real articles of Fashion-MNIST")
    others: sources.Loaders = {
        "tfds": lambda: _from_tfds(read),
        "sample": lambda: sources.load_sample(scenes.write, read_scenes),
    }
    needs = f"Set data_dir to a folder with {_LAYOUTS}, or source to sample."
    return sources.load("detection", source, data_dir, read, needs, others=others)


def read_unlabeled(path: Path, size: int, channels: int, white: int = DEEP_WHITE) -> Unlabeled:
    """Reads images to predict, of one file or of a folder; see :func:`jaxcls.data.formats.images.decode_path`."""
    ids, decoded = images.decode_path(path, size=size, channels=channels, pad=True, white=white)
    return Unlabeled(ids, canvases(decoded.images, decoded.sizes))


def canvases(pixels: Any, sizes: np.ndarray) -> dict[str, Any]:
    """Returns the inputs of a detector for images on canvases.

    Args:
      pixels: uint8 (N, S, S, C).
      sizes: (N, 2), original height and width.

    >>> canvases(np.zeros((1, 64, 64, 3), np.uint8), np.array([[50, 100]]))["size"].tolist()
    [[32, 64]]
    """
    side = pixels.shape[1]
    fitted = [fitted_size(height, width, side) for height, width in sizes.tolist()]
    size = np.array(fitted, np.int32).reshape(-1, 2)
    return {"image": pixels, "size": size, "scale": (size / sizes).astype(np.float32)}


def layout(folder: Path, repairs: boxes.Repairs | None = None) -> Layout:
    """Finds and reads the annotations in a folder; opens no image.

    Args:
      folder: in the layout of COCO or of Pascal VOC, or with such files in a folder per split.
      repairs: counts what is left out or changed instead of an error.

    Raises:
      InputError: as :func:`load`, except for errors in the images themselves.
    """
    repairs = repairs or boxes.Repairs()
    # Pascal VOC first: on some systems, annotations and Annotations are the same name.
    for root in (folder, *sorted(folder.glob("VOC20*")), *sorted(folder.glob("VOCdevkit/VOC20*"))):
        if (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Main").is_dir():
            return _voc(root, folder, repairs)
    if xml := _xml_folders(folder):
        return _xml(folder, xml, repairs)
    if (folder / "annotations").is_dir() or any(folder.glob("*.json")) or any(folder.glob("*/*.json")):
        return _coco(folder, repairs)
    raise InputError(f"{folder}: has none of the known layouts: {_LAYOUTS}.")


def _by_role(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Files or folders by their split, which is in their name or in that of their folder; a single one is 'train'."""
    by_role: dict[str, Path] = {}
    for path in paths:
        names = [path.stem, *([path.parent.name] if path.parent != folder else [])]
        role = next(filter(None, map(data_splits.role, names)), "train" if len(paths) == 1 else None)
        if role is None:
            raise InputError(f"{path}: its name says no split, such as train or val; rename or remove it.")
        role = {"validation": "val"}.get(role, role)
        if (other := by_role.setdefault(role, path)) != path:
            both = f"{other.name} and {path.name}"
            raise InputError(f"{folder}: holds {both}; there must be one for {role}. Remove the rest.")
    if "train" not in by_role:
        there = ", ".join(path.name for path in by_role.values()) or "no annotations"
        raise InputError(f"{folder}: holds {there}; it must hold those of train, and may hold those of val and test.")
    files.all_inside(folder, by_role.values())
    return {role: by_role[role] for role in _ROLES if role in by_role}


def _coco(folder: Path, repairs: boxes.Repairs) -> Layout:
    paths = [path for pattern in ("annotations/*.json", "*.json", "*/*.json") for path in sorted(folder.glob(pattern))]
    # COCO itself has files of captions and key points too.
    instances = [path for path in paths if path.name.startswith("instances_")]
    by_role = _by_role([*dict.fromkeys(instances or paths)], folder)
    splits: dict[str, tuple[Annotated, Path]] = {}
    for role, path in by_role.items():
        annotated, name = coco.read(path, repairs), path.stem.removeprefix("instances_")
        names = (name, f"images/{name}", role, f"images/{role}", "images", ".")
        folders = [*map(folder.joinpath, names), path.parent, path.parent / "images"]
        annotated, root = _with_images(annotated, [one for one in folders if one.is_dir()], path, repairs)
        class_names = splits["train"][0].class_names if splits else annotated.class_names
        splits[role] = _of_classes(annotated, class_names, path, by_role["train"], repairs), root
    return Layout(splits, [*by_role.values()], "COCO's layout")


def _with_images(
    annotated: Annotated, folders: Sequence[Path], path: Path, repairs: boxes.Repairs
) -> tuple[Annotated, Path]:
    """The annotated images that are there, and the folder that they are in."""
    ends = [PurePosixPath(name).name for name in annotated.names]
    unique = {name for name, count in collections.Counter(ends).items() if count == 1 and not repairs.strict}
    for root in folders:
        actual = {} if all(map(str.isascii, annotated.names)) else _by_composed_name(root)
        candidates = [[name, *({end} & unique)] for name, end in zip(annotated.names, ends, strict=True)]
        there = [
            next((file for one in some if (root / (file := actual.get(one, one))).is_file()), None)
            for some in candidates
        ]
        if any(there):
            if missing := [name for name, one in zip(annotated.names, there, strict=True) if one is None]:
                repairs.add("images are left out", images.missing(path, missing, len(there)), len(missing))
            taken = annotated.take([row for row, one in enumerate(there) if one is not None])
            return taken._replace(names=[one for one in there if one is not None]), root
    where = ", ".join(map(str, folders))
    raise InputError(f"{path}: its image {annotated.names[0]} is in none of the folders {where}, nor is another.")


def _by_composed_name(root: Path) -> dict[str, str]:
    """The names of the files below a folder, by the form (NFC) that annotations have."""
    names = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return {composed(name): name for name in names}


def _of_classes(
    annotated: Annotated, class_names: tuple[str, ...], path: Path, train: Path, repairs: boxes.Repairs
) -> Annotated:
    """The annotations with the classes of the training split, without objects of other classes."""
    if annotated.class_names == class_names:
        return annotated
    differing = ", ".join(sorted({*annotated.class_names} ^ {*class_names})) or "in their order"
    problem = InputError(f"{path}: its categories must be those of {train.name}, but differ: {differing}.")
    index = np.array([class_names.index(name) if name in class_names else -1 for name in annotated.class_names])
    known = [index[classes] >= 0 for classes in annotated.classes]
    if repairs.strict or not all(map(np.all, known)):
        count = sum(int((~one).sum()) for one in known)
        repairs.add("objects of classes that train lacks are left out", problem, count)
    columns: Any = {name: [values[keep] for values, keep in zip(getattr(annotated, name), known, strict=True)]
               for name in ("boxes", "classes", "crowd")}  # fmt: skip
    columns["classes"] = [index[classes].astype(np.int32) for classes in columns["classes"]]
    return annotated._replace(class_names=class_names, **columns)


def _voc(root: Path, folder: Path, repairs: boxes.Repairs) -> Layout:
    lists = {path.stem: path for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
    if "test" in lists and "trainval" in lists:
        # The usual protocol: train on everything that is not tested on.
        lists = {"train": lists["trainval"], "test": lists["test"]}
    elif "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
    if "train" not in lists:
        raise InputError(f"{root / 'ImageSets' / 'Main'}: must hold train.txt, and may hold val.txt and test.txt.")
    paths = {role: lists[role] for role in _ROLES if role in lists}
    files.all_inside(folder, paths.values())
    splits: dict[str, tuple[Annotated, Path]] = {}
    names = {role: voc.read_list(path) for role, path in paths.items()}
    for role in paths:
        class_names = splits["train"][0].class_names if splits else None
        annotated = voc.read(root, names[role], class_names, inside=folder, repairs=repairs)
        splits[role] = annotated, root / "JPEGImages"
    return Layout(splits, [*paths.values()], "Pascal VOC's layout")


def _xml_folders(folder: Path) -> dict[Path, tuple[str, str]]:
    """The folders with Pascal VOC's XML but no lists, and where in each the annotations and the images are."""
    pairs = (("Annotations", "JPEGImages"), ("Annotations", "images"), ("annotations", "images"), ("", ""))
    xml: dict[Path, tuple[str, str]] = {}
    for root in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        for pair in pairs:
            if root not in xml and (root / pair[1]).is_dir() and any((root / pair[0]).glob("*.xml")):
                xml[root] = pair
        if folder in xml:
            break
    return xml


def _xml(folder: Path, xml: Mapping[Path, tuple[str, str]], repairs: boxes.Repairs) -> Layout:
    by_role = {"train": folder} if folder in xml else _by_role([*xml], folder)
    splits: dict[str, tuple[Annotated, Path]] = {}
    for role, root in by_role.items():
        names = sorted({composed(path.stem) for path in (root / xml[root][0]).glob("*.xml")})
        class_names = splits["train"][0].class_names if splits else None
        annotated = voc.read(root, names, class_names, inside=folder, subfolders=xml[root], repairs=repairs)
        splits[role] = annotated, root / xml[root][1]
    return Layout(splits, [], "Pascal VOC's annotations")


@images.with_fitted_white
def _read(
    folder: Path, note: str = "", *, test_fraction: float = 0.2, strict: bool = False, **decoding: Any
) -> Dataset:
    repairs = boxes.Repairs(strict=strict)
    where = layout(folder, repairs)
    annotations = [annotated for annotated, _ in where.splits.values()]
    columns = max(1, *(len(corners) for annotated in annotations for corners in annotated.boxes))
    label_bytes = _BYTES_PER_OBJECT * columns * sum(len(annotated.names) for annotated in annotations)
    if label_bytes > _MAX_BYTES:
        size_of_labels = f"padded to these, the labels of all images take {label_bytes:,} bytes"
        raise InputError(f"{folder}: one image has {columns:,} objects; {size_of_labels}. Cut it into several.")
    splits: dict[str, Split] = {}
    checksums = sources.checksums(where.files)
    damaged: list[str] = []
    for role, (annotated, root) in where.splits.items():
        paths = [root / file for file in annotated.names]
        what = f"{role} images"
        options = {"pad": True, "skip_damaged": not strict, **decoding}
        decoded = images.decode_all(paths, root=root, what=what, inside=folder, **options)
        checksums[what] = decoded.sha256
        damaged += decoded.notes
        annotated = _fitted(annotated.take(decoded.rows), decoded.sizes, root, repairs)
        inputs = canvases(decoded.images, decoded.sizes)
        # Float64, so that a box at the border of its image ends at the image's border on the canvas.
        scales = inputs["size"] / decoded.sizes
        corners = [rows * [x, y, x, y] for rows, (y, x) in zip(annotated.boxes, scales, strict=True)]
        labels = {
            "boxes": _padded(corners, np.zeros((columns, 4), np.float32)),
            "classes": _padded(annotated.classes, np.full(columns, -1, np.int32)),
            "crowd": _padded(annotated.crowd, np.zeros(columns, bool)),
        }
        split = Split(inputs, labels, groups=np.array(annotated.names, object), deepest=decoded.deepest)
        sizes_differ = ((decoded.sizes != annotated.sizes) & (annotated.sizes > 0)).any(axis=1)
        splits[role] = split.take(np.flatnonzero(~sizes_differ)) if sizes_differ.any() else split
        if not where.files:
            content = b"".join(values.tobytes() for values in labels.values())
            checksums[f"{role} objects"] = hashlib.sha256(content).hexdigest()
    counts = [int(((split.labels["classes"] >= 0) & ~split.labels["crowd"]).sum()) for split in splits.values()]
    # The training split is the first.
    if not counts[0]:
        raise InputError(f"{folder}: no training image has an object in it; there must be one to learn from.")
    notes = [
        note or where.note,
        f"{' + '.join(f'{count:,}' for count in counts)} objects",
        *repairs.notes,
        *damaged,
    ]
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    elif "test" not in splits:
        splits["train"], splits["test"] = user_tables.hold_out_test(
            splits["train"], test_fraction, folder, data_splits.random
        )
        notes.append(f"{splits['test'].num_examples:,} images held out for testing")
    record = Provenance("files", str(folder), checksums, note="; ".join(notes))
    return Dataset("detection", splits["train"], splits["test"], annotations[0].class_names, record, splits.get("val"))


def _fitted(annotated: Annotated, sizes: np.ndarray, root: Path, repairs: boxes.Repairs) -> Annotated:
    """The annotations with the boxes of images without a declared size clipped, and the images of another size said."""
    for row, name in enumerate(annotated.names):
        declared, actual = annotated.sizes[row], sizes[row]
        if not declared.any():
            remaining = []
            for index, corners in enumerate(annotated.boxes[row]):
                where = f"{root / name}: object {index + 1}"
                height, width = actual.tolist()
                with repairs.leaving_out("objects"):
                    corners[:] = boxes.check_box(corners, height, width, where, repairs)
                    remaining.append(index)
            for column in (annotated.boxes, annotated.classes, annotated.crowd):
                column[row] = column[row][remaining]
        elif (declared != actual).any():
            of_image, of_boxes = ("{1} x {0}".format(*one) for one in (actual, declared))
            with repairs.leaving_out("images"):
                raise InputError(
                    f"{root / name}: has {of_image} pixels (width x height, rotated as its EXIF orientation says), but "
                    f"its annotations say {of_boxes}; its boxes would be wrong. Correct either."
                )
    return annotated


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
