"""What is kept for a page: scikit-learn's curves, thinned; the surest mistakes; examples as they can be shown."""

import base64
import io
import itertools
import json

import numpy as np
import pytest
import sklearn.metrics as sk
from made_records import made
from numpy.testing import assert_allclose
from PIL import Image

from jaxcls import metrics
from jaxcls.data.dataset import Split
from jaxcls.reports import summary


def drawn(rows, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.3).astype(np.int32)
    return np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(4), labels


def summarized(scores, labels, *, problem="binary", names=("no", "yes"), threshold=0.5, inputs=None, weights=None):
    inputs = np.array([f"text {row}" for row in range(len(labels))], object) if inputs is None else inputs
    part = Split(inputs, labels, weights)
    report = metrics.report(
        scores, labels, problem=problem, class_names=names, threshold=threshold, sample_weight=weights
    )
    parts = {"train": part, "validation": part, "test": part}
    return summary.summarize(report, scores, parts, problem=problem, class_names=names, thresholds=threshold)


def distance(points, line):
    """How far each point is from a line through others."""
    start, along = line[:-1], np.diff(line, axis=0)
    away = points[:, None, :] - start[None, :, :]
    share = np.clip((away * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-300), 0, 1)
    return np.linalg.norm(away - share[:, :, None] * along, axis=2).min(axis=1)


@pytest.mark.parametrize("rows", [20, 5000])
def test_curves_are_scikit_learns_but_for_points_that_do_not_matter(rows):
    scores, labels = drawn(rows)
    kept = summarized(scores, labels)["curves"]["yes"]
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    for name, points in (("roc", (fpr, tpr)), ("precision_recall", (recall[:-1], precision[:-1]))):
        exact, thinned = np.stack(points, axis=1), np.array(kept[name])
        assert 2 <= len(thinned) <= 199
        # Each point that is kept is one of the curve, to the four decimals that are kept.
        assert np.abs(thinned[:, None, :] - exact[None, :, :]).max(axis=2).min(axis=1).max() < 1e-4
        assert distance(exact, thinned).max() < (1e-4 if rows == 20 else 5e-3)
    x, y = np.array(kept["roc"]).T
    assert sk.auc(x, y) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-3)
    across, up = np.array(kept["precision_recall"]).T
    assert np.diff(across).min() >= 0
    summed = float(np.diff(across, prepend=0.0) @ up)
    assert summed == pytest.approx(sk.average_precision_score(labels, scores), abs=0.01)


def test_what_lies_straight_between_others_is_thinned_away_and_nothing_else():
    corners = np.array([[0, 0], [0, 0.4], [0.5, 0.4], [0.5, 1], [1, 1]])
    dense = np.concatenate([
        np.linspace(start, end, 20, endpoint=False) for start, end in itertools.pairwise(corners)
    ] + [corners[-1:]])  # fmt: skip
    assert_allclose(summary.thin(dense), corners, atol=1e-12)


def test_of_many_points_those_farthest_from_the_curve_so_far_are_taken():
    x = np.linspace(0, 1, 2001)
    curve = np.stack([x, np.where(np.arange(2001) == 777, 5.0, x**2)], axis=1)
    thinned = summary.thin(curve, 40)
    assert len(thinned) == 40
    assert [x[777], 5.0] in thinned.tolist()
    assert thinned[0].tolist() == [0, 0]
    assert thinned[-1].tolist() == [1, 1]
    away = np.interp(x, thinned[:, 0], thinned[:, 1]) - curve[:, 1]
    assert np.abs(away).max() < 0.01


def test_of_many_labels_the_curves_of_those_that_are_ranked_worst_are_kept():
    records = made(names=tuple(f"class {number}" for number in range(30)), rows=300)
    kept = records.summary["curves"]
    values = {label: row["average_precision"] for label, row in records.results["labels"].items()}
    assert len(kept) == summary.MOST_CURVES
    assert max(values[label] for label in kept) <= min(value for label, value in values.items() if label not in kept)


def test_the_surest_mistakes_come_first():
    scores = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.0, 0.2, 0.8], [0.1, 0.7, 0.2]])
    found = summary.mistakes(scores, np.array([0, 0, 1, 2]), problem="multiclass", class_names="abc")
    assert [(m.row, m.truth, m.predicted, m.confidence, m.truth_probability) for m in found] == [
        (2, "b", "c", 0.8, 0.2),
        (3, "c", "b", 0.7, 0.2),
        (1, "a", "b", 0.6, 0.4),
    ]


def test_a_mistake_of_several_labels_is_one_of_a_label_at_its_threshold_and_never_of_one_that_is_not_known():
    scores = np.array([[0.9, 0.3], [0.2, 0.3], [0.6, 0.1]])
    labels = np.array([[np.nan, 1], [1, 0], [1, 0]], np.float32)
    found = summary.mistakes(
        scores, labels, problem="multilabel", class_names=("x", "y"), thresholds=np.array([0.5, 0.25])
    )
    assert [(m.row, m.label, m.truth, m.predicted) for m in found] == [(1, "x", "yes", "no"), (1, "y", "no", "yes")]
    assert found[0].confidence == pytest.approx(0.8)
    assert found[1].confidence == pytest.approx(0.3)


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel"])
def test_the_confusion_is_the_matrix_at_the_thresholds(problem):
    records = made(problem, names=("a", "b") if problem == "binary" else ("a", "b", "c"))
    kept = records.summary["confusion"]
    if problem == "multilabel":
        assert np.array(kept).shape == (3, 2, 2)
        assert [sum(map(sum, matrix)) for matrix in kept] == [120] * 3
        for matrix, values in zip(kept, records.results["labels"].values(), strict=True):
            assert matrix[1][1] / sum(matrix[1]) == pytest.approx(values["recall"])
    else:
        right = sum(weight for true, predicted, weight in kept if true == predicted)
        assert sum(weight for *_, weight in kept) == 120
        assert right / 120 == pytest.approx(records.results["metrics"]["accuracy"])


def test_the_balance_counts_what_is_known():
    labels = np.array([[1, np.nan], [0, 1], [1, 0]], np.float32)
    kept = summarized(np.array([[0.9, 0.5], [0.1, 0.5], [0.8, 0.2]]), labels, problem="multilabel", names=("x", "y"))
    assert kept["balance"]["test"] == {"examples": 3, "counts": [2, 1], "known": [3, 2]}
    scores, labels = drawn(50)
    assert summarized(scores, labels)["balance"]["train"]["counts"] == np.bincount(labels).tolist()


@pytest.mark.parametrize(("side", "channels", "shown"), [(28, 1, 28), (28, 3, 28), (200, 3, 96), (200, 1, 96)])
def test_an_image_is_kept_as_a_small_png(side, channels, shown):
    kept = made(side=side, channels=channels).summary["mistakes"][0]["example"]
    image = Image.open(io.BytesIO(base64.b64decode(kept["png"], validate=True)))
    assert image.format == "PNG"
    assert image.size == (shown, shown)
    assert image.mode == ("L" if channels == 1 else "RGB")


def test_a_png_holds_the_pixels_of_the_example():
    images = np.arange(3 * 4 * 5 * 1, dtype=np.uint8).reshape(3, 4, 5, 1)
    kept = summarized(np.array([0.9, 0.9, 0.1]), np.array([0, 1, 0], np.int32), inputs=images)
    (mistake,) = kept["mistakes"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(mistake["example"]["png"]))))
    assert_allclose(pixels, images[0, :, :, 0])


def test_a_long_text_is_cut_and_a_wide_row_too():
    long = made(kind="texts", text="word " * 200).summary["mistakes"][0]["example"]
    assert len(long["text"]) == 400
    assert long["more"] > 500
    row = made(kind="table").summary["mistakes"][0]["example"]
    assert len(row["columns"]) == 8
    assert row["more"] == 2


def test_weights_count():
    scores, labels = drawn(40)
    weights = np.where(np.arange(40) < 20, 2.0, 0.0).astype(np.float32)
    kept = summarized(scores, labels, weights=weights)
    half = summarized(scores[:20], labels[:20])
    assert kept["curves"] == half["curves"]
    assert kept["intervals"] == half["intervals"]
    assert sum(kept["reliability"]["weight"]) == 40


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel"])
def test_a_summary_is_strict_json_and_small(problem):
    kept = made(problem, names=("a", "b") if problem == "binary" else ("a", "b", "c")).summary
    written = json.dumps(kept, allow_nan=False)
    assert json.loads(written) == kept
    assert len(written) < 150_000
