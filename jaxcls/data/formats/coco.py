"""COCO's JSON formats of annotations and of results.

https://cocodataset.org/#format-data and #format-results. COCO's boxes are [x, y, width, height] in pixels, where (x, y)
is the top left corner; everywhere else in jaxcls they are x1, y1, x2, y2.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError, listed
from jaxcls.data.formats import boxes, reading
from jaxcls.data.formats.columns import composed


def read(path: Path, repairs: boxes.Repairs | None = None) -> boxes.Annotated:
    """Reads a file of annotations; opens no image.

    Classes are in the order of their category ids. An image without annotations is one without objects. An annotation
    without bbox gets that of its polygons or its mask.

    Args:
      path: the file.
      repairs: counts what is left out or changed instead of an error about a single image, annotation or category. It
        also allows ids that are words, annotations without ids, and images without sizes.

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
    repairs = repairs or boxes.Repairs()
    with reading.error_names(path, (ValueError, RecursionError), "is not JSON"):
        content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; it must hold an object with images.")
    names: dict[str, int | str] = {}
    sizes: dict[int | str, tuple[int, int]] = {}
    # Of images and categories: id -> the id of the first with this name.
    image_ids: dict[int | str, int | str] = {}
    category_ids: dict[int | str, int | str] = {}
    for index, entry in enumerate(_entries(content, "images", path)):
        with repairs.leaving_out("images"):
            identity, where = _identified(entry, "image", index, image_ids, path, repairs)
            name = boxes.check_name(entry.get("file_name"), where, repairs)
            image_ids[identity] = names.setdefault(name, identity)
            if names[name] != identity:
                twice = f"image {names[name]} has the file name {name} too; file names are unique."
                repairs.add("images are merged with another one", InputError(f"{where}: {twice}"))
                continue
            sizes[identity] = _size(entry, where, repairs)
    words: dict[str, int | str] = {}
    for index, entry in enumerate(_entries(content, "categories", path)):
        with repairs.leaving_out("categories"):
            identity, where = _identified(entry, "category", index, category_ids, path, repairs)
            word = entry.get("name")
            word = composed(word) if isinstance(word, str) else ""
            if not word.strip() or (repairs.strict and word in words):
                raise InputError(
                    f"{where} has the name {entry.get('name')!r}; it must be a word, and no other category's."
                )
            category_ids[identity] = words.setdefault(word, identity)
    known = {words[word]: word for word in sorted(words, key=lambda word: (isinstance(words[word], str), words[word]))}
    objects: dict[int | str, list[boxes.Object]] = {identity: [] for identity in sizes}
    file_names = dict(zip(names.values(), names, strict=True))
    seen: dict[int | str, int | str] = {}
    for index, annotation in enumerate(_entries(content, "annotations", path)):
        with repairs.leaving_out("annotations"):
            identity, where = _identified(annotation, "annotation", index, seen, path, repairs)
            seen[identity] = identity
            image_id = _known(annotation, "image_id", image_ids, file_names, where, repairs)
            category = _known(annotation, "category_id", category_ids, known, where, repairs)
            crowd = annotation.get("iscrowd") or 0
            if crowd not in (0, 1):
                raise InputError(f"{where}: its iscrowd is {crowd!r}; it is 0 or 1.")
            where = f"{where} (image {file_names[image_id]})"
            x, y, width, height = _box(annotation, sizes[image_id], where)
            corners = boxes.check_box((x, y, x + width, y + height), *sizes[image_id], where, repairs)
            objects[image_id].append(boxes.Object(category, corners, bool(crowd)))
    return boxes.annotated([*names], [*sizes.values()], [*objects.values()], known)


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


def _entries(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path}: holds no list {key!r}; COCO's annotations have images, annotations and categories.")
    if not entries and key != "annotations":
        raise InputError(f"{path}: holds no {key}; there must be at least one.")
    return entries


def _identified(
    entry: Any, name: str, index: int, seen: Mapping[int | str, Any], path: Path, repairs: boxes.Repairs
) -> tuple[int | str, str]:
    """The id of an entry of a list, which must be unique, and how to call the entry in a message."""
    if not isinstance(entry, dict):
        key = {"image": "images", "annotation": "annotations", "category": "categories"}[name]
        raise InputError(f"{path}: {key} holds {entry!r:.40} at index {index}; it must hold objects.")
    if name == "annotation" and not repairs.strict:
        # Nothing refers to it.
        return index, f"{path}: the annotation at index {index}"
    identity = _integer(entry, "id", f"{path}: the {name} at index {index}", repairs)
    if identity is None:
        raise InputError(f"{path}: the {name} at index {index}: its id is missing.")
    where = f"{path}: {name} {identity!s:.40}"
    if identity in seen:
        raise InputError(f"{where} occurs twice; ids are unique.")
    return identity, where


def _size(image: Mapping[str, Any], where: str, repairs: boxes.Repairs) -> tuple[int, int]:
    try:
        strictly = boxes.Repairs()
        height, width = (_integer(image, side, where, strictly) for side in ("height", "width"))
        return boxes.check_size(height, width, where)  # type: ignore[arg-type]
    except InputError:
        if repairs.strict:
            raise
        return 0, 0


def _known(
    annotation: Mapping[str, Any],
    key: str,
    ids: Mapping[int | str, int | str],
    names: Mapping[int | str, str],
    where: str,
    repairs: boxes.Repairs,
) -> int | str:
    """The id of an image or a category, which must be one in the file."""
    identity = _integer(annotation, key, where, repairs)
    if identity not in ids or identity is None:
        some = listed([f"{number} ({name:.40})" for number, name in names.items()])
        raise InputError(f"{where}: its {key} {identity!s:.40} is not in the file, which has {some}.")
    return ids[identity]


def _integer(entry: Mapping[str, Any], key: str, where: str, repairs: boxes.Repairs) -> int | str | None:
    value = entry.get(key)
    if not repairs.strict:
        if value is None:
            return None
        if isinstance(value, str) and value.strip():
            # An id that is a word.
            return int(value) if value.strip().isdecimal() and len(value) < 19 else value
    # Some tools write 12.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        problem = "is missing" if key not in entry else f"is {value!r:.40}"
        raise InputError(f"{where}: its {key} {problem}; it must be an integer.")
    return value


def _box(annotation: Mapping[str, Any], size: tuple[int, int], where: str) -> list[float]:
    box, polygons = annotation.get("bbox"), annotation.get("segmentation")
    if not box and isinstance(polygons, dict):
        return _mask_box(polygons, size, where)
    if not box and isinstance(polygons, list):
        flat = polygons if all(isinstance(one, list) and len(one) >= 2 for one in polygons) else []
        if all(type(value) in (int, float) and abs(value) <= 2**53 for one in flat for value in one) and flat:
            xs, ys = ([value for one in flat for value in one[axis::2]] for axis in (0, 1))
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    # bool is a subclass of int, and not every int fits a float.
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(type(side) is float or (type(side) is int and abs(side) <= 2**53) for side in box)
    ):
        raise InputError(f"{where}: its bbox is {box!r:.60}; it must be [x, y, width, height] in pixels.")
    return [float(side) for side in box]


def _mask_box(mask: Mapping[str, Any], size: tuple[int, int], where: str) -> list[float]:
    """The box of a mask in COCO's run-length encoding, compressed or not."""
    from faster_coco_eval.core import mask as masks

    # It raises a RuntimeError for wrong types.
    with contextlib.suppress(KeyError, TypeError, ValueError, RuntimeError):
        height, width = mask["size"]
        boxes.check_size(height, width, where)
        if size in ((0, 0), (height, width)):
            box: list[float] = masks.toBbox(masks.segmToRle(mask, width, height)).tolist()
            return box
    right = "a mask in COCO's run-length encoding, of the size of its image. Correct it, or give a bbox"
    raise InputError(f"{where}: its segmentation is {mask!r:.60}; it must be {right}.")
