"""Preprocessing of padded images: the padding is left out of the statistics, and is 0 for the model."""

import json

import jax
import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data.datasets import object_detection
from jaxcls.data.preprocessing import from_record, images


def padded(seed, channels=3):
    rng = np.random.default_rng(seed)
    size = rng.integers(3, 9, (6, 2))
    images = np.zeros((6, 8, 8, channels), np.uint8)
    for image, (height, width) in zip(images, size, strict=True):
        image[:height, :width] = rng.integers(0, 200, (height, width, channels))
    return {"image": images, "size": size.astype(np.int32), "scale": np.ones((6, 2), np.float32)}


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_leave_out_the_padding(channels):
    inputs = padded(0, channels)
    parts = zip(inputs["image"], inputs["size"], strict=True)
    pixels = np.concatenate([image[:height, :width].reshape(-1, channels) for image, (height, width) in parts])
    pixels = pixels.astype(np.float64)
    fitted = images.fit_canvases(inputs)
    rounded = pixels.std(axis=0).max() / 128
    np.testing.assert_allclose(fitted.pixels.mean, pixels.mean(axis=0), atol=rounded)
    np.testing.assert_allclose(fitted.pixels.deviation, pixels.std(axis=0), atol=rounded)
    normalized = np.asarray(jax.jit(fitted.normalize)(fitted.transform(inputs)))
    for image, source, (height, width) in zip(normalized, inputs["image"], inputs["size"], strict=True):
        wanted = (source[:height, :width] - pixels.mean(axis=0)) / pixels.std(axis=0)
        np.testing.assert_allclose(image[:height, :width], wanted, rtol=1 / 100, atol=1 / 100)
        assert not image[height:].any()
        assert not image[:, width:].any()


def test_record_round_trips_through_json():
    fitted = images.fit_canvases(padded(1))
    again = from_record(json.loads(json.dumps(fitted.as_record())))
    assert again == fitted
    assert again.model_arguments == {"input_shape": (8, 8, 3)}


def test_shapes_match_the_encoded_arrays():
    fitted, inputs = images.fit_canvases(padded(2)), padded(2)
    encoded = fitted.transform(inputs)
    assert {name: (array.shape, array.dtype) for name, array in encoded.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in fitted.shapes(6).items()
    }


def sized(sizes):
    """Gray images of these heights and widths, on canvases of 128 pixels."""
    images = np.zeros((len(sizes), 128, 128, 1), np.uint8)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:height, :width] = 100
    return {"image": images, "size": np.array(sizes, np.int32)}


@pytest.mark.parametrize(
    ("sizes", "canvases"),
    [
        ([(128, 128)] * 3, ()),
        ([(96, 128)] * 3, ((96, 128), (128, 128))),
        ([(96, 128), (128, 50), (128, 97)], ((128, 64), (96, 128), (128, 128))),
        # One image in eleven is not worth a compilation.
        ([(128, 128)] * 10 + [(96, 128)], ()),
    ],
    ids=str,
)
def test_canvases_fit_enough_of_the_images_each(sizes, canvases):
    fitted = images.fit_canvases(sized(sizes))
    assert fitted.canvases == canvases
    assert from_record(json.loads(json.dumps(fitted.as_record()))) == fitted
    if not canvases:
        assert fitted.buckets is None
        return
    inputs = fitted.transform(sized(sizes))
    whole = np.asarray(fitted.normalize(inputs))
    for row, number in enumerate(fitted.buckets.indices(inputs)):
        height, width = canvases[number]
        one = jax.tree.map(lambda array, row=row: array[row : row + 1], inputs)
        cut = np.asarray(fitted.normalize(fitted.buckets.cut(one, (height, width))))
        np.testing.assert_array_equal(cut[0], whole[row, :height, :width])
        assert not whole[row, height:].any()
        assert not whole[row, :, width:].any()


@pytest.mark.parametrize(
    "canvases",
    [[[96, 128]], [[100, 128], [128, 128]], [[128, 128], [96, 128]], [[96, 128], [96, 128], [128, 128]], [[96]], [128]],
    ids=str,
)
def test_impossible_canvases_are_rejected(canvases):
    record = images.fit_canvases(sized([(96, 128)])).as_record()
    with pytest.raises(InputError, match="canvases"):
        from_record(record | {"canvases": canvases})
    assert from_record(record | {"white": 4095}).pixels.white == 4095


def test_another_canvas_size_and_nonzero_padding_are_rejected():
    fitted, inputs = images.fit_canvases(padded(3)), padded(3)
    with pytest.raises(InputError, match=r"\(8, 7, 3\); the training images have \(8, 8, 3\)"):
        fitted.transform(inputs | {"image": inputs["image"][:, :, :7]})
    with pytest.raises(InputError, match="padding of the canvases is not 0"):
        images.fit_canvases(inputs | {"image": np.full_like(inputs["image"], 9)})


def test_images_to_predict_are_normalized_as_training_images():
    inputs = padded(4)
    fitted = images.fit_canvases(inputs)
    one = object_detection.canvases(inputs["image"][:1], np.array([[16, 8]]))
    assert one["size"].tolist() == [[8, 4]]
    assert fitted.normalize(fitted.transform(one)).shape == (1, 8, 8, 3)
