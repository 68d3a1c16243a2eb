"""User data and arguments, checked against an objective before anything is compiled."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from jaxcls import metrics
from jaxcls._utils import labels as label_checks
from jaxcls._utils.errors import InputError, error_context, unknown_name
from jaxcls._utils.labels import AnyProblemName, ProblemName
from jaxcls.data.adapters import as_examples
from jaxcls.data.batching import Examples
from jaxcls.metrics import ALIASES, METRICS
from jaxcls.training.objective import Objective, OutputSpec, by_output

PyTree = Any
Mode = Literal["max", "min"]


def examples(objective: Objective, data: Any, output_shapes: Callable[[PyTree], PyTree]) -> Examples:
    """Returns examples as arrays with labels in one form; see :meth:`jaxcls.training.experiment.Experiment.examples`.

    Args:
      output_shapes: inputs -> the shapes of the model's outputs for them.
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
            checked[name] = _labels(truth, spec, logits)
            if not np.all(np.isfinite(weight) & (weight >= 0)):
                raise InputError("sample_weight must be finite and not negative.")
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
    specs = (
        {"": objective} if isinstance(objective, OutputSpec) else {f"{name}_": objective[name] for name in objective}
    )
    for prefix, spec in specs.items():
        modes[f"{prefix}loss"] = "min"
        modes |= {prefix + metric: _direction(metric) for metric in spec.metrics}
    if monitor not in modes:
        raise unknown_name("value to monitor", monitor, modes)
    return modes[monitor]


def _direction(metric: str) -> Mode:
    known = {*METRICS, *ALIASES}
    return metrics.direction(metric) if metric in known else "max"  # a user's own metric: more is better


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
            f"the model returns {tuple(shape)}, but a {problem} problem needs {expected}. If the problem is another "
            f"one "
            f"({others}), give problem=."
        )


def _labels(truth: np.ndarray, spec: OutputSpec, logits: Any) -> np.ndarray:
    """Checks the labels and brings them into one form: (N,) indices, (N, classes) distributions, or (N, labels)."""
    count = 1 if spec.problem == "binary" else logits.shape[1]
    if spec.problem != "multilabel" and truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if spec.problem == "multiclass" and truth.ndim == 1:
        whole = truth.dtype.kind == "f" and np.all(truth == np.rint(truth))
        truth = truth.astype(np.int32) if whole or truth.dtype.kind == "b" else truth
    label_checks.validate(truth, spec.problem, count, ignore_label=spec.ignore_label)
    if spec.problem == "multiclass":
        one_hot = truth.ndim == 2 and np.all((truth == 0) | (truth == 1))
        return truth.argmax(axis=1).astype(np.int32) if one_hot else truth
    return truth.astype(np.int32 if spec.problem == "binary" and truth.dtype.kind != "f" else np.float32)
