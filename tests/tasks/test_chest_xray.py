"""The chest_xray task: both layouts of its files, pitfalls, and errors."""

import shutil

import chest_drawings
import numpy as np
import pytest
from PIL import Image

from jaxcls import tasks
from jaxcls._utils.errors import InputError
from jaxcls.data.datasets import radiographs
from jaxcls.data.splits import grouped
from jaxcls.training.settings import Settings

TASK = tasks.get("chest_xray")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small unpacked archive."""
    folder = tmp_path_factory.mktemp("written")
    chest_drawings.write(folder, train=60, test=20)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy of the archive, to edit."""
    shutil.copytree(written, tmp_path / "data")
    return tmp_path / "data"


def load(folder, **settings):
    return TASK.load(Settings(**{"task": "chest_xray", "data_dir": folder, "image_size": 16} | settings))


def test_the_drawings_have_the_quirks_of_the_archive(written):
    root = written / "chest_xray"
    counts = {f"{part}/{kind}": len(list((root / part / kind).glob("*.jpeg")))
              for part in ("train", "val", "test") for kind in radiographs.PNEUMONIA}  # fmt: skip
    assert [*counts.values()] == [15, 45, 8, 8, 8, 12]
    seen = {path: facts(path) for path in root.glob("*/*/*.jpeg")}
    assert len({size for _, size in seen.values()}) > 50
    assert {mode for mode, _ in seen.values()} == {"L", "RGB"}
    assert {mode for path, (mode, _) in seen.items() if path.parent.name == "NORMAL"} == {"L"}


def facts(path):
    with Image.open(path) as image:
        return image.mode, image.size


def test_the_validation_images_of_the_archive_count_as_training_images(written):
    dataset = load(written)
    assert dataset.validation is None
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (60 + 16, 20)
    assert dataset.train.inputs.shape == (76, 16, 16, 1)
    assert dataset.class_names == ("NORMAL", "PNEUMONIA")
    np.testing.assert_allclose(dataset.train.labels.mean(), (45 + 8) / 76)
    np.testing.assert_allclose(dataset.test.labels.mean(), 12 / 20)


def test_no_patient_is_in_both_training_and_validation(written):
    train = load(written).train
    train_rows, validation_rows = TASK.split(train, 0.3, seed=0)
    assert TASK.split is grouped
    assert not {*train.groups[train_rows]} & {*train.groups[validation_rows]}
    assert len(np.unique(train.groups)) < len(train.groups)
    assert {*train.labels[validation_rows]} == {0, 1}


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1_bacteria_1.jpeg", "person1"),
        ("person1003_virus_1685.jpeg", "person1003"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0439-0001-0002.jpeg", "IM-0439"),
        ("NORMAL2-IM-0327-0001.jpeg", "IM-0327"),
        ("mine.jpeg", "mine.jpeg"),
    ],
)
def test_the_patient_is_read_from_the_name(folder, name, patient):
    kind = folder / "chest_xray" / "train" / "NORMAL"
    for old in kind.glob("*.jpeg"):
        old.unlink()
    Image.new("L", (9, 7)).save(kind / name)
    train = load(folder).train
    assert train.groups[train.labels == 0][:1] == [patient]


def test_patient_numbers_in_both_train_and_test_are_counted(folder):
    root = folder / "chest_xray"
    for path in (root / "test").glob("*/*"):
        path.rename(path.with_name(f"other-{path.name}"))
    assert "the numbers of 0 also occur in the test split" in load(folder).provenance.note
    source = next((root / "train" / "PNEUMONIA").glob("person1_*"))
    shutil.copy(source, root / "test" / "PNEUMONIA" / "person1_virus_6.jpeg")
    assert "the numbers of 1 also occur" in load(folder).provenance.note


def test_the_second_copy_and_files_of_macos_are_ignored(folder):
    root = folder / "chest_xray"
    shutil.copytree(root, root / "chest_xray")
    (root / "__MACOSX").mkdir()
    (root / "train" / "PNEUMONIA" / "._person1_bacteria_1.jpeg").write_bytes(b"\0\5\26\7")
    (root / "val" / "NORMAL" / "list.txt").touch()
    for data_dir in (folder, root):
        dataset = load(data_dir)
        assert len(dataset.train.labels) == 76
        assert "1 files of" in dataset.provenance.note


def test_decoded_images_do_not_depend_on_their_mode(folder):
    path = next((folder / "chest_xray" / "test" / "NORMAL").glob("*.jpeg"))
    with Image.open(path) as image:
        gray = image.copy()
    for name, image in [("a.png", gray), ("b.png", gray.convert("RGB")), ("c.png", gray.convert("RGBA"))]:
        image.save(path.parent / name)
    images = load(folder).test.inputs
    np.testing.assert_array_equal(images[-15:-12], np.broadcast_to(images[-15], (3, 16, 16, 1)))


@pytest.mark.parametrize("size", [28, 64])
def test_medmnist_has_validation_images(tmp_path, size):
    draw = np.random.default_rng(0)
    arrays = {}
    for part, count in [("train", 12), ("val", 4), ("test", 6)]:
        arrays[f"{part}_images"] = draw.integers(0, 256, (count, size, size), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8).reshape(count, 1) % 2
    np.savez_compressed(tmp_path / ("pneumoniamnist.npz" if size == 28 else "pneumoniamnist_64.npz"), **arrays)
    dataset = load(tmp_path, image_size=size)
    assert [len(split.labels) for split in (dataset.train, dataset.test, dataset.validation)] == [12, 6, 4]
    np.testing.assert_array_equal(dataset.validation.inputs[..., 0], arrays["val_images"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["test_labels"][:, 0])
    assert dataset.test.labels.dtype == np.int32


def lose(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:700])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: lose(root / "train"), "holds none of .*chest_xray/{train,val,test}.*pneumoniamnist.npz"),
        (lambda root: lose(root / "test"), "test is not a folder"),
        (lambda root: lose(root / "test" / "NORMAL"), "test holds only the folder 'PNEUMONIA'"),
        (lambda root: (root / "train" / "COVID").mkdir(), "COVID holds no images"),
        (
            lambda root: (root / "test" / "NORMAL").rename(root / "test" / "COVID"),
            r"test: holds the folders \['COVID', 'PNEUMONIA'\]; it must hold NORMAL and PNEUMONIA",
        ),
        (lambda root: [*map(lose, (root / "test" / "NORMAL").glob("*"))], "NORMAL holds no images"),
        (lambda root: cut(next((root / "val" / "NORMAL").glob("*"))), r"val/NORMAL/.*\.jpeg: cannot be decoded"),
        (lambda root: (root / "val" / "NORMAL" / "a.jpeg").touch(), r"a\.jpeg: not an image"),
    ],
)  # fmt: skip
def test_errors_name_the_file(folder, spoil, message):
    spoil(folder / "chest_xray")
    with pytest.raises(InputError, match=message):
        load(folder)


def test_images_of_12_bits_in_16_keep_their_levels_whatever_the_test_images_are(folder):
    deep = np.random.default_rng(0).integers(0, 4096, (16, 16), np.uint16)
    for path in (folder / "chest_xray").glob("*/*/*.jpeg"):
        Image.fromarray(deep + 4096 * ("test" in path.parts)).save(path, "PNG")
    dataset = load(folder)
    assert dataset.white == 4095
    np.testing.assert_allclose(dataset.train.inputs[0, ..., 0], np.rint(deep / 4095 * 255), atol=1)
    assert (np.asarray(dataset.test.inputs) == 255).all()


def test_the_sample_is_a_real_part_of_pneumoniamnist():
    dataset = load(None, source="sample", image_size=28)
    assert (dataset.provenance.source, dataset.provenance.synthetic) == ("sample", False)
    counts = [(len(part.labels), part.labels.sum()) for part in (dataset.train, dataset.validation, dataset.test)]
    assert counts == [(1510, 1122), (524, 389), (624, 390)]
    assert dataset.test.inputs.shape == (624, 28, 28, 1)
