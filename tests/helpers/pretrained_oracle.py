"""Compares pretrained networks with their reference libraries, by the fixtures of make_pretrained_fixtures.py."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from jaxcls.models.model import functional
from jaxcls.models.pretrained import architecture as architectures
from jaxcls.models.pretrained import weights

FIXTURES = Path(__file__).parents[1] / "models" / "pretrained" / "fixtures"


class Fixture:
    """A small checkpoint of a reference library, and what the library computes with it.

    Attributes:
      config: its config.json.
      architecture: what jaxcls makes of it.
      tensors: its weights, by name.
      expected: the inputs and results, by the names that make_pretrained_fixtures.py gives them.
    """

    def __init__(self, name: str):
        folder = FIXTURES / name
        self.config = json.loads((folder / "config.json").read_text())
        self.architecture = architectures.find(self.config, name)
        self.tensors = load_file(folder / "model.safetensors")
        self.expected = load_file(folder / "expected.safetensors")

    def model(self, dtype: Any = jnp.float32, tensors: Any = None) -> tuple[Any, Any, Any]:
        """Returns the network without dropout, its parameters and its state, from other tensors if given."""
        build = functools.partial(self.architecture.build, dtype=dtype, dropout=0.0)
        model = functional(lambda rngs: build(rngs=rngs))
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        trees = tuple({"backbone": tree} for tree in shapes)
        tensors = self.tensors if tensors is None else tensors
        taken = weights.from_tensors(self.architecture, trees, tensors, "the fixture", with_head=False)
        return model, *(tree["backbone"] for tree in jax.tree.unflatten(jax.tree.structure(trees), taken))

    def named(self, params: Any, state: Any) -> dict[str, np.ndarray]:
        """Returns the leaves under the names of their tensors."""
        return weights.to_tensors(self.architecture, ({"backbone": params}, {"backbone": state}))

    def present(self, inputs: np.ndarray) -> Any:
        """1 for the outputs that are compared: all of images, those of tokens without padding of texts."""
        return (inputs != self.architecture.padding)[..., None] if self.architecture.inputs == "texts" else 1


def check_outputs_and_gradients(fixture: Fixture) -> None:
    """Outputs, the logits of a head without a layer before it, and gradients equal those of the reference."""
    model, params, state = fixture.model()
    expected = fixture.expected
    present = fixture.present(expected["inputs"])

    @jax.jit
    def outputs_and_gradients(params: Any) -> Any:
        def scalar(params: Any) -> Any:
            outputs, _ = model.apply(params, state, expected["inputs"])
            return (outputs * present * expected["cotangents"]).sum(), outputs

        return jax.grad(scalar, has_aux=True)(params)

    gradients, outputs = outputs_and_gradients(params)
    _check_outputs(fixture, outputs)
    named = fixture.named(gradients, {})
    wanted = {name.removeprefix("gradient."): value for name, value in expected.items() if name.startswith("gradient.")}
    assert named.keys() == wanted.keys()
    largest = max(np.abs(gradient).max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        # Some are 0 up to rounding, such as those of the biases of keys.
        _assert_close(name, named[name], gradient, 1e-5, at_least=1e-2 * largest)


def check_outputs(fixture: Fixture) -> None:
    """Outputs, and the logits of a head without a layer before it, equal those of the reference."""
    model, params, state = fixture.model()
    _check_outputs(fixture, jax.jit(model.apply)(params, state, fixture.expected["inputs"])[0])


def _check_outputs(fixture: Fixture, outputs: jax.Array) -> None:
    expected, present = fixture.expected, fixture.present(fixture.expected["inputs"])
    _assert_close("outputs", outputs * present, expected["outputs"] * present, 1e-5)
    if "logits" in expected:
        kernel, bias = (fixture.tensors[f"{fixture.architecture.head}.{leaf}"] for leaf in ("weight", "bias"))
        logits = np.asarray(outputs) @ kernel.reshape(*kernel.shape[:2]).T + bias
        _assert_close("logits", logits, expected["logits"], 1e-5)


def check_training(fixture: Fixture, tolerance: float = 1e-5) -> None:
    """Batch normalization in training: outputs and the updated running statistics equal those of the reference."""
    model, params, state = fixture.model()
    inputs = fixture.expected["inputs"]
    outputs, state = jax.jit(lambda *trees: model.apply(*trees, inputs, key=jax.random.key(0)))(params, state)
    _assert_close("outputs", outputs, fixture.expected["training_outputs"], tolerance)
    named = fixture.named({}, state)
    assert named
    for name, value in named.items():
        _assert_close(name, value, fixture.expected[f"updated.{name}"], tolerance)


def check_padding(fixture: Fixture) -> None:
    """The outputs of a text do not depend on the padding after it."""
    model, params, state = fixture.model()
    inputs = fixture.expected["inputs"]
    padded = np.pad(inputs, ((0, 0), (0, 2)), constant_values=fixture.architecture.padding)
    outputs, _ = jax.jit(model.apply)(params, state, padded)
    present = fixture.present(inputs)
    _assert_close("outputs", outputs[:, :-2] * present, fixture.expected["outputs"] * present, 1e-5)


def check_bfloat16(fixture: Fixture, tolerance: float = 0.1) -> None:
    """The computation in bfloat16 gives bfloat16 outputs near those of the reference, from float32 parameters."""
    model, params, state = fixture.model(jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    inputs = fixture.expected["inputs"]
    outputs, _ = jax.jit(model.apply)(params, state, inputs)
    assert outputs.dtype == jnp.bfloat16
    present = fixture.present(inputs)
    _assert_close("outputs", outputs * present, fixture.expected["outputs"] * present, tolerance)


def _assert_close(name: str, value: Any, expected: Any, tolerance: float, at_least: float = 0.0) -> None:
    """The largest difference is at most ``tolerance`` times the largest expected number."""
    assert value.shape == expected.shape, name
    value, expected = np.asarray(value, np.float32), np.asarray(expected, np.float32)
    difference, largest = np.abs(value - expected).max(), max(np.abs(expected).max(), at_least)
    assert difference <= tolerance * largest, f"{name} differs by {difference:.3g} of {largest:.3g}"
