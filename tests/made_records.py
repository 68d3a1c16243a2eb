"""Records of runs that were never made, of any problem and any kind of input, for tests of their page."""

from pathlib import Path

import numpy as np

from jaxcls import metrics
from jaxcls.data.dataset import Part
from jaxcls.run_directory import Records
from jaxcls.summary import summarise


def inputs(kind, rows, rng, *, side=28, channels=1, text="a text of its own"):
    """Noise, which no PNG makes small; texts; or a table of ten columns."""
    if kind == "images":
        return rng.integers(0, 256, (rows, side, side, channels), np.uint8)
    if kind == "texts":
        return np.array([f"{text} {row}" for row in range(rows)], object)
    words = np.array([f"{text} {row}" for row in range(rows)], object)
    return {f"column {text} {place}": words if place == 0 else rng.normal(size=rows) for place in range(10)}


def scored(problem, classes, rows, rng):
    """Probabilities that are right more often than not, and labels."""
    if problem == "multiclass":
        labels = (np.arange(rows) % classes).astype(np.int32)
        scores = rng.random((rows, classes)) + 1.2 * (labels[:, None] == np.arange(classes)) * rng.random((rows, 1))
        return scores / scores.sum(axis=1, keepdims=True), labels
    shape = (rows,) if problem == "binary" else (rows, classes)
    labels = rng.random(shape) < 0.3
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1)
    return scores, labels.astype(np.int32 if problem == "binary" else np.float32)


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
    text="a text of its own",
    **shape,
):
    rng = np.random.default_rng(seed)
    scores, labels = scored(problem, len(names), rows, rng)
    test = Part(inputs(kind, rows, rng, text=text, **shape), labels)
    threshold = {"binary": 0.5, "multiclass": 0.5, "multilabel": np.full(len(names), 0.4)}[problem]
    report = metrics.report(scores, labels, problem=problem, class_names=names, threshold=threshold)
    summary = summarise(
        report,
        scores,
        {"train": test, "validation": test, "test": test},
        problem=problem,
        class_names=names,
        thresholds=threshold,
    )
    history = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "loss": 1 / epoch,
            "val_loss": 1.2 / epoch + rng.random() / 10,
            "val_accuracy": 1 - 1 / (epoch + 1),
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
        history=history,
        results=report
        | {
            "step": history[-1]["step"],
            "thresholds": np.asarray(threshold).tolist(),
            "synthetic": synthetic,
            "params_sha256": "0" * 64,
        },
        summary=summary | {"headline": ["accuracy"], "parameters": 1234, "recipe": {"epochs": 12, "b1": None}},
    )
