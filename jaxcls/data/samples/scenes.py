"""Synthetic scenes for detection: real articles of Fashion-MNIST, composed with various sizes, positions and overlaps.

The articles are those of jaxcls's sample of Fashion-MNIST. A scene is grayscale, 128 x 128 pixels, and has 1 to 8
articles, 24 to 80 pixels long, mirrored at random, slightly rotated, some cropped by the border, some partly hidden by
others but at least 60% visible. The background is cluttered: smooth light, lines, discs, boxes, and scraps of other
articles, which are not objects. Training, validation and test scenes are composed of different articles.

A box encloses the visible pixels of an article tightly, as COCO's annotators draw it.

Eight of the ten classes are used. Shirt and Coat are left out: in Fashion-MNIST they are most often mistaken for other
classes (T-shirt, Pullover), and this sample is about detection.
"""

from importlib import resources
from pathlib import Path

import numpy as np

from jaxcls.data.formats import boxes, coco, idx
from jaxcls.data.formats.boxes import Object

SIDE = 128
# Names and labels in Fashion-MNIST.
_LABELS = {
    "T-shirt": 0, "Trouser": 1, "Pullover": 2, "Dress": 3, "Sandal": 5, "Sneaker": 7, "Bag": 8, "Ankle boot": 9,
}  # fmt: skip
CLASSES = tuple(_LABELS)
LENGTHS = (24, 80)
MAX_ARTICLES = 8
# The least visible fraction of an article's pixels.
VISIBLE = 0.6


def write(folder: Path, *, train: int = 2400, val: int = 300, test: int = 400, seed: int = 0) -> None:
    """Writes annotations/instances_{train,val,test}.json and {train,val,test}/000000.png, ..."""
    from PIL import Image

    (folder / "annotations").mkdir()
    for number, (role, count) in enumerate((("train", train), ("val", val), ("test", test))):
        rng, articles = np.random.default_rng([seed, number]), _articles(role)
        names = [f"{index:06}.png" for index in range(count)]
        objects = []
        (folder / role).mkdir()
        for name in names:
            image, visible = scene(rng, articles)
            Image.fromarray(image).save(folder / role / name, compress_level=3)
            objects.append(visible)
        annotated = boxes.annotated(names, [(SIDE, SIDE)] * count, objects, dict(enumerate(CLASSES)))
        coco.write(folder / "annotations" / f"instances_{role}.json", annotated)


def scene(rng: np.random.Generator, articles: list[np.ndarray]) -> tuple[np.ndarray, list[Object]]:
    """Composes a scene, uint8 (SIDE, SIDE), of articles: for each class, uint8 (N, 28, 28); returns its objects too.

    The class ids of the objects are indices into CLASSES.
    """
    canvas = _background(rng, articles)
    masks: list[np.ndarray] = []
    classes: list[int] = []
    for _ in range(rng.integers(1, MAX_ARTICLES + 1)):
        index = int(rng.integers(len(articles)))
        pixels, alpha = _transformed(rng, rng.choice(articles[index]))
        # An article that fits at none of these random positions is left out.
        for _ in range(30):
            # Up to an eighth of it may lie outside.
            height, width = alpha.shape
            top = int(rng.integers(-height // 8, SIDE - height + height // 8 + 1))
            left = int(rng.integers(-width // 8, SIDE - width + width // 8 + 1))
            rows, columns = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
            inner = (slice(max(-top, 0), SIDE - top), slice(max(-left, 0), SIDE - left))
            mask = np.zeros((SIDE, SIDE), bool)
            mask[rows, columns] = alpha[inner] >= 0.5
            if mask.sum() >= VISIBLE * (alpha >= 0.5).sum() and _all_visible([*masks, mask]):
                covered = canvas[rows, columns]
                canvas[rows, columns] = covered + alpha[inner] * (pixels[inner] - covered)
                masks.append(mask)
                classes.append(index)
                break
    canvas += rng.normal(0, rng.uniform(2, 6), canvas.shape)
    corners = map(_bounding_box, _visible(masks))
    objects = [Object(index, box, crowd=False) for index, box in zip(classes, corners, strict=True)]
    return np.rint(canvas.clip(0, 255)).astype(np.uint8), objects


def _all_visible(masks: list[np.ndarray]) -> bool:
    """Whether enough of each article is visible, later ones being in front."""
    visible = _visible(masks)
    return all(seen.sum() >= VISIBLE * mask.sum() for seen, mask in zip(visible, masks, strict=True))


def _visible(masks: list[np.ndarray]) -> list[np.ndarray]:
    """The pixels of each mask that no later one covers."""
    visible, covered = [], np.zeros((SIDE, SIDE), bool)
    for mask in reversed(masks):
        visible.append(mask & ~covered)
        covered = covered | mask
    return visible[::-1]


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _transformed(rng: np.random.Generator, article: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An article at a random size and angle: its pixels, 0 to 255, and how opaque each is, 0 to 1."""
    from PIL import Image, ImageDraw

    # Bright pixels belong to the article, and dark ones that they enclose: a flood from the border does not reach them.
    flooded = Image.fromarray(np.pad(article > 10, 1).astype(np.uint8)).copy()  # writable
    ImageDraw.floodfill(flooded, (0, 0), 2)
    mask = np.asarray(flooded)[1:-1, 1:-1] != 2
    left, top, right, bottom = _bounding_box(mask)
    longest = np.exp(rng.uniform(*np.log(LENGTHS)))
    factor = longest / max(right - left, bottom - top)
    width, height = (max(1, round(side * factor * rng.uniform(0.93, 1.07))) for side in (right - left, bottom - top))
    angle, mirrored = rng.uniform(-10, 10), rng.random() < 0.5

    def enlarged(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values[top:bottom, left:right]).resize((width, height), Image.Resampling.BILINEAR)
        rotated = np.asarray(image.rotate(angle, Image.Resampling.BILINEAR, expand=True), np.float64)
        return rotated[:, ::-1] if mirrored else rotated

    pixels = enlarged(article) * rng.uniform(0.75, 1.1)
    alpha = enlarged(mask.astype(np.uint8) * 255) / 255
    # Undoes the mixture of edges with the black background.
    return pixels / np.maximum(alpha, 0.5), alpha


def _background(rng: np.random.Generator, articles: list[np.ndarray]) -> np.ndarray:
    """A cluttered background, float64 (SIDE, SIDE)."""
    from PIL import Image, ImageDraw

    coarse = rng.normal(0, rng.uniform(8, 25), [int(rng.integers(2, 7))] * 2).astype(np.float32)
    light = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    level = rng.uniform(30, 130)
    image = Image.fromarray((level + light).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 14)):
        x, y = rng.integers(-10, SIDE, 2).tolist()
        width, height = rng.integers(4, 50, 2).tolist()
        box = [x, y, x + width, y + height]
        shade = int(np.clip(level + rng.normal(0, 40), 0, 255))
        match rng.integers(4):
            case 0:
                pen.line([x, y, *rng.integers(0, SIDE, 2).tolist()], fill=shade, width=int(rng.integers(1, 5)))
            case 1:
                pen.rectangle(box, fill=shade)
            case 2:
                pen.ellipse(box, fill=shade)
            case _:
                pen.ellipse(box, outline=shade, width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 8)):
        # A scrap of at most a seventh of an article.
        article = rng.choice(articles[rng.integers(len(articles))])
        rows, columns = rng.integers(6, 11, 2).tolist()
        top, left = int(rng.integers(4, 24 - rows)), int(rng.integers(4, 24 - columns))
        scrap = Image.fromarray(article[top : top + rows, left : left + columns])
        factor = rng.uniform(1.0, 2.5)
        scrap = scrap.resize((round(columns * factor), round(rows * factor)), Image.Resampling.BILINEAR)
        image.paste(scrap, tuple(rng.integers(0, SIDE - 8, 2).tolist()))
    return np.array(image, np.float64)


def _articles(role: str) -> list[np.ndarray]:
    """The articles of each class that a split is composed of: uint8 (N, 28, 28)."""
    files = "t10k" if role == "test" else "train"
    with resources.as_file(resources.files("jaxcls.data.samples") / "fashion_mnist") as folder:
        pixels = idx.read_idx(folder / f"{files}-images-idx3-ubyte.gz")
        labels = idx.read_idx(folder / f"{files}-labels-idx1-ubyte.gz")
    if role != "test":
        # One of ten training articles is reserved for the validation scenes.
        selected = (np.arange(len(labels)) % 10 == 0) == (role == "val")
        pixels, labels = pixels[selected], labels[selected]
    return [pixels[labels == label] for label in _LABELS.values()]
