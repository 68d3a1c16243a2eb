"""Pascal VOC's XML: one file an image. It is parsed without entities and document types, which could do harm.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge". Pixels count from 1 there and belong to the
box: xmin = 1, xmax = 10 is x1 = 0, x2 = 10 everywhere else in jaxcls.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data.formats import boxes, images
from jaxcls.data.formats.boxes import Annotated

# A file that says what is in one image has some kilobytes.
_MOST_BYTES = 16 * 2**20


class _Object(NamedTuple):
    name: str
    corners: tuple[float, ...]
    difficult: bool


def names(path: Path) -> list[str]:
    """The images that a file such as ImageSets/Main/train.txt lists, one a line, without suffixes.

    Raises:
      InputError: a line holds no plain name, a name stands twice, or there are none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of images ({error}).") from error
    listed: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        where = f"{path}: line {number}"
        if len(name.split()) > 1 or "/" in boxes.check_name(name, where):
            raise InputError(f"{where}: {name!r} is not the plain name of one image, such as 000005.")
        if name in listed:
            raise InputError(f"{where}: {name} stands there twice.")
        listed[name] = None
    if not listed:
        raise InputError(f"{path}: lists no images; there must be at least one.")
    return list(listed)


def read(
    folder: Path, listed: Sequence[str], class_names: Sequence[str] | None = None, *, inside: Path | None = None
) -> Annotated:
    """Reads Annotations/NAME.xml for each image, and finds JPEGImages/NAME.jpg (or .png, ...); opens no image.

    Args:
      folder: holds Annotations and JPEGImages.
      listed: the names of the images.
      class_names: those that are known; where None, all that occur, in the order of the alphabet.
      inside: the folder that no link may lead out of; without it, `folder`.

    Raises:
      InputError: naming the file and the object: a file is missing, damaged, or declares a document type; a name is
        unknown; a box is not four finite numbers, has no area, or reaches more than 2 pixels outside of its image.
    """
    # What stands in the folder is listed once: there may be 17,000.
    there = {path.stem: path.name for path in sorted((folder / "JPEGImages").glob("*"))
             if path.suffix.lower() in images.SUFFIXES}  # fmt: skip
    missing = [name for name in listed if name not in there]
    if missing:
        raise InputError(
            f"{folder / 'JPEGImages'}: there is no image {missing[0]}; {len(missing):,} of {len(listed):,} are missing."
        )
    annotations = [folder / "Annotations" / f"{name}.xml" for name in listed]
    # Of one that is missing there is more to say.
    files.all_inside(inside or folder, filter(os.path.lexists, annotations))
    contents = [_read(path) for path in annotations]
    if class_names is None:
        class_names = sorted({found.name for _, objects in contents for found in objects})
        if not class_names:
            raise InputError(f"{folder}: no image has an object in it; there must be one to learn from.")
    places = {name: place for place, name in enumerate(class_names)}
    for name, (_, objects) in zip(listed, contents, strict=True):
        for found in objects:
            if found.name not in places:
                raise InputError(f"{folder / 'Annotations' / name}.xml: {unknown_name('class', found.name, places)}")
    return Annotated(
        ids=list(listed),
        names=[there[name] for name in listed],
        sizes=np.array([size for size, _ in contents], np.int32),
        boxes=[np.array([found.corners for found in some], np.float64).reshape(-1, 4) for _, some in contents],
        classes=[np.array([places[found.name] for found in some], np.int32) for _, some in contents],
        crowd=[np.array([found.difficult for found in some], bool) for _, some in contents],
        class_names=tuple(class_names),
        category_ids=tuple(range(1, len(class_names) + 1)),
    )


def _read(path: Path) -> tuple[tuple[int, int], list[_Object]]:
    """Height and width of an image, and its objects."""
    root = parse(path)
    size = (_number(root, "size/height", str(path)), _number(root, "size/width", str(path)))
    height, width = (int(value) if value.is_integer() else 0 for value in size)
    if min(height, width) < 1 or max(height, width) > 1_000_000:
        raise InputError(f"{path}: its height and width are {size}; they must be whole numbers from 1.")
    objects = []
    for number, entry in enumerate(root.findall("object"), 1):
        where = f"{path}: object {number}"
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{where}: has no name.")
        x1, y1, x2, y2 = (_number(entry, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = (entry.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise InputError(f"{where}: its difficult is {difficult!r}; it is 0 or 1.")
        corners = boxes.checked((x1 - 1, y1 - 1, x2, y2), height, width, f"{where} ({name})")
        objects.append(_Object(name, corners, difficult == "1"))
    return (height, width), objects


def parse(path: Path) -> ElementTree.Element:
    """The root of an XML file without a document type, hence without entities of its own.

    Raises:
      InputError: it cannot be read, is no XML, is larger than 16 MB, or declares a document type.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.xml"
    >>> _ = path.write_text("<annotation><name>cat</name></annotation>")
    >>> parse(path).findtext("name")
    'cat'
    """

    def refuse(*declared: Any) -> NoReturn:
        raise InputError(f"{path}: declares a document type or an entity, which no annotation needs; remove it.")

    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: has more than {_MOST_BYTES:,} bytes; it says what is in one image.")
        parser.Parse(path.read_bytes(), True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing; each image that is listed has one, even without objects.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except InputError:
        raise
    # The latter two: an encoding that is not known, or not of one byte a character.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InputError(f"{path}: is no XML ({error}); it may be damaged or cut off.") from error
    return builder.close()


def _number(element: ElementTree.Element, place: str, where: str) -> float:
    text = element.findtext(place)
    if text is None:
        raise InputError(f"{where}: has no {place}.")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: its {place} is {text.strip()!r:.40}; it must be a number.") from None
