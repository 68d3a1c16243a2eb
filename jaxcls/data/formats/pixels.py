"""Decodes one image file with Pillow and NumPy; an export of a model of images contains this file.

JPEG, PNG, TIFF, BMP, GIF (its first frame), WebP, PGM and PPM are recognized by their content. Images are rotated as
their EXIF orientation says. Transparency becomes white.
"""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm"})
# The formats that Pillow decodes itself; for others (EPS) it would run another program on the file.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
# An image with more pixels than the first is only decoded if its file has a byte per thousand of them.
SMALL, _PIXELS_PER_BYTE = 1 << 24, 1000
# White in images of 16 bits.
DEEP_WHITE = 65535


def decode(
    content: bytes, size: tuple[int, int], channels: int, *, pad: bool = False, white: int = DEEP_WHITE
) -> tuple[np.ndarray, tuple[int, int], int]:
    """Decodes an image to uint8 (height, width, channels).

    Args:
      content: of the file, read as a whole: from a file, a decoder would allocate as much as a header declares.
      size: height and width in pixels.
      channels: 1 for grayscale, 3 for RGB.
      pad: whether to preserve the aspect ratio, at the top left of a black square.
      white: the integer that is white in images of more than 8 bits.

    Returns:
      The pixels; the original height and width; and the greatest value of an image of more than 8 bits, else 0.

    Raises:
      Exception: of almost any type: Pillow's decoders raise what they like for a damaged file.
    """
    from PIL import ExifTags, Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    with opened(content) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):  # a quarter turn
            width, height = height, width
        # A JPEG can be decoded at an eighth of its size; twice the result's leaves the rest to a better filter.
        image.draft(mode, (2 * size[1], 2 * size[0]))
        image.load()
        upright = ImageOps.exif_transpose(image)
        deepest = max(0, int(upright.getextrema()[1])) if upright.mode.startswith("I") else 0  # type: ignore[arg-type]
    # Pillow's bilinear filter averages over all pixels when it reduces. It does not ring, as bicubic does.
    rows, columns = fitted_size(height, width, size[0]) if pad else size
    resized = in_mode(upright, mode, white).resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(resized)
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels).clip(0, 255)
    pixels = pixels.astype(np.uint8, copy=False)
    pixels = np.broadcast_to(pixels if pixels.ndim == 3 else pixels[:, :, None], (rows, columns, channels))
    if not pad:
        return pixels, (height, width), deepest
    canvas = np.zeros((*size, channels), np.uint8)
    canvas[:rows, :columns] = pixels
    return canvas, (height, width), deepest


def fitted_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Returns the height and width, in pixels, of an image that is scaled to fit a square of this size.

    The longer side is as long as the square's, the other one rounded.

    >>> fitted_size(480, 640, 128)
    (96, 128)
    """
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def opened(content: bytes) -> "Image.Image":
    """Opens an image without decoding it; one that declares more pixels than its file can hold is a bomb."""
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=FORMATS)
    most = min(max(SMALL, _PIXELS_PER_BYTE * len(content)), Image.MAX_IMAGE_PIXELS or float("inf"))
    if image.width * image.height > most:
        raise Image.DecompressionBombError
    return image


def in_mode(image: "Image.Image", mode: str, white: int = DEEP_WHITE) -> "Image.Image":
    """Converts to this mode, or to floats from 0 to 255 (mode F) if the image has more than 8 bits."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values, full = np.asarray(image, np.float64), 1.0 if image.mode == "F" else DEEP_WHITE
        low, high = values.min(), values.max()
        if not np.isfinite([low, high]).all():
            raise ValueError("some pixels are NaN or infinite")
        if low < 0 or high > full:
            values, full = values - low, max(high - low, 1e-30)
        elif image.mode != "F":
            full = white
        return Image.fromarray((values / full * 255).clip(0, 255).astype(np.float32))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode not in ("1", "L", "RGB"):
        # Not every mode converts to grayscale directly.
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Converts uint8 (N, S, S, 3) to (N, S, S, 1) by the luma of ITU-R BT.601, which keeps gray images."""
    # Image by image: the products take four times the memory.
    gray = np.empty((*pixels.shape[:3], 1), np.uint8)
    weights = np.array([299, 587, 114], np.uint32)
    for row, image in enumerate(pixels):
        gray[row, ..., 0] = (image @ weights + 500) // 1000
    return gray
