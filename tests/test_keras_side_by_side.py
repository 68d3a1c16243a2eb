"""Keras scripts and their ports give the same losses and metrics, step by step."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "experiments"))

import keras_side_by_side


@pytest.mark.slow
@pytest.mark.parametrize("name", keras_side_by_side.SCRIPTS)
def test_a_script_and_its_port_agree(name):
    found = keras_side_by_side.compare(keras_side_by_side.SCRIPTS[name], steps=5)
    assert max(found.loss, found.accuracy, found.test) <= keras_side_by_side.TOLERANCE
