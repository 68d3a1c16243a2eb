"""Plots of the losses for the documentation: python docs/plots.py (pip install 'jaxcls[docs]') writes docs/plots."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

from jaxcls import losses

mpl.use("svg")
# Reproducible files with searchable text, readable on light and on dark pages.
GRAY = "#888888"
mpl.rcParams.update(
    {"svg.hashsalt": "jaxcls", "svg.fonttype": "none", "savefig.transparent": True}
    | dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), GRAY)
)

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
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in SIGMOID.items():
        _plot(folder / f"{name}.svg", drawn, "positive")
    drawn = {"asymmetric": losses.asymmetric, "cross-entropy": losses.sigmoid_cross_entropy}
    _plot(folder / "asymmetric.svg", drawn, "negative")


def _plot(path: Path, drawn: dict[str, Callable[..., object]], label: str) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    labels = np.full_like(LOGITS, label == "positive")
    for name, loss in drawn.items():
        axes.plot(LOGITS, np.asarray(loss(LOGITS, labels)), label=name)
    axes.set(xlabel=f"logit of a {label} example", ylabel="loss", ylim=(0, 6))
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    write(Path(__file__).parent / "plots")
