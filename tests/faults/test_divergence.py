"""A loss that stays not finite ends a run with the last good state, the examples, and a step to look at again."""

import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import tally
from flax import nnx

import jaxcls
from jaxcls.checkpoints import CheckpointManager
from jaxcls.cli import replay, train
from jaxcls.training import debugging
from jaxcls.training.loop import DivergedError

# The first update is finite, and what it leaves is too large for the loss.
FLAGS = (
    *("--task", "csv", "--model", "linear", "--optimizer", "sgd", "--learning-rate", "1e38", "--schedule", "constant"),
    *("--epochs", "3", "--batch-size", "16", "--max-skipped-steps", "4", "--monitor", "loss"),
)


def test_a_run_that_diverges_names_the_rows_and_keeps_the_step_for_a_replay(tmp_path, capsys):
    flags = [*FLAGS, "--run-dir", str(tmp_path / "run")]
    assert train.main(flags) == 1
    said = capsys.readouterr().err
    assert "was not finite in" in said
    assert "None of them changed the weights, and the checkpoint holds the last good ones" in said
    rows, path = re.search(r"\(rows (.*) of the training examples\)\. It is kept in (\S+): ", said).groups()
    assert "Traceback" not in said

    record = debugging.record_of(Path(path))
    assert rows.split(", ")[:5] == [str(row) for row in record["rows"][:5]]
    assert len(set(record["rows"])) == len(record["rows"]) <= 16
    assert replay.main([path]) == 1
    assert "is not finite" in capsys.readouterr().out

    # However often it is started: the same end, with a state that is finite.
    assert train.main(flags) == 1
    capsys.readouterr()
    with np.load(path, allow_pickle=False) as kept:
        weights = [kept[name] for name in kept if name.startswith("state/params")]
    assert weights
    assert all(np.isfinite(leaf).all() for leaf in weights)
    tally.record("numbers: a loss that stays not finite, status 1, the rows, a replay file", 1, 1)


def test_a_program_of_ones_own_keeps_the_step_it_diverged_at(tmp_path):
    x = np.full((12, 3), 1e30, np.float32)
    y = np.arange(12, dtype=np.int32) % 2
    made = jaxcls.compile(lambda rngs: nnx.Linear(3, 2, rngs=rngs), loss="sparse_categorical_crossentropy")
    start = made.init(0)
    # Finite weights, whose product with the inputs is not.
    start = start._replace(params=jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), start.params))
    try:
        made.fit(start, (x, y), 2, batch_size=4, max_skipped_steps=5, verbose=False, checkpoint_dir=tmp_path)
    except DivergedError as error:
        path = re.search(r"kept in (\S+)\.$", str(error)).group(1)
    assert made.replay(path).kind == "layer"
    state, batch = debugging.load(Path(path), start)
    assert int(state.step) == 5
    chex.assert_shape(batch.inputs, (4, 3))
    with CheckpointManager(tmp_path) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like=start).state.params, start.params)
