"""Several outputs of one model: each is trained and scored like the multiclass problem that it is alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from jaxcls import losses, tasks
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Split
from jaxcls.tasks import build
from jaxcls.training import objective as objectives
from jaxcls.training import problems
from jaxcls.training.settings import Settings

NAMES = {"size": ("small", "large"), "color": ("red", "green", "blue")}
PROBLEM = problems.get({"size": "multiclass", "color": "multiclass"}, NAMES)
ROWS = 60
THRESHOLDS = {"size": 0.5, "color": 0.5}


@pytest.fixture(scope="module")
def drawn():
    """Logits and labels by output."""
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=(ROWS, len(classes))).astype(np.float32) for name, classes in NAMES.items()}
    return logits, {name: rng.integers(0, len(NAMES[name]), ROWS).astype(np.int32) for name in NAMES}


def settings(**options):
    return build.with_recipe(
        tasks.get("fashion_mnist_groups"), Settings(task="fashion_mnist_groups", label_smoothing=0.0, **options)
    )


def objective(truth, **options):
    return PROBLEM.objective(settings(**options), truth, ["size_accuracy", "color_log_loss"])


def total_loss(truth, **options):
    return objectives.total_loss(objective(truth, **options))


def probabilities(logits):
    exps = {name: np.exp(np.asarray(values, np.float64)) for name, values in logits.items()}
    return {name: values / values.sum(axis=1, keepdims=True) for name, values in exps.items()}


@pytest.mark.parametrize("weight", [None, ("balanced",)])
def test_loss_is_the_weighted_sum_of_the_output_losses(drawn, weight):
    logits, truth = drawn
    total = total_loss(truth, loss_weights=(1.0, 0.25), class_weight=weight)
    expected = 0.0
    for name, factor in (("size", 1.0), ("color", 0.25)):
        balanced = labels.class_weights(truth[name], len(NAMES[name])) if weight else None
        expected += factor * losses.softmax_cross_entropy(
            logits[name], truth[name], class_weight=balanced, normalizer="batch"
        )
    np.testing.assert_allclose(total(logits, truth, sample_weight=None, mask=None), expected, rtol=1e-6)


def test_masked_rows_do_not_count(drawn):
    logits, truth = drawn
    total = total_loss(truth)
    masked = total(logits, truth, sample_weight=None, mask=jnp.arange(ROWS) < 20)
    first = jax.tree.map(lambda leaf: leaf[:20], (logits, truth))
    np.testing.assert_allclose(masked, total(*first, sample_weight=None, mask=None), rtol=1e-6)


def test_scores_are_the_probabilities_of_each_output(drawn):
    logits, truth = drawn
    scores = objectives.scores(objective(truth))(logits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), scores, probabilities(logits))


def test_metrics_agree_with_scikit_learn(drawn):
    logits, truth = drawn
    scores = probabilities(logits)
    expected = {
        "size_accuracy": accuracy_score(truth["size"], scores["size"].argmax(axis=1)),
        "color_log_loss": log_loss(truth["color"], scores["color"]),
    }
    specs = objective(truth)
    unused = [(np.zeros(ROWS), np.ones(ROWS))] * len(NAMES)
    measured = objectives.loss_and_metrics(specs, scores, unused, truth, np.ones(ROWS))
    assert {name: measured[name] for name in expected} == pytest.approx(expected)
    split = Split(np.zeros((ROWS, 4, 4, 1), np.uint8), truth)
    report = PROBLEM.report(scores, split, THRESHOLDS)
    assert {name: report["metrics"][name] for name in expected} == pytest.approx(expected)
    assert [*report["outputs"]["color"]["labels"]] == [*NAMES["color"]]


def test_report_and_summary_hold_those_of_each_output(drawn):
    logits, truth = drawn
    scores, split = probabilities(logits), Split(np.zeros((ROWS, 4, 4, 1), np.uint8), truth)
    report = PROBLEM.report(scores, split, THRESHOLDS)
    summary = PROBLEM.summarize(report, scores, {"test": split}, THRESHOLDS)
    for name, classes in NAMES.items():
        alone = problems.get("multiclass", classes)
        one = split._replace(labels=truth[name])
        expected = alone.report(scores[name], one, 0.5)
        assert report["outputs"][name] == expected
        assert summary["outputs"][name] == alone.summarize(expected, scores[name], {"test": one}, 0.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": [0, 2]}, "output 'size': labels: row 1 holds 2"),
        ({"color": [0, -1]}, "output 'color': labels: row 1 holds -1"),
        ({"size": [0.5, 0.0]}, "output 'size'"),
    ],
)
def test_invalid_labels_are_refused_by_output_and_row(changed, message):
    truth = {"size": [0, 1], "color": [2, 1], **changed}
    split = Split({}, {name: np.array(values) for name, values in truth.items()})
    with pytest.raises(InputError, match=message):
        PROBLEM.check_labels(split)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune_threshold": "f1"}, "--tune-threshold"),
        ({"box_loss": "giou"}, "--box-loss"),
        ({"monitor": "accuracy"}, "Did you mean 'group_accuracy'"),
        ({"monitor": "article_subset_accuracy"}, "'subset_accuracy' does not fit a multiclass problem"),
        ({"loss": "binary_crossentropy"}, "does not fit a multiclass problem"),
        ({"loss_weights": (1.0, -1.0)}, r"--loss-weights is \(1.0, -1.0\); give 2 numbers for article, group"),
        ({"loss_weights": (0.0, 0.0)}, "--loss-weights"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        settings(**options)


def test_an_output_of_one_class_is_refused(drawn):
    good = Split({}, drawn[1])
    PROBLEM.check_learnable(good, good)
    one = Split({}, drawn[1] | {"color": np.full(ROWS, 2)})
    with pytest.raises(InputError, match="output 'color': all 60 training examples have class 2"):
        PROBLEM.check_learnable(one, good)
