"""Two real processes that train together are compared with one that has as many devices; then one of them is killed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import one_of_two
import pytest
import real_runs

from jaxcls.checkpoints import CheckpointManager


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The finished processes, and the folder of their run."""
    folder = tmp_path_factory.mktemp("two")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = [sys.executable, str(Path(one_of_two.__file__))]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options["env"] = os.environ | {"JAX_PLATFORMS": "cpu"}
    started = [subprocess.Popen([*program, str(index), str(port), str(folder)], **options) for index in range(2)]
    ended = [process.communicate(timeout=real_runs.LIMIT) for process in started]
    assert started[1].returncode == -9, ended[1]
    assert started[0].returncode == 1, ended[0]
    return json.loads(ended[0][0].splitlines()[-1]), ended[0][1], folder / "run"


def test_two_processes_compute_what_one_with_two_devices_does(two, tmp_path):
    values, _, _ = two
    alone = one_of_two.trained(tmp_path / "alone")
    assert {name: values[name] for name in alone} == alone


def test_decisions_are_common(two):
    values, _, _ = two
    assert "process 1 of 2 differs from process 0 in the data: b.csv" in values["refused"]
    assert values["stopped"] == 18


def test_one_process_writes_and_the_checkpoint_restores_in_any_number(two):
    _, _, run = two
    assert not [path for path in run.rglob("*") if "partial" in path.name or "tmp" in path.name]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    compiled, _, _ = one_of_two.model_and_data()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), compiled.state_shapes)
    with CheckpointManager(run / "checkpoints", read_only=True) as checkpoints:
        assert int(checkpoints.restore(like=like).state.step) == 18


def test_the_end_of_a_killed_process_ends_the_other_one_with_a_message(two):
    _, errors, _ = two
    assert "process 1 ended, and so does process 0: was killed, or its machine is gone" in errors
    assert np.char.count(errors, "Traceback") == 0
