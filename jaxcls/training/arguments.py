"""What :func:`jaxcls.compile` accepts as model, optimizer, losses and metrics, turned into an experiment's values."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from jaxcls import losses, metrics, optimizers
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, error_context, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.losses import SIGMOID_FAMILY, SOFTMAX_FAMILY
from jaxcls.losses.shared import Terms, reduce
from jaxcls.models import Model, from_linen, functional
from jaxcls.training.objective import Objective, OutputSpec

PyTree = Any
_Value = TypeVar("_Value")
# One value for all outputs, or a dict of them by output.
PerOutput: TypeAlias = _Value | Mapping[str, _Value]
Loss = str | Callable[..., jax.Array]
Metric = str | Callable[..., float]


def as_model(model: Any, example: PyTree) -> Model:
    """Turns a builder of an NNX module, a Linen module or a pair of functions into a Model."""
    if isinstance(model, Model):
        return model
    if isinstance(model, linen.Module):
        if example is None:
            raise InputError("a Linen module is initialized with inputs: give a batch of them as example=.")
        return from_linen(model, example)
    if isinstance(model, nnx.Module):
        raise InputError(
            "a built module was given; give what builds it, such as its class or lambda rngs: MyModule(..., "
            "rngs=rngs), "
            "so that every seed gives other initial weights."
        )
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return _from_pair(*model)
    if not callable(model):
        raise InputError(
            f"a model of type {type(model).__name__} was given; give what builds a Flax NNX module, a Linen module, or "
            "a pair of functions (init, apply)."
        )
    built = _unwrapped(model)
    # The signature of a Flax class is that of its metaclass.
    signature = inspect.signature(built.__init__ if inspect.isclass(built) else built)
    return functional((lambda rngs: model(rngs=rngs)) if "rngs" in signature.parameters else model)


def as_optimizer(optimizer: str | optax.GradientTransformation) -> optax.GradientTransformation:
    """Turns a name into an Optax transformation with the default learning rate of that optimizer."""
    if isinstance(optimizer, str):
        return optimizers.get(optimizer, learning_rate=optimizers.default_learning_rate(optimizer))
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(
            f"an optimizer of type {type(optimizer).__name__} was given; give a name, or an optax transformation such "
            "as optimizers.adam(1e-3)."
        )
    return optimizer


def as_objective(loss: Any, metrics: Any, loss_weights: Any, class_weight: Any, problem: Any) -> Objective:
    """Turns losses and metrics, by name or as functions, into an objective.

    Raises:
      InputError: a name is unknown, or two arguments do not fit together.
    """
    if not isinstance(loss, Mapping):
        if isinstance(metrics, Mapping) or isinstance(problem, Mapping) or loss_weights is not None:
            raise InputError(
                "metrics, problem or loss_weights name outputs, and loss does not: give a dict {output: loss}."
            )
        return _output_spec(loss, metrics, class_weight, problem, 1.0)
    if not loss:
        raise InputError("loss is an empty dict; it must name every output.")
    by_argument = {
        "metrics": metrics if isinstance(metrics, Mapping) else dict.fromkeys(loss, metrics),
        "loss_weights": loss_weights or {},
        "class_weight": class_weight or {},
        "problem": problem if isinstance(problem, Mapping) else dict.fromkeys(loss, problem),
    }
    for argument, values in by_argument.items():
        if not isinstance(values, Mapping):
            raise InputError(f"{argument} must be a dict by output, as loss is.")
        for name in values:
            if name not in loss:
                raise unknown_name(f"output in {argument}", str(name), loss)
    specs = {}
    for name, output_loss in loss.items():
        with error_context(f"output {name!r}"):
            specs[name] = _output_spec(
                output_loss,
                by_argument["metrics"].get(name, ()),
                by_argument["class_weight"].get(name),
                by_argument["problem"].get(name),
                float(by_argument["loss_weights"].get(name, 1.0)),
            )
    return specs


def name_of(argument: Any) -> str:
    """Names a model, loss or optimizer for the record of a run.

    >>> name_of({"kind": "hinge", "flag": np.mean})
    'kind: hinge, flag: mean'
    """
    if isinstance(argument, Mapping):
        return ", ".join(f"{name}: {name_of(value)}" for name, value in argument.items())
    if isinstance(argument, str):
        return argument
    function = _unwrapped(argument)
    return str(getattr(function, "__name__", type(function).__name__))


def _from_pair(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Model:
    takes_key = "key" in inspect.signature(apply).parameters

    def applied(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        return (apply(params, inputs, key=key) if takes_key else apply(params, inputs)), model_state

    return Model(lambda key: (init(key), {}), applied)


def _output_spec(loss: Any, metrics: Any, class_weight: Any, problem: Any, weight: float) -> OutputSpec:
    if problem is not None:
        labels.check_problem(problem)
    if isinstance(loss, str):
        function = losses.find(loss, problem)
    elif callable(loss):
        function = _unwrapped(loss)
    else:
        raise InputError(f"a loss of type {type(loss).__name__} was given; give a name or a function.")
    ours = function in SIGMOID_FAMILY or function in SOFTMAX_FAMILY
    if ours:
        family = "multiclass" if function in SOFTMAX_FAMILY else "binary"
        problem = problem or family
        if (problem == "multiclass") != (family == "multiclass"):
            raise InputError(f"loss {function.__name__!r} does not fit a {problem} problem.")
    elif problem is None:
        raise InputError("your own loss function needs problem='multiclass', or another.")
    options: dict[str, Any] = {}
    if ours:
        options = {"normalizer": "batch", "ignore_label": float("nan") if problem == "multilabel" else None}
        options |= getattr(loss, "keywords", {})

    def bound(class_weight: np.ndarray | None) -> Callable[..., jax.Array]:
        if not ours:
            return _user_loss(loss, problem, class_weight)
        chosen = options | ({} if class_weight is None else {"class_weight": class_weight})
        return losses.get(loss, problem, **chosen) if isinstance(loss, str) else functools.partial(loss, **chosen)

    def from_labels(train_labels: np.ndarray, num_classes: int) -> Callable[..., jax.Array]:
        weights = labels.resolve_class_weight(
            class_weight, problem, num_classes, labels=train_labels, ignore_label=options.get("ignore_label")
        )
        return bound(weights.astype(np.float32))

    if class_weight is None:
        chosen = bound(None)
    elif not isinstance(class_weight, str):
        # The model's shapes are not known yet; the number of classes is checked when the loss is traced.
        chosen = bound(labels.resolve_class_weight(class_weight, problem, len(class_weight)).astype(np.float32))
    elif class_weight in ("balanced", "effective"):
        chosen = _without_labels
    else:
        raise unknown_name("class_weight", class_weight, ("balanced", "effective"))
    return OutputSpec(
        problem,
        chosen,
        _metrics(metrics, problem),
        weight,
        options.get("ignore_label"),
        loss_from_labels=from_labels if chosen is _without_labels else None,
    )


def _without_labels(*arguments: Any, **options: Any) -> jax.Array:
    raise InputError(
        "class_weight is computed from the training labels of the first fit: call fit first, or give "
        "losses.class_weights(labels, num_classes)."
    )


def _user_loss(
    loss: Callable[..., jax.Array], problem: ProblemName, class_weight: np.ndarray | None
) -> Callable[..., jax.Array]:
    """Gives a loss ``(outputs, labels) -> (N,)`` the weighting and reduction of the losses here."""
    if class_weight is not None and problem == "multilabel":
        raise InputError("with your own loss function, apply the class_weight of a multilabel problem inside it.")

    def weighted(
        outputs: jax.Array, truth: jax.Array, *, mask: Any = None, normalizer: Any = "batch", sample_weight: Any = None
    ) -> jax.Array:
        values = loss(outputs, truth)
        if values.shape != truth.shape[:1]:
            raise InputError(
                f"the loss function returned {values.shape} for {truth.shape[0]} examples; it must return one value "
                f"each, {truth.shape[:1]}."
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


def _metrics(chosen: Sequence[Metric], problem: ProblemName) -> dict[str, Callable[..., float]]:
    if isinstance(chosen, str) or callable(chosen):
        raise InputError(f"metrics is a list, such as metrics=[{chosen!r}].")
    functions: dict[str, Callable[..., float]] = {}
    for metric in chosen:
        if isinstance(metric, str):
            functions[metric] = metrics.get(metric, problem)
        elif callable(metric):
            functions[getattr(metric, "__name__", type(metric).__name__)] = _user_metric(metric)
        else:
            raise InputError(f"a metric of type {type(metric).__name__} was given; give a name or a function.")
    return functions


def _user_metric(metric: Callable[..., Any]) -> Callable[..., float]:
    takes_weight = "sample_weight" in inspect.signature(metric).parameters

    def measured(scores: np.ndarray, truth: np.ndarray, *, sample_weight: np.ndarray, mask: np.ndarray) -> float:
        options = {"sample_weight": sample_weight[mask]} if takes_weight else {}
        return float(metric(scores[mask], truth[mask], **options))

    return measured


def _unwrapped(function: Any) -> Any:
    """Returns the function inside nested ``functools.partial``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function
