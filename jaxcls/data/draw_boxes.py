"""A picture with boxes on it, each with its class and its score."""

import colorsys
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxcls.data.formats import images

if TYPE_CHECKING:
    from PIL import Image


def draw(
    picture: "Image.Image",
    boxes: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
) -> "Image.Image":
    """A copy of a picture, in colour, with boxes on it; small pictures are enlarged, so that words can be read.

    Each class has a colour of its own. The best score is drawn last, over the others.

    Args:
      picture: of any mode.
      boxes: (n, 4), x1, y1, x2, y2 in its pixels.
      classes: (n,), places in `class_names`; -1 where there is nothing.
      class_names: those that are written beside the boxes.
      scores: (n,), written there too.

    >>> from PIL import Image
    >>> drawn = draw(Image.new("L", (400, 300)), np.array([[10, 20, 90, 60.0]]), np.array([0]), ("cat",))
    >>> drawn.mode, drawn.size
    ('RGB', (400, 300))
    """
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, -(-_SHORTEST // max(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(drawn.size) / 320))
    font = ImageFont.load_default(max(11, round(max(drawn.size) / 45)))
    order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for place in order.tolist():
        if classes[place] < 0:
            continue
        colour, ink = _colours(int(classes[place]), len(class_names))
        left, top, right, bottom = (float(corner) * factor for corner in boxes[place])
        # The edges of a box lie between pixels; Pillow's are the last pixels that are drawn.
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        words = class_names[int(classes[place])]
        if scores is not None:
            words += f" {scores[place]:.2f}"
        # Above the box, or within it where there is no room.
        _, _, wide, high = pen.textbbox((0, 0), words, font=font)
        x = min(max(left, 0.0), max(drawn.width - wide - 4, 0))
        y = top - high - 3 if top >= high + 3 else min(max(top, 0.0), max(drawn.height - high - 3, 0))
        pen.rectangle((x, y, x + wide + 3, y + high + 2), fill=colour)
        pen.text((x + 2, y + 1), words, fill=ink, font=font)
    return drawn


def save(
    path: Path, source: Path, detections: Mapping[str, np.ndarray], class_names: Sequence[str], *, least: float
) -> None:
    """Draws on an image file what was found in it, and writes the picture.

    Args:
      path: the file to write; its suffix says how, such as .png.
      source: the image, turned as its EXIF says.
      detections: boxes (n, 4) in its pixels, scores (n,) and classes (n,).
      class_names: of all classes.
      least: what has a lower score is not drawn.

    Raises:
      InputError: the image cannot be decoded.
    """
    classes = np.where(detections["scores"] >= least, detections["classes"], -1)
    picture = images.open_upright(source)
    with contextlib.closing(draw(picture, detections["boxes"], classes, class_names, detections["scores"])) as drawn:
        drawn.save(path)


# A picture whose longer side is shorter than this is enlarged, by a whole number.
_SHORTEST = 384


def _colours(place: int, count: int) -> tuple[tuple[int, int, int], str]:
    """The colour of a class, and black or white, whichever can be read on it."""
    # Hues as far apart as can be, neighbours in lightness apart too.
    red, green, blue = colorsys.hls_to_rgb(place / max(count, 1), (0.5, 0.62, 0.4)[place % 3], 0.9)
    # Relative luminance (WCAG 2): on 0.18 both can be read alike.
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (red, green, blue)]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return (round(255 * red), round(255 * green), round(255 * blue)), "black" if luminance > 0.18 else "white"
