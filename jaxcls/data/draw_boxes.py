"""Drawing detections on images: boxes with their class names and scores."""

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
    """Returns an RGB copy of an image with boxes drawn on it; small images are enlarged, to keep the text readable.

    Each class has its own color. Boxes are drawn in order of their scores, the highest on top.

    Args:
      picture: an image of any mode.
      boxes: (n, 4), x1, y1, x2, y2 in pixels.
      classes: (n,), indices into `class_names`; -1 for padding.
      class_names: of all classes.
      scores: (n,), drawn after the class names.

    >>> from PIL import Image
    >>> drawn = draw(Image.new("L", (400, 300)), np.array([[10, 20, 90, 60.0]]), np.array([0]), ("cat",))
    >>> drawn.mode, drawn.size
    ('RGB', (400, 300))
    """
    from PIL import Image, ImageDraw, ImageFont

    # By an integer factor, if the longer side is shorter than this.
    factor = max(1, -(-384 // max(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(drawn.size) / 320))
    font = ImageFont.load_default(max(11, round(max(drawn.size) / 45)))
    order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for row in order.tolist():
        if classes[row] < 0:
            continue
        color, text_color = _colors(int(classes[row]), len(class_names))
        left, top, right, bottom = (float(corner) * factor for corner in boxes[row])
        # The edges of a box lie between pixels; for Pillow they are the last pixels drawn.
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=width)
        text = class_names[int(classes[row])]
        if scores is not None:
            text += f" {scores[row]:.2f}"
        # Above the box, or inside it at the upper edge of the image.
        _, _, text_width, text_height = pen.textbbox((0, 0), text, font=font)
        x = min(max(left, 0.0), max(drawn.width - text_width - 4, 0))
        y = top - text_height - 3
        if y < 0:
            y = min(max(top, 0.0), max(drawn.height - text_height - 3, 0))
        pen.rectangle((x, y, x + text_width + 3, y + text_height + 2), fill=color)
        pen.text((x + 2, y + 1), text, fill=text_color, font=font)
    return drawn


def save(
    path: Path, source: Path, detections: Mapping[str, np.ndarray], class_names: Sequence[str], *, min_score: float
) -> None:
    """Draws detections on the image of a file and saves the result.

    Args:
      path: the file to write, in the format of its suffix.
      source: the image file; it is rotated by its EXIF orientation.
      detections: boxes (n, 4) in pixels, scores (n,) and classes (n,).
      class_names: of all classes.
      min_score: detections with a lower score are left out.

    Raises:
      InputError: the image cannot be decoded.
    """
    classes = np.where(detections["scores"] >= min_score, detections["classes"], -1)
    picture = images.open_upright(source)
    with contextlib.closing(draw(picture, detections["boxes"], classes, class_names, detections["scores"])) as drawn:
        drawn.save(path)


def _colors(index: int, count: int) -> tuple[tuple[int, int, int], str]:
    """The color of a class, and black or white for text on it."""
    # Evenly spaced hues; neighbors differ in lightness too.
    red, green, blue = colorsys.hls_to_rgb(index / max(count, 1), (0.5, 0.62, 0.4)[index % 3], 0.9)
    # Relative luminance (WCAG 2): at 0.18, black and white have equal contrast.
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (red, green, blue)]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return (round(255 * red), round(255 * green), round(255 * blue)), "black" if luminance > 0.18 else "white"
