"""Pascal VOC's XML annotations, one file per image, parsed without entities and document types, which could do harm.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge". VOC's pixels are numbered from 1 and belong
to the box: xmin = 1, xmax = 10 is x1 = 0, x2 = 10 everywhere else in jaxcls.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

from jaxcls._utils import files
from jaxcls._utils.errors import InputError, unknown_name
from jaxcls.data.formats import boxes, images, pixels, reading
from jaxcls.data.formats.columns import composed

# The annotations of one image take some kilobytes.
_MAX_BYTES = 16 * 2**20


def read_list(path: Path) -> list[str]:
    """Reads a list of images such as ImageSets/Main/train.txt: one name per line, without suffix.

    Raises:
      InputError: a line is not a plain name, a name occurs twice, or there are none.
    """
    names: dict[str, None] = {}
    for number, line in enumerate(reading.read_text(path).splitlines(), 1):
        name, where = composed(line.strip()), f"{path}: line {number}"
        if not name:
            continue
        if len(name.split()) > 1 or "/" in boxes.check_name(name, where):
            raise InputError(f"{where}: {name!r} is not the plain name of one image, such as 000005.")
        if name in names:
            raise InputError(f"{where}: {name} occurs twice.")
        names[name] = None
    if not names:
        raise InputError(f"{path}: lists no images; there must be at least one.")
    return list(names)


def read(
    folder: Path,
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
    *,
    inside: Path | None = None,
    subfolders: tuple[str, str] = ("Annotations", "JPEGImages"),
    repairs: boxes.Repairs | None = None,
) -> boxes.Annotated:
    """Reads Annotations/NAME.xml for each image, and locates JPEGImages/NAME.jpg (or .png, ...); opens no image.

    Args:
      folder: the one that contains Annotations and JPEGImages.
      names: the names of the images, composed (NFC), as :func:`read_list` returns them.
      class_names: the known classes; by default all that occur, in alphabetical order.
      inside: the folder that no link may lead out of; `folder` by default.
      subfolders: where the annotations and the images are.
      repairs: counts the images and objects that are left out, and the boxes that are clipped, instead of an error. It
        also allows images whose annotations do not say their size.

    Raises:
      InputError: naming the file and the object: a file is missing, damaged, or declares a document type; a class is
        unknown; a box is not four finite numbers, is one pixel, has no area, or extends more than 2 pixels beyond its
        image.
    """
    repairs = repairs or boxes.Repairs()
    # The folder is listed once: there may be 17,000 images.
    there = {composed(path.stem): path.name for path in sorted((folder / subfolders[1]).glob("*"))
             if path.suffix.lower() in pixels.SUFFIXES}  # fmt: skip
    missing = [name for name in names if name not in there]
    if missing:
        problem = images.missing(folder / subfolders[1], missing, len(names))
        if len(missing) == len(names):
            raise problem
        repairs.add("images are left out", problem, len(missing))
        names = [name for name in names if name in there]
    actual = {composed(path.name): path for path in (folder / subfolders[0]).glob("*.xml")}
    annotations = [actual.get(f"{name}.xml", folder / subfolders[0] / f"{name}.xml") for name in names]
    files.all_inside(inside or folder, annotations)
    read_names, sizes, objects = [], [], []
    for name, path in zip(names, annotations, strict=True):
        with repairs.leaving_out("images"):
            size, items = _read(path, class_names, repairs)
            read_names.append(there[name])
            sizes.append(size)
            objects.append(items)
    if class_names is None:
        class_names = sorted({item.class_id for items in objects for item in items})
        if not class_names:
            raise InputError(f"{folder}: no image has an object in it; there must be one to learn from.")
    return boxes.annotated(read_names, sizes, objects, {name: name for name in class_names})


def _read(
    path: Path, class_names: Sequence[str] | None, repairs: boxes.Repairs
) -> tuple[tuple[int, int], list[boxes.Object]]:
    """Height and width of an image, and its objects."""
    # LookupError and ValueError: the encoding is unknown, or not one of single bytes.
    damage = (ElementTree.ParseError, LookupError, ValueError)
    with reading.error_names(path, damage, "is not XML of an annotation"):
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: has more than {_MAX_BYTES:,} bytes; it describes one image.")
        root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_Builder()))
    try:
        height, width = (_number(root, f"size/{side}", str(path)) for side in ("height", "width"))
        size = boxes.check_size(height, width, str(path))
    except InputError:
        if repairs.strict:
            raise
        size = 0, 0
    objects = []
    for number, entry in enumerate(root.findall("object"), 1):
        where = f"{path}: object {number}"
        with repairs.leaving_out("objects"):
            name = composed((entry.findtext("name") or "").strip())
            if not name:
                raise InputError(f"{where}: has no name.")
            if class_names is not None and name not in class_names:
                raise InputError(f"{path}: {unknown_name('class', name, class_names)}")
            x1, y1, x2, y2 = (_number(entry, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
            difficult = (entry.findtext("difficult") or "0").strip()
            if difficult not in ("0", "1") and repairs.strict:
                raise InputError(f"{where}: its difficult is {difficult!r}; it is 0 or 1.")
            # From a click without a drag.
            if (x1, y1) == (x2, y2):
                at = f"one pixel, at x {x1:g} and y {y1:g}"
                raise InputError(f"{where} ({name}): its box is {at}; an object is larger. Correct or remove it.")
            corners = boxes.check_box((x1 - 1, y1 - 1, x2, y2), *size, f"{where} ({name})", repairs)
            objects.append(boxes.Object(name, corners, difficult == "1"))
    return size, objects


class _Builder(ElementTree.TreeBuilder):
    """Builds the elements of a file without a document type, hence without entities of its own."""

    def doctype(self, *declared: Any) -> NoReturn:
        raise ValueError("it declares a document type, which no annotation needs")


def _number(element: ElementTree.Element, tag: str, where: str) -> float:
    text = element.findtext(tag)
    if text is None:
        raise InputError(f"{where}: has no {tag}.")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: its {tag} is {text.strip()!r:.40}; it must be a number.") from None
