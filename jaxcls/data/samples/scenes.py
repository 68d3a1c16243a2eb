"""Synthetic scenes for detection: real articles of Fashion-MNIST, composed at several sizes, places and overlaps.

The articles are those of the package's sample of Fashion-MNIST; the scenes are composed. A scene is grey, 128 x 128
pixels, and has 1 to 8 articles, 24 to 80 pixels long, mirrored at random, turned a little, some cut by the border, some
behind others, of which at least 60% is seen. The ground is cluttered: smooth light, lines, discs, boxes, and scraps of
other articles, which are no objects. Training, validation and test scenes are composed of different articles.

A box is the tight one of the pixels of an article that are seen, as COCO's annotators draw it.

Eight of the ten classes take part. Shirt and Coat are left out: of Fashion-MNIST they are what is mistaken for another
class (T-shirt, Pullover) most often, and what is to be learned here is detection.
"""

from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcls.data.formats import coco, idx

SIDE = 128
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Sandal", "Sneaker", "Bag", "Ankle boot")
_LABELS = (0, 1, 2, 3, 5, 7, 8, 9)
LONGEST = (24, 80)
MOST = 8
# The share of an article's pixels that is seen, at least.
SEEN = 0.6
# An article that finds no place in so many tries is left out.
_TRIES = 30
# What is brighter belongs to the article; what is not, and is not enclosed by it, is the ground around it.
_DARKEST = 10


class Scene(NamedTuple):
    """uint8 (SIDE, SIDE); float64 (n, 4), x1, y1, x2, y2; and int (n,), places in CLASSES."""

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class _Placed(NamedTuple):
    """An article in a scene: its class, and which pixels of the scene it would have if nothing stood before it."""

    place: int
    pixels: np.ndarray


def write(folder: Path, *, train: int = 2400, val: int = 300, test: int = 400, seed: int = 0) -> None:
    """Writes annotations/instances_{train,val,test}.json and {train,val,test}/000000.png, ..."""
    from PIL import Image

    (folder / "annotations").mkdir()
    for number, (role, count) in enumerate((("train", train), ("val", val), ("test", test))):
        rng = np.random.default_rng([seed, number])
        articles = _articles(role)
        (folder / role).mkdir()
        names, scenes = [], []
        for place in range(count):
            made = scene(rng, articles)
            names.append(f"{place:06}.png")
            Image.fromarray(made.image).save(folder / role / names[-1], compress_level=3)
            scenes.append(made)
        coco.write(
            folder / "annotations" / f"instances_{role}.json",
            names,
            [(SIDE, SIDE)] * count,
            [made.boxes for made in scenes],
            [made.classes for made in scenes],
            CLASSES,
        )


def scene(rng: np.random.Generator, articles: list[np.ndarray]) -> Scene:
    """A new scene of these articles: for each class, uint8 (N, 28, 28)."""
    canvas = _ground(rng, articles)
    placed: list[_Placed] = []
    for _ in range(rng.integers(1, MOST + 1)):
        place = int(rng.integers(len(articles)))
        pixels, alpha = _drawn(rng, _any(rng, articles[place]))
        for _ in range(_TRIES):
            # Up to an eighth of it may lie outside.
            height, width = alpha.shape
            top = int(rng.integers(-height // 8, SIDE - height + height // 8 + 1))
            left = int(rng.integers(-width // 8, SIDE - width + width // 8 + 1))
            rows, columns = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
            inner = (slice(max(-top, 0), SIDE - top), slice(max(-left, 0), SIDE - left))
            own = np.zeros((SIDE, SIDE), bool)
            own[rows, columns] = alpha[inner] >= 0.5
            if _leaves_enough(own, (alpha >= 0.5).sum(), placed):
                covered = canvas[rows, columns]
                canvas[rows, columns] = covered + alpha[inner] * (pixels[inner] - covered)
                placed.append(_Placed(place, own))
                break
    canvas += rng.normal(0, rng.uniform(2, 6), canvas.shape)
    seen = _seen([article.pixels for article in placed])
    return Scene(
        np.rint(canvas.clip(0, 255)).astype(np.uint8),
        np.array([_tight(pixels) for pixels in seen], np.float64),
        np.array([article.place for article in placed]),
    )


def _leaves_enough(own: np.ndarray, whole: int, placed: list[_Placed]) -> bool:
    """Whether enough of everything is still seen with this one in front."""
    if own.sum() < SEEN * whole:
        return False
    seen = _seen([article.pixels for article in placed])
    return all(
        (pixels & ~own).sum() >= SEEN * article.pixels.sum() for pixels, article in zip(seen, placed, strict=True)
    )


def _seen(pixels: list[np.ndarray]) -> list[np.ndarray]:
    """The pixels of each that none of those after it covers."""
    seen, covered = [], np.zeros((SIDE, SIDE), bool)
    for own in reversed(pixels):
        seen.append(own & ~covered)
        covered = covered | own
    return seen[::-1]


def _tight(pixels: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _drawn(rng: np.random.Generator, article: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An article at a size and an angle of its own: its pixels, 0 to 255, and how much each covers, 0 to 1."""
    from PIL import Image

    mask = _filled(article > _DARKEST)
    left, top, right, bottom = _tight(mask)
    longest = np.exp(rng.uniform(*np.log(LONGEST)))
    factor = longest / max(right - left, bottom - top)
    size = [max(1, round(side * factor * rng.uniform(0.93, 1.07))) for side in (right - left, bottom - top)]
    angle, mirrored = rng.uniform(-10, 10), rng.random() < 0.5

    def enlarged(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values[top:bottom, left:right])
        image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        image = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        turned = np.asarray(image, np.float64)
        return turned[:, ::-1] if mirrored else turned

    pixels = enlarged(article) * rng.uniform(0.75, 1.1)
    alpha = enlarged(mask.astype(np.uint8) * 255) / 255
    # What the edges are mixed with is black, and is taken out.
    return pixels / np.maximum(alpha, 0.5), alpha


def _filled(mask: np.ndarray) -> np.ndarray:
    """With the holes, which are what cannot be reached from the border."""
    reached = np.zeros(np.add(mask.shape, 2), bool)
    reached[0] = reached[-1] = reached[:, 0] = reached[:, -1] = True
    open_ = np.pad(~mask, 1, constant_values=True)
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= open_
        if np.array_equal(grown, reached):
            return ~reached[1:-1, 1:-1]
        reached = grown


def _ground(rng: np.random.Generator, articles: list[np.ndarray]) -> np.ndarray:
    """A cluttered ground, float64 (SIDE, SIDE)."""
    from PIL import Image, ImageDraw

    coarse = rng.normal(0, rng.uniform(8, 25), [int(rng.integers(2, 7))] * 2).astype(np.float32)
    light = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    level = rng.uniform(30, 130)
    image = Image.fromarray((level + light).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 14)):
        x, y = rng.integers(-10, SIDE, 2).tolist()
        width, height = rng.integers(4, 50, 2).tolist()
        shade = int(np.clip(level + rng.normal(0, 40), 0, 255))
        match rng.integers(4):
            case 0:
                pen.line([x, y, *rng.integers(0, SIDE, 2).tolist()], fill=shade, width=int(rng.integers(1, 5)))
            case 1:
                pen.rectangle([x, y, x + width, y + height], fill=shade)
            case 2:
                pen.ellipse([x, y, x + width, y + height], fill=shade)
            case _:
                pen.ellipse([x, y, x + width, y + height], outline=shade, width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 8)):
        # A scrap of at most a seventh of an article.
        article = _any(rng, articles[rng.integers(len(articles))])
        rows, columns = rng.integers(6, 11, 2).tolist()
        top, left = int(rng.integers(4, 24 - rows)), int(rng.integers(4, 24 - columns))
        scrap = Image.fromarray(article[top : top + rows, left : left + columns])
        factor = rng.uniform(1.0, 2.5)
        scrap = scrap.resize((round(columns * factor), round(rows * factor)), Image.Resampling.BILINEAR)
        image.paste(scrap, tuple(rng.integers(0, SIDE - 8, 2).tolist()))
    return np.array(image, np.float64)


def _any(rng: np.random.Generator, some: np.ndarray) -> np.ndarray:
    return some[rng.integers(len(some))]


def _articles(role: str) -> list[np.ndarray]:
    """The articles of each class that a part is composed of: uint8 (N, 28, 28)."""
    folder = resources.files("jaxcls.data.samples") / "fashion_mnist"
    part = "t10k" if role == "test" else "train"
    with resources.as_file(folder) as files:
        pixels = idx.read_idx(files / f"{part}-images-idx3-ubyte.gz")
        labels = idx.read_idx(files / f"{part}-labels-idx1-ubyte.gz")
    if role != "test":
        # One in ten of the training articles is kept for the validation scenes.
        wanted = (np.arange(len(labels)) % 10 == 0) == (role == "val")
        pixels, labels = pixels[wanted], labels[wanted]
    return [pixels[labels == label] for label in _LABELS]
