"""The problem of several outputs: each is the multiclass problem that it would be by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from jaxcls import losses, tasks
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Split
from jaxcls.reports import summary
from jaxcls.tasks import build
from jaxcls.training import problems
from jaxcls.training.settings import Settings

KIND = problems.get("multioutput")
NAMES = ("size: small", "size: large", "colour: red", "colour: green", "colour: blue")
SIZES, COLOURS = slice(0, 2), slice(2, 5)
ROWS = 60


@pytest.fixture(scope="module")
def drawn():
    """Logits and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROWS, 5)).astype(np.float32)
    return logits, np.stack([rng.integers(0, 2, ROWS), rng.integers(2, 5, ROWS)], axis=1).astype(np.int32)


def settings(**given):
    return build.with_recipe(
        tasks.get("fashion_mnist_groups"), Settings(task="fashion_mnist_groups", label_smoothing=0.0, **given)
    )


def head(truth, **given):
    names = ["size_accuracy", "colour_log_loss"]
    return KIND.head(settings(**given), None, class_names=NAMES, train_labels=truth, metrics=names)


def probabilities(logits):
    exps = np.exp(np.asarray(logits, np.float64))
    return np.concatenate(
        [exps[:, of_output] / exps[:, of_output].sum(axis=1, keepdims=True) for of_output in (SIZES, COLOURS)], axis=1
    )


@pytest.mark.parametrize("weight", [None, "balanced"])
def test_the_loss_is_the_weighted_sum_of_those_of_the_outputs(drawn, weight):
    logits, truth = drawn
    total, each = head(truth, loss_weights=(1.0, 0.25), class_weight=weight).loss(logits, truth), []
    for of_output, own in ((SIZES, truth[:, 0]), (COLOURS, truth[:, 1] - 2)):
        balanced = labels.class_weights(own, of_output.stop - of_output.start) if weight else None
        each.append(losses.softmax_cross_entropy(logits[:, of_output], own, class_weight=balanced, normalizer="batch"))
    np.testing.assert_allclose(total, each[0] + 0.25 * each[1], rtol=1e-6)


def test_masked_rows_have_no_part_in_it(drawn):
    logits, truth = drawn
    mask = jnp.arange(ROWS) < 20
    of_all = head(truth).loss(logits, truth, mask=mask)
    np.testing.assert_allclose(of_all, head(truth).loss(logits[:20], truth[:20]), rtol=1e-6)
    of_each = head(truth).loss(logits, truth, mask=mask, normalizer="none")
    assert of_each.shape == (ROWS,)
    np.testing.assert_allclose(of_each.sum() / 20, of_all, rtol=1e-6)


def test_scores_are_the_probabilities_of_each_output(drawn):
    logits, _ = drawn
    np.testing.assert_allclose(jax.jit(KIND.scores(None, NAMES))(logits), probabilities(logits), rtol=1e-5)


def test_the_metrics_are_those_of_each_output_as_in_scikit_learn(drawn):
    logits, truth = drawn
    scores = probabilities(logits)
    expected = {
        "size_accuracy": accuracy_score(truth[:, 0], scores[:, SIZES].argmax(axis=1)),
        "colour_log_loss": log_loss(truth[:, 1], scores[:, COLOURS]),
    }
    measured = {name: metric(scores, truth) for name, metric in head(truth).metrics.items()}
    assert measured == pytest.approx(expected)
    report = KIND.report(scores, Split(np.zeros((ROWS, 4, 4, 1), np.uint8), truth), class_names=NAMES, thresholds=0.5)
    assert {name: report["metrics"][name] for name in expected} == pytest.approx(expected)
    assert [*report["labels"]] == [*NAMES]
    assert sum(report["labels"][name]["support"] for name in NAMES[SIZES]) == ROWS


def test_a_summary_has_what_is_in_those_of_the_outputs(drawn):
    logits, truth = drawn
    scores, part = probabilities(logits), Split(np.zeros((ROWS, 4, 4, 1), np.uint8), truth)
    report = KIND.report(scores, part, class_names=NAMES, thresholds=0.5)
    whole = KIND.summarize(report, scores, {"test": part}, class_names=NAMES, thresholds=0.5)
    wrong = (scores[:, SIZES].argmax(axis=1) != truth[:, 0]).sum() + (
        scores[:, COLOURS].argmax(axis=1) + 2 != truth[:, 1]
    ).sum()
    assert sum(weight for true, predicted, weight in whole["confusion"] if true != predicted) == wrong
    assert all((true < 2) == (predicted < 2) for true, predicted, _ in whole["confusion"])
    assert whole["balance"]["test"]["counts"] == np.bincount(truth.ravel()).tolist()
    assert len(whole["mistakes"]) == min(wrong, summary.MOST_MISTAKES)
    sure = [mistake["confidence"] for mistake in whole["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    assert {mistake["label"] for mistake in whole["mistakes"]} <= {"size", "colour"}
    # The bins of all decisions, as if they were of one problem.
    sides = [(scores[:, SIZES], truth[:, 0]), (scores[:, COLOURS], truth[:, 1] - 2)]
    sure = np.concatenate([own.max(axis=1) for own, _ in sides])
    right = np.concatenate([own.argmax(axis=1) == known for own, known in sides])
    bins, count = whole["reliability"], len(whole["reliability"]["weight"])
    place = (sure * count).astype(int)
    weights = np.bincount(place, minlength=count)
    np.testing.assert_allclose(bins["weight"], weights)
    for name, values in (("confidence", sure), ("accuracy", right)):
        sums = np.bincount(place, weights=values, minlength=count)
        expected = [total / weight if weight else np.nan for total, weight in zip(sums, weights, strict=True)]
        np.testing.assert_allclose(np.array(bins[name], float), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([0, 1], r"labels \(2,\) must be \(N, 2\): one for each output"),
        ([[0, 2], [2, 3]], "row 1, output 'size' holds 2; its classes are the integers 0 to 1"),
        ([[0, 2], [1, 1]], "row 1, output 'colour' holds 1; its classes are the integers 2 to 4"),
        ([[0.0, 2.0]], "row 0, output 'size' holds 0.0"),
    ],
)
def test_bad_labels_are_named(truth, message):
    with pytest.raises(InputError, match=message):
        KIND.check_labels(Split({}, np.array(truth)), NAMES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b"), "class 'a' names no output"),
        (("x: a", "y: b", "x: c"), "the classes of output 'x' must be adjacent, and two or more"),
        (("x: a", "x: b", "y: c"), "the classes of output 'y'"),
    ],
)
def test_names_that_are_not_of_outputs_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        labels.outputs(names)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tune_threshold": "f1"}, "--tune-threshold"),
        ({"box_loss": "giou"}, "--box-loss"),
        ({"monitor": "accuracy"}, "unknown metric of an output 'accuracy'"),
        ({"monitor": "article_subset_accuracy"}, "'subset_accuracy' does not fit a multiclass problem"),
        ({"loss": "binary_crossentropy"}, "does not fit a multioutput problem"),
    ],
)
def test_settings_of_other_problems_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        settings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss_weights": (1.0, -1.0)}, r"--loss-weights is \(1.0, -1.0\); give 2 numbers for size, colour"),
        ({"loss_weights": (0.0, 0.0)}, "--loss-weights"),
    ],
)
def test_weights_that_fit_no_outputs_are_refused(drawn, given, message):
    with pytest.raises(InputError, match=message):
        head(drawn[1], **given)


def test_a_metric_of_an_output_that_there_is_not_is_refused(drawn):
    with pytest.raises(InputError, match="unknown output 'weight'"):
        KIND.head(settings(), None, class_names=NAMES, train_labels=drawn[1], metrics=["weight_accuracy"])


def test_an_output_of_one_class_is_nothing_to_learn(drawn):
    good, one = Split({}, drawn[1]), Split({}, np.stack([drawn[1][:, 0], np.full(ROWS, 2)], axis=1))
    KIND.check_learnable(good, good)
    with pytest.raises(InputError, match="training examples have class 2"):
        KIND.check_learnable(one, good)
