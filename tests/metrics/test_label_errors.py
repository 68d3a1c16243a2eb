"""Confident learning agrees with its definition in plain Python, and finds labels that were changed."""

import numpy as np
import pytest

from jaxcls import metrics


def draw(rows=400, classes=4, share=0.1, seed=0):
    """Scores of a good model of the true classes, and labels of which a share was changed."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 3 * np.eye(classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    changed = rng.random(rows) < share
    return scores, np.where(changed, (truth + rng.integers(1, classes, rows)) % classes, truth), changed


def prune_by_class(scores, labels, classes):
    """The rows whose label is wrong, the lowest score of their label first."""
    mean = [np.mean([p[k] for p, label in zip(scores, labels, strict=True) if label == k]) for k in range(classes)]
    confident = []
    for p in scores:
        above = [k for k in range(classes) if p[k] >= mean[k]]
        confident.append(max(above, key=lambda k: p[k]) if above else None)
    listed = []
    for k in range(classes):
        rows = [row for row, label in enumerate(labels) if label == k]
        counted = [row for row in rows if confident[row] is not None]
        wrong = sum(confident[row] != k for row in counted)
        lowest = sorted(rows, key=lambda row: scores[row][k])[: round(wrong / len(counted) * len(rows))]
        listed += [row for row in lowest if np.argmax(scores[row]) != k]
    return sorted(listed, key=lambda row: scores[row][labels[row]])


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_pruned_by_class_and_ranked_by_the_score_of_the_label(seed):
    scores, labels, changed = draw(seed=seed)
    errors = metrics.find_label_errors(scores, labels)
    assert errors.rows.tolist() == prune_by_class(scores, labels, 4)
    assert errors.current.tolist() == labels[errors.rows].tolist()
    assert errors.suggested.tolist() == scores[errors.rows].argmax(axis=1).tolist()
    assert changed[errors.rows[:20]].mean() > 0.9
    assert np.isin(np.flatnonzero(changed), errors.rows).mean() > 0.7


def test_labels_of_a_multilabel_problem_are_examined_each_where_known():
    scores, labels, _ = draw(classes=2)
    both = np.stack([labels, 1 - labels], axis=1).astype(float)
    both[::3, 1] = np.nan
    errors = metrics.find_label_errors(np.stack([scores[:, 1], scores[:, 0]], axis=1), both, problem="multilabel")
    one = metrics.find_label_errors(scores[:, 1], labels)
    assert errors.rows[errors.columns == 0].tolist() == one.rows.tolist()
    known = np.flatnonzero(np.arange(len(labels)) % 3)
    other = metrics.find_label_errors(scores[known, 0], 1 - labels[known])
    assert errors.rows[errors.columns == 1].tolist() == known[other.rows].tolist()
    assert np.all(np.diff(errors.current_probability) >= 0)


def test_good_labels_and_classes_without_examples_have_no_errors():
    errors = metrics.find_label_errors([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]], [0, 1, 0])
    assert errors.rows.tolist() == []
