"""Records of invented runs, for any problem and type of input, for tests of reports."""

from pathlib import Path

import numpy as np

from jaxcls.data.dataset import Split
from jaxcls.reports.run_directory import Records
from jaxcls.training import problems


def inputs(kind, rows, rng, *, side=28, channels=1, text="a sample text"):
    """Returns images of noise, which PNG does not compress; texts; or a table of ten columns."""
    if kind == "images":
        return rng.integers(0, 256, (rows, side, side, channels), np.uint8)
    if kind == "texts":
        return np.array([f"{text} {row}" for row in range(rows)], object)
    words = np.array([f"{text} {row}" for row in range(rows)], object)
    return {f"column {text} {index}": words if index == 0 else rng.normal(size=rows) for index in range(10)}


def scored(problem, classes, rows, rng):
    """Returns probabilities that are usually correct, and labels."""
    if problem == "multiclass":
        labels = (np.arange(rows) % classes).astype(np.int32)
        scores = rng.random((rows, classes)) + 1.2 * (labels[:, None] == np.arange(classes)) * rng.random((rows, 1))
        return scores / scores.sum(axis=1, keepdims=True), labels
    shape = (rows,) if problem == "binary" else (rows, classes)
    labels = rng.random(shape) < 0.3
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1)
    return scores, labels.astype(np.int32 if problem == "binary" else np.float32)


def detected(names, rows, rng, *, kind="images", text="", side=48, channels=1):
    """Returns detections, most of them correct, in images of noise with up to three objects."""
    corners = rng.integers(0, side // 2, (rows, 3, 2)).astype(np.float32)
    labels = {
        "boxes": np.concatenate([corners, corners + rng.integers(8, side // 2, (rows, 3, 2))], axis=-1),
        "classes": rng.integers(-1, len(names), (rows, 3)).astype(np.int32),
        "crowd": rng.random((rows, 3)) < 0.1,
    }
    labels["classes"][: len(names), 0] = np.arange(len(names))
    order = np.argsort(-rng.random((rows, 3)), axis=1)
    seen = {name: np.take_along_axis(labels[name], order, axis=1) for name in ("classes", "crowd")}
    boxes = np.take_along_axis(labels["boxes"], order[..., None], axis=1)
    wrong = rng.random((rows, 3)) < 0.2
    scores = {
        "boxes": np.where(wrong[..., None], boxes + 6, boxes),
        "scores": np.where(seen["classes"] < 0, 0, -np.sort(-rng.random((rows, 3)), axis=1)),
        "classes": seen["classes"],
    }
    pixels = rng.integers(0, 256, (rows, side, side, channels), np.uint8)
    size = np.full((rows, 2), side, np.int32)
    return scores, Split({"image": pixels, "size": size, "scale": np.ones((rows, 2), np.float32)}, labels)


def made(
    problem="multiclass",
    *,
    kind="images",
    names=("cat", "dog", "owl"),
    rows=120,
    epochs=4,
    synthetic=False,
    path=Path("runs/made"),
    seed=0,
    note="a note",
    text="a sample text",
    **shape,
):
    rng = np.random.default_rng(seed)
    headline = "map" if problem == "detection" else "accuracy"
    threshold = np.full(len(names), 0.4) if problem == "multilabel" else 0.5
    if problem == "detection":
        scores, test = detected(names, rows, rng, kind=kind, text=text, **shape)
    elif isinstance(problem, dict):
        headline = f"{next(iter(problem))}_accuracy"
        threshold = dict.fromkeys(problem, 0.5)
        outputs = {name: scored(one, len(names[name]), rows, rng) for name, one in problem.items()}
        scores = {name: output_scores for name, (output_scores, _) in outputs.items()}
        test = Split(
            inputs(kind, rows, rng, text=text, **shape), {name: labels for name, (_, labels) in outputs.items()}
        )
    else:
        scores, labels = scored(problem, len(names), rows, rng)
        test = Split(inputs(kind, rows, rng, text=text, **shape), labels)
    problem_type = problems.get(problem, names)
    report = problem_type.report(scores, test, threshold)
    parts = {"train": test, "validation": test, "test": test}
    summary = problem_type.summarize(report, scores, parts, threshold)
    history = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "loss": 1 / epoch,
            "val_loss": 1.2 / epoch + rng.random() / 10,
            f"val_{headline}": 1 - 1 / (epoch + 1),
            "skipped_steps": 0,
            "seconds": 2.5,
            "examples_per_second": 4321.5,
        }
        for epoch in range(1, epochs + 1)
    ]
    return Records(
        path=path,
        config={"task": "made", "model": "mlp", "seed": seed, "epochs": epochs, "tensorboard": False, "b1": 0.9},
        environment={"python": "3.11.0", "packages": {"jax": "0.10.2"}, "devices": ["cpu", "cpu"], "xla_flags": ""},
        data={
            "source": "sample",
            "location": "made/up",
            "sha256": {"file": "0" * 64},
            "synthetic": synthetic,
            "note": note,
            "duplicates_in_test": 0,
        },
        predictor={"problem": problem, "class_names": names, "preprocessor": {"type": kind}},
        history=history,
        results=report
        | {
            "step": history[-1]["step"],
            "thresholds": threshold if isinstance(threshold, dict) else np.asarray(threshold).tolist(),
            "synthetic": synthetic,
            "params_sha256": "0" * 64,
        },
        summary=summary
        | {
            "headline": [headline],
            "parameters": 1234,
            "recipe": {"epochs": 12, "b1": None},
        },
    )
