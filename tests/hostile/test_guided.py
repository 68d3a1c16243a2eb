"""Coverage-guided fuzzing of the readers of the most exchanged formats."""

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
def test_fuzzed_content_ends_in_a_value_or_an_error_of_jaxcls(kind, tmp_path):
    script = Path(__file__).with_name("guided.py")
    done = subprocess.run(
        [sys.executable, script, kind, tmp_path, f"-runs={RUNS}"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    output = done.stdout + done.stderr
    tried = max(map(int, re.findall(r"^#(\d+)\s", output, re.MULTILINE)), default=0)
    # libFuzzer stops at the first failure.
    passed = tried - (done.returncode != 0)
    tally.record(f"bad inputs: {kind}, guided by coverage", tried=max(tried, 1), passed=max(passed, 0))
    assert done.returncode == 0, output[-3_000:]
    assert tried >= RUNS
