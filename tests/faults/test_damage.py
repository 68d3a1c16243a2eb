"""Run directories with corrupted, truncated, missing or foreign files: the file is named, and nothing is changed."""

import dataclasses
import logging
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import real_runs
import tally
from flax import nnx

import jaxcls
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointError, CheckpointManager
from jaxcls.models import functional
from jaxcls.tasks.train import train_task
from jaxcls.training import steps
from jaxcls.training.settings import Settings

# The non-empty files of a checkpoint, and the bits flipped in each.
FILES, FLIPS = 9, 60

# When a load fails, Orbax abandons the tasks that read the other leaves, which Python reports later.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(content)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.slow
@tally.trial("files of a run: a flipped bit in the newest checkpoint, resumed from the previous one")
def test_resumes_from_the_previous_checkpoint_if_the_newest_is_damaged(expected, tmp_path):
    directory = tmp_path / "run"
    arguments = [*real_runs.TABLE, "--run-dir", directory]
    assert real_runs.after_saves(5, "signal.raise_signal(signal.SIGTERM)", *arguments).returncode == 75
    newest = real_runs.steps_in(directory)[-1]
    damaged = directory / "checkpoints" / str(newest)
    flip(largest_file(damaged), 8 * 1000 + 3)
    content = largest_file(damaged).read_bytes()
    done = real_runs.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"the checkpoint of step {newest} is damaged (" in done.stderr
    assert f"it is in {damaged}.damaged-1" in done.stderr
    assert largest_file(Path(f"{damaged}.damaged-1")).read_bytes() == content
    assert int(re.search(r"^epoch +(\d+)/6", done.stdout, re.MULTILINE)[1]) > 1
    assert real_runs.outcome(directory) == expected


def in_process(directory, **changes):
    """A small run in this process."""
    settings = {"task": "csv", "model": "linear", "epochs": 2, "batch_size": 16, "monitor": "loss", **changes}
    return train_task(Settings(run_dir=directory, checkpoint_seconds=0.0, **settings), say=lambda line: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "run"
    in_process(directory)
    return directory


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def tree(directory):
    """The content of every file of a directory."""
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@tally.trial("files of a run: all checkpoints damaged, an error each time")
def test_does_not_start_over_if_every_checkpoint_is_damaged(copied, caplog):
    caplog.set_level(logging.CRITICAL)
    for step in real_runs.steps_in(copied):
        flip(largest_file(copied / "checkpoints" / str(step)), 1234)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged; to start again, give another"):
            in_process(copied)


@pytest.mark.parametrize(
    ("lose", "error", "message"),
    [
        (lambda run: [shutil.rmtree(path) for path in run.glob("checkpoints/[0-9]*")], CheckpointError,
         "holds no checkpoint any more, and one of step 18 was saved there"),
        (lambda run: shutil.rmtree(run / "checkpoints"), InputError, "holds a run without its checkpoints/"),
        (lambda run: (run / "checkpoints/jaxcls.lock").unlink(), InputError, r"no jaxcls\.lock"),
        (lambda run: (run / "data.json").unlink(), InputError, r"data\.json: cannot be read"),
        (lambda run: (run / "predictor.json").write_text("{"), InputError, r"predictor\.json is damaged"),
        (lambda run: (run / "environment.json").write_text("["), InputError, r"environment\.json is damaged"),
        (lambda run: (run / "config.toml").write_text("epochs ="), InputError, "not a TOML file"),
    ],
    ids=["every checkpoint", "all of checkpoints", "the lock", "data", "predictor", "environment", "config"],
)  # fmt: skip
@tally.trial("files of a run: missing or truncated, named")
def test_names_a_missing_or_truncated_file_and_does_not_start_over(copied, lose, error, message):
    lose(copied)
    before = tree(copied)
    for _ in range(2):
        with pytest.raises(error, match=message):
            in_process(copied)
    after = tree(copied)
    for files in (before, after):
        files.pop(Path("checkpoints/jaxcls.lock"), None)  # names the process that held it
    assert after == before


def test_a_missing_newest_checkpoint_is_reported(copied, caplog):
    *_, before, newest = real_runs.steps_in(copied)
    shutil.rmtree(copied / "checkpoints" / str(newest))
    in_process(copied)
    assert f"the newest checkpoint of {copied / 'checkpoints'}, of step {newest}, is missing" in caplog.text
    assert real_runs.steps_in(copied)[-2:] == [before, newest]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"of another run.*\n  seed: saved 1, now 0$"),
        (
            {"dtype": "bfloat16", "optimizer": "sgd"},
            r"of another run.*\n(.*\n)*  dtype: saved 'bfloat16', now 'float32'\n(.*\n)*  optimizer: saved 'sgd', now",
        ),
        ({"data": "another"}, r"\n  data: saved {'data': '\w{64}'}, now {'data': '\w{64}'}\n"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@tally.trial("files of a run: checkpoints of another optimizer, seed, dtype or data, refused")
def test_refuses_checkpoints_of_another_run_and_names_the_difference(copied, tmp_path, changes, message):
    if "data" in changes:
        # The same table with another value in one row.
        table = Path(jaxcls.__file__).parent / "data/samples/csv/wine.csv"
        lines = table.read_text(encoding="utf-8").splitlines()
        lines[5] = ",".join(["99.0", *lines[5].split(",")[1:]])
        other = tmp_path / "table.csv"
        other.write_text("\n".join(lines) + "\n", encoding="utf-8")
        changes = {"data": other, "label_column": ("class",)}
    in_process(tmp_path / "other", **changes)
    shutil.rmtree(copied / "checkpoints")
    shutil.copytree(tmp_path / "other/checkpoints", copied / "checkpoints")
    before = tree(copied / "checkpoints")
    with pytest.raises(InputError, match=message):
        in_process(copied)
    after = tree(copied / "checkpoints")
    for files in (before, after):
        files.pop(Path("jaxcls.lock"))
    assert after == before


def test_fit_refuses_checkpoints_of_another_seed_data_or_batch_size(tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    made = jaxcls.compile(lambda rngs: nnx.Linear(3, 2, rngs=rngs), loss="sparse_categorical_crossentropy")
    options = {"epochs": 1, "batch_size": 8, "verbose": False, "run_dir": tmp_path}
    made.fit(made.init(0), (x, y), **options)
    with pytest.raises(InputError, match=r"is of another run.*\n  initial state .weights, seed, optimizer.: differs$"):
        made.fit(made.init(1), (x, y), **options)
    other = dataclasses.replace(made, augment=lambda key, inputs, labels: (-inputs, labels))
    with pytest.raises(InputError, match=r"\n  step .model, loss, optimizer, augmentation, version of jax.: differs$"):
        other.fit(made.init(0), (x, y), **options)
    with pytest.raises(InputError, match="holds a run on other data"):
        made.fit(made.init(0), (x, 1 - y), **options)
    with pytest.raises(InputError, match=r"batch_size \(begun with 8, now 16\)"):
        made.fit(made.init(0), (x, y), **{**options, "batch_size": 16})


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A directory with two checkpoints, and the saved states by step."""
    model = functional(lambda rngs: nnx.Sequential(nnx.Linear(8, 64, rngs=rngs), nnx.Linear(64, 3, rngs=rngs)))
    folder = tmp_path_factory.mktemp("states")
    made = {}
    with CheckpointManager(folder) as saved:
        for step in (1, 2):
            state = steps.init_state(model, optax.adam(1e-3), seed=step)
            made[step] = state._replace(step=jnp.int32(step), key=jax.random.key(0))
            saved.save(step, made[step], metadata={"step": step}, metrics={"accuracy": 0.5})
    return folder, made


@pytest.mark.faults_long
@pytest.mark.parametrize("number", range(FILES))
def test_a_flipped_bit_is_detected_or_has_no_effect(states, tmp_path, caplog, number):
    """What is restored equals what was saved bit for bit."""
    caplog.set_level(logging.CRITICAL)
    folder, made = states
    files = [path for path in sorted((folder / "2").rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) == FILES
    file = files[number]
    name = file.relative_to(folder / "2")
    # Data files are named by a hash.
    case = f"a flipped bit in a checkpoint: {f'{name.parent}/...' if len(name.name) == 32 else name}"
    rng = np.random.default_rng(number)
    wrong = []
    for bit in rng.choice(8 * file.stat().st_size, size=FLIPS, replace=False):
        tally.record(case, tried=1)
        directory = Path(shutil.copytree(folder, tmp_path / "run"))
        flip(directory / file.relative_to(folder), int(bit))
        with CheckpointManager(directory) as saved:
            restored = saved.restore(made[1])
        aside = [Path(bad.path).name for bad in restored.quarantined]
        exact = real_runs.same_bits(restored.state, made[restored.step])
        reported = aside == ["2.damaged-1"] * (2 - restored.step)
        if exact and reported and restored.metadata == {"step": restored.step}:
            tally.record(case, passed=1, outcome="detected" if restored.step == 1 else "without effect")
        else:
            wrong.append(int(bit))
        shutil.rmtree(directory)
    assert not wrong
