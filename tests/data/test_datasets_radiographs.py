"""MedMNIST's .npz files: saved arrays are read back, and anything else is an error that names the file."""

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.data.datasets import radiographs


def arrays(size=28, num_labels=1, **changed):
    """The six arrays of a MedMNIST file of 5, 2 and 3 images."""
    draw = np.random.default_rng(0)
    counts = {"train": 5, "val": 2, "test": 3}
    images = {f"{split}_images": draw.integers(0, 256, (n, size, size), np.uint8) for split, n in counts.items()}
    labels = {f"{split}_labels": draw.integers(0, 2, (n, num_labels), np.uint8) for split, n in counts.items()}
    return {name: array for name, array in (images | labels | changed).items() if array is not None}


def saved(**content):
    file = io.BytesIO()
    np.savez_compressed(file, **content)
    return file.getvalue()


def read(path, num_labels=1, size=28):
    names = ("normal", "pneumonia") if num_labels == 1 else tuple(map(str, range(num_labels)))
    return radiographs.read_medmnist(path, name="toy", class_names=names, size=size)


def read_bytes(folder, content):
    path = folder / "pneumoniamnist.npz"
    path.write_bytes(content)
    return read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("npz")


@pytest.mark.parametrize("num_labels", [1, 14])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_saved_arrays_are_read_back(folder, save, num_labels):
    content = arrays(num_labels=num_labels)
    save(folder / "chestmnist.npz", **content)
    dataset = read(folder / "chestmnist.npz", num_labels)
    for name, split in [("train", dataset.train), ("val", dataset.validation), ("test", dataset.test)]:
        np.testing.assert_array_equal(split.inputs, content[f"{name}_images"][..., None])
        labels = content[f"{name}_labels"]
        np.testing.assert_array_equal(split.labels, labels[:, 0] if num_labels == 1 else labels)
        assert (split.inputs.dtype, split.labels.dtype) == (np.uint8, np.int32 if num_labels == 1 else np.float32)


def test_fortran_order_and_rgb_are_read(folder):
    color_images = {name: np.stack([array] * 3, axis=-1) for name, array in arrays().items() if name.endswith("images")}
    content = arrays(**color_images | {"val_images": np.asfortranarray(color_images["val_images"])})
    np.testing.assert_array_equal(read_bytes(folder, saved(**content)).validation.inputs, content["val_images"])


def test_images_are_resized(folder):
    halves = {name: np.full((3, 28, 28), 7, np.uint8) for name in ("train_images", "val_images", "test_images")}
    labels = {name: np.ones((3, 1), np.uint8) for name in ("train_labels", "val_labels", "test_labels")}
    halves["test_images"][:, :, 14:] = 100
    np.savez(folder / "halves.npz", **halves, **labels)
    images = read(folder / "halves.npz", size=64).test.inputs
    assert images.shape == (3, 64, 64, 1)
    assert (images[:, :, :30] == 7).all()
    assert (images[:, :, 34:] == 100).all()


@pytest.mark.parametrize(
    ("there", "size", "right"),
    [((28, 64, 224), 64, 64), ((28, 64, 224), 32, 64), ((28,), 64, 28), ((28, 128), 224, 128)],
)
def test_find_prefers_the_smallest_images_of_at_least_the_size(tmp_path, there, size, right):
    names = {28: "pneumoniamnist.npz", **{pixels: f"pneumoniamnist_{pixels}.npz" for pixels in (64, 128, 224)}}
    for pixels in there:
        (tmp_path / names[pixels]).touch()
    assert radiographs.find_medmnist(tmp_path, "pneumoniamnist", size, "") == tmp_path / names[right]


def test_find_says_what_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"holds none of the known data sets\. Put it there."):
        radiographs.find_medmnist(tmp_path, "pneumoniamnist", 64, "Put it there.")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"val_labels": None}, "holds no val_labels; it holds train_images"),
        ({"test_images": np.zeros((3, 28, 28), np.float32)}, "test_images: float32 of shape .*must be uint8"),
        ({"test_images": np.zeros((3, 28, 32), np.uint8)}, r"test_images: uint8 of shape \(3, 28, 32\)"),
        ({"test_images": np.zeros((0, 28, 28), np.uint8)}, "test_images: .*at least one"),
        ({"test_images": np.ones((3, 32, 32), np.uint8)}, "images of different shapes"),
        ({"train_labels": np.zeros((4, 1), np.uint8)}, r"train_labels: .*labels must be integers of shape \(5, 1\)"),
        ({"train_labels": np.zeros(5, np.uint8)}, r"train_labels: uint8 of shape \(5,\)"),
        ({"train_labels": np.full((5, 1), np.nan)}, "train_labels: float64"),
        ({"train_labels": np.array([[0], [1], [0], [2], [0]])}, "train_labels: row 3 holds 2; labels must be 0 or 1"),
        ({"train_labels": np.array([[None]] * 5)}, "train_labels: .*pickled objects, which are never loaded"),
    ],
)
def test_wrong_arrays_are_refused_by_name(folder, changed, says):
    with pytest.raises(InputError, match=rf"(?s)pneumoniamnist\.npz: {says}"):
        read_bytes(folder, saved(**arrays(**changed)))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda whole: b"", "not an .npz file"),
        (lambda whole: b"\x89PNG\r\n" * 100, "not an .npz file"),
        (lambda whole: whole[: len(whole) // 2], "not an .npz file"),
        (lambda whole: whole[:500] + bytes([whole[500] ^ 1]) + whole[501:], "train_images: cut off, damaged"),
    ],
)
def test_damaged_files_are_refused_by_name(folder, damage, says):
    with pytest.raises(InputError, match=rf"pneumoniamnist\.npz: {says}"):
        read_bytes(folder, damage(saved(**arrays())))


def test_a_missing_file_is_named(folder):
    with pytest.raises(InputError, match=r"absent\.npz: cannot be read \(No such file"):
        read(folder / "absent.npz")


def test_memory_follows_neither_a_lying_header_nor_a_bomb(folder):
    many = 50_000_000
    whole = saved(**arrays())
    bomb = saved(**arrays(train_images=np.zeros((many // 784, 28, 28), np.uint8)))
    lying = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(lying, "w") as new:
        for name in old.namelist():
            # A header of the same length.
            new.writestr(name, old.read(name).replace(b"(5, 28, 28), }    ", b"(99999, 28, 28), }"))
    tracemalloc.start()
    try:
        for content, says in [(bomb, "unpack to"), (lying.getvalue(), "its header declares")]:
            with pytest.raises(InputError, match=says):
                read_bytes(folder, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < many / 10


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_files_raise_nothing_but_input_errors(folder, data):
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) - 60, len(content)))]
    with contextlib.suppress(InputError):
        read_bytes(folder, bytes(content))


SMALL = saved(**arrays(size=2))
