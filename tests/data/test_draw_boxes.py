"""Drawing detections: positions, distinct colors, readable text."""

import itertools

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.data import draw_boxes

NAMES = ("cat", "dog", "cow")


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_a_box_is_drawn_on_its_edges(mode):
    picture = Image.new(mode, (640, 480))
    drawn = draw_boxes.draw(picture, np.array([[100, 200, 300, 400.0]]), np.array([1]), NAMES)
    color, _ = draw_boxes._colors(1, 3)
    painted = (np.asarray(drawn) == color).all(axis=-1)
    below_the_text = painted[201:]
    rows, columns = np.flatnonzero(below_the_text.any(axis=1)) + 201, np.flatnonzero(below_the_text.any(axis=0))
    assert (columns[0], columns[-1], rows[-1]) == (100, 299, 399)
    assert painted[200, 100:300].all()
    assert not painted[210:390, 110:290].any()
    assert drawn.size == picture.size


def test_text_distinguishes_classes_and_scores():
    picture, box = Image.new("L", (500, 500)), np.array([[50, 60, 200, 220.0]])
    drawn = [
        np.asarray(draw_boxes.draw(picture, box, np.array([index]), NAMES, np.array([score])))
        for index, score in ((0, 0.5), (1, 0.5), (1, 0.75))
    ]
    assert not any(np.array_equal(*pair) for pair in itertools.combinations(drawn, 2))


def test_padding_is_not_drawn_and_the_highest_score_is_on_top():
    picture = Image.new("RGB", (500, 500))
    boxes = np.array([[50, 60, 200, 220.0], [50, 60, 200, 220.0], [0, 0, 0, 0]])
    both = draw_boxes.draw(picture, boxes, np.array([2, 0, -1]), NAMES, np.array([0.9, 0.1, 0]))
    assert both.getpixel((50, 150)) == draw_boxes._colors(2, 3)[0]
    nothing = draw_boxes.draw(picture, boxes, np.full(3, -1), NAMES)
    assert not np.asarray(nothing).any()


def test_small_pictures_are_enlarged_with_their_boxes():
    drawn = draw_boxes.draw(Image.new("L", (128, 96)), np.array([[0, 32, 128, 96.0]]), np.array([0]), NAMES)
    assert drawn.size == (384, 288)
    assert drawn.getpixel((383, 287)) == draw_boxes._colors(0, 3)[0]


@pytest.mark.parametrize("count", [1, 8, 20, 80])
def test_text_is_readable_and_colors_are_distinct(count):
    def luminance(color):
        values = np.array(color) / 255
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    colors = [draw_boxes._colors(index, count) for index in range(count)]
    assert len({color for color, _ in colors}) == count
    for color, text_color in colors:
        lighter, darker = sorted((luminance(color), float(text_color == "white")), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.4


def test_empty_boxes_and_boxes_beyond_the_image_are_accepted():
    boxes = np.array([[5, 5, 5, 5], [-50, -50, 900, 900], [890, 2, 900, 3.0]])
    assert draw_boxes.draw(Image.new("L", (400, 400)), boxes, np.zeros(3, int), NAMES).size == (400, 400)


def test_save_applies_the_exif_orientation_and_the_minimum_score(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 600)).save(tmp_path / "a.jpg", exif=exif)
    boxes = np.array([[9, 9, 99, 99], [200, 200, 300, 300.0]])
    detections = {"boxes": boxes, "scores": np.array([0.9, 0.2]), "classes": np.array([0, 1])}
    draw_boxes.save(tmp_path / "out.png", tmp_path / "a.jpg", detections, NAMES, min_score=0.5)
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (600, 400)
        pixels = np.asarray(drawn)
    assert pixels[9:99, 9:99].any()
    assert not pixels[150:, 150:].any()
    (tmp_path / "b.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=r"b\.jpg: not an image"):
        draw_boxes.save(tmp_path / "out.png", tmp_path / "b.jpg", detections, NAMES, min_score=0.5)
