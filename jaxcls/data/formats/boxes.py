"""Annotated images as every format of boxes is read, and the checks of a box and of a file name."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.formats.columns import composed

# How far a box may extend beyond its image, in pixels: annotators and the rounding of their tools do that.
OVERSHOOT = 2.0
# The least width and height of a box, in pixels: a shorter side may vanish in float32.
_MIN_SIDE = 1e-3
_MAX_IMAGE_SIDE = 1_000_000


class Object(NamedTuple):
    """An annotated object.

    Attributes:
      class_id: its class, as the file calls it.
      corners: x1, y1, x2, y2 in pixels of the image, within it.
      crowd: whether it is a region of many objects, or difficult to see; such objects are neither trained on nor
        scored.
    """

    class_id: Any
    corners: tuple[float, float, float, float]
    crowd: bool


class Annotated(NamedTuple):
    """Images and the objects in each.

    Attributes:
      names: the paths of the image files, relative to the folder of images.
      sizes: int32 (N, 2), the height and width that the annotations declare, in pixels; 0 if they declare none.
      boxes: for each image, float64 (n, 4): x1, y1, x2, y2 in pixels, within the image, with an area above 0.
      classes: for each image, int32 (n,), indices into `class_names`.
      crowd: for each image, bool (n,), as in :class:`Object`.
      class_names: the names of all classes.
    """

    names: list[str]
    sizes: np.ndarray
    boxes: list[np.ndarray]
    classes: list[np.ndarray]
    crowd: list[np.ndarray]
    class_names: tuple[str, ...]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Annotated":
        """Returns the images of these rows."""
        columns: Any = (self.names, self.boxes, self.classes, self.crowd)
        names, corners, classes, crowd = ([column[row] for row in rows] for column in columns)
        return Annotated(names, self.sizes[rows], corners, classes, crowd, self.class_names)


class Repairs:
    """Counts what is changed or left out of annotations that are not as they should be.

    Args:
      strict: whether every such annotation is an error instead.
    """

    def __init__(self, *, strict: bool = True):
        self.strict = strict
        self._done: dict[str, tuple[int, str]] = {}

    def add(self, done: str, problem: InputError, count: int = 1) -> None:
        """Counts what was done, such as 'boxes are clipped', about a problem, or raises it."""
        if self.strict:
            raise problem
        before, first = self._done.get(done, (0, str(problem)))
        self._done[done] = (before + count, first)

    @contextlib.contextmanager
    def leaving_out(self, what: str) -> Iterator[None]:
        """Leaves out what an InputError within the block is about."""
        try:
            yield
        except InputError as error:
            self.add(f"{what} are left out", error)

    @property
    def notes(self) -> list[str]:
        """What was done, how often, and the first problem of each."""
        return [f"warning: {count:,} {done}, such as {first}" for done, (count, first) in self._done.items()]


def annotated(
    names: list[str],
    sizes: Sequence[tuple[int, int]],
    objects: Sequence[Sequence[Object]],
    classes: Mapping[Any, str],
) -> Annotated:
    """Builds the arrays of :class:`Annotated` from the objects of each image.

    Args:
      names, sizes: as in :class:`Annotated`.
      objects: those of each image.
      classes: class id -> name, in order.
    """
    index = {class_id: position for position, class_id in enumerate(classes)}
    return Annotated(
        names,
        np.array(sizes, np.int32),
        boxes=[np.array([item.corners for item in items], np.float64).reshape(-1, 4) for items in objects],
        classes=[np.array([index[item.class_id] for item in items], np.int32) for items in objects],
        crowd=[np.array([item.crowd for item in items], bool) for items in objects],
        class_names=tuple(classes.values()),
    )


def check_box(
    corners: Sequence[float], height: int, width: int, where: str, repairs: Repairs | None = None
) -> tuple[float, float, float, float]:
    """Checks a box x1, y1, x2, y2 and clips it to its image, beyond which it may extend by up to `OVERSHOOT` pixels.

    Args:
      height, width: of the image; 0 if they are not known yet, so that nothing is clipped.
      repairs: counts boxes that extend further and are clipped.

    Raises:
      InputError: it is not finite, has no area in the image, or extends further beyond the image.

    >>> check_box((-0.5, 0, 10, 10), 20, 20, "a.json: annotation 7")
    (0.0, 0.0, 10.0, 10.0)
    >>> check_box((0, 0, 30, 10), 20, 20, "a.json: annotation 7")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: a.json: annotation 7: its box, x from 0 to 30 and y from 0 to 10, extends beyond \
the image of 20 x 20 pixels (width x height). Correct or remove it.
    """
    if not all(map(math.isfinite, corners)):
        raise InputError(f"{where}: its box is {list(corners)}; its numbers must be finite. Correct or remove it.")
    x1, y1, x2, y2 = map(float, corners)
    box = f"its box, x from {x1:g} to {x2:g} and y from {y1:g} to {y2:g},"
    if min(x2 - x1, y2 - y1) < _MIN_SIDE:
        raise InputError(f"{where}: {box} has no area; its width and height must be above 0. Correct or remove it.")
    if not height or not width:
        return x1, y1, x2, y2
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    overshoot = max(abs(before - after) for before, after in zip(corners, clipped, strict=True))
    beyond = InputError(
        f"{where}: {box} extends beyond the image of {width} x {height} pixels (width x height). Correct or remove it."
    )
    # A thin box may lie outside of the image within the overshoot.
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < _MIN_SIDE:
        raise beyond
    if overshoot > OVERSHOOT:
        (repairs or Repairs()).add("boxes are clipped to their images", beyond)
    return clipped


def check_size(height: float, width: float, where: str) -> tuple[int, int]:
    """Checks the height and width that annotations declare, in pixels.

    Raises:
      InputError: they are not integers from 1 to a million.
    """
    if not all(float(side).is_integer() and 1 <= side <= _MAX_IMAGE_SIDE for side in (height, width)):
        raise InputError(
            f"{where}: its height and width are {(height, width)}; they must be integers from 1 to {_MAX_IMAGE_SIDE:,}."
        )
    return int(height), int(width)


def check_name(name: Any, where: str, repairs: Repairs | None = None) -> str:
    """Checks the name of an image file, which must not lead out of the folder of images, and composes it (NFC).

    If repairs are allowed, the last part of a path that does, such as one of another computer, is the name.

    >>> check_name("../secret.png", "a.json: image 7")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: a.json: image 7: its file name '../secret.png' must be that of a file in ...
    """
    if repairs and not repairs.strict and isinstance(name, str):
        name = name.replace("\\", "/")
        if PurePosixPath(name).is_absolute() or {"..", ":"} & {*PurePosixPath(name).parts, *name}:
            name = PurePosixPath(name).name
    path = PurePosixPath(name) if isinstance(name, str) and name.strip() else PurePosixPath()
    if path.is_absolute() or ".." in path.parts or not path.name or set("\\\0:") & set(name):
        raise InputError(
            f"{where}: its file name {name!r} must be that of a file in the folder of images, or in one below it."
        )
    return composed(name)
