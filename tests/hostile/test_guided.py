"""The readers of the formats that strangers hand on most, fed by a fuzzer that sees what code it reaches."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tally

RUNS = 10_000


@pytest.mark.faults_long
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: pip install atheris")
@pytest.mark.parametrize("kind", ["IDX", "MedMNIST npz", "CSV table", "checkpoint record"])
def test_no_content_that_is_made_for_the_code_ends_otherwise(kind, tmp_path):
    script = Path(__file__).with_name("guided.py")
    done = subprocess.run(
        [sys.executable, script, kind, tmp_path, f"-runs={RUNS}"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    said = done.stdout + done.stderr
    tried = max(map(int, re.findall(r"^#(\d+)\s", said, re.MULTILINE)), default=0)
    # libFuzzer stops at the first that ends otherwise.
    tally.record(f"bad inputs: {kind}, guided by coverage", tried, tried - (done.returncode != 0))
    assert done.returncode == 0, said[-3_000:]
    assert tried >= RUNS
