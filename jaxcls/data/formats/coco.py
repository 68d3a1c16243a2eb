"""COCO's JSON formats of annotations and of results.

https://cocodataset.org/#format-data and #format-results. COCO's boxes are [x, y, width, height] in pixels, where (x, y)
is the top left corner; everywhere else in jaxcls they are x1, y1, x2, y2.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError, listed
from jaxcls.data.formats import boxes, reading


def read(path: Path) -> boxes.Annotated:
    """Reads a file of annotations; opens no image.

    Classes are in the order of their category ids. An image without annotations is one without objects.

    Raises:
      InputError: naming the file and the image or the annotation: it is not JSON of this format; an id occurs twice or
        is unknown; a file name leads out of the folder of images or occurs twice; a box is not four finite numbers, has
        no area, or extends more than 2 pixels beyond its image.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "instances_train.json"
    >>> dog = boxes.Object("dog", (1, 2, 11, 12), crowd=False)
    >>> write(path, boxes.annotated(["a.png"], [(20, 40)], [[dog]], {"cat": "cat", "dog": "dog"}))
    >>> read(path).boxes[0].tolist(), read(path).class_names
    ([[1.0, 2.0, 11.0, 12.0]], ('cat', 'dog'))
    """
    with reading.error_names(path, (ValueError, RecursionError), "is not JSON"):
        content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; it must hold an object with images.")
    sizes: dict[int, tuple[int, int]] = {}
    names: dict[str, int] = {}
    for identity, image, where in _entries(content, "images", path):
        name = boxes.check_name(image.get("file_name"), where)
        if name in names:
            raise InputError(f"{where}: image {names[name]} has the file name {name} too; file names are unique.")
        names[name] = identity
        sizes[identity] = boxes.check_size(_integer(image, "height", where), _integer(image, "width", where), where)
    ids: dict[str, int] = {}
    for identity, entry, where in _entries(content, "categories", path):
        word = entry.get("name")
        if not isinstance(word, str) or not word.strip() or word in ids:
            raise InputError(f"{where} has the name {word!r}; it must be a word, and no other category's.")
        ids[word] = identity
    categories = dict(sorted(zip(ids.values(), ids, strict=True)))
    objects: dict[int, list[boxes.Object]] = {identity: [] for identity in sizes}
    file_names = dict(zip(sizes, names, strict=True))
    left_out = []
    for identity, annotation, where in _entries(content, "annotations", path):
        image_id = _known(annotation, "image_id", file_names, where)
        category = _known(annotation, "category_id", categories, where)
        crowd = annotation.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InputError(f"{where}: its iscrowd is {crowd!r}; it is 0 or 1.")
        where = f"{where} (image {file_names[image_id]})"
        x, y, width, height = _box(annotation, where)
        # COCO's instances_train2017.json has one box without height in each of these images.
        if image_id in (200365, 550395) and height == 0:
            left_out.append(identity)
            continue
        corners = boxes.check_box((x, y, x + width, y + height), *sizes[image_id], where)
        objects[image_id].append(boxes.Object(category, corners, bool(crowd)))
    annotated = boxes.annotated([*names], [*sizes.values()], [*objects.values()], categories)
    return annotated._replace(left_out=f"annotations {left_out} have no height and are left out" if left_out else "")


def write(path: Path, annotated: boxes.Annotated) -> None:
    """Writes annotations that :func:`read` reads. Images, annotations and categories get the ids 1, 2, ..."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    columns = (annotated.names, annotated.sizes.tolist(), annotated.boxes, annotated.classes, annotated.crowd)
    for image_id, (name, (height, width), *objects) in enumerate(zip(*columns, strict=True), 1):
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for corners, index, crowd in zip(*(column.tolist() for column in objects), strict=True):
            box = _as_xywh(corners)
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": index + 1}
            annotations.append(ids | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)})
    categories = [{"id": category, "name": name} for category, name in enumerate(annotated.class_names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def results(
    detections: Mapping[str, np.ndarray], image_ids: Sequence[Any], *, scale: np.ndarray, sizes: np.ndarray
) -> list[dict[str, Any]]:
    """Converts detections to COCO's format of results: a list of {image_id, category_id, bbox, score}.

    Args:
      detections: boxes (N, D, 4) in pixels of the canvas, scores (N, D), and classes (N, D), which are -1 where there
        is no detection.
      image_ids: (N,), plain JSON values.
      scale: (N, 2), pixels of the canvas per pixel of the original image, of height and of width.
      sizes: (N, 2), original height and width, to which boxes are clipped.

    Returns:
      Plain JSON values, image by image and the best score first. Boxes are in pixels of the original image, to a
      hundredth; those without area there are left out. Category ids are 1, 2, ...

    >>> detections = {"boxes": np.array([[[2, 4, 6, 8.0]]]), "scores": np.array([[0.5]]), "classes": np.array([[0]])}
    >>> results(detections, [17], scale=np.array([[2.0, 2.0]]), sizes=np.array([[9, 9]]))
    [{'image_id': 17, 'category_id': 1, 'bbox': [1.0, 2.0, 2.0, 2.0], 'score': 0.5}]
    """
    detected: list[dict[str, Any]] = []
    for row, image_id in enumerate(image_ids):
        scores, classes = np.asarray(detections["scores"][row]), np.asarray(detections["classes"][row])
        corners = to_original(detections["boxes"][row], scale[row], sizes[row])
        for best in np.argsort(-scores, kind="stable").tolist():
            box = [round(value, 2) for value in _as_xywh(corners[best].tolist())]
            if classes[best] >= 0 and min(box[2:]) > 0:
                score = round(float(scores[best]), 5)
                category = int(classes[best]) + 1
                detected.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    return detected


def to_original(corners: np.ndarray, scale: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Converts boxes from pixels of the canvas to pixels of the original image.

    Args:
      corners: (..., 4), x1, y1, x2, y2.
      scale: (2,), pixels of the canvas per pixel of the original image, of height and of width.
      size: (2,), original height and width, to which boxes are clipped.

    Returns:
      float64 (..., 4).

    >>> to_original(np.array([2.0, 4, 6, 8]), np.array([4.0, 2.0]), np.array([2, 9])).tolist()
    [1.0, 1.0, 3.0, 2.0]
    """
    # Of x and y, hence width before height.
    scale, size = np.tile(np.asarray(scale, np.float64)[::-1], 2), np.tile(np.asarray(size)[::-1], 2)
    return np.clip(np.asarray(corners, np.float64) / scale, 0, size)


def _as_xywh(corners: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    return x1, y1, x2 - x1, y2 - y1


def _entries(content: Mapping[str, Any], key: str, path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields the id of each entry of a list, which must be unique, the entry, and how to call it in a message."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path}: holds no list {key!r}; COCO's annotations have images, annotations and categories.")
    if not entries and key != "annotations":
        raise InputError(f"{path}: holds no {key}; there must be at least one.")
    name = {"images": "image", "annotations": "annotation", "categories": "category"}[key]
    seen = set()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {key} holds {entry!r:.40} at index {index}; it must hold objects.")
        identity = _integer(entry, "id", f"{path}: the {name} at index {index}")
        where = f"{path}: {name} {identity}"
        if identity in seen:
            raise InputError(f"{where} occurs twice; ids are unique.")
        seen.add(identity)
        yield identity, entry, where


def _known(annotation: Mapping[str, Any], key: str, known: Mapping[int, str], where: str) -> int:
    """The id of an image or a category, which must be one in the file."""
    identity = _integer(annotation, key, where)
    if identity not in known:
        some = listed([f"{number} ({name:.40})" for number, name in known.items()])
        raise InputError(f"{where}: its {key} {identity} is not in the file, which has {some}.")
    return identity


def _integer(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    # Some tools write 12.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        problem = "is missing" if key not in entry else f"is {value!r:.40}"
        raise InputError(f"{where}: its {key} {problem}; it must be an integer.")
    return value


def _box(annotation: Mapping[str, Any], where: str) -> list[float]:
    box = annotation.get("bbox")
    # bool is a subclass of int, and not every int fits a float.
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(type(side) is float or (type(side) is int and abs(side) <= 2**53) for side in box)
    ):
        raise InputError(f"{where}: its bbox is {box!r:.60}; it must be [x, y, width, height] in pixels.")
    return [float(side) for side in box]
