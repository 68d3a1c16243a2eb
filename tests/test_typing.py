"""A user's script passes mypy, mistakes in it do not, and the wheel contains py.typed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# With warn_unused_ignores, an ignored line without an error is an error.
SCRIPT = """
import jax
import numpy as np
import optax
from flax import nnx

import jaxcls
from jaxcls import losses, metrics, optimizers


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return losses.sigmoid_focal(logits, labels, gamma=1.0, label_smoothing=0.1, pos_weight=2.0, normalizer="batch")


def misspelled(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return losses.sigmoid_focal(logits, labels, lable_smoothing=0.1)  # type: ignore[call-arg]


rate: optax.Schedule = optimizers.schedule("cosine", learning_rate=1e-3, total_steps=100)
optimizer: optax.GradientTransformation = optimizers.adamw(rate, clipnorm=1.0, ema_decay=0.99)
optimizers.adamw(rate, semantics="torch")  # type: ignore[arg-type]

scores, labels = np.array([0.2, 0.8]), np.array([0, 1])
accuracy: float = metrics.accuracy(scores, labels, threshold=0.4, sample_weight=np.ones(2))
per_label = metrics.roc_auc(scores, labels, average=None, problem="binary")
metrics.roc_auc(scores, labels, problem="regression")  # type: ignore[arg-type]

experiment: jaxcls.Experiment = jaxcls.compile(
    lambda rngs: nnx.Linear(2, 1, rngs=rngs), optimizer, losses.get("focal_loss", "binary"), problem="binary"
)
"""


@pytest.mark.slow
def test_a_user_script_type_checks(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent"]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_the_wheel_contains_the_marker_of_types():
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    assert "jaxcls/py.typed" in {file.distribution_path for file in builder.recurse_included_files()}
