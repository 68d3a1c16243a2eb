"""A synthetic folder of images: drawn shapes, one folder per class, as untidy as such folders are.

Five shapes of any color, size, position and rotation are drawn on a darker, noisy background, crossed by lines. A
person recognizes all of them. Of the 200 test images, a network of dense layers classifies 0.28 correctly (chance:
0.20), the recipe's residual network 0.97. Files are JPEG, PNG, GIF, BMP and TIFF of various sizes, RGB, grayscale,
16-bit, with a palette or with transparency, some with an EXIF orientation, among files that are not images.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("circle", "cross", "square", "star", "triangle")
_FORMATS = (
    "jpg", "jpg", "jpg", "jpg", "png", "png", "L jpg", "L png", "16-bit png", "P png", "alpha png", "rotated jpg",
    "CMYK jpg", "gif", "bmp", "tiff",
)  # fmt: skip


def write(folder: Path, *, train: int = 160, test: int = 40, seed: int = 0) -> None:
    """Writes train/CLASS and test/CLASS, with this many images of each class."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                _save(_draw(name, rng), folder / split / name / f"{name}_{number:03}", rng)
    (folder / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "train" / CLASSES[0] / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "train" / CLASSES[1] / "._cross_000.jpg").write_bytes(b"\0\5\26\7")


def _draw(name: str, rng: np.random.Generator) -> np.ndarray:
    """Draws a shape, uint8 (height, width, 3)."""
    from PIL import Image, ImageDraw

    width, height = rng.integers(48, 128, 2).tolist()
    height = round(min(max(height, width / 1.5), width * 1.5))
    # A darker and a lighter color, so that a grayscale image shows the shape as well.
    colors = np.zeros((2, 3), int)
    while np.diff(colors @ [0.299, 0.587, 0.114])[0] <= 90:
        colors = rng.integers(0, 256, (2, 3))
    background, color = map(tuple, colors.tolist())
    image = Image.new("RGB", (width, height), background)
    pen = ImageDraw.Draw(image)
    radius = rng.uniform(0.28, 0.46) * min(width, height)
    center = [rng.uniform(radius, side - radius) for side in (width, height)]
    pen.polygon([(center[0] + radius * x, center[1] + radius * y) for x, y in _outline(name, rng)], fill=color)
    for _ in range(rng.integers(0, 3)):
        xs, ys = (rng.uniform(0, side, 2).tolist() for side in (width, height))
        shade = tuple(rng.integers(0, 256, 3).tolist())
        pen.line([(xs[0], ys[0]), (xs[1], ys[1])], fill=shade, width=int(rng.integers(1, 3)))
    noise = rng.normal(0, rng.uniform(3, 15), (height, width, 3))
    return (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)


def _outline(name: str, rng: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of a shape around (0, 0), randomly rotated, at distances of at most 1."""
    start = rng.uniform(0, 2 * math.pi)
    arm = 0.055  # half the width of an arm of the cross, in turns
    inner = math.sin(arm * 2 * math.pi) * math.sqrt(2)
    # (angle in turns, distance from the center)
    corners = {
        "circle": [(i / 36, 0.9) for i in range(36)],
        "square": [(i / 4, 1.0) for i in range(4)],
        "triangle": [(i / 3, 1.0) for i in range(3)],
        "star": [(i / 10, 1.0 if i % 2 else 0.42) for i in range(10)],
        "cross": [(i / 4 + turn, far) for i in range(4) for turn, far in ((-arm, 1.0), (arm, 1.0), (1 / 8, inner))],
    }[name]
    polar = [(start + 2 * math.pi * turn, far) for turn, far in corners]
    return [(far * math.cos(angle), far * math.sin(angle)) for angle, far in polar]


def _save(pixels: np.ndarray, stem: Path, rng: np.random.Generator) -> None:
    """Saves an image in one of `_FORMATS`."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image_format, _, suffix = _FORMATS[rng.integers(len(_FORMATS))].rpartition(" ")
    path = stem.with_suffix(f".{suffix}")
    options: dict[str, Any] = {}
    if image_format in ("L", "P", "CMYK"):
        image = image.convert(image_format)
    elif image_format == "16-bit":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif image_format == "alpha":
        image.putalpha(255)
    elif image_format == "rotated":
        exif = Image.Exif()
        exif[0x0112] = int(rng.choice([3, 6, 8]))
        options = {"exif": exif}
    elif suffix == "jpg":
        path = path.with_suffix(str(rng.choice([".jpg", ".jpeg", ".JPG"])))
        options = {"format": "JPEG", "quality": 85}
    image.save(path, **options)
