"""COCO's JSON: images, categories and annotations in, and detections in the format of its results out.

https://cocodataset.org/#format-data and #format-results. A box is [x, y, width, height] in pixels there, (x, y) being
its upper left corner, and x1, y1, x2, y2 everywhere else in jaxcls.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import boxes
from jaxcls.data.formats.boxes import Annotated

# COCO's own instances_train2017.json holds one box without height in each of these images.
_KNOWN_FLAT = (200365, 550395)
# The longest side of an image, in pixels.
_LONGEST = 1_000_000


def read(path: Path, *, annotated: bool = True) -> Annotated:
    """Reads a file of annotations; opens no image.

    Classes are in the order of the ids of their categories. An image without annotations is one without objects.

    Args:
      path: the file.
      annotated: False for a list of images only (image_info_*.json), in which annotations and categories may be
        missing; those that are there are not read.

    Raises:
      InputError: naming the file and the image or the annotation: it is no JSON of this form; an id stands twice or
        is not known; a file name leads out of the folder of the images or stands twice; a box is not four finite
        numbers, has no area, or reaches more than 2 pixels outside of its image.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "instances_train.json"
    >>> write(path, ["a.png"], [(20, 40)], [np.array([[1, 2, 11, 22]])], [np.array([1])], ("cat", "dog"))
    >>> read(path).boxes[0].tolist(), read(path).class_names
    ([[1.0, 2.0, 11.0, 20.0]], ('cat', 'dog'))
    """
    content = _object(path)
    images = _images(_list(content, "images", path), path)
    if not images:
        raise InputError(f"{path}: holds no images; there must be at least one.")
    rows = {identity: row for row, (identity, *_) in enumerate(images)}
    sizes = np.array([size for _, _, size in images], np.int32)
    found: list[list[tuple[tuple[float, ...], int, bool]]] = [[] for _ in images]
    names: dict[int, str] = {}
    left_out = []
    if annotated:
        names = _categories(_list(content, "categories", path), path)
        places = {category: place for place, category in enumerate(names)}
        known = set()
        for place, annotation in enumerate(_list(content, "annotations", path)):
            identity = _integer(annotation, "id", f"{path}: the annotation at place {place}")
            where = f"{path}: annotation {identity}"
            if identity in known:
                raise InputError(f"{where} stands there twice; ids are unique.")
            known.add(identity)
            image = _integer(annotation, "image_id", where)
            if image not in rows:
                raise InputError(f"{where}: its image_id {image} is not among the images of the file.")
            category = _integer(annotation, "category_id", where)
            if category not in places:
                raise InputError(
                    f"{where}: its category_id {category} is not among the categories of the file, "
                    f"{', '.join(f'{number} ({name})' for number, name in list(names.items())[:10])}"
                    f"{', ...' if len(names) > 10 else ''}."
                )
            crowd = annotation.get("iscrowd", 0)
            if crowd not in (0, 1):
                raise InputError(f"{where}: its iscrowd is {crowd!r}; it is 0 or 1.")
            row = rows[image]
            where = f"{where} (image {images[row][1]})"
            x, y, width, height = _box(annotation, where)
            if image in _KNOWN_FLAT and height == 0:
                left_out.append(identity)
                continue
            corners = boxes.checked((x, y, x + width, y + height), *images[row][2], where)
            found[row].append((corners, places[category], bool(crowd)))
    return Annotated(
        ids=[identity for identity, *_ in images],
        names=[name for _, name, _ in images],
        sizes=sizes,
        boxes=[np.array([box for box, _, _ in some], np.float64).reshape(-1, 4) for some in found],
        classes=[np.array([place for _, place, _ in some], np.int32) for some in found],
        crowd=[np.array([crowd for _, _, crowd in some], bool) for some in found],
        class_names=tuple(names.values()),
        category_ids=tuple(names),
        left_out=f"annotations {left_out} have no height and are left out" if left_out else "",
    )


def write(
    path: Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    corners: Sequence[np.ndarray],
    classes: Sequence[np.ndarray],
    class_names: Sequence[str],
    crowd: Sequence[np.ndarray] | None = None,
) -> None:
    """Writes a file of annotations. Images, annotations and categories get the ids 1, 2, ...

    Args:
      path: the file.
      names: of the image files.
      sizes: height and width of each image.
      corners: for each image, (n, 4): x1, y1, x2, y2.
      classes: for each image, (n,), places in `class_names`.
      class_names: the categories.
      crowd: for each image, bool (n,); False where it is not given.
    """
    annotations: list[dict[str, Any]] = []
    for row, (some, places) in enumerate(zip(corners, classes, strict=True)):
        for number, (box, place) in enumerate(zip(some.tolist(), places.tolist(), strict=True)):
            x, y, width, height = _as_xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row + 1,
                    "category_id": place + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0 if crowd is None else int(crowd[row][number]),
                }
            )
    content = {
        "images": [
            {"id": row, "file_name": name, "height": int(height), "width": int(width)}
            for row, (name, (height, width)) in enumerate(zip(names, sizes, strict=True), 1)
        ],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(class_names, 1)],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def results(
    detections: Mapping[str, np.ndarray],
    image_ids: Sequence[Any],
    *,
    scale: np.ndarray,
    sizes: np.ndarray | None = None,
    category_ids: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Detections in the format of COCO's results: a list of {image_id, category_id, bbox, score}.

    Args:
      detections: boxes (N, D, 4) in pixels of the canvas, scores (N, D), classes (N, D), which are -1 where there is
        no detection.
      image_ids: (N,), of each image.
      scale: (N, 2), pixels of the canvas for one of the original image, of height and of width.
      sizes: (N, 2), original height and width, to which boxes are clipped.
      category_ids: the id of each class; 1, 2, ... where it is not given.

    Returns:
      Plain JSON values: [x, y, width, height] in pixels of the original image, to a hundredth; what has no area there
      is left out. In an image, the best score comes first.

    >>> found = {"boxes": np.array([[[2, 4, 6, 8.0]]]), "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> results(found, [17], scale=np.array([[2.0, 2.0]]))
    [{'image_id': 17, 'category_id': 1, 'bbox': [1.0, 2.0, 2.0, 2.0], 'score': 0.5}]
    """
    listed: list[dict[str, Any]] = []
    for row, image in enumerate(image_ids):
        corners, scores, classes = (np.asarray(detections[name][row]) for name in ("boxes", "scores", "classes"))
        corners = to_original(corners, np.asarray(scale[row]), None if sizes is None else np.asarray(sizes[row]))
        for place in np.argsort(-scores, kind="stable").tolist():
            if classes[place] < 0:
                continue
            x, y, width, height = (round(value, 2) for value in _as_xywh(corners[place].tolist()))
            if width <= 0 or height <= 0:
                continue
            category = int(classes[place])
            listed.append(
                {
                    "image_id": image.item() if isinstance(image, np.generic) else image,
                    "category_id": category + 1 if category_ids is None else category_ids[category],
                    "bbox": [x, y, width, height],
                    "score": round(float(scores[place]), 5),
                }
            )
    return listed


def to_original(corners: np.ndarray, scale: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """Boxes (..., 4) in pixels of the canvas as boxes in pixels of the original image, float64.

    Args:
      corners: x1, y1, x2, y2.
      scale: (2,), pixels of the canvas for one of the original image, of height and of width.
      size: (2,), original height and width, to which boxes are clipped.

    >>> to_original(np.array([2.0, 4, 6, 8]), np.array([4.0, 2.0]), np.array([2, 9])).tolist()
    [1.0, 1.0, 3.0, 2.0]
    """
    vertical, horizontal = np.asarray(scale, np.float64)
    original = np.asarray(corners, np.float64) / np.array([horizontal, vertical, horizontal, vertical])
    if size is not None:
        height, width = np.asarray(size)
        original = np.clip(original, 0, np.array([width, height, width, height]))
    return original


def _as_xywh(corners: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    return x1, y1, x2 - x1, y2 - y1


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({error}); it may be damaged or cut off.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; it must hold an object with images.")
    return content


def _list(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    listed = content.get(key)
    if not isinstance(listed, list):
        raise InputError(f"{path}: holds no list {key!r}; COCO's annotations have images, annotations and categories.")
    for place, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {key} holds {entry!r:.40} at place {place}; it must hold objects.")
    return listed


def _images(listed: Sequence[Mapping[str, Any]], path: Path) -> list[tuple[int, str, tuple[int, int]]]:
    """The id, the file name, and height and width of each."""
    images = []
    ids, names = set(), set()
    for place, image in enumerate(listed):
        identity = _integer(image, "id", f"{path}: the image at place {place}")
        where = f"{path}: image {identity}"
        if identity in ids:
            raise InputError(f"{where} stands there twice; ids are unique.")
        name = boxes.check_name(image.get("file_name"), where)
        if name in names:
            raise InputError(f"{where}: its file {name} is that of another image too.")
        size = (_integer(image, "height", where), _integer(image, "width", where))
        if min(size) < 1 or max(size) > _LONGEST:
            raise InputError(f"{where}: its height and width are {size}; they must be from 1 to {_LONGEST:,}.")
        ids.add(identity)
        names.add(name)
        images.append((identity, name, size))
    return images


def _categories(listed: Sequence[Mapping[str, Any]], path: Path) -> dict[int, str]:
    """id -> name, in the order of the ids."""
    names: dict[int, str] = {}
    words: set[str] = set()
    for place, category in enumerate(listed):
        identity = _integer(category, "id", f"{path}: the category at place {place}")
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{path}: category {identity} is called {name!r}; its name must be a word.")
        if identity in names or name in words:
            raise InputError(f"{path}: category {identity} ({name}) stands there twice; ids and names are unique.")
        names[identity] = name
        words.add(name)
    if not names:
        raise InputError(f"{path}: holds no categories; there must be at least one.")
    return dict(sorted(names.items()))


def _integer(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    # Some tools write 12.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        given = "is missing" if key not in entry else f"is {value!r:.40}"
        raise InputError(f"{where}: its {key} {given}; it must be an integer.")
    return value


def _box(annotation: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    box = annotation.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in box)
        or any(isinstance(number, int) and abs(number) > 2**53 for number in box)
    ):
        raise InputError(f"{where}: its bbox is {box!r:.60}; it must be [x, y, width, height] in pixels.")
    x, y, width, height = map(float, box)
    return x, y, width, height
