"""The summary of a test: scikit-learn's curves, thinned; the most confident mistakes; examples to show."""

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


def sampled(rows, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.3).astype(np.int32)
    return np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(4), labels


def summarized(
    scores, labels, *, problem="binary", names=("no", "yes"), threshold=0.5, inputs=None, sample_weight=None
):
    inputs = np.array([f"text {row}" for row in range(len(labels))], object) if inputs is None else inputs
    split = Split(inputs, labels, sample_weight)
    report = metrics.report(
        scores, labels, problem=problem, class_names=names, threshold=threshold, sample_weight=sample_weight
    )
    splits = {"train": split, "validation": split, "test": split}
    return summary.summarize(report, scores, splits, problem=problem, class_names=names, thresholds=threshold)


def distance(points, line):
    """Returns the distance of each point from a polyline."""
    start, along = line[:-1], np.diff(line, axis=0)
    away = points[:, None, :] - start[None, :, :]
    share = np.clip((away * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-300), 0, 1)
    return np.linalg.norm(away - share[:, :, None] * along, axis=2).min(axis=1)


@pytest.mark.parametrize("rows", [20, 5000])
def test_curves_match_scikit_learn_within_the_tolerance_of_thinning(rows):
    scores, labels = sampled(rows)
    saved = summarized(scores, labels)["curves"]["yes"]
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    for name, points in (("roc", (fpr, tpr)), ("precision_recall", (recall[:-1], precision[:-1]))):
        exact, thinned = np.stack(points, axis=1), np.array(saved[name])
        assert 2 <= len(thinned) <= 199
        # Each remaining point is one of the exact curve, rounded to four decimals.
        assert np.abs(thinned[:, None, :] - exact[None, :, :]).max(axis=2).min(axis=1).max() < 1e-4
        assert distance(exact, thinned).max() < (1e-4 if rows == 20 else 5e-3)
    x, y = np.array(saved["roc"]).T
    assert sk.auc(x, y) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-3)
    across, up = np.array(saved["precision_recall"]).T
    assert np.diff(across).min() >= 0
    summed = float(np.diff(across, prepend=0.0) @ up)
    assert summed == pytest.approx(sk.average_precision_score(labels, scores), abs=0.01)


def test_thinning_removes_points_on_straight_lines_only():
    corners = np.array([[0, 0], [0, 0.4], [0.5, 0.4], [0.5, 1], [1, 1]])
    dense = np.concatenate([
        np.linspace(start, end, 20, endpoint=False) for start, end in itertools.pairwise(corners)
    ] + [corners[-1:]])  # fmt: skip
    assert_allclose(summary.thin(dense), corners, atol=1e-12)


def test_thinning_keeps_the_ends_and_the_farthest_points():
    x = np.linspace(0, 1, 2001)
    curve = np.stack([x, np.where(np.arange(2001) == 777, 5.0, x**2)], axis=1)
    thinned = summary.thin(curve, 40)
    assert len(thinned) == 40
    assert [x[777], 5.0] in thinned.tolist()
    assert thinned[0].tolist() == [0, 0]
    assert thinned[-1].tolist() == [1, 1]
    away = np.interp(x, thinned[:, 0], thinned[:, 1]) - curve[:, 1]
    assert np.abs(away).max() < 0.01


def test_curves_of_the_lowest_average_precision_are_saved():
    records = made(names=tuple(f"class {number}" for number in range(30)), rows=300)
    saved = records.summary["curves"]
    values = {label: row["average_precision"] for label, row in records.results["labels"].items()}
    assert len(saved) == summary.MOST_CURVES
    assert max(values[label] for label in saved) <= min(value for label, value in values.items() if label not in saved)


def test_most_confident_mistakes_come_first():
    scores = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.0, 0.2, 0.8], [0.1, 0.7, 0.2]])
    ranked = summary.mistakes(scores, np.array([0, 0, 1, 2]), problem="multiclass", class_names="abc")
    assert [(m["row"], m["truth"], m["predicted"], m["confidence"], m["truth_probability"]) for m in ranked] == [
        (2, "b", "c", 0.8, 0.2),
        (3, "c", "b", 0.7, 0.2),
        (1, "a", "b", 0.6, 0.4),
    ]


def test_multilabel_mistakes_use_the_threshold_of_the_label_and_skip_unknown_labels():
    scores = np.array([[0.9, 0.3], [0.2, 0.3], [0.6, 0.1]])
    labels = np.array([[np.nan, 1], [1, 0], [1, 0]], np.float32)
    ranked = summary.mistakes(
        scores, labels, problem="multilabel", class_names=("x", "y"), thresholds=np.array([0.5, 0.25])
    )
    assert [(m["row"], m["label"], m["truth"], m["predicted"]) for m in ranked] == [
        (1, "x", "yes", "no"),
        (1, "y", "no", "yes"),
    ]
    assert ranked[0]["confidence"] == pytest.approx(0.8)
    assert ranked[1]["confidence"] == pytest.approx(0.3)


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel"])
def test_confusion_matrix_uses_the_thresholds(problem):
    records = made(problem, names=("a", "b") if problem == "binary" else ("a", "b", "c"))
    saved = records.summary["confusion"]
    if problem == "multilabel":
        assert np.array(saved).shape == (3, 2, 2)
        assert [sum(map(sum, matrix)) for matrix in saved] == [120] * 3
        for matrix, values in zip(saved, records.results["labels"].values(), strict=True):
            assert matrix[1][1] / sum(matrix[1]) == pytest.approx(values["recall"])
    else:
        right = sum(weight for true, predicted, weight in saved if true == predicted)
        assert sum(weight for *_, weight in saved) == 120
        assert right / 120 == pytest.approx(records.results["metrics"]["accuracy"])


def test_balance_counts_known_labels():
    labels = np.array([[1, np.nan], [0, 1], [1, 0]], np.float32)
    saved = summarized(np.array([[0.9, 0.5], [0.1, 0.5], [0.8, 0.2]]), labels, problem="multilabel", names=("x", "y"))
    assert saved["balance"]["test"] == {"examples": 3, "counts": [2, 1], "known": [3, 2]}
    scores, labels = sampled(50)
    assert summarized(scores, labels)["balance"]["train"]["counts"] == np.bincount(labels).tolist()


@pytest.mark.parametrize(("side", "channels", "shown"), [(28, 1, 28), (28, 3, 28), (200, 3, 96), (200, 1, 96)])
def test_image_is_saved_as_a_small_png(side, channels, shown):
    saved = made(side=side, channels=channels).summary["mistakes"][0]["example"]
    image = Image.open(io.BytesIO(base64.b64decode(saved["png"], validate=True)))
    assert image.format == "PNG"
    assert image.size == (shown, shown)
    assert image.mode == ("L" if channels == 1 else "RGB")


def test_png_has_the_pixels_of_the_example():
    images = np.arange(3 * 4 * 5 * 1, dtype=np.uint8).reshape(3, 4, 5, 1)
    saved = summarized(np.array([0.9, 0.9, 0.1]), np.array([0, 1, 0], np.int32), inputs=images)
    (mistake,) = saved["mistakes"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(mistake["example"]["png"]))))
    assert_allclose(pixels, images[0, :, :, 0])


def test_long_texts_and_wide_rows_are_shortened():
    long = made(kind="texts", text="word " * 200).summary["mistakes"][0]["example"]
    assert len(long["text"]) == 400
    assert long["more"] > 500
    row = made(kind="table").summary["mistakes"][0]["example"]
    assert len(row["columns"]) == 8
    assert row["more"] == 2


def test_curves_and_intervals_use_sample_weights():
    scores, labels = sampled(40)
    weights = np.where(np.arange(40) < 20, 2.0, 0.0).astype(np.float32)
    saved = summarized(scores, labels, sample_weight=weights)
    half = summarized(scores[:20], labels[:20])
    assert saved["curves"] == half["curves"]
    assert saved["intervals"] == half["intervals"]
    assert sum(saved["reliability"]["weight"]) == 40


@pytest.mark.parametrize("problem", ["binary", "multiclass", "multilabel"])
def test_summary_is_strict_json_and_small(problem):
    saved = made(problem, names=("a", "b") if problem == "binary" else ("a", "b", "c")).summary
    written = json.dumps(saved, allow_nan=False)
    assert json.loads(written) == saved
    assert len(written) < 150_000
