"""A trace of some steps is written, and says where their time went."""

import re

import jax
import pytest

from jaxcls.cli.main import main
from jaxcls.training import profiling


def test_operations_are_added_up_by_their_kind(tmp_path):
    product = jax.jit(lambda x: x @ x)
    square = jax.numpy.ones((300, 300))
    with profiling.Trace(tmp_path) as trace:
        for _ in range(profiling.DISPATCHES + 2):
            product(square).block_until_ready()
            trace.on_chunk_end(0, 0.0)
    rows = profiling.table(tmp_path).splitlines()
    assert rows[0].split() == ["operation", "share", "milliseconds", "calls"]
    shares = [float(re.search(r"([\d.]+)%", row).group(1)) for row in rows[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    # The first dispatch is not traced, nor are those after the first DISPATCHES.
    assert int(rows[1].split()[-1]) == profiling.DISPATCHES


@pytest.mark.slow
def test_a_run_with_profile_prints_the_table(tmp_path, capsys):
    flags = ["--task", "csv", "--model", "linear", "--epochs", "3", "--batch-size", "16"]
    folder = tmp_path / "trace"
    assert main(["train", *flags, "--run-dir", str(tmp_path / "run"), "--profile", str(folder)]) == 0
    output = capsys.readouterr().out
    assert f"the trace of these steps is in {folder}" in output
    assert "milliseconds" in output
    assert list(folder.glob("**/*.xplane.pb"))
