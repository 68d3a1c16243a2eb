"""Populations: a member is what it would be alone, whatever the others are, however often all were interrupted."""

import dataclasses
import functools
import itertools
import threading

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcls import losses, optimizers
from jaxcls._utils.errors import InputError
from jaxcls._utils.interruption import Interrupted
from jaxcls.data import batching
from jaxcls.models import functional
from jaxcls.optimizers.hyperparameters import with_hyperparameters
from jaxcls.reports.callbacks import Callback
from jaxcls.training import loop, mesh, population, steps, together
from jaxcls.training.experiment import Experiment
from jaxcls.training.loop import DivergedError, FitConfig
from jaxcls.training.mesh import on_devices
from jaxcls.training.objective import OutputSpec
from jaxcls.training.population import Member, train_members

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 4)).astype(np.float32)
DATA = batching.examples(INPUTS, (INPUTS[:, 0] > 0).astype(np.int32))
HALF = batching.examples(INPUTS[:30], DATA.labels[:30])
CONFIG = FitConfig(3, 10)
SPEC = OutputSpec("multiclass", losses.get("softmax_cross_entropy", normalizer="batch"))
MODEL = functional(
    lambda rngs: nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.Dropout(0.1, rngs=rngs), nnx.Linear(8, 2, rngs=rngs))
)
EXPERIMENT = Experiment(model=MODEL, objective=SPEC, optimizer=optax.adam(1e-2))
MEMBERS = [
    Member(f"{name}-{seed}", EXPERIMENT, train, seed=seed)
    for name, train in (("all", DATA), ("half", HALF))
    for seed in (0, 1)
]


def optimizer(learning_rate, weight_decay):
    rate = optimizers.schedule("cosine", learning_rate=learning_rate, total_steps=18, warmup_steps=3)
    return optimizers.adamw(rate, weight_decay=weight_decay)


def train(folder, members=MEMBERS, **options):
    return train_members(members, CONFIG, folder=folder, **{"say": lambda line: None} | options)


def alone(member, experiment=None):
    """The weights of a member that the loop trains without a population, on one device."""
    one = experiment or member.experiment
    with on_devices(jax.devices()[:1]):
        state, _ = loop.train(one, one.init(member.seed), member.train, None, CONFIG, say=lambda line: None)
    return steps.evaluated_weights(state)


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_member_is_what_it_would_be_alone(tmp_path):
    trained = train(tmp_path)
    assert [one.name for one in trained] == [member.name for member in MEMBERS]
    for one, member in zip(trained, MEMBERS, strict=True):
        assert_equal(one.weights, alone(member))
        assert len(one.history) == 3
        assert not one.diverged


def test_members_train_at_the_same_time_on_several_devices_or_on_one(tmp_path, monkeypatch):
    devices, lines = set(), []

    class Devices(Callback):
        def on_chunk_end(self, step, loss):
            devices.add((threading.get_ident(), mesh.devices()))

    expected = train(tmp_path / "two", callbacks=[Devices()], say=lines.append)
    assert {device for _, device in devices} == {(device,) for device in jax.devices()}
    assert lines == ["members train 2 at a time, each on a device"]
    # As on a single CPU, where threads share the device.
    monkeypatch.setattr(population, "_device_sets", lambda members: [tuple(jax.devices()[1:])] * 2)
    for one, other in zip(expected, train(tmp_path / "one"), strict=True):
        assert one.name == other.name
        assert_equal(one.weights, other.weights)


def test_one_compiled_step_serves_all_hyperparameters(tmp_path):
    values = {"learning_rate": 1e-2, "weight_decay": 0.1}
    experiment = dataclasses.replace(EXPERIMENT, optimizer=with_hyperparameters(optimizer, values))
    chosen = [{"learning_rate": rate, "weight_decay": decay} for rate, decay in ((1e-2, 0.1), (1e-3, 0.0), (3e-2, 0.5))]
    members = [Member(str(i), experiment, DATA, hyperparameters=one) for i, one in enumerate(chosen)]
    trained = train(tmp_path, members)
    assert experiment.train_chunk._cache_size() <= jax.device_count()
    for one, member in zip(trained, members, strict=True):
        fixed = dataclasses.replace(EXPERIMENT, optimizer=optimizer(**member.hyperparameters))
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one.weights, alone(member, fixed)
        )


def test_interrupted_population_ends_as_an_uninterrupted_one(tmp_path):
    expected = train(tmp_path / "whole")
    for stop_at in (3, 5, 9):
        polled = itertools.count()
        try:
            continued = train(tmp_path / "stopped", stop=lambda polled=polled, stop_at=stop_at: next(polled) >= stop_at)
        except Interrupted:
            continue
    continued = train(tmp_path / "stopped")
    for one, other in zip(expected, continued, strict=True):
        assert_equal(one.weights, other.weights)


def test_finished_members_are_not_trained_again(tmp_path, monkeypatch):
    expected = train(tmp_path)
    monkeypatch.setattr(Experiment, "train_chunk", None)
    for one, other in zip(expected, train(tmp_path), strict=True):
        assert_equal(one.weights, other.weights)


def test_best_epoch_of_each_member(tmp_path):
    members = [member._replace(validation=DATA) for member in MEMBERS]
    config = CONFIG._replace(monitor="loss", mode="min")
    for one in train_members(members, config, folder=tmp_path, restore_best=True, say=lambda line: None):
        best = min(one.history, key=lambda entry: entry["val_loss"])
        assert one.step == best["step"]


def test_diverged_member_is_an_error_or_is_returned(tmp_path):
    broken = batching.examples(np.full_like(INPUTS, np.nan), DATA.labels)
    config = CONFIG._replace(max_skipped_steps=2)
    members = [Member("broken", EXPERIMENT, broken), MEMBERS[0]]
    options = {"folder": tmp_path, "say": lambda line: None}
    with pytest.raises(DivergedError):
        train_members(members, config, **options)
    first, second = train_members(members, config, allow_divergence=True, **options)
    assert "not finite" in first.diverged
    assert_equal(second.weights, alone(MEMBERS[0]))


def test_fit_population_predicts_each_example_by_models_that_have_not_seen_it(tmp_path):
    options = {"folds": 3, "seeds": [0, 1], "batch_size": 10, "verbose": False}
    population = EXPERIMENT.fit_population((INPUTS, DATA.labels), 3, checkpoints=tmp_path, **options)
    for number in range(3):
        pair = population.members[2 * number : 2 * number + 2]
        # Trained on all examples of the other folds, and on none of its own.
        rows = [row for row, scores in enumerate(population.out_of_fold) if np.allclose(scores, mean(pair, row))]
        assert len(rows) == 20
        others = np.setdiff1d(np.arange(60), rows)
        member = Member("", EXPERIMENT, batching.examples(INPUTS[others], DATA.labels[others]), seed=1)
        assert_equal(pair[1].weights, alone(member))
    everyone = mean(population.members, slice(None))
    np.testing.assert_allclose(population.predict(INPUTS), everyone, atol=1e-6)
    with pytest.raises(InputError, match="batch_size"):
        EXPERIMENT.fit_population((INPUTS, DATA.labels), 3, checkpoints=tmp_path, **options | {"batch_size": 20})


def mean(members, row):
    """The mean probabilities of members for a row, or for several."""
    scores = [EXPERIMENT.scores(member.weights, INPUTS) for member in members]
    return np.mean(scores, axis=0)[row]


@pytest.fixture
def in_one_program(monkeypatch):
    """As on an accelerator, where the measurement says that this is faster."""
    times = iter([2.0, 1.0] * 10)
    monkeypatch.setattr(together, "BACKENDS", ("cpu",))
    monkeypatch.setattr(together, "_milliseconds", lambda run: (jax.block_until_ready(run()), next(times))[1])
    monkeypatch.setattr(population, "_device_sets", lambda members: [tuple(jax.devices()[:1])])


# One has NaN in its data and diverges, one stops early, and those of half the data have fewer steps.
BROKEN = batching.examples(np.full_like(INPUTS, np.nan), DATA.labels)
DIFFERENT = [
    *MEMBERS[:3],
    Member("broken", EXPERIMENT, BROKEN, seed=2),
    Member("other", EXPERIMENT, DATA, seed=3),
]


def test_members_of_one_program_are_what_they_would_be_alone(tmp_path, monkeypatch, in_one_program):
    config = CONFIG._replace(epochs=4, patience=1, monitor="loss", mode="min", max_skipped_steps=8)
    members = [member._replace(validation=DATA) for member in DIFFERENT]
    options = {"allow_divergence": True, "restore_best": True}
    lines, sizes = [], set()

    class Sizes(together.Meeting):
        def __init__(self, program, members):
            super().__init__(program, members)
            sizes.add(members)

    monkeypatch.setattr(together, "Meeting", Sizes)
    trained = train_members(members, config, folder=tmp_path / "together", say=lines.append, **options)
    assert sizes == {4, 1}
    assert lines[0] == "members train as one program (vmap): a step of 4 takes 0.167 ms, and one of each 0.333 ms"
    polls = itertools.count()
    with pytest.raises(Interrupted):
        train_members(
            members, config, folder=tmp_path / "stopped", say=lines.append, stop=lambda: next(polls) > 12, **options
        )
    # What was chosen is not measured again: other times would be other bits.
    monkeypatch.setattr(together, "_milliseconds", None)
    again = train_members(members, config, folder=tmp_path / "stopped", say=lines.append, **options)
    monkeypatch.setattr(together, "BACKENDS", ())
    separate = train_members(members, config, folder=tmp_path / "separate", say=lines.append, **options)
    for one, other, by_itself in zip(trained, again, separate, strict=True):
        assert one.name == other.name == by_itself.name
        assert_equal(one.weights, other.weights)
        assert (one.step, len(one.history), bool(one.diverged)) == (
            by_itself.step, len(by_itself.history), bool(by_itself.diverged),
        )  # fmt: skip
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one.weights, by_itself.weights
        )
        scores = [EXPERIMENT.scores(each.weights, INPUTS) for each in (one, by_itself)]
        np.testing.assert_allclose(*scores, atol=1e-5)
    assert {bool(one.diverged) for one in trained} == {False, True}
