"""From the losses, metrics and weights that a program gives, by name or as functions of its own, to heads."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls import losses
from jaxcls import metrics as metrics_room
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, error_context, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.losses.by_name import SIGMOID_FAMILY, SOFTMAX_FAMILY
from jaxcls.losses.weighting import Terms, reduce
from jaxcls.training.objective import Objective, OutputSpec

_Value = TypeVar("_Value")
# One value for all outputs, or one for each by its name.
PerOutput: TypeAlias = _Value | Mapping[str, _Value]
Loss = str | Callable[..., jax.Array]
Metric = str | Callable[..., float]


def heads(loss: Any, metrics: Any, loss_weights: Any, class_weight: Any, problem: Any) -> Objective:
    """What :func:`jaxcls.compile` is given, as it says there, with the losses and metrics that the names stand for.

    Raises:
      InputError: a name is unknown, or two arguments do not fit together.
    """
    if not isinstance(loss, Mapping):
        if isinstance(metrics, Mapping) or isinstance(problem, Mapping) or loss_weights is not None:
            raise InputError(
                "metrics, problem or loss_weights name outputs, and loss does not: give a dict {output: loss}."
            )
        return _head(loss, metrics, class_weight, problem, 1.0)
    if not loss:
        raise InputError("loss is an empty dict; it must name every output.")
    named = {
        "metrics": metrics if isinstance(metrics, Mapping) else dict.fromkeys(loss, metrics),
        "loss_weights": loss_weights or {},
        "class_weight": class_weight or {},
        "problem": problem if isinstance(problem, Mapping) else dict.fromkeys(loss, problem),
    }
    for argument, values in named.items():
        if not isinstance(values, Mapping):
            raise InputError(f"{argument} must be a dict with the names of outputs, as loss is.")
        for name in values:
            if name not in loss:
                raise unknown_name(f"output in {argument}", str(name), loss)
    found = {}
    for name, own in loss.items():
        with error_context(f"output {name!r}"):
            found[name] = _head(
                own,
                named["metrics"].get(name, ()),
                named["class_weight"].get(name),
                named["problem"].get(name),
                float(named["loss_weights"].get(name, 1.0)),
            )
    return found


def _head(loss: Any, metrics: Any, class_weight: Any, problem: Any, weight: float) -> OutputSpec:
    if problem is not None:
        labels.check_problem(problem)
    if isinstance(loss, str):
        forms = {form for form in (SIGMOID_FAMILY, SOFTMAX_FAMILY) if loss in _names_of(form)}
        if problem is None and len(forms) == 2:
            raise InputError(f"loss {loss!r} has a form for each problem: give problem='binary', or another.")
        found = losses.find(loss, problem)
    elif callable(loss):
        found = inside(loss)
    else:
        raise InputError(f"a loss of type {type(loss).__name__} was given; give a name or a function.")
    ours = found in SIGMOID_FAMILY or found in SOFTMAX_FAMILY
    if ours:
        family = "multiclass" if found in SOFTMAX_FAMILY else "binary"
        problem = problem or family
        if (problem == "multiclass") != (family == "multiclass"):
            raise InputError(f"loss {found.__name__!r} does not fit a {problem} problem.")
    elif problem is None:
        raise InputError("with a loss of your own, say what the labels are: problem='multiclass', or another.")
    weights = None if class_weight is None else _class_weight(class_weight, problem)
    chosen: dict[str, Any] = {}
    if ours:
        chosen = {"normalizer": "batch", "ignore_label": float("nan") if problem == "multilabel" else None}
        chosen |= getattr(loss, "keywords", {})
        chosen |= {} if weights is None else {"class_weight": weights}
        bound = losses.get(loss, problem, **chosen) if isinstance(loss, str) else functools.partial(loss, **chosen)
    else:
        bound = _own(loss, problem, weights)
    return OutputSpec(problem, bound, _metrics(metrics, problem), weight, chosen.get("ignore_label"))


def _names_of(family: Sequence[Any]) -> set[str]:
    problem: ProblemName = "multiclass" if family is SOFTMAX_FAMILY else "binary"
    return set(losses.names(problem))


def _class_weight(class_weight: Any, problem: ProblemName) -> np.ndarray:
    if isinstance(class_weight, str):
        raise InputError(
            f"class_weight {class_weight!r} is computed from training labels, which are not known yet: give "
            f"losses.class_weights(labels, num_classes, method={class_weight!r})."
        )
    # As many as there are weights: the shapes of the model are not known yet, and are checked when it is traced.
    count = len(class_weight)
    return labels.resolve_class_weight(class_weight, problem, count).astype(np.float32)


def _own(
    loss: Callable[..., jax.Array], problem: ProblemName, class_weight: np.ndarray | None
) -> Callable[..., jax.Array]:
    """A loss ``(outputs, labels) -> (N,)`` with the weighting of ours."""
    if class_weight is not None and problem == "multilabel":
        raise InputError("class_weight of a multilabel problem belongs inside a loss of your own.")

    def weighted(
        outputs: jax.Array, truth: jax.Array, *, mask: Any = None, normalizer: Any = "batch", sample_weight: Any = None
    ) -> jax.Array:
        values = loss(outputs, truth)
        if values.shape != truth.shape[:1]:
            raise InputError(
                f"a loss of your own gave {values.shape} for {truth.shape[0]} examples; it must give one value each, "
                f"{truth.shape[:1]}."
            )
        elements = jnp.ones(values.shape, values.dtype) if mask is None else mask.astype(values.dtype)
        weight = elements if class_weight is None else elements * jnp.asarray(class_weight, values.dtype)[truth]
        # Masked before the product: 0 times NaN is NaN.
        values = weight * jnp.where(elements > 0, values, 0)
        return reduce(
            Terms(values, weight, elements, positives=elements),
            {"normalizer": normalizer, "sample_weight": sample_weight},
        )

    return weighted


def _metrics(metrics: Sequence[Metric], problem: ProblemName) -> dict[str, Callable[..., float]]:
    if isinstance(metrics, str) or callable(metrics):
        raise InputError(f"metrics is a list, such as metrics=[{metrics!r}].")
    chosen: dict[str, Callable[..., float]] = {}
    for metric in metrics:
        if isinstance(metric, str):
            chosen[metric] = metrics_room.get(metric, problem)
        elif callable(metric):
            chosen[getattr(metric, "__name__", type(metric).__name__)] = _own_metric(metric)
        else:
            raise InputError(f"a metric of type {type(metric).__name__} was given; give a name or a function.")
    return chosen


def _own_metric(metric: Callable[..., Any]) -> Callable[..., float]:
    weighs = "sample_weight" in inspect.signature(metric).parameters

    def measured(scores: np.ndarray, truth: np.ndarray, *, sample_weight: np.ndarray, mask: np.ndarray) -> float:
        options = {"sample_weight": sample_weight[mask]} if weighs else {}
        return float(metric(scores[mask], truth[mask], **options))

    return measured


def inside(function: Any) -> Any:
    """The function inside of partial ones."""
    while isinstance(function, functools.partial):
        function = function.func
    return function
