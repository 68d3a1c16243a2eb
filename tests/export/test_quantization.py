"""Weights in 8 bits."""

import jax
import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.export import folder
from jaxcls.export.exportable import Exportable, named_arrays
from jaxcls.export.quantization import quantized, restored

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "params": {
        "kernel": RANDOM.normal(size=(3, 3, 8, 16)).astype(np.float32) * np.logspace(-3, 3, 16, dtype=np.float32),
        "embedding": RANDOM.normal(size=(40, 32)).astype(np.float32),
        "votes": {"embedding": RANDOM.normal(size=(400, 3)).astype(np.float32)},
        "zeros": np.zeros((64, 16), np.float32),
        "small": np.ones((3, 3), np.float32),
        "bias": np.ones(2000, np.float32),
    },
    "model_state": {"counts": np.arange(2000, dtype=np.int32), "negative": -np.arange(2000, dtype=np.int32)},
}
MODEL = Exportable({"class_names": ["a"]}, WEIGHTS, lambda p, s, x: (p["small"] + x, p), lambda count: None, 2)


def test_a_weight_is_off_by_half_a_scale_at_most():
    stored = quantized(MODEL).weights
    named, exact = named_arrays(stored), named_arrays(WEIGHTS)
    scales = {
        "params/kernel": (1, 1, 1, 16),
        "params/embedding": (40, 1),
        "params/votes/embedding": (1, 3),
        "params/zeros": (1, 16),
    }
    counts = "model_state/counts"
    assert {name.removesuffix("/scale") for name in named if name.endswith("/scale")} == {*scales, counts}
    back = named_arrays(restored(stored))
    assert back.keys() == exact.keys()
    for name, array in exact.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        if name not in scales:
            np.testing.assert_array_equal(back[name], array)
            continue
        values, scale = named[f"{name}/values"], named[f"{name}/scale"]
        assert (values.dtype, values.shape, scale.dtype, scale.shape) == (
            np.int8,
            array.shape,
            np.float32,
            scales[name],
        )
        assert (np.abs(back[name].astype(np.float64) - array) <= scale / 2 * (1 + 1e-5)).all()
    assert named[f"{counts}/values"].dtype == np.uint16


def test_the_step_computes_with_the_products():
    model = quantized(MODEL)
    scores, params = jax.jit(model.prediction_step)(
        model.weights["params"], model.weights["model_state"], np.float32(1)
    )
    np.testing.assert_array_equal(scores, WEIGHTS["params"]["small"] + 1)
    np.testing.assert_array_equal(params["kernel"], restored(model.weights)["params"]["kernel"])


def test_what_cannot_be_in_8_bits_is_refused(tmp_path):
    with pytest.raises(InputError, match="format lora are for programs that read no int8; choose stablehlo or onnx"):
        folder.export(tmp_path / "model", MODEL, "lora", weights="int8")
    with pytest.raises(InputError, match="int4"):
        folder.export(tmp_path / "model", MODEL, "safetensors", weights="int4")
