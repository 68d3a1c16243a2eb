"""Keras scripts and their ports compute the same losses and metrics at each step."""

from pathlib import Path

import jax
import pytest

# One script of each problem.
CHOSEN = ["multi-label", "imbalanced, class weights", "two outputs"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_script_and_its_port_agree(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "experiments"))
    import keras
    import keras_side_by_side

    # The first weights: of some, a unit near its kink lets rounding grow in five steps.
    keras.utils.set_random_seed(0)
    # Keras compiles another program for a last batch that is not full.
    train, test = keras_side_by_side.images()
    monkeypatch.setattr(keras_side_by_side, "images", lambda: (train, [array[:480] for array in test]))
    # Keras's layers promote ranks.
    with jax.numpy_rank_promotion("allow"):
        difference = keras_side_by_side.compare(keras_side_by_side.SCRIPTS[name], steps=5)
    assert max(difference.loss, difference.accuracy, difference.test) <= keras_side_by_side.TOLERANCE
