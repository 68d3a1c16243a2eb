"""A synthetic folder of images: drawn shapes, a folder a class, in the disorder that such folders are found in.

Five shapes of any colour, size, place and angle stand on a darker ground with noise, crossed by lines that are none
of them. All can be told by eye. Of the 200 test images, a network of dense layers tells 0.28 right (chance: 0.20),
the recipe's residual network 0.97. Files are JPEG, PNG, GIF, BMP and TIFF of mixed sizes, in colour, grey, 16 bits,
with a palette or with transparency, some turned by EXIF, among files that are no images.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

CLASSES = ("circle", "cross", "square", "star", "triangle")


def write(folder: Path, *, train: int = 160, test: int = 40, seed: int = 0) -> None:
    """Writes train/CLASS and test/CLASS, with so many images of each class."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                _save(_draw(name, rng), folder / part / name / f"{name}_{number:03}", rng)
    (folder / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "train" / CLASSES[0] / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "train" / CLASSES[1] / "._cross_000.jpg").write_bytes(b"\0\5\26\7")


def _draw(name: str, rng: np.random.Generator) -> "Image.Image":
    from PIL import Image, ImageDraw

    width, height = rng.integers(48, 128, 2).tolist()
    height = round(min(max(height, width / 1.5), width * 1.5))
    background, colour = _two_colours(rng)
    image = Image.new("RGB", (width, height), background)
    pen = ImageDraw.Draw(image)
    radius = rng.uniform(0.28, 0.46) * min(width, height)
    centre = [rng.uniform(radius, side - radius) for side in (width, height)]
    pen.polygon([(centre[0] + radius * x, centre[1] + radius * y) for x, y in _outline(name, rng)], fill=colour)
    for _ in range(rng.integers(0, 3)):
        ends = [tuple(rng.uniform(0, side, 2).tolist()) for side in (width, height)]
        shade = tuple(rng.integers(0, 256, 3).tolist())
        pen.line([(ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])], fill=shade, width=int(rng.integers(1, 3)))
    noise = rng.normal(0, rng.uniform(3, 15), (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _two_colours(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """A darker one and a lighter one, so that a grey image shows the shape as well."""
    while True:
        colours = rng.integers(0, 256, (2, 3))
        if np.diff(colours @ [0.299, 0.587, 0.114])[0] > 90:
            return [tuple(colour) for colour in colours.tolist()]


def _outline(name: str, rng: np.random.Generator) -> list[tuple[float, float]]:
    """The corners of a shape around (0, 0), at any angle, none further away than 1."""
    turn = rng.uniform(0, 2 * math.pi)
    # (angle in turns, distance from the centre)
    arm = 0.055  # half the width of an arm of the cross, as an angle
    inner = math.sin(arm * 2 * math.pi) * math.sqrt(2)
    corners = {
        "circle": [(i / 36, 0.9) for i in range(36)],
        "square": [(i / 4, 1.0) for i in range(4)],
        "triangle": [(i / 3, 1.0) for i in range(3)],
        "star": [(i / 10, 1.0 if i % 2 else 0.42) for i in range(10)],
        "cross": [
            corner
            for i in range(4)
            for corner in [(i / 4 - arm, 1.0), (i / 4 + arm, 1.0), (i / 4 + 1 / 8, inner)]
        ],
    }[name]  # fmt: skip
    return [
        (far * math.cos(turn + 2 * math.pi * angle), far * math.sin(turn + 2 * math.pi * angle))
        for angle, far in corners
    ]


def _save(image: "Image.Image", stem: Path, rng: np.random.Generator) -> None:
    """In one of the forms that images come in."""
    from PIL import Image

    kinds = ["jpg", "jpg", "jpg", "jpg", "png", "png", "grey jpg", "grey png", "deep png", "palette png", "clear png",
             "turned jpg", "cmyk jpg", "gif", "bmp", "tiff"]  # fmt: skip
    kind = kinds[rng.integers(len(kinds))]
    path = stem.with_suffix("." + kind.rpartition(" ")[2])
    match kind:
        case "jpg":
            image.save(path.with_suffix(str(rng.choice([".jpg", ".jpeg", ".JPG"]))), format="JPEG", quality=85)
        case "grey jpg" | "grey png":
            image.convert("L").save(path)
        case "deep png":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
        case "palette png":
            image.convert("P").save(path)
        case "clear png":
            image.putalpha(255)
            image.save(path)
        case "turned jpg":
            exif = Image.Exif()
            exif[0x0112] = int(rng.choice([3, 6, 8]))
            image.save(path, exif=exif)
        case "cmyk jpg":
            image.convert("CMYK").save(path)
        case _:
            image.save(path)
