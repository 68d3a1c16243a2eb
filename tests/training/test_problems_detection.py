"""The problem of detection: what labels and settings it takes, and what it makes of outputs."""

import jax
import numpy as np
import pytest

from jaxcls import tasks
from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Split
from jaxcls.models import detection
from jaxcls.tasks import build
from jaxcls.training import problems
from jaxcls.training.settings import Settings

PROBLEM = problems.get("detection", ("a", "b"))


def part(box=(4, 4, 20, 24), kind=1, crowd=False, images=2):
    """Images of which the first has a box."""
    labels = {
        "boxes": np.zeros((images, 3, 4), np.float32),
        "classes": np.full((images, 3), -1, np.int32),
        "crowd": np.zeros((images, 3), bool),
    }
    labels["boxes"][0, 0], labels["classes"][0, 0], labels["crowd"][0, 0] = box, kind, crowd
    return Split({}, labels)


def test_good_labels_pass_and_so_does_an_image_without_boxes():
    PROBLEM.check_labels(part())
    PROBLEM.check_learnable(part(), part())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"box": (20, 4, 4, 24)}, r"row 0, box 0 is \[20.0, 4.0, 4.0, 24.0\]; boxes are x1, y1, x2, y2"),
        ({"box": (4, 4, np.nan, 24)}, "row 0, box 0 is .*nan"),
        ({"box": (4, 4, 4, 24)}, "row 0, box 0"),
        ({"kind": 2}, "row 0, box 0 has class 2; classes lie in 0 to 1, and -1 is padding"),
        ({"kind": -2}, "row 0, box 0 has class -2"),
    ],
)
def test_bad_labels_are_named(changed, message):
    with pytest.raises(InputError, match=message):
        PROBLEM.check_labels(part(**changed))


def test_labels_of_other_shapes_are_refused():
    one = part()
    with pytest.raises(InputError, match=r"crowd \(2, 2\) must be \(N, M, 4\), \(N, M\) and \(N, M\)"):
        PROBLEM.check_labels(Split({}, one.labels | {"crowd": one.labels["crowd"][:, :2]}))


@pytest.mark.parametrize("nothing", [part(crowd=True), part(kind=-1)])
def test_images_without_anything_to_learn_are_refused(nothing):
    with pytest.raises(InputError, match="none of the 2 training images has a box of a class"):
        PROBLEM.check_learnable(nothing, part())
    with pytest.raises(InputError, match="none of the 2 validation images"):
        PROBLEM.check_learnable(part(), nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune_threshold": "f1"}, "--tune-threshold is for classification"),
        ({"class_weight": "balanced"}, "--class-weight is for classification"),
        ({"loss_weights": (1.0, -1.0)}, r"--loss-weights is \(1.0, -1.0\); give two numbers"),
        ({"loss_weights": (0.0, 0.0)}, "--loss-weights"),
        ({"monitor": "accuracy"}, "unknown detection metric 'accuracy'"),
        ({"loss": "softmax_cross_entropy"}, "does not fit a detection problem"),
    ],
)
def test_settings_of_other_problems_are_refused(options, message):
    task = tasks.get("detection")
    with pytest.raises(InputError, match=message):
        build.with_recipe(task, Settings(task="detection", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_loss": "giou"}, "--box-loss is for detection, and this is a multiclass problem"),
        ({"loss_weights": (1.0, 2.0)}, "--loss-weights is for several losses, and this is a multiclass problem"),
    ],
)
def test_settings_of_detection_are_refused_elsewhere(options, message):
    with pytest.raises(InputError, match=message):
        build.with_recipe(tasks.get("mnist"), Settings(task="mnist", **options))


@pytest.mark.parametrize("canvas", [(64, 64), (32, 64), (64, 32)], ids=str)
def test_outputs_without_loss_decode_to_the_labeled_boxes(canvas):
    """Outputs of no loss are decoded to the very boxes."""
    settings = build.with_recipe(tasks.get("detection"), Settings(task="detection"))
    spec = PROBLEM.objective(settings, part().labels, ["map", "map_50"])
    labels = part().labels
    grid = detection.canvas_anchors(*canvas)
    anchors = grid.boxes(*canvas)
    logits = np.full((2, len(anchors), 2), -20, np.float32)
    deltas = np.zeros((2, len(anchors), 4), np.float32)
    for image in range(2):
        matches = detection.match(anchors, *(labels[name][image] for name in ("boxes", "classes", "crowd")))
        for anchor in np.flatnonzero(np.asarray(matches) >= 0):
            logits[image, anchor, 1] = 20
            deltas[image, anchor] = detection.encode_boxes(labels["boxes"][image, 0], anchors[anchor])
    outputs = detection.DetectorOutput({"class_logits": logits, "box_deltas": deltas}, canvas)
    assert float(spec.loss(outputs, labels)) < 1e-5
    result = jax.tree.map(np.asarray, spec.scores(outputs))
    assert (result["classes"] >= 0).sum(axis=1).tolist() == [1, 0]
    np.testing.assert_allclose(result["boxes"][0, 0], labels["boxes"][0, 0], atol=1e-3)
    assert {name: function(result, labels) for name, function in spec.metrics.items()} == {"map": 1.0, "map_50": 1.0}
    masked = {name: function(result, labels, mask=np.array([False, True])) for name, function in spec.metrics.items()}
    assert all(np.isnan(value) for value in masked.values())
