"""The objective: the problem, loss and metrics of a model's output, or of each output by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxcls._utils.labels import AnyProblemName, holds

PyTree = Any


class OutputSpec(NamedTuple):
    """What one output of a model is trained for.

    Attributes:
      problem: decides which labels are valid, how scores follow from outputs, and what the metrics mean.
      loss: ``(outputs, labels, *, sample_weight, mask, normalizer) -> scalar``, or (N,) with ``normalizer='none'``.
      metrics: name -> ``(scores, labels, *, sample_weight, mask) -> float``, computed on the host from all scores.
      weight: the factor of this loss in the sum over the outputs.
      ignore_label: labels of this value are unknown and left out of loss and metrics; None if there are none.
      scores: ``outputs -> scores``, example by example; None stands for the probabilities of the problem.
      loss_from_labels: ``(train_labels, num_classes) -> loss`` where class weights are computed from the training
        labels; None if ``loss`` is complete.
    """

    problem: AnyProblemName
    loss: Callable[..., jax.Array]
    metrics: Mapping[str, Callable[..., float]] = {}
    weight: float = 1.0
    ignore_label: float | None = None
    scores: Callable[[PyTree], PyTree] | None = None
    loss_from_labels: Callable[[np.ndarray, int], Callable[..., jax.Array]] | None = None


# A model with several outputs returns a dict, and has an OutputSpec for each of its keys.
Objective: TypeAlias = OutputSpec | Mapping[str, OutputSpec]


def problems(objective: Objective) -> AnyProblemName | dict[str, AnyProblemName]:
    """Returns the problem, or a dict of problems by output."""
    if isinstance(objective, OutputSpec):
        return objective.problem
    return {name: spec.problem for name, spec in objective.items()}


def specs(objective: Objective) -> list[tuple[str | None, OutputSpec]]:
    """Lists (name, spec) of each output; the name of a single output is None."""
    return [(None, objective)] if isinstance(objective, OutputSpec) else list(objective.items())


def probabilities(problem: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from logits to probabilities: softmax for a multiclass problem, else sigmoid.

    >>> probabilities("binary")(np.zeros(1)).tolist()
    [0.5]
    """
    return jax.nn.softmax if problem == "multiclass" else jax.nn.sigmoid


def scores(objective: Objective) -> Callable[[PyTree], PyTree]:
    """Returns the function from outputs to scores; of several outputs, from a dict to a dict."""
    if isinstance(objective, OutputSpec):
        return objective.scores or probabilities(objective.problem)
    return lambda outputs: {name: scores(spec)(outputs[name]) for name, spec in objective.items()}


def total_loss(objective: Objective) -> Callable[..., jax.Array]:
    """Returns the loss that training minimizes: of one output, or the weighted sum over all outputs.

    It takes outputs, labels and sample weights of one output, or dicts of them; one (N,) of weights may serve all.

    >>> from jaxcls import losses
    >>> spec = OutputSpec("multiclass", losses.get("softmax_cross_entropy", normalizer="batch"))
    >>> logits, labels = np.array([[2.0, 0.0, 0.0]]), np.array([0])
    >>> both = total_loss({"first": spec, "second": spec._replace(weight=0.5)})
    >>> two = {"first": logits, "second": logits}, {"first": labels, "second": labels}
    >>> f"{total_loss(spec)(logits, labels):.4f} {both(*two, sample_weight=np.ones(1), mask=None):.4f}"
    '0.2395 0.3593'
    """
    if isinstance(objective, OutputSpec) and objective.weight == 1:
        return objective.loss

    def loss(outputs: PyTree, labels: PyTree, *, sample_weight: PyTree, mask: Any, **normalizer: Any) -> jax.Array:
        terms = [
            spec.weight * spec.loss(logits, truth, sample_weight=weight, mask=mask, **normalizer)
            for _, spec, logits, truth, weight in by_output(objective, outputs, labels, sample_weight)
        ]
        # Starting from the first term: sum() would add 0 to it, one operation more in the compiled step.
        total = terms[0]
        for term in terms[1:]:
            total += term
        return total

    return loss


def example_losses(objective: Objective, outputs: PyTree, labels: PyTree) -> PyTree:
    """Returns the unreduced loss, (N,), or a dict of them by output."""
    if isinstance(objective, OutputSpec):
        return objective.loss(outputs, labels, normalizer="none")
    return {name: spec.loss(outputs[name], labels[name], normalizer="none") for name, spec in objective.items()}


def measure(
    objective: Objective, scores: PyTree, example_losses: PyTree, labels: PyTree, sample_weight: PyTree
) -> dict[str, float]:
    """Computes the loss and the metrics of a set of examples.

    Args:
      scores: on the host, such as probabilities (N,) or (N, classes); or a dict of them by output.
      example_losses: (N,), or a dict of them.
      labels, sample_weight: as in :class:`jaxcls.data.batching.Examples`. Examples whose labels are all unknown are
        left out of that output.

    Returns:
      'loss', the mean over the examples (of several outputs, the weighted sum of their means), and the metrics by name.
      Several outputs add 'name_loss' and 'name_metric' for each, as in Keras.
    """
    total, named = 0.0, {}
    for name, spec, output_scores, truth, weight in by_output(objective, scores, labels, sample_weight):
        known = _known(truth, spec)
        losses = np.asarray(example_losses if name is None else example_losses[name], np.float64)
        loss = float(np.average(losses[known], weights=weight[known])) if weight[known].any() else float("nan")
        total += spec.weight * loss
        prefix = "" if name is None else f"{name}_"
        if name is not None:
            named[f"{prefix}loss"] = loss
        if spec.metrics and spec.problem == "multiclass" and truth.ndim == 2:
            truth = truth.argmax(axis=1)  # the most likely class of a distribution
        for metric, function in spec.metrics.items():
            named[prefix + metric] = function(output_scores, truth, sample_weight=weight, mask=known)
    return {"loss": total} | named


def by_output(
    objective: Objective, outputs: PyTree, labels: PyTree, sample_weight: PyTree
) -> list[tuple[str | None, OutputSpec, Any, Any, Any]]:
    """Lists (name, spec, outputs, labels, sample_weight) of each output; the name of a single output is None."""
    if isinstance(objective, OutputSpec):
        return [(None, objective, outputs, labels, sample_weight)]
    shared = not isinstance(sample_weight, Mapping)
    return [
        (name, spec, outputs[name], labels[name], sample_weight if shared else sample_weight[name])
        for name, spec in objective.items()
    ]


def _known(labels: PyTree, spec: OutputSpec) -> np.ndarray:
    """Returns which examples have a known label, (N,)."""
    if spec.ignore_label is None:
        return np.ones(len(jax.tree.leaves(labels)[0]), bool)
    unknown = holds(np.asarray(labels), spec.ignore_label)
    return ~(unknown.all(axis=1) if unknown.ndim == 2 else unknown)
