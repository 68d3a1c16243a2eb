"""A loss that stays non-finite ends a run with the last good state, the examples and a step to replay."""

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
from jaxcls.cli.main import main
from jaxcls.training import debugging
from jaxcls.training.loop import DivergedError

# The first update is finite, but its weights are too large for the loss.
FLAGS = (
    *("--task", "csv", "--model", "linear", "--optimizer", "sgd", "--learning-rate", "1e38", "--schedule", "constant"),
    *("--epochs", "3", "--batch-size", "16", "--max-skipped-steps", "4", "--monitor", "loss"),
)


@tally.trial("numbers: a loss that stays non-finite, status 1, the rows, a replay file")
def test_a_diverged_run_names_the_rows_and_saves_the_step_for_replay(tmp_path, capsys):
    flags = [*FLAGS, "--run-dir", str(tmp_path / "run")]
    assert main(["train", *flags]) == 1
    message = capsys.readouterr().err
    assert "was not finite in" in message
    assert "None of them changed the weights, and the checkpoint holds the last good ones" in message
    rows, path = re.search(r"\(rows (.*) of the training examples\)\. It is saved in (\S+): ", message).groups()
    assert "Traceback" not in message

    record = debugging.read_record(Path(path))
    assert rows.split(", ")[:5] == [str(row) for row in record["rows"][:5]]
    assert len(set(record["rows"])) == len(record["rows"]) <= 16
    assert main(["replay", path]) == 1
    assert "is not finite" in capsys.readouterr().out

    # Started again, it ends in the same way, with a finite state.
    assert main(["train", *flags]) == 1
    capsys.readouterr()
    with np.load(path, allow_pickle=False) as saved:
        weights = [saved[name] for name in saved if name.startswith("state/params")]
    assert weights
    assert all(np.isfinite(leaf).all() for leaf in weights)


def test_fit_saves_the_step_at_which_it_diverged(tmp_path):
    x = np.full((12, 3), 1e30, np.float32)
    y = np.arange(12, dtype=np.int32) % 2
    compiled = jaxcls.compile(lambda rngs: nnx.Linear(3, 2, rngs=rngs), loss="sparse_categorical_crossentropy")
    start = compiled.init(0)
    # Finite weights, whose product with the inputs is not.
    start = start._replace(params=jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), start.params))
    try:
        compiled.fit(start, (x, y), 2, batch_size=4, max_skipped_steps=5, verbose=False, run_dir=tmp_path)
    except DivergedError as error:
        path = re.search(r"saved in (\S+)\.$", str(error)).group(1)
    assert compiled.replay(path).kind == "layer"
    state, batch = debugging.load(Path(path), start)
    assert int(state.step) == 5
    chex.assert_shape(batch.inputs, (4, 3))
    with CheckpointManager(tmp_path / "checkpoints") as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like=start).state.params, start.params)
