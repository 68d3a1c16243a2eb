"""The operation counts and tables of the throughput experiment; measuring needs the other frameworks."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def _experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


@pytest.fixture
def cell():
    from peers.workloads import training_flops
    from throughput_report import Cell, Row

    rows = [
        Row("jaxcls", {"jax": "1.0"}, 5, [900.0, 600.0, 200.0], 3.0, 2.0, 7_000_000),
        Row("keras-jax", {}, failure="keras not installed"),
        Row("torch", {"torch": "2.0"}, 5, [300.0, 600.0, 100.0], 3.0, 2.0, 7_000_000),
    ]
    return Cell("mlp", 128, "2 cores", "--rounds 3", 1200 * training_flops("mlp"), rows)


@pytest.mark.parametrize(
    ("model", "tolerance"),
    # XLA also counts element-wise operations.
    [("mlp", 0.001), ("cnn", 0.015), ("resnet", 0.015), ("transformer", 0.03)],
)
def test_flops_agree_with_xla(model, tolerance):
    from peers import flax_models, workloads

    network = nnx.eval_shape(lambda: flax_models.build(model, nnx.Rngs(0)))
    network.eval()  # no dropout: XLA counts the random numbers
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def loss(params, rest, inputs):
        return nnx.merge(graph, params, rest)(inputs).sum()

    count = 64
    shape, dtype = ((workloads.LENGTH,), np.int32) if model == "transformer" else (workloads.IMAGE, np.float32)
    inputs = jax.ShapeDtypeStruct((count, *shape), dtype)
    counted = jax.jit(jax.grad(loss)).lower(params, rest, inputs).cost_analysis()["flops"] / count
    assert workloads.training_flops(model) == pytest.approx(counted, rel=tolerance)


def test_ratio_is_the_median_over_rounds_and_failures_are_named(cell):
    from throughput_report import table

    assert cell.ratio(cell.rows[0], "torch") == 2.0
    assert cell.ratio(cell.rows[0], "keras-jax") is None
    lines = table([cell]).splitlines()
    assert lines[2].startswith("| mlp | 128 | jaxcls | 600 (200 to 900) | - | 2.00 | 1 | 50% | 7 | 3.0 | 2.0 |")
    assert [line for line in lines if "Keras on JAX skipped: keras not installed" in line]


def test_writing_a_cell_replaces_only_the_cell_of_the_same_model_and_batch_size(cell, tmp_path, monkeypatch):
    import throughput_report

    drawn = []
    monkeypatch.setattr(throughput_report, "draw", lambda cells, path: drawn.append(len(cells)))
    path = tmp_path / "throughput.json"
    for batch_size, peak in ((128, 1e9), (32, 1e9), (128, 4e9)):
        throughput_report.write(dataclasses.replace(cell, batch_size=batch_size, peak=peak), path)
    assert [(cell.batch_size, cell.peak) for cell in throughput_report.read(path)] == [(32, 1e9), (128, 4e9)]
    assert drawn == [1, 2, 2]
    assert "| mlp | 32 | jaxcls | - | - | - | - | - | 2.00 | - | - | - |" in path.with_suffix(".md").read_text(
        encoding="utf-8"
    )
