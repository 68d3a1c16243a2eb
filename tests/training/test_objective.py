"""One normalizer: an epoch's training loss, the validation loss and a float64 oracle agree for the same parameters."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.special import expit, log_softmax

import jaxcls
from jaxcls import losses, optimizers
from jaxcls.data.batching import Examples, copies
from jaxcls.models import layers
from jaxcls.training import debugging, objective

COUNT, FEATURES, CLASSES = 42, 4, 3
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(COUNT, FEATURES)).astype(np.float32)
KINDS = RANDOM.integers(0, CLASSES, COUNT).astype(np.int32)
# The labels of a whole batch, and of half of the others, are unknown.
SOME_KINDS = np.where((np.arange(COUNT) < 16) | (RANDOM.random(COUNT) < 0.5), -1, KINDS).astype(np.int32)
TAGS = np.where(RANDOM.random((COUNT, CLASSES)) < 0.6, np.nan, RANDOM.random((COUNT, CLASSES)) < 0.4)
WEIGHTS = RANDOM.choice([1.0, 10.0, 30.0], COUNT).astype(np.float32)
CLASS_WEIGHT = (1.0, 5.0, 2.0)
UNMOVED = optax.sgd(0.0)


def linear(rngs):
    return nnx.Linear(FEATURES, CLASSES, rngs=rngs)


class Two(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = linear(rngs), linear(rngs)

    def __call__(self, inputs):
        return {"a": self.a(inputs), "b": self.b(inputs)}


def multiclass(params, labels, normalizer="batch", class_weight=(1.0, 1.0, 1.0)):
    known = labels >= 0
    log_p = log_softmax(INPUTS.astype(np.float64) @ params["kernel"] + params["bias"], axis=1)
    weight = (WEIGHTS * np.array(class_weight)[labels])[known]
    divisor = {"batch": known.sum(), "weights": weight.sum(), "positives": known.sum()}[normalizer]
    return -(weight * log_p[np.arange(COUNT), labels][known]).sum() / divisor


def multilabel(params, normalizer):
    p = expit(INPUTS.astype(np.float64) @ params["kernel"] + params["bias"])
    known, on = ~np.isnan(TAGS), TAGS == 1
    weight = WEIGHTS[:, None] * known * np.where(on, 3.0, 1.0)
    values, labels = -weight * np.log(np.where(on, p, 1 - p)), np.maximum(known.sum(axis=1), 1)
    divisor = {
        "batch": known.any(axis=1).sum(),
        "weights": (weight.sum(axis=1) / labels).sum(),
        "positives": on.sum(),
    }
    return (values.sum(axis=1) / (1 if normalizer == "positives" else labels)).sum() / divisor[normalizer]


def fit(experiment, data, **options):
    state, history = experiment.fit(experiment.init(0), data, 1, data, batch_size=16, verbose=False, **options)
    return jax.tree.map(np.float64, state.params), history[0]


def agrees(entry, expected):
    assert entry["loss"] == pytest.approx(expected, rel=1e-5)
    assert entry["val_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("normalizer", ["batch", "weights", "positives"])
def test_one_output(normalizer):
    loss = losses.get("softmax_cross_entropy", ignore_label=-1, normalizer=normalizer)
    compiled = jaxcls.compile(linear, UNMOVED, loss, class_weight=CLASS_WEIGHT)
    params, entry = fit(compiled, (INPUTS, SOME_KINDS, WEIGHTS))
    agrees(entry, multiclass(params, SOME_KINDS, normalizer, CLASS_WEIGHT))


@pytest.mark.parametrize("normalizer", ["batch", "weights", "positives"])
def test_labels_of_which_some_are_unknown(normalizer):
    loss = losses.get("binary_crossentropy", "multilabel", ignore_label=np.nan, pos_weight=3.0, normalizer=normalizer)
    compiled = jaxcls.compile(linear, UNMOVED, loss, ["f1"], problem="multilabel")
    params, entry = fit(compiled, (INPUTS, TAGS.astype(np.float32), WEIGHTS))
    agrees(entry, multilabel(params, normalizer))


def two(optimizer):
    loss = losses.get("softmax_cross_entropy", ignore_label=-1)
    return jaxcls.compile(Two, optimizer, {"a": loss, "b": loss}, {"a": [], "b": []}, {"b": 0.25})


BOTH = (INPUTS, {"a": SOME_KINDS, "b": KINDS}, WEIGHTS)


def test_several_outputs_each_by_its_own_labels():
    params, entry = fit(two(UNMOVED), BOTH)
    a, b = multiclass(params["a"], SOME_KINDS), multiclass(params["b"], KINDS)
    agrees(entry, a + 0.25 * b)
    assert entry["val_a_loss"] == pytest.approx(a, rel=1e-5)
    assert entry["val_b_loss"] == pytest.approx(b, rel=1e-5)


def test_a_user_loss():
    surprise = functools.partial(optax.softmax_cross_entropy_with_integer_labels)
    compiled = jaxcls.compile(linear, UNMOVED, surprise, problem="multiclass")
    params, entry = fit(compiled, (INPUTS, KINDS, WEIGHTS))
    agrees(entry, multiclass(params, KINDS))


@pytest.mark.parametrize(("problem", "labels"), [("multiclass", SOME_KINDS), ("multilabel", TAGS.astype(np.float32))])
def test_losses_of_very_many_classes_from_some_logits_at_a_time(monkeypatch, problem, labels):
    monkeypatch.setattr(objective, "_MOST_LOGITS", 7 * CLASSES)
    name = "softmax_focal" if problem == "multiclass" else "sigmoid_cross_entropy"
    loss = losses.get(name, problem, ignore_label=-1 if problem == "multiclass" else np.nan)
    results, key = [], jax.random.key(1)
    for layer in (layers.Linear, layers.Classifier):
        made = functools.partial(layer, FEATURES, CLASSES)
        experiment = jaxcls.compile(lambda rngs, made=made: made(rngs=rngs), UNMOVED, loss, [], problem=problem)
        state = experiment.init(0)

        def value(params, experiment=experiment, state=state):
            outputs, _ = experiment.model.apply(params, state.model_state, INPUTS, key=key)
            return objective.total_loss(experiment.objective)(outputs, labels, sample_weight=WEIGHTS, mask=KINDS > 0)

        results.append(jax.value_and_grad(value)(state.params))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)
    program = str(jax.make_jaxpr(value)(state.params))
    assert f"f32[7,{CLASSES}]" in program
    if problem == "multilabel":
        assert debugging.examine(experiment, state, copies(Examples(INPUTS, labels, WEIGHTS), COUNT)) is None
    else:  # labels have this shape if there are several of an example
        assert f"f32[{COUNT},{CLASSES}]" not in program


def test_accumulated_epochs_are_those_of_the_large_batch():
    """The last batch of an epoch is not full, and no micro-batch is left over."""
    runs = []
    for batch_size, count in ((16, None), (4, 4)):
        experiment = two(optimizers.adam(0.01, gradient_accumulation_steps=count))
        state, history = experiment.fit(experiment.init(0), BOTH, 3, BOTH, batch_size=batch_size, verbose=False)
        assert int(state.step) == 9
        runs.append((state.params, [entry["loss"] for entry in history], [entry["val_loss"] for entry in history]))
    chex.assert_trees_all_close(*runs, rtol=1e-4, atol=1e-5)
