"""Pascal VOC's XML: pixels are numbered from 1 there; entities are refused; errors name the file."""

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import voc

GOOD = """<annotation>
  <filename>000005.jpg</filename>
  <size><width>40</width><height>20</height><depth>3</depth></size>
  <object><name>dog</name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>3</ymin><xmax>40</xmax><ymax>20</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part></object>
  <object><name>cat</name><bndbox><xmin>5.5</xmin><ymin>6</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def folder(tmp_path):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    for name in ("000005", "000007"):
        Image.new("RGB", (40, 20)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "Annotations" / "000005.xml").write_text(GOOD)
    (tmp_path / "Annotations" / "000007.xml").write_text(
        "<annotation><size><width>40</width><height>20</height></size></annotation>"
    )
    return tmp_path


def test_boxes_start_at_zero_and_end_after_their_last_pixel(folder):
    read = voc.read(folder, ["000007", "000005"])
    assert read.names == ["000007.jpg", "000005.jpg"]
    assert read.class_names == ("cat", "dog")
    assert [some.tolist() for some in read.boxes] == [[], [[0, 2, 40, 20], [4.5, 5, 9, 8]]]
    assert [some.tolist() for some in read.classes] == [[], [1, 0]]
    assert [some.tolist() for some in read.crowd] == [[], [True, False]]
    assert read.sizes.tolist() == [[20, 40]] * 2
    assert read.boxes[0].shape == (0, 4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>40", "<xmax>43", r"object 1 \(dog\): its box, x from 0 to 43 .* beyond the image of 40 x 20"),
        ("<xmin>5.5", "<xmin>15", r"object 2 \(cat\): its box, .* has no area"),
        ("<xmin>5.5</xmin><ymin>6", "<xmin>9</xmin><ymin>8", r"object 2 \(cat\): its box is one pixel"),
        ("<xmin>5.5", "<xmin>nan", r"object 2 \(cat\): .*finite"),
        ("<xmin>5.5", "<xmin>five", "object 2: its bndbox/xmin is 'five'; it must be a number"),
        ("<xmin>5.5</xmin>", "", "object 2: has no bndbox/xmin"),
        ("<name>cat</name>", "", "object 2: has no name"),
        ("<difficult>1", "<difficult>yes", "object 1: its difficult is 'yes'"),
        ("<width>40</width>", "", "has no size/width"),
        ("<width>40", "<width>0", "integers from 1"),
        ("<width>40", "<width>inf", "integers from 1"),
        ("</annotation>", "", "is not XML"),
        ("<annotation>", "<!DOCTYPE a><annotation>", "declares a document type"),
        ("<annotation>", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation>', "declares a document type"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "cat">]><annotation>', "declares a document type"),
        ("<name>cat", "<name>&cat;", "is not XML"),
        ("<annotation>", '<?xml version="1.0" encoding="no-such"?><annotation>', "is not XML"),
    ],
)
def test_invalid_annotations_are_refused_by_name(folder, old, new, message):
    (folder / "Annotations" / "000005.xml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"000005\.xml: .*{message}"):
        voc.read(folder, ["000005"])


def test_an_unknown_class_a_missing_image_and_a_missing_file_are_named(folder):
    with pytest.raises(InputError, match=r"000005\.xml: unknown class 'cat'.*Known: cow, dog"):
        voc.read(folder, ["000005"], ("dog", "cow"))
    with pytest.raises(InputError, match="there is no image 000009; 1 of 2 are missing"):
        voc.read(folder, ["000005", "000009"])
    (folder / "Annotations" / "000007.xml").unlink()
    with pytest.raises(InputError, match=r"000007\.xml: cannot be read"):
        voc.read(folder, ["000007"])
    (folder / "Annotations" / "000007.xml").write_text(GOOD[: GOOD.index("<object>")] + "</annotation>")
    with pytest.raises(InputError, match="no image has an object"):
        voc.read(folder, ["000007"])


def test_a_large_file_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr(voc, "_MAX_BYTES", 100)
    with pytest.raises(InputError, match="more than 100 bytes"):
        voc.read(folder, ["000005"])


def test_deep_nesting_is_refused_without_a_crash(folder):
    depth = 100_000
    (folder / "Annotations" / "000005.xml").write_text("<a>" * depth + "</a>" * depth)
    with pytest.raises(InputError, match="has no size/height"):
        voc.read(folder, ["000005"])


def test_lists_contain_plain_names(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("000005\n\n 000007 \n")
    assert voc.read_list(path) == ["000005", "000007"]
    for content, message in [
        ("000005 1", "line 1: '000005 1' is not the plain name"),
        ("a\n../b", "line 2: its file name '../b'"),
        ("a/b", "line 1: 'a/b' is not the plain name"),
        ("a\na", "line 2: a occurs twice"),
        ("\n", "lists no images"),
    ]:
        path.write_text(content)
        with pytest.raises(InputError, match=rf"train\.txt: {message}"):
            voc.read_list(path)


def test_boxes_cover_the_marked_pixels(folder):
    """VOC's numbers are the first and the last pixel, counted from 1."""
    pixels = np.zeros((20, 40), bool)
    pixels[5:8, 5:9] = True
    rows, columns = np.flatnonzero(pixels.any(1)) + 1, np.flatnonzero(pixels.any(0)) + 1
    text = GOOD.replace("5.5", str(columns[0])).replace("<ymin>6", f"<ymin>{rows[0]}")
    (folder / "Annotations" / "000005.xml").write_text(text)
    x1, y1, x2, y2 = map(int, voc.read(folder, ["000005"]).boxes[0][1])
    drawn = np.zeros_like(pixels)
    drawn[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(drawn, pixels)
