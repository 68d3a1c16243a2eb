"""Keras scripts and their ports give the same losses and metrics, step by step."""

from pathlib import Path

import jax
import pytest

# Of the two binary ones and the two multiclass ones, the one that asks for more.
CHOSEN = ["multiclass, one-hot", "multi-label", "imbalanced, class weights", "two outputs"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_script_and_its_port_agree(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
    import keras_side_by_side

    # Keras's own layers promote.
    with jax.numpy_rank_promotion("allow"):
        found = keras_side_by_side.compare(keras_side_by_side.SCRIPTS[name], steps=5)
    assert max(found.loss, found.accuracy, found.test) <= keras_side_by_side.TOLERANCE
