"""Data sets for detection: the layouts of COCO, Pascal VOC and TFDS, the synthetic scenes, and invalid data."""

import json
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.data import duplicates, splits
from jaxcls.data.datasets import object_detection
from jaxcls.data.formats import boxes, coco, images
from jaxcls.data.samples import scenes


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def drawn(rng, height, width):
    """A dark image with one bright rectangle, and its box."""
    x1, x2 = np.sort(rng.choice(np.arange(width // 8 + 1) * 8, 2, replace=False))
    y1, y2 = np.sort(rng.choice(np.arange(height // 8 + 1) * 8, 2, replace=False))
    image = np.full((height, width, 3), 20, np.uint8)
    image[y1:y2, x1:x2] = 220
    return image, [x1, y1, x2, y2]


def write_coco(folder, splits=("train2017", "val2017"), count=4):
    (folder / "annotations").mkdir(parents=True)
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        (folder / split).mkdir()
        sizes = [(64, 96), (96, 64), (40, 40), (32, 96)][:count]
        made = [drawn(rng, *size) for size in sizes]
        for row, (image, _) in enumerate(made):
            Image.fromarray(image).save(folder / split / f"{row}.png")
        objects = [[boxes.Object(0, box, crowd=False)] for _, box in made]
        objects[2] = []
        names = [f"{row}.png" for row in range(count)]
        annotated = boxes.annotated(names, sizes, objects, {0: "box", 1: "none"})
        coco.write(folder / "annotations" / f"instances_{split}.json", annotated)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_coco(folder / "coco")
    return folder / "coco"


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(written, tmp_path / "data")
    return tmp_path / "data"


def load(folder, size=48, channels=3, source="auto", **options):
    return object_detection.load(source, folder, size=size, channels=channels, **options)


@pytest.mark.parametrize(("size", "channels"), [(96, 3), (48, 1), (192, 3)])
def test_boxes_cover_the_drawn_rectangles_at_every_size(written, size, channels):
    split = load(written, size, channels).train
    assert split.inputs["image"].shape == (4, size, size, channels)
    assert {name: array.dtype for name, array in (split.inputs | split.labels).items()} == {
        "image": np.uint8, "size": np.int32, "scale": np.float32,
        "boxes": np.float32, "classes": np.int32, "crowd": bool,
    }  # fmt: skip
    assert split.labels["boxes"].shape == (4, 1, 4)
    assert split.labels["classes"].tolist() == [[0], [0], [-1], [0]]
    for row in (0, 1, 3):
        pixels = split.inputs["image"][row, :, :, 0] > 120
        x1, y1, x2, y2 = split.labels["boxes"][row, 0]
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        np.testing.assert_allclose([x1, y1, x2, y2], [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1)


def test_images_keep_their_aspect_ratio_on_a_black_canvas(written):
    inputs = load(written, 48).train.inputs
    assert inputs["size"].tolist() == [[32, 48], [48, 32], [48, 48], [16, 48]]
    np.testing.assert_allclose(inputs["scale"], [[0.5, 0.5], [0.5, 0.5], [1.2, 1.2], [0.5, 0.5]])
    for image, (height, width) in zip(inputs["image"], inputs["size"], strict=True):
        assert image[:height, :width].min() > 0
        assert not image[height:].any()
        assert not image[:, width:].any()


def test_scale_recovers_the_original_size_despite_rounding(tmp_path):
    Image.new("RGB", (333, 500)).save(tmp_path / "a.png")
    _, inputs = object_detection.read_unlabeled(tmp_path / "a.png", 64, 3)
    assert inputs["size"].tolist() == [[64, 43]]
    np.testing.assert_allclose(inputs["size"] / inputs["scale"], [[500, 333]], rtol=1e-6)


def test_coco_splits_follow_its_files(written, tmp_path):
    dataset = load(written)
    assert dataset.class_names == ("box", "none")
    assert (dataset.train.num_examples, dataset.validation, dataset.test.num_examples) == (4, None, 4)
    assert dataset.test.groups.tolist() == ["0.png", "1.png", "2.png", "3.png"]
    assert dataset.provenance.note == "COCO's layout; 3 + 3 objects"
    assert [*dataset.provenance.sha256] == [
        "instances_train2017.json", "instances_val2017.json", "train images", "val images"
    ]  # fmt: skip
    write_coco(tmp_path / "three", ("train", "val", "test"))
    dataset = load(tmp_path / "three")
    assert dataset.validation.num_examples == dataset.test.num_examples == 4
    assert duplicates.shared(dataset.train.inputs, dataset.train.inputs) == 4
    assert duplicates.shared(dataset.train.inputs, dataset.test.inputs) == 0


def test_take_keeps_inputs_and_labels_together(written):
    split = load(written).train
    rows, others = splits.random(split, 0.5, seed=0)
    taken = split.take(others)
    np.testing.assert_array_equal(taken.labels["boxes"], split.labels["boxes"][others])
    np.testing.assert_array_equal(taken.inputs["scale"], split.inputs["scale"][others])
    assert taken.num_examples + len(rows) == 4


def test_images_may_be_in_a_folder_images(folder):
    (folder / "images").mkdir()
    (folder / "train2017").rename(folder / "images" / "train2017")
    (folder / "val2017").rename(folder / "images" / "val")
    assert load(folder).train.num_examples == 4


def changed(folder, change):
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_image_whose_size_differs_from_its_annotations_is_refused(folder):
    Image.new("RGB", (64, 96)).save(folder / "train2017" / "0.png")
    with pytest.raises(InputError, match=r"train2017/0\.png: has 64 x 96 pixels .* its annotations say 96 x 64"):
        load(folder, strict=True)
    dataset = load(folder)
    assert dataset.train.num_examples == 3
    assert "warning: 1 images are left out, such as" in dataset.provenance.note


def test_the_size_of_a_rotated_image_is_that_after_rotation(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((96, 64, 3), np.uint8)).save(folder / "train2017" / "0.png", exif=exif)
    assert load(folder).train.inputs["size"][0].tolist() == [32, 48]


def without_image(folder):
    (folder / "train2017" / "1.png").unlink()


def with_a_broken_image(folder):
    (folder / "val2017" / "1.png").write_bytes(b"no")


def without_images(folder):
    shutil.rmtree(folder / "val2017")


def without_train(folder):
    (folder / "annotations" / "instances_train2017.json").rename(folder / "annotations" / "instances_test.json")


def with_two_trains(folder):
    shutil.copy(*[folder / "annotations" / f"instances_train{year}.json" for year in (2017, 2014)])


def without_annotations(folder):
    shutil.rmtree(folder / "annotations")


def without_objects(folder):
    changed(folder, lambda content: content["annotations"].clear())


def with_another_category(folder):
    changed(folder, lambda content: content["categories"].append({"id": 9, "name": "new"}))


def leading_out(folder):
    changed(folder, lambda content: content["images"][0].update(file_name="../val2017/0.png"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_image, r"train2017\.json: there is no image 1\.png; 1 of 4"),
        (with_a_broken_image, r"val2017/1\.png: not an image"),
        (without_images, r"instances_val2017.json: its image 0\.png is in none of the folders"),
        (without_train, r"holds instances_test\.json, instances_val2017\.json; it must hold those of train"),
        (with_two_trains, "there must be one for train"),
        (without_annotations, "has none of the known layouts"),
        (without_objects, "no training image has an object"),
        (
            with_another_category,
            r"val2017\.json: its categories must be those of instances_train2017\.json, but differ: new",
        ),
        (leading_out, r"instances_train2017\.json: image 1: its file name '../val2017/0.png'"),
    ],
)
def test_missing_or_inconsistent_files_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        load(folder, strict=True)


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (without_image, "warning: 1 images are left out, such as .*there is no image 1.png; 1 of 4"),
        (with_a_broken_image, "3 . 2 objects; .*1 images of .*val2017 cannot be decoded and are left out, such as 1"),
        (with_another_category, "3 objects"),
        (leading_out, "3 objects"),
    ],
)
def test_inconsistent_files_are_repaired_or_left_out_and_counted(folder, damage, note):
    damage(folder)
    assert re.search(note, load(folder).provenance.note)


def test_only_images_that_cannot_be_decoded_are_an_error(folder):
    for path in (folder / "train2017").glob("*.png"):
        path.write_bytes(b"no")
    with pytest.raises(InputError, match=r"train2017/0\.png: not an image"):
        load(folder)


def test_images_of_12_bits_in_16_keep_their_levels(folder):
    deep = np.random.default_rng(0).integers(0, 4096, (40, 40), np.uint16)
    Image.fromarray(deep).save(folder / "train2017" / "2.png")
    dataset = load(folder, size=40)
    assert dataset.white == 4095
    expected = np.rint(deep / 4095 * 255)
    np.testing.assert_allclose(dataset.train.inputs["image"][2, ..., 1], expected, atol=1)
    read = object_detection.read_unlabeled(folder / "train2017", 40, 3, dataset.white).inputs["image"]
    np.testing.assert_array_equal(read, dataset.train.inputs["image"])
    np.testing.assert_allclose(images.open_upright(folder / "train2017" / "2.png"), expected, atol=1)


@pytest.mark.parametrize(("annotated", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
@pytest.mark.parametrize("layout", ["coco", "voc", "xml"])
def test_names_that_differ_in_their_unicode_form_are_one(tmp_path, layout, annotated, on_disk):
    name, actual = (
        unicodedata.normalize(form, "caf\N{LATIN SMALL LETTER E WITH ACUTE}") for form in (annotated, on_disk)
    )
    if layout == "coco":
        write_coco(tmp_path)
        for file in (tmp_path / "annotations").glob("*.json"):
            text = (
                file.read_text()
                .replace("0.png", f"{name}.png")
                .replace('"box"', f'"{name if "train" in file.name else actual}"')
            )
            file.write_text(text)
        paths = tmp_path.glob("*/0.png")
    else:
        write_voc(tmp_path, {"train": ["a", "b"], "val": ["c"]})
        for file in tmp_path.glob("Annotations/*.xml"):
            file.write_text(file.read_text().replace("box</", f"{actual if file.stem == 'c' else name}</"))
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\nb")
        (tmp_path / "Annotations" / "a.xml").rename(tmp_path / "Annotations" / f"{name}.xml")
        paths = tmp_path.glob("JPEGImages/a.jpg")
        if layout == "xml":
            shutil.rmtree(tmp_path / "ImageSets")
    for path in [*paths]:
        path.rename(path.with_stem(actual))
    dataset = load(tmp_path, test_fraction=0.4)
    assert dataset.class_names[0] == unicodedata.normalize("NFC", name)
    assert actual in {Path(file).stem for file in [*dataset.train.groups, *dataset.test.groups]}
    assert "warning" not in dataset.provenance.note
    assert len({*dataset.class_names}) == len(dataset.class_names) == (2 if layout == "coco" else 1)


PEOPLES = {
    "images": [{"id": "x1", "file_name": "up\\a.png"}, {"id": "2", "file_name": "/data/upload/b.png", "height": 0}],
    "annotations": [
        {"image_id": "x1", "category_id": "0", "bbox": [-9, 2, 19, 10], "iscrowd": None},
        {"id": 1, "image_id": 2, "category_id": 1, "segmentation": [[10, 5, 30, 5, 20, 15], [12, 6, 14, 18]]},
        {"id": 1, "image_id": 2, "category_id": 1, "bbox": [3, 3, 0, 5]},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [3, 3, 5, 5]},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [50, 3, 5, 5]},
    ],
    "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
}


@pytest.mark.parametrize(
    ("file", "images_in"),
    [
        ("train/_annotations.coco.json", "train"),
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_Train.json", "images/Train"),
        ("result.json", "images"),
    ],
)
def test_annotations_as_tools_write_them(tmp_path, file, images_in):
    (tmp_path / images_in).mkdir(parents=True)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(PEOPLES))
    for name in "ab":
        Image.new("RGB", (40, 20), "white").save(tmp_path / images_in / f"{name}.png")
    if "train" in file:
        shutil.copytree(tmp_path / "train", tmp_path / "valid")
    dataset = load(tmp_path, size=40, test_fraction=0.5)
    both = [dataset.train, *([] if "train" in file else [dataset.test])]
    boxes = {split.groups[row]: split.labels["boxes"][row, 0].tolist()
             for split in both for row in range(split.num_examples)}  # fmt: skip
    assert {Path(name).name: box for name, box in boxes.items()} == {"a.png": [0, 2, 10, 12], "b.png": [10, 5, 30, 18]}
    note = dataset.provenance.note
    assert "2 annotations are left out" in note.replace("4 annotations", "2 annotations")
    assert "boxes are clipped to their images" in note
    assert "1 objects are left out" in note.replace("2 objects", "1 objects")
    with pytest.raises(InputError):
        load(tmp_path, strict=True)


@pytest.mark.parametrize("pair", [("annotations", "images"), ("train", "train")])
def test_xml_annotations_without_lists_and_sizes(tmp_path, pair):
    write_voc(tmp_path / "voc", {"train": ["a", "b", "c", "d", "e"]})
    for kind, name in zip(("Annotations", "JPEGImages"), pair, strict=True):
        shutil.copytree(tmp_path / "voc" / kind, tmp_path / "data" / name, dirs_exist_ok=True)
    path = tmp_path / "data" / pair[0] / "a.xml"
    whole = load(tmp_path / "data", test_fraction=0.4)
    path.write_text(re.sub("<width>.*</height>", "<width>0</width><height>0</height>", path.read_text()))
    dataset = load(tmp_path / "data", test_fraction=0.4)
    assert (dataset.train.num_examples, dataset.test.num_examples) == (3, 2)
    assert "2 images held out for testing" in dataset.provenance.note
    assert whole.provenance.sha256 == dataset.provenance.sha256
    path.write_text(path.read_text().replace("<object>", "<object><name>box</name></object><object>"))
    assert "1 objects are left out, such as" in load(tmp_path / "data").provenance.note


def test_a_missing_folder_and_a_missing_source_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"is not a folder\. Set data_dir to a folder with annotations"):
        load(tmp_path / "none")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="no data_dir was given"):
        load(None, source="files")


def write_voc(root, lists):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, names in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            image, (x1, y1, x2, y2) = drawn(rng, 64, 96)
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
            (root / "Annotations" / f"{name}.xml").write_text(
                "<annotation><size><width>96</width><height>64</height></size><object><name>box</name><bndbox>"
                f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                "</annotation>"
            )


@pytest.mark.parametrize(
    ("lists", "sizes"),
    [
        ({"trainval": ["a", "b", "c"], "train": ["a"], "val": ["b", "c"], "test": ["d"]}, (3, None, 1)),
        ({"trainval": ["a", "b"], "train": ["a"], "val": ["b"]}, (1, None, 1)),
        ({"train": ["a", "b"], "val": ["c"], "test": ["d"]}, (2, 1, 1)),
    ],
)
def test_voc_splits_follow_its_lists(tmp_path, lists, sizes):
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", lists)
    dataset = load(tmp_path)
    split_sizes = tuple(split and split.num_examples for split in (dataset.train, dataset.validation, dataset.test))
    assert split_sizes == sizes
    assert dataset.class_names == ("box",)
    x1, y1, x2, y2 = np.rint(dataset.train.labels["boxes"][0, 0]).astype(int)
    bright = dataset.train.inputs["image"][0, :, :, 0] > 120
    inside = np.zeros_like(bright)
    inside[y1:y2, x1:x2] = True
    assert (inside & bright).sum() / (inside | bright).sum() > 0.8


def test_ids_of_images_to_predict_are_their_file_names(written):
    folder = object_detection.read_unlabeled(written / "val2017", 48, 3)
    one = object_detection.read_unlabeled(written / "val2017" / "3.png", 48, 3)
    assert folder.ids.tolist() == ["0.png", "1.png", "2.png", "3.png"]
    assert one.ids.tolist() == ["3.png"]
    for name, array in one.inputs.items():
        np.testing.assert_array_equal(array[0], folder.inputs[name][3])
    with pytest.raises(InputError, match="there is no such file or folder"):
        object_detection.read_unlabeled(written / "none", 48, 3)


# The synthetic scenes.


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder, train=40, val=4, test=12)
    return folder


def test_scenes_have_the_documented_properties(small):
    dataset = load(small, scenes.SIDE, 1)
    examples = (dataset.train, dataset.validation, dataset.test)
    assert [split.num_examples for split in examples] == [40, 4, 12]
    assert dataset.class_names == scenes.CLASSES
    boxes, classes = dataset.train.labels["boxes"], dataset.train.labels["classes"]
    counts = (classes >= 0).sum(axis=1)
    assert counts.min() >= 1
    assert counts.max() <= scenes.MAX_ARTICLES
    assert len(np.unique(counts)) >= 6
    longest = (boxes[..., 2:] - boxes[..., :2]).max(axis=-1)[classes >= 0]
    assert longest.max() / longest.min() > 2
    assert np.unique(classes[classes >= 0]).tolist() == list(range(len(scenes.CLASSES)))
    # Some boxes overlap.
    lower = np.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    upper = np.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    overlaps = (upper - lower).clip(0).prod(-1)[:, ~np.eye(boxes.shape[1], dtype=bool)]
    assert (overlaps > 0).any(axis=1).mean() > 0.2


def test_a_box_encloses_the_visible_pixels_of_an_article():
    """A single article on a black background: its box encloses the pixels that are not black."""
    article = np.zeros((28, 28), np.uint8)
    article[3:25, 9:20] = 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "_background", lambda rng, articles: np.zeros((scenes.SIDE, scenes.SIDE)))
        patch.setattr(scenes, "MAX_ARTICLES", 1)
        for seed in range(8):
            image, (article_object,) = scenes.scene(np.random.default_rng(seed), [article[None]])
            rows, columns = (np.flatnonzero((image > 60).any(axis=axis)) for axis in (1, 0))
            np.testing.assert_allclose(
                article_object.corners, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1
            )


def test_hidden_articles_stay_visible_enough_and_their_boxes_exclude_covered_pixels():
    behind, front = np.zeros((2, scenes.SIDE, scenes.SIDE), bool)
    behind[10:30, 10:30] = True
    front[5:40, 25:60] = True
    seen = scenes._visible([behind, front])
    assert [scenes._bounding_box(pixels) for pixels in seen] == [(10, 10, 25, 30), (25, 5, 60, 40)]
    assert scenes._all_visible([behind, front])
    front[:, 18:] = True
    assert not scenes._all_visible([behind, front])


def test_splits_of_scenes_are_composed_of_different_articles():
    articles = {
        role: {image.tobytes() for some in scenes._articles(role) for image in some}
        for role in ("train", "val", "test")
    }
    assert not articles["train"] & articles["val"]
    assert not (articles["train"] | articles["val"]) & articles["test"]
    assert min(map(len, articles.values())) > 700


def test_the_sample_is_called_synthetic_and_is_deterministic(small, tmp_path, monkeypatch):
    write = scenes.write
    with monkeypatch.context() as patch:
        patch.setattr(scenes.write, "__kwdefaults__", {"train": 40, "val": 4, "test": 12, "seed": 0})
        patch.setenv("TFDS_DATA_DIR", str(tmp_path))
        dataset = object_detection.load(size=128, channels=1)
    assert write is scenes.write
    assert dataset.provenance.synthetic
    assert dataset.provenance.source == "sample"
    assert dataset.provenance.note.startswith(
        "generated, not real; scenes composed of real articles of Fashion-MNIST; "
    )
    assert "TFDS has prepared none of" in dataset.provenance.passed_over[1]
    again = load(small, 128, 1)
    assert again.provenance.sha256 == dataset.provenance.sha256
    np.testing.assert_array_equal(again.test.labels["boxes"], dataset.test.labels["boxes"])


# TFDS.


@pytest.fixture
def prepared(tmp_path):
    """A small VOC 2007 as TFDS prepares it: 3 + 2 + 1 images."""
    import tensorflow_datasets as tfds

    def image(row):
        Image.fromarray(np.full((20, 30, 3), 10 * row, np.uint8)).save(tmp_path / f"{row}.png")
        return str(tmp_path / f"{row}.png")

    objects = {"label": tfds.features.ClassLabel(names=["cat", "dog"]), "bbox": tfds.features.BBoxFeature()}

    # If registered, it would replace the data set of TFDS.
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "voc"
        pkg_dir_path = tmp_path
        VERSION = tfds.core.Version("4.0.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="2007"),)

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "image/filename": tfds.features.Text(),
                "objects": tfds.features.Sequence({**objects, "is_difficult": np.bool_}),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {
                name: self._generate_examples(count) for name, count in [("train", 3), ("validation", 2), ("test", 1)]
            }

        def _generate_examples(self, count):
            box = tfds.features.BBox(ymin=0.1, xmin=0.2, ymax=0.5, xmax=1.0)
            for row in range(count):
                objects = [{"label": "dog", "bbox": box, "is_difficult": index == 1} for index in range(2 * row)]
                yield row, {"image": image(row), "image/filename": f"{row}.png", "objects": objects}

    builder = Builder(config="2007", data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    return tmp_path / "tfds"


def test_data_prepared_by_tfds_is_read_without_tensorflow(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    dataset = load(None, 60, 3, "tfds")
    # The test images have no boxes here, like those of VOC 2012.
    assert (dataset.train.num_examples, dataset.validation, dataset.test.num_examples) == (3, None, 2)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.provenance.source == "tfds"
    assert dataset.provenance.note == "TFDS voc/2007 4.0.0; 4 + 1 objects"
    labels = dataset.train.labels
    assert sorted((labels["classes"] == 1).sum(axis=1).tolist()) == [0, 2, 4]
    np.testing.assert_allclose(labels["boxes"][labels["classes"] == 1], np.tile([12, 4, 60, 20], (6, 1)), atol=1e-4)
    assert labels["crowd"].sum() == 2
