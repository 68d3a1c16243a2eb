"""COCO's JSON: annotations are read back as written; errors name the file and the annotation."""

import copy
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from pycocotools import mask

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import coco
from jaxcls.data.formats.boxes import Object, Repairs, annotated

GOOD = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 20, "width": 40},
        {"id": 3, "file_name": "below/b.png", "height": 30, "width": 30},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1.5, 2, 10, 5], "area": 50, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 40, 20], "iscrowd": 1, "segmentation": {}},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat", "supercategory": "animal"}],
}


@pytest.fixture
def written(tmp_path):
    """A function that writes GOOD with changes: a path of keys and a value, or None to remove it."""

    def write(*changes):
        content = copy.deepcopy(GOOD)
        for *keys, last, value in changes:
            node = content
            for key in keys:
                node = node[key]
            if value is None:
                del node[last]
            else:
                node[last] = value
        path = tmp_path / "instances_train.json"
        path.write_text(json.dumps(content))
        return path

    return write


def test_images_keep_the_order_of_the_file_and_classes_that_of_their_ids(written):
    read = coco.read(written())
    assert read.names == ["a.png", "below/b.png"]
    assert read.sizes.tolist() == [[20, 40], [30, 30]]
    assert read.class_names == ("cat", "dog")
    assert [some.tolist() for some in read.boxes] == [[[1.5, 2, 11.5, 7], [0, 0, 40, 20]], []]
    assert [some.tolist() for some in read.classes] == [[1, 0], []]
    assert [some.tolist() for some in read.crowd] == [[False, True], []]
    assert read.boxes[1].shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-1.5, -2, 10, 10], [0, 0, 8.5, 8]),
        ([35, 15, 7, 6.5], [35, 15, 40, 20]),
        ([0, 0, 40, 20], [0, 0, 40, 20]),
    ],
)
def test_small_overshoots_are_clipped(written, box, clipped):
    assert coco.read(written(("annotations", 0, "bbox", box))).boxes[0][0].tolist() == clipped


def masked(segmentation):
    return {"id": 1, "image_id": 7, "category_id": 18, "segmentation": segmentation, "iscrowd": 1}


@pytest.mark.parametrize("filled", [0.01, 0.3, 1])
@pytest.mark.parametrize("sized", [True, False])
def test_the_box_of_a_mask_encloses_its_pixels(written, filled, sized):
    pixels = np.asfortranarray(np.random.default_rng(0).random((20, 40)) < filled, np.uint8)
    rows, columns = np.nonzero(pixels)
    changed = np.flatnonzero(np.diff(pixels.T.ravel(), prepend=0, append=2))
    compressed = mask.encode(pixels)["counts"].decode()
    for counts in (compressed, np.diff(changed, prepend=0).tolist()):
        annotation = masked({"size": [20, 40], "counts": counts})
        path = written(("annotations", 0, annotation), *([] if sized else [("images", 0, "height", None)]))
        box = coco.read(path, Repairs(strict=sized)).boxes[0][0].tolist()
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("annotations", 0, "bbox", [1, 1, -5, 5]), r"annotation 1 \(image a.png\): its box, .* has no area"),
        (("annotations", 0, "bbox", [1, 1, 0, 5]), r"annotation 1 \(image a.png\): its box, .* has no area"),
        (("annotations", 0, "bbox", [1, 1, 5, 1e-9]), "has no area"),
        (("annotations", 0, "bbox", [float("nan"), 1, 5, 5]), r"annotation 1 .*its numbers must be finite"),
        (("annotations", 0, "bbox", [1, 1, float("inf"), 5]), r"annotation 1 .*its numbers must be finite"),
        (("annotations", 0, "bbox", [1, 1, 45, 5]), r"annotation 1 .*x from 1 to 46 .*40 x 20 pixels"),
        (("annotations", 0, "bbox", [-3, 1, 10, 5]), r"annotation 1 .*beyond"),
        (("annotations", 0, "bbox", [40.5, 1, 1, 5]), r"annotation 1 .*beyond"),
        (("annotations", 0, "bbox", [1, 2, 3]), r"annotation 1 .*must be \[x, y, width, height\]"),
        (("annotations", 0, "bbox", ["1", 2, 3, 4]), r"annotation 1 .*must be \[x, y, width, height\]"),
        (("annotations", 0, "bbox", [True, 2, 3, 4]), r"annotation 1 .*must be \[x, y, width, height\]"),
        (("annotations", 0, "bbox", [10**400, 2, 3, 4]), r"annotation 1 .*must be \[x, y, width, height\]"),
        (("annotations", 0, "bbox", None), r"annotation 1 .*must be \[x, y, width, height\]"),
        (("annotations", 0, masked({"size": [20, 40], "counts": "~~\x01"})), "annotation 1 .*its segmentation is"),
        (("annotations", 0, masked({"size": [20, 40], "counts": [9, 4000]})), "annotation 1 .*run-length encoding"),
        (("annotations", 0, masked({"size": [40, 20], "counts": [9, 4]})), "annotation 1 .*of the size of its image"),
        (("annotations", 0, masked({"size": [20], "counts": [9, None]})), "annotation 1 .*its segmentation is"),
        (("annotations", 0, masked({"size": [20, 40], "counts": [800]})), "annotation 1 .*has no area"),
        (("annotations", 0, "image_id", 8), "annotation 1: its image_id 8 is not in the file"),
        (("annotations", 0, "category_id", 9), r"annotation 1: its category_id 9 .*2 \(cat\), 18 \(dog\)"),
        (("annotations", 0, "category_id", "dog"), "annotation 1: its category_id is 'dog'; it must be an integer"),
        (("annotations", 0, "iscrowd", 2), "annotation 1: its iscrowd is 2"),
        (("annotations", 0, "id", None), "the annotation at index 0: its id is missing"),
        (("annotations", 1, "id", 1), "annotation 1 occurs twice"),
        (("annotations", 1, 5), "annotations holds 5 at index 1"),
        (("annotations", {}), "holds no list 'annotations'"),
        (("images", []), "holds no images"),
        (("images", 1, "id", 7), "image 7 occurs twice"),
        (("images", 1, "file_name", "a.png"), "image 3: image 7 has the file name a.png too"),
        (("images", 1, "file_name", "../b.png"), "image 3: its file name '../b.png' must be"),
        (("images", 1, "file_name", "c/../../b.png"), "image 3: its file name"),
        (("images", 1, "file_name", "/etc/passwd"), "image 3: its file name '/etc/passwd'"),
        (("images", 1, "file_name", "C:\\b.png"), "image 3: its file name"),
        (("images", 1, "file_name", "b\0.png"), "image 3: its file name"),
        (("images", 1, "file_name", "."), "image 3: its file name"),
        (("images", 1, "file_name", 5), "image 3: its file name 5"),
        (("images", 1, "height", 0), r"image 3: its height and width are \(0, 30\)"),
        (("images", 1, "width", 10**12), "image 3: its height and width"),
        (("images", 1, "width", 2.5), "image 3: its width is 2.5; it must be an integer"),
        (("categories", []), "holds no categories"),
        (("categories", 1, "name", "dog"), "category 2 has the name 'dog'; it must be"),
        (("categories", 1, "name", " "), "category 2 has the name ' '"),
    ],
)
def test_invalid_annotations_are_refused_by_name(written, change, message):
    with pytest.raises(InputError, match=rf"instances_train\.json: .*{message}") as error:
        coco.read(written(change))
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xfa", b"[1]", b"[" * 200_000, b""])
def test_invalid_json_is_refused(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.json: (is not JSON|holds a list)"):
        coco.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        coco.read(tmp_path / "none.json")


def test_boxes_without_height_are_left_out_and_counted(written):
    repairs = Repairs(strict=False)
    read = coco.read(written(("annotations", 0, "bbox", [5, 5, 1.03, 0.0])), repairs)
    assert [len(some) for some in read.boxes] == [1, 0]
    assert len(repairs.notes) == 1
    assert "1 annotations are left out, such as" in repairs.notes[0]
    assert "has no area" in repairs.notes[0]


coordinates = st.floats(0, 100, width=32)
corners = (
    st.tuples(coordinates, coordinates, coordinates, coordinates)
    .map(lambda four: (min(four[0], four[1]), min(four[2], four[3]), max(four[0], four[1]), max(four[2], four[3])))
    .filter(lambda box: min(box[2] - box[0], box[3] - box[1]) > 0.01)
)


@hypothesis.given(st.lists(st.lists(corners, max_size=4), min_size=1, max_size=4))
@hypothesis.settings(max_examples=25)
def test_annotations_are_read_back_as_written(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("coco") / "instances_val.json"
    objects = [[Object(row % 2, box, row % 3 == 0) for row, box in enumerate(image)] for image in drawn]
    names = [f"{row}.png" for row in range(len(drawn))]
    written = annotated(names, [(100, 100)] * len(drawn), objects, {0: "cat", 1: "dog"})
    coco.write(path, written)
    read = coco.read(path)
    assert (read.names, read.class_names) == (names, ("cat", "dog"))
    for field in ("boxes", "classes", "crowd"):
        for one, other in zip(getattr(written, field), getattr(read, field), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_results_are_in_pixels_of_the_original_image_and_sorted_by_score():
    detections = {
        "boxes": np.array([[[0, 0, 10, 20], [4, 4, 8, 8], [0, 0, 0, 0]], [[30, 2, 90, 4], [0, 0, 1, 1], [3, 3, 3, 4]]]),
        "scores": np.array([[0.25, 0.75, 0], [0.5, 0, 0.125]], np.float32),
        "classes": np.array([[0, 1, -1], [1, -1, 0]], np.int32),
    }
    scale, sizes = np.array([[2, 1], [1, 3.0]]), np.array([[9, 9], [50, 25]])
    listed = coco.results(detections, [5, 6], scale=scale, sizes=sizes)
    assert listed == [
        {"image_id": 5, "category_id": 2, "bbox": [4, 2, 4, 2], "score": 0.75},
        {"image_id": 5, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.25},
        {"image_id": 6, "category_id": 2, "bbox": [10, 2, 15, 2], "score": 0.5},
    ]
    json.dumps(listed)
