"""Plots of the losses for the documentation."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

from jaxcls import losses

mpl.use("svg")
# Reproducible files with searchable text.
mpl.rcParams.update({"svg.hashsalt": "jaxcls", "svg.fonttype": "none"})

LOGITS = np.linspace(-5, 5, 201, dtype=np.float32)
SIGMOID: dict[str, dict[str, Callable[..., object]]] = {
    "sigmoid": {
        "cross-entropy": losses.sigmoid_cross_entropy,
        "hinge": losses.hinge,
        "squared hinge": losses.squared_hinge,
    },
    "focal": {
        "cross-entropy": losses.sigmoid_cross_entropy,
        "focal, gamma 1": losses.get("sigmoid_focal", gamma=1.0),
        "focal, gamma 2": losses.get("sigmoid_focal", gamma=2.0),
        "focal, gamma 5": losses.get("sigmoid_focal", gamma=5.0),
        "poly, epsilon 1": losses.sigmoid_poly,
    },
}


def write(folder: Path) -> None:
    """Writes an SVG file for each family of losses."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in SIGMOID.items():
        figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
        for label, loss in drawn.items():
            axes.plot(LOGITS, np.asarray(loss(LOGITS, np.ones_like(LOGITS))), label=label)
        axes.set(xlabel="logit of a positive example", ylabel="loss", ylim=(0, 6))
        axes.legend(frameon=False)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for label, loss in {"asymmetric": losses.asymmetric, "cross-entropy": losses.sigmoid_cross_entropy}.items():
        axes.plot(LOGITS, np.asarray(loss(LOGITS, np.zeros_like(LOGITS))), label=label)
    axes.set(xlabel="logit of a negative example", ylabel="loss", ylim=(0, 6))
    axes.legend(frameon=False)
    figure.savefig(folder / "asymmetric.svg", metadata={"Date": None})
    pyplot.close(figure)
