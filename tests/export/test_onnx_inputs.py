"""Preprocessing within ONNX models."""

import io

import numpy as np
import PIL
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import pixels
from jaxcls.data.preprocessing import tables, texts
from jaxcls.data.preprocessing.ensemble import EnsemblePreprocessor
from jaxcls.data.preprocessing.images import DetectionPreprocessor, ImagePreprocessor
from jaxcls.export import onnx_inputs
from jaxcls.export.onnx import _named as named_inputs

RANDOM = np.random.default_rng(0)
COLORS = np.array(["red", "gr\u00fcn", "red", "gr\u00fcn", "07", ""] * 4, object)
TABLE = {
    "size": np.array([1.0, 2.0, np.nan, 4.0, 1e9, 7.0] * 4),
    "same": np.ones(24),
    "color of it": COLORS,
    "day": np.array([f"2024-03-{day:02} 06:00" for day in range(1, 25)], object),
}


def session(preprocessor):
    """Runs the preprocessing alone: a model that returns its inputs."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    shapes = named_inputs(preprocessor.shapes(1), preprocessor)
    helper, dtype = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    values = [
        [helper.make_tensor_value_info(name + end, dtype(leaf.dtype), ["count", *leaf.shape[1:]])
         for name, leaf in shapes.items()]
        for end in ("", "_out")
    ]  # fmt: skip
    nodes = [helper.make_node("Identity", [name], [name + "_out"]) for name in shapes]
    graph = helper.make_graph(nodes, "identity", *values)
    identity = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 23)])
    model, inputs = onnx_inputs.prepend(identity, preprocessor, [*shapes])
    onnx.checker.check_model(model)
    runs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [one.name for one in runs.get_inputs()] == inputs
    return lambda named: dict(zip(shapes, runs.run(None, named), strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_are_resized_as_files_are(channels):
    resize = session(ImagePreprocessor((28, 20, channels), (0.0,) * channels, (1.0,) * channels))
    sizes = [(28, 20), (1, 1), (14, 10), (28, 90), (31, 27), (112, 81), (113, 79), (300, 400), (110, 4), (33, 20)]
    for height, width in sizes:
        image = RANDOM.integers(0, 256, (height, width, channels), np.uint8)
        file = io.BytesIO()
        Image.fromarray(image if channels == 3 else image[..., 0]).save(file, "PNG")
        expected = pixels.decode(file.getvalue(), (28, 20), channels)[0].astype(int)
        # Older versions average columns first, and round what results.
        tall = height > 28 and height - 28 > 2 * (width - 20) and int(PIL.__version__.split(".")[0]) < 13
        assert np.abs(resize({"images": image[None]})["images"][0] - expected).max() <= tall


def test_columns_are_encoded_as_in_training():
    fitted = tables.fit(TABLE)
    assert {column.name for column in fitted.numeric} > {"size", "day (days)"}
    encode = session(fitted)
    table = {
        "size": np.array([3.0, np.nan, np.inf, -1e300, 1e308, 2.5]),
        "same": np.array([1.0, 5.0, np.nan, 1, 1, 1]),
        "color of it": np.array(["red", "gru\u0308n", "NA", "", "blue", "07"], object),
        "day": np.array(["2024-03-03", "2031-12-31 23:59", "", "no", "2024-03-04", "1999-01-01"], object),
    }
    parts = tables.columns.date_parts(table["day"], "day", fitted.dates["day"])
    raw = {name: values for name, values in (table | parts).items() if name in encode_inputs(fitted)}
    for name, array in fitted.transform(table).items():
        result = encode(raw)[name]
        assert result.dtype == array.dtype
        np.testing.assert_allclose(result, array, rtol=1e-6, atol=1e-7)
    # Members of an ensemble that were fitted on different rows.
    both = EnsemblePreprocessor((fitted, fitted.refit({name: values[:9] for name, values in TABLE.items()})))
    encoded = session(both)(raw)
    for number, arrays in both.transform(table).items():
        for name, array in arrays.items():
            np.testing.assert_allclose(encoded[f"{name}_{number}"], array, rtol=1e-6, atol=1e-7)


def encode_inputs(fitted):
    return {*(column.name for column in fitted.numeric), *(column.name for column in fitted.categories)}


def test_an_input_cannot_have_the_name_of_an_output():
    fitted = tables.fit({"numeric_out": np.arange(6.0), "other": np.arange(6.0) % 3})
    with pytest.raises(InputError, match="an input of the name 'numeric_out'; rename the column"):
        session(fitted)


@pytest.mark.parametrize(
    ("preprocessor", "reason"),
    [
        (lambda: None, "the model takes arrays"),
        (
            lambda: tables.TablePreprocessor((), (), texts={"review": ("good",)}),
            "split the texts of the column 'review' into words",
        ),
        (
            lambda: texts.fit(np.array(["good"] * 3, object), vocabulary_size=300, max_length=100),
            "split texts into tokens; leave out --with-preprocessing",
        ),
        (lambda: DetectionPreprocessor(ImagePreprocessor((32, 32, 1), (0.0,), (1.0,))), "preprocessing; leave out"),
    ],
    ids=["arrays", "text column", "texts", "detection"],
)
def test_what_onnx_cannot_express_is_refused(preprocessor, reason):
    with pytest.raises(InputError, match=reason):
        onnx_inputs.check(preprocessor())
