"""What every format of boxes is read to: images, and the boxes of the objects in them; and what a box must be."""

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxcls._utils.errors import InputError

# How far beyond its image a box may reach, in pixels: annotators and the rounding of their tools do that.
OVERSHOOT = 2.0
# A side that is shorter than this, in pixels, is none: in float32 it may vanish.
SHORTEST = 1e-3


class Annotated(NamedTuple):
    """Images in their order, and the objects in each.

    Attributes:
      ids: what the file calls each image, integers or words.
      names: of the image files, str, from the folder of the images.
      sizes: int32 (N, 2), the height and width that the file declares, in pixels.
      boxes: for each image, float64 (n, 4): x1, y1, x2, y2 in its pixels, inside of it, each with an area.
      classes: for each image, int32 (n,), places in `class_names`.
      crowd: for each image, bool (n,): a region of many objects, or one that is difficult to see; it is neither
        learned from nor scored.
      class_names: of all classes.
      category_ids: the number of each class in the file.
      left_out: what was left out, for the record; '' if nothing was.
    """

    ids: list[Any]
    names: list[str]
    sizes: np.ndarray
    boxes: list[np.ndarray]
    classes: list[np.ndarray]
    crowd: list[np.ndarray]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    left_out: str = ""


def checked(corners: Sequence[float], height: int, width: int, where: str) -> tuple[float, float, float, float]:
    """A box x1, y1, x2, y2 clipped to its image.

    It may reach beyond the image by up to `OVERSHOOT` pixels.

    Raises:
      InputError: it is not finite, has no area, or reaches further beyond the image; named by `where`.

    >>> checked((-0.5, 0, 10, 10), 20, 20, "a.json: annotation 7")
    (0.0, 0.0, 10.0, 10.0)
    >>> checked((0, 0, 30, 10), 20, 20, "a.json: annotation 7")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: a.json: annotation 7: its box, x from 0 to 30 and y from 0 to 10, reaches outside of \
the image of 20 x 20 pixels (width x height). Correct or remove it.
    """
    if not all(map(math.isfinite, corners)):
        raise InputError(f"{where}: its box holds {list(corners)}; its numbers must be finite. Correct or remove it.")
    x1, y1, x2, y2 = map(float, corners)
    said = f"its box, x from {x1:g} to {x2:g} and y from {y1:g} to {y2:g},"
    if x2 - x1 < SHORTEST or y2 - y1 < SHORTEST:
        raise InputError(f"{where}: {said} has no area; its width and height must be above 0. Correct or remove it.")
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    beyond = max(abs(given - kept) for given, kept in zip(corners, clipped, strict=True))
    # The second: all of a thin box may lie within the overshoot.
    if beyond > OVERSHOOT or clipped[2] - clipped[0] < SHORTEST or clipped[3] - clipped[1] < SHORTEST:
        raise InputError(
            f"{where}: {said} reaches outside of the image of {width} x {height} pixels (width x height). "
            "Correct or remove it."
        )
    return clipped


def check_name(name: Any, where: str) -> str:
    """The name of an image file, which must stay in the folder of the images.

    >>> check_name("../secret.png", "a.json: image 7")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: a.json: image 7: its file name '../secret.png' must be that of a file in the folder of \
the images, or in one below.
    """
    good = (
        isinstance(name, str)
        and bool(name.strip())
        and not any(sign in name for sign in ("\\", "\0", ":"))
        and not PurePosixPath(name).is_absolute()
        and ".." not in PurePosixPath(name).parts
        and PurePosixPath(name).name != ""
    )
    if not good:
        raise InputError(
            f"{where}: its file name {name!r} must be that of a file in the folder of the images, or in one below."
        )
    return name
