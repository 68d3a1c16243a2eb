"""What is asked of each output of a model: its problem, its loss, its metrics; of one output, or of several by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxcls._utils.labels import AnyProblemName, holds

PyTree = Any


class OutputSpec(NamedTuple):
    """One output of a model.

    Attributes:
      problem: what its labels are; how its scores follow from its outputs, and what its metrics mean.
      loss: ``(outputs, labels, *, sample_weight, mask, normalizer) -> scalar``, or (N,) with the normalizer 'none'.
      metrics: name -> ``(scores, labels, *, sample_weight, mask) -> float``, of collected scores on the host.
      weight: of its loss, in the sum over the outputs.
      ignore_label: the label that says that it is not known, and that the loss leaves out; None if all are known.
      scores: ``outputs -> scores``, those of each example by itself; None stands for the probabilities of the problem.
    """

    problem: AnyProblemName
    loss: Callable[..., jax.Array]
    metrics: Mapping[str, Callable[..., float]] = {}
    weight: float = 1.0
    ignore_label: float | None = None
    scores: Callable[[PyTree], PyTree] | None = None


# Of a model with several outputs, which gives a dict: name -> head.
Objective: TypeAlias = OutputSpec | Mapping[str, OutputSpec]


def problems(heads: Objective) -> AnyProblemName | dict[str, AnyProblemName]:
    """The problem, or name -> problem."""
    return heads.problem if isinstance(heads, OutputSpec) else {name: head.problem for name, head in heads.items()}


def probabilities(problem: str) -> Callable[[jax.Array], jax.Array]:
    """Logits to probabilities: the softmax of those of a multiclass problem, the sigmoid of all others.

    >>> probabilities("binary")(np.zeros(1)).tolist()
    [0.5]
    """
    return jax.nn.softmax if problem == "multiclass" else jax.nn.sigmoid


def scores(heads: Objective) -> Callable[[PyTree], PyTree]:
    """How the scores follow from the outputs of a batch, or a dict of them from a dict."""
    if isinstance(heads, OutputSpec):
        return heads.scores or probabilities(heads.problem)
    return lambda outputs: {name: scores(head)(outputs[name]) for name, head in heads.items()}


def total_loss(heads: Objective) -> Callable[..., jax.Array]:
    """The loss that training lowers: that of the one output, or the weighted sum over the outputs.

    It takes outputs, labels and sample_weight of one output, or dicts of them; one (N,) of sample_weight may serve all outputs.

    >>> from jaxcls import losses
    >>> head = OutputSpec("multiclass", losses.get("softmax_cross_entropy", normalizer="batch"))
    >>> logits, labels = np.array([[2.0, 0.0, 0.0]]), np.array([0])
    >>> both = total_loss({"first": head, "second": head._replace(weight=0.5)})
    >>> two = {"first": logits, "second": logits}, {"first": labels, "second": labels}
    >>> f"{total_loss(head)(logits, labels):.4f} {both(*two, sample_weight=np.ones(1), mask=None):.4f}"
    '0.2395 0.3593'
    """
    if isinstance(heads, OutputSpec) and heads.weight == 1:
        return heads.loss

    def loss(outputs: PyTree, labels: PyTree, *, sample_weight: PyTree, mask: Any, **normalizer: Any) -> jax.Array:
        terms = [
            head.weight * head.loss(logits, truth, sample_weight=sample_weight, mask=mask, **normalizer)
            for _, head, logits, truth, sample_weight in by_output(heads, outputs, labels, sample_weight)
        ]
        # From the first term on: a sum that begins at 0 would have one operation more.
        total = terms[0]
        for term in terms[1:]:
            total += term
        return total

    return loss


def measure(
    heads: Objective, scores: PyTree, example_losses: PyTree, labels: PyTree, sample_weight: PyTree
) -> dict[str, float]:
    """The loss and the metrics of a set of examples; of several outputs, those of each under its name as well.

    Args:
      scores: on the host, such as probabilities (N,) or (N, classes); or a dict of them by output.
      example_losses: (N,), or a dict of them.
      labels, sample_weight: as in :class:`jaxcls.data.batching.Examples`. An output is not judged by examples of which it
        ignores every label.

    Returns:
      'loss', the mean over the examples, of several outputs their weighted sum; the metrics by their names; and of
      each output 'name_loss' and its metrics as 'name_metric', as in Keras.
    """
    total, named = 0.0, {}
    for name, head, found, truth, weight in by_output(heads, scores, labels, sample_weight):
        known = _known(truth, head)
        of_examples = np.asarray(example_losses if name is None else example_losses[name], np.float64)
        loss = float(np.average(of_examples[known], weights=weight[known])) if weight[known].any() else float("nan")
        total += head.weight * loss
        prefix = "" if name is None else f"{name}_"
        if name is not None:
            named[f"{prefix}loss"] = loss
        if head.metrics and head.problem == "multiclass" and truth.ndim == 2:
            truth = truth.argmax(axis=1)  # a distribution counts as its most likely class
        for metric, function in head.metrics.items():
            named[prefix + metric] = function(found, truth, sample_weight=weight, mask=known)
    return {"loss": total} | named


def by_output(
    heads: Objective, outputs: PyTree, labels: PyTree, sample_weight: PyTree
) -> list[tuple[Any, OutputSpec, Any, Any, Any]]:
    """(name, head, outputs, labels, sample_weight) of each output; the name of a single one is None."""
    if isinstance(heads, OutputSpec):
        return [(None, heads, outputs, labels, sample_weight)]
    return [
        (
            name,
            head,
            outputs[name],
            labels[name],
            sample_weight[name] if isinstance(sample_weight, Mapping) else sample_weight,
        )
        for name, head in heads.items()
    ]


def _known(labels: PyTree, head: OutputSpec) -> np.ndarray:
    """The examples of which a label is known, (N,)."""
    if head.ignore_label is None:
        return np.ones(len(jax.tree.leaves(labels)[0]), bool)
    unknown = holds(np.asarray(labels), head.ignore_label)
    return ~(unknown.all(axis=1) if unknown.ndim == 2 else unknown)
