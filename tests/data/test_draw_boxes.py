"""Boxes on pictures: they are where they should be, in colours that differ, with words that can be read."""

import itertools

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.data import draw_boxes

NAMES = ("cat", "dog", "cow")


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_a_box_is_drawn_on_its_own_edges(mode):
    picture = Image.new(mode, (640, 480))
    drawn = draw_boxes.draw(picture, np.array([[100, 200, 300, 400.0]]), np.array([1]), NAMES)
    colour, _ = draw_boxes._colours(1, 3)
    painted = (np.asarray(drawn) == colour).all(axis=-1)
    below_the_words = painted[201:]
    rows, columns = np.flatnonzero(below_the_words.any(axis=1)) + 201, np.flatnonzero(below_the_words.any(axis=0))
    assert (columns[0], columns[-1], rows[-1]) == (100, 299, 399)
    assert painted[200, 100:300].all()
    assert not painted[210:390, 110:290].any()
    assert drawn.size == picture.size


def test_words_tell_classes_and_scores_apart():
    picture, box = Image.new("L", (500, 500)), np.array([[50, 60, 200, 220.0]])
    drawn = [
        np.asarray(draw_boxes.draw(picture, box, np.array([place]), NAMES, np.array([score])))
        for place, score in ((0, 0.5), (1, 0.5), (1, 0.75))
    ]
    assert not any(np.array_equal(*pair) for pair in itertools.combinations(drawn, 2))


def test_padding_draws_nothing_and_the_best_lies_on_top():
    picture = Image.new("RGB", (500, 500))
    boxes = np.array([[50, 60, 200, 220.0], [50, 60, 200, 220.0], [0, 0, 0, 0]])
    both = draw_boxes.draw(picture, boxes, np.array([2, 0, -1]), NAMES, np.array([0.9, 0.1, 0]))
    assert both.getpixel((50, 150)) == draw_boxes._colours(2, 3)[0]
    nothing = draw_boxes.draw(picture, boxes, np.full(3, -1), NAMES)
    assert not np.asarray(nothing).any()


def test_small_pictures_are_enlarged_with_their_boxes():
    drawn = draw_boxes.draw(Image.new("L", (128, 96)), np.array([[0, 32, 128, 96.0]]), np.array([0]), NAMES)
    assert drawn.size == (384, 288)
    assert drawn.getpixel((383, 287)) == draw_boxes._colours(0, 3)[0]


@pytest.mark.parametrize("count", [1, 8, 20, 80])
def test_words_have_contrast_and_colours_differ(count):
    def luminance(colour):
        values = np.array(colour) / 255
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    colours = [draw_boxes._colours(place, count) for place in range(count)]
    assert len({colour for colour, _ in colours}) == count
    for colour, ink in colours:
        lighter, darker = sorted((luminance(colour), float(ink == "white")), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.4


def test_a_box_of_no_extent_and_one_beyond_the_picture_do_no_harm():
    boxes = np.array([[5, 5, 5, 5], [-50, -50, 900, 900], [890, 2, 900, 3.0]])
    assert draw_boxes.draw(Image.new("L", (400, 400)), boxes, np.zeros(3, int), NAMES).size == (400, 400)


def test_a_file_is_drawn_upright_with_what_is_sure_enough(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 600)).save(tmp_path / "a.jpg", exif=exif)
    boxes = np.array([[9, 9, 99, 99], [200, 200, 300, 300.0]])
    found = {"boxes": boxes, "scores": np.array([0.9, 0.2]), "classes": np.array([0, 1])}
    draw_boxes.save(tmp_path / "out.png", tmp_path / "a.jpg", found, NAMES, least=0.5)
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (600, 400)
        pixels = np.asarray(drawn)
    assert pixels[9:99, 9:99].any()
    assert not pixels[150:, 150:].any()
    (tmp_path / "b.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=r"b\.jpg: not an image"):
        draw_boxes.save(tmp_path / "out.png", tmp_path / "b.jpg", found, NAMES, least=0.5)
