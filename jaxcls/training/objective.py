"""The objective: the problem, loss and metrics of a model's output, or of each output by name."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxcls import metrics
from jaxcls._utils import labels as label_checks
from jaxcls._utils.errors import InputError, error_context, reason, unknown_name
from jaxcls._utils.labels import AnyProblemName, ProblemName
from jaxcls.data import rows
from jaxcls.data.adapters import as_examples
from jaxcls.data.batching import Examples
from jaxcls.losses import Ratio
from jaxcls.metrics import ALIASES, METRICS
from jaxcls.models.layers import Product

PyTree = Any
# Of a loss over very many classes: 64 MB, and as much again for each array that the gradient saves.
_MOST_LOGITS = 1 << 24
Mode = Literal["max", "min"]


class OutputSpec(NamedTuple):
    """What one output of a model is trained for.

    Attributes:
      problem: decides which labels are valid, how scores follow from outputs, and what the metrics mean.
      loss: ``(outputs, labels, *, sample_weight, mask, normalizer, as_ratio) -> scalar``, or (N,) with
        ``normalizer='none'``, or a :class:`jaxcls.losses.Ratio` with ``as_ratio``.
      metrics: name -> ``(scores, labels, *, sample_weight, mask) -> float``, computed on the host from all scores.
      weight: the factor of this loss in the sum over the outputs.
      ignore_label: labels of this value are unknown and left out of loss and metrics; None if there are none.
      scores: ``outputs -> scores``, example by example; None stands for the probabilities of the problem.
      class_weight: ``(train_labels, num_classes) -> class_weight``, an argument that ``loss`` takes where the weights
        are computed from the training labels; None if ``loss`` is complete.
    """

    problem: AnyProblemName
    loss: Callable[..., Any]
    metrics: Mapping[str, Callable[..., float]] = {}
    weight: float = 1.0
    ignore_label: float | None = None
    scores: Callable[[PyTree], PyTree] | None = None
    class_weight: Callable[[np.ndarray, int], np.ndarray] | None = None


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

    It takes outputs, labels and sample weights of one output, or dicts of them; one (N,) of weights may serve all. With
    ``as_ratio`` it returns a list of the :class:`jaxcls.losses.Ratio` of each output.

    >>> from jaxcls import losses
    >>> spec = OutputSpec("multiclass", losses.get("softmax_cross_entropy", normalizer="batch"))
    >>> logits, labels = np.array([[2.0, 0.0, 0.0]]), np.array([0])
    >>> both = total_loss({"first": spec, "second": spec._replace(weight=0.5)})
    >>> two = {"first": logits, "second": logits}, {"first": labels, "second": labels}
    >>> f"{total_loss(spec)(logits, labels):.4f} {both(*two, sample_weight=np.ones(1), mask=None):.4f}"
    '0.2395 0.3593'
    """

    def loss(
        outputs: PyTree, labels: PyTree, *, sample_weight: PyTree = None, mask: Any = None, as_ratio: bool = False
    ) -> Any:
        ratios = [
            _ratio(spec.loss, logits, truth, weight, mask)._replace(weight=spec.weight)
            for _, spec, logits, truth, weight in by_output(objective, outputs, labels, sample_weight)
        ]
        return ratios if as_ratio else sum_of_outputs(ratios)

    return loss


def _ratio(loss: Callable[..., Ratio], logits: Any, labels: Any, sample_weight: Any, mask: Any) -> Ratio:
    """Returns the loss of each example; of a :class:`jaxcls.models.layers.Product`, from some rows of logits at a time.

    Rows rather than classes: every loss is a function of the logits of one example, so each can be used unchanged, and
    a batch of any size has at most as many logits at a time. The gradient computes them again.
    """
    if not isinstance(logits, Product):
        return loss(logits, labels, sample_weight=sample_weight, mask=mask, as_ratio=True)
    rows, classes = len(logits.features), logits.kernel.shape[1]
    parts = next(n for n in range(1, rows + 1) if n == rows or (rows % n == 0 and rows // n * classes <= _MOST_LOGITS))
    settings: list[Ratio] = []  # of the loss, which are no arrays

    @jax.checkpoint
    def part(rows: tuple[jax.Array, Any, Any, Any]) -> tuple[jax.Array, jax.Array]:
        features, labels, sample_weight, mask = rows
        some = logits._replace(features=features).dense()
        settings.append(loss(some, labels, sample_weight=sample_weight, mask=mask, as_ratio=True))
        return settings[-1].numerator, settings[-1].denominator

    # Rows are dealt out in turn, so that a batch that is split over devices stays so.
    dealt = jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf.reshape(rows // parts, parts, *leaf.shape[1:]), 0, 1),
        (logits.features, labels, sample_weight, mask),
    )
    numerator, denominator = (values.T.reshape(rows) for values in jax.lax.map(part, dealt))
    return settings[0]._replace(numerator=numerator, denominator=denominator)


def sum_of_outputs(ratios: Sequence[Ratio], divisors: Sequence[jax.Array | None] | None = None) -> jax.Array:
    """Returns the sum of the losses of all outputs, each divided by its divisor or, by default, by its own."""
    terms = [ratio.value(divisor) for ratio, divisor in zip(ratios, divisors or [None] * len(ratios), strict=True)]
    # Starting from the first term: sum() would add 0 to it, one operation more in the compiled step.
    return functools.reduce(jnp.add, terms)


def loss_of_sums(numerators: ArrayLike, denominators: ArrayLike) -> float:
    """Returns the loss of a set of examples from the sums of its ratios, one of each output.

    An output of which no label counts adds nothing; nan if that is so of all.

    >>> loss_of_sums([6.0, 0.0], [4, 0])
    1.5
    """
    numerators, denominators = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    counted = denominators > 0
    return float((numerators[counted] / denominators[counted]).sum()) if counted.any() else float("nan")


def loss_and_metrics(
    objective: Objective,
    scores: PyTree,
    ratios: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: PyTree,
    sample_weight: PyTree,
) -> dict[str, float]:
    """Computes the loss and the metrics of a set of examples.

    Args:
      scores: on the host, such as probabilities (N,) or (N, classes); or a dict of them by output.
      ratios: numerators and denominators of the loss of each output; see :class:`jaxcls.losses.Ratio`.
      labels, sample_weight: as in :class:`jaxcls.data.batching.Examples`. Examples whose labels are all unknown are
        left out of that output.

    Returns:
      'loss', divided as in training (of several outputs, the weighted sum of their losses), and the metrics by name.
      Several outputs add 'name_loss' and 'name_metric' for each, as in Keras.
    """
    sums = [[np.sum(values, dtype=np.float64) for values in ratio] for ratio in ratios]
    weighted = [(spec.weight * over, under) for (_, spec), (over, under) in zip(specs(objective), sums, strict=True)]
    named: dict[str, float] = {}
    for (over, under), (name, spec, output_scores, truth, weight) in zip(
        sums, by_output(objective, scores, labels, sample_weight), strict=True
    ):
        prefix = "" if name is None else f"{name}_"
        if name is not None:
            named[f"{prefix}loss"] = loss_of_sums([over], [under])
        if spec.metrics and spec.problem == "multiclass" and truth.ndim == 2:
            truth = truth.argmax(axis=1)  # the most likely class of a distribution
        known = _known(truth, spec)
        for metric, function in spec.metrics.items():
            named[prefix + metric] = function(output_scores, truth, sample_weight=weight, mask=known)
    return {"loss": loss_of_sums(*zip(*weighted, strict=True))} | named


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
    unknown = label_checks.holds(np.asarray(labels), spec.ignore_label)
    return ~(unknown.all(axis=1) if unknown.ndim == 2 else unknown)


def checked_examples(
    objective: Objective, data: Any, output_shapes: Callable[[PyTree], PyTree], *, scored: bool
) -> Examples:
    """Returns examples as arrays with labels in one form; see :meth:`jaxcls.training.experiment.Experiment.examples`.

    Args:
      output_shapes: inputs -> the shapes of the model's outputs for a batch of them.
      scored: whether the metrics are computed of them.
    """
    arrays = as_examples(data)
    outputs = output_shapes(arrays.inputs)
    if not isinstance(objective, OutputSpec):
        _check_names("outputs of the model", outputs, objective)
        _check_names("labels", arrays.labels, objective)
        if isinstance(arrays.sample_weight, Mapping):
            _check_names("sample_weight", arrays.sample_weight, objective)
    checked = {}
    for name, spec, logits, truth, weight in by_output(objective, outputs, arrays.labels, arrays.sample_weight):
        with error_context(f"output {name!r}") if name is not None else contextlib.nullcontext():
            _check_logits(logits, spec.problem)
            checked[name] = labels_in_one_form(truth, spec, logits)
            few = rows.in_memory(rows.sample(weight))
            if not np.all(np.isfinite(few) & (few >= 0)):
                raise InputError("sample_weight must be finite and not negative.")
            # For the same number of examples, so that it is traced once for all of them.
            labels = jax.ShapeDtypeStruct((logits.shape[0], *checked[name].shape[1:]), checked[name].dtype)
            _check_loss(spec.loss, spec.class_weight is None, logits, labels)
            if scored:
                known = rows.in_memory(rows.sample(checked[name]))
                if not rows.is_sampled((truth, weight)) and not weight[_known(known, spec)].any():
                    raise InputError("no example has both a known label and a weight above 0.")
                check_metrics(spec, None if spec.problem == "binary" else logits.shape[1], known)
    return Examples(arrays.inputs, checked.get(None, checked), arrays.sample_weight)


def monitor_mode(objective: Objective, monitor: str | None, patience: int | None, has_validation: bool) -> Mode:
    """Returns whether a greater or a smaller value of ``monitor`` is better.

    Raises:
      InputError: there is no such value, or no validation data to compute it from.
    """
    if monitor is None:
        if patience is not None:
            raise InputError("patience needs monitor, the value to watch, such as monitor='loss'.")
        return "max"
    if not has_validation:
        raise InputError(f"monitor={monitor!r} is a value of validation examples: give validation_data.")
    modes: dict[str, Mode] = {"loss": "min"}
    for name, spec in specs(objective):
        prefix = "" if name is None else f"{name}_"
        modes[f"{prefix}loss"] = "min"
        # Of a user's own metric, more is better.
        modes |= {
            prefix + metric: metrics.direction(metric) if metric in {*METRICS, *ALIASES} else "max"
            for metric in spec.metrics
        }
    if monitor not in modes:
        raise unknown_name("value to monitor", monitor, modes)
    return modes[monitor]


def check_metrics(spec: OutputSpec, columns: int | None, truth: np.ndarray | None = None) -> None:
    """Computes the metrics of one example, so that what they do not take is refused before training.

    Args:
      columns: of the scores; None of a binary problem, whose scores are (N,).
      truth: the labels, as checked.

    Raises:
      InputError: a metric does not fit the number of classes, or takes no soft labels.
    """
    shape = (1,) if columns is None else (1, columns)
    scores, label = np.full(shape, 1 / (columns or 2)), np.zeros(shape if spec.problem == "multilabel" else 1, int)
    soft = np.zeros(0, int)
    if truth is not None and truth.dtype.kind == "f" and spec.problem != "multiclass":
        # Of several labels, unknown ones are NaN.
        fractional = (truth != np.rint(truth)) & ~np.isnan(truth)
        soft = np.flatnonzero(fractional.any(axis=1) if truth.ndim == 2 else fractional)
    for name, function in spec.metrics.items():
        if name not in METRICS and name not in ALIASES:
            continue  # a user's own metric
        with error_context(f"metric {name!r}"):
            function(scores, label, sample_weight=np.ones(1), mask=np.ones(1, bool))
            if truth is not None and len(soft):
                raise InputError(
                    f"row {soft[0]} has the soft label {truth[soft[0]]}, which a loss takes, but not a metric: it "
                    "compares scores with 0 and 1. Round the labels of examples that are scored, or give metrics=[]."
                )


@functools.lru_cache
def _check_loss(loss: Callable[..., jax.Array], complete: bool, logits: Any, labels: Any) -> None:
    """Traces the loss, which may be a user's function, so that labels it does not take are refused before training."""
    # Class weights that come from the training labels are not known yet.
    options = {} if complete else {"class_weight": None}
    try:
        jax.eval_shape(functools.partial(loss, normalizer="none", **options), logits, labels)
    except InputError:
        raise
    except Exception as error:  # whatever the code of the loss raises
        outputs, truth = (f"{one.dtype} {_shape_of_any(one)}" for one in (logits, labels))
        raise InputError(f"the loss does not take outputs {outputs} with labels {truth}: {reason(error)}.") from error


def _check_names(what: str, tree: Any, objective: Mapping[str, OutputSpec]) -> None:
    names = set(tree) if isinstance(tree, Mapping) else None
    if names != set(objective):
        shown = type(tree).__name__ if names is None else f"a dict of {', '.join(sorted(map(str, names)))}"
        raise InputError(f"{what} must be a dict of {', '.join(objective)}, as loss is; got {shown}.")


def _check_logits(logits: Any, problem: AnyProblemName) -> None:
    shape = getattr(logits, "shape", None)
    if shape is None:
        raise InputError(f"the model returns a {type(logits).__name__}; several outputs need a dict of losses.")
    # The single column of a binary problem is squeezed by now.
    rank, expected = {
        "binary": (1, "(N,) or (N, 1), one logit per example"),
        "multiclass": (2, "(N, classes), at least two"),
        "multilabel": (2, "(N, labels)"),
    }[problem]
    if len(shape) != rank or (problem == "multiclass" and shape[1] < 2):
        others = ", ".join(other for other in get_args(ProblemName) if other != problem)
        raise InputError(
            f"the model returns {_shape_of_any(logits)}, but a {problem} problem needs {expected}. If the problem is "
            f"another one ({others}), give problem=."
        )


def _shape_of_any(batch: Any) -> str:
    """Writes the shape of a batch of any number of examples: '(N, 3)'."""
    return f"({', '.join(['N', *map(str, batch.shape[1:])])}{',' if batch.ndim == 1 else ''})"


def labels_in_one_form(truth: Any, spec: OutputSpec, logits: Any) -> Any:
    """Checks labels and brings them into one form: (N,) indices, (N, classes) distributions, or (N, labels).

    Of :class:`jaxcls.data.rows.Rows`, a sample is checked now, and the others when they are read.
    """
    if not isinstance(truth, rows.Rows):
        return _labels(truth, spec, logits)
    like = _labels(rows.in_memory(truth.sample()), spec, logits)

    def checked(read: np.ndarray) -> np.ndarray:
        with error_context("labels that were not checked before training"):
            labels = _labels(read, spec, logits)
            if labels.ndim < like.ndim:  # distributions that happen to be certain
                return read.astype(like.dtype)
            if labels.ndim > like.ndim:
                raise InputError("some are distributions, and those that were checked were indices or one-hot.")
            return labels.astype(like.dtype)

    return truth.mapped(checked, like.shape[1:], like.dtype)


def _labels(truth: np.ndarray, spec: OutputSpec, logits: Any) -> np.ndarray:
    count = 1 if spec.problem == "binary" else logits.shape[1]
    if spec.problem != "multilabel" and truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if spec.problem == "multiclass" and truth.ndim == 1:
        whole = truth.dtype.kind == "f" and np.all((truth == np.rint(truth)) & (np.abs(truth) < 2**31))
        truth = truth.astype(np.int32) if whole or truth.dtype.kind == "b" else truth
    label_checks.validate(truth, spec.problem, count, ignore_label=spec.ignore_label)
    if spec.problem == "multiclass":
        one_hot = truth.ndim == 2 and np.all((truth == 0) | (truth == 1))
        return truth.argmax(axis=1).astype(np.int32) if one_hot else truth
    return truth.astype(np.int32 if spec.problem == "binary" and truth.dtype.kind != "f" else np.float32)
