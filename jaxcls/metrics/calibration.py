"""Calibration: logits are scaled, and may be shifted, so that probabilities agree with the shares of right predictions.

Fit on scores of examples that the model did not train on, such as validation or out-of-fold ones, never on those of
test examples. Source: Guo et al. (2017), "On calibration of modern neural networks", arXiv 1706.04599; of one label,
Platt (1999), "Probabilistic outputs for support vector machines".
"""

from typing import Any, Literal, NamedTuple, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcls._utils.errors import unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.metrics.collected import FloatArray, Options, collect

Method = Literal["temperature", "vector"]
# A temperature lies between 1/100 and 100: that of a model that is worse than chance would be infinite.
_MOST = 100.0


class Calibration(NamedTuple):
    """What logits are multiplied by, and what is added to them, before softmax or sigmoid.

    Attributes:
      scale, bias: () for all classes and of a binary problem, or (K,), one for each class or label.
    """

    scale: FloatArray
    bias: FloatArray

    def __call__(self, logits: Any) -> Any:
        """Returns calibrated logits, of NumPy or JAX.

        >>> Calibration(np.array(0.5), np.array(0.0))(np.array([[2.0, 0.0]]))
        array([[1., 0.]])
        """
        scale, bias = (np.asarray(one, np.float32) for one in self)
        return logits * scale[None] + bias[None] if scale.ndim else logits * scale + bias


def fit(
    logits: ArrayLike, labels: ArrayLike, *, method: Method = "temperature", **options: Unpack[Options]
) -> Calibration:
    """The calibration that minimizes the log loss of these examples.

    'temperature' has one scale, the inverse of the temperature, for all classes, or one for each label of a multilabel
    problem: the order of the probabilities, and with it every decision at 0.5, is unchanged. 'vector' has a scale and
    a bias for each class or label, which changes decisions. Gaussian priors of variance 1, of the scales relative to
    that of the temperature and of the biases, keep them finite where few examples, or none, contradict certainty.

    Without an error among the examples the best temperature would be 0: it stays 1 then. So does that of a label with a
    single class.

    Args:
      logits: (N,) of a binary problem, else (N, K). Of probabilities, see :func:`logits_of`.
      labels, options: see :mod:`jaxcls.metrics`.

    >>> round(float(fit([2.0, 2.0, 2.0, 2.0], [1, 1, 1, 0]).scale), 4)  # 3 of 4 are right: log 3 / 2
    0.5493
    """
    if method not in get_args(Method):
        raise unknown_name("method of calibration", method, get_args(Method))
    data = collect(logits, labels, options)
    if data.problem == "multiclass":
        fitted = _fit(data.scores, data.truth[:, 0], data.sample_weight[:, 0], method)
        return fitted if method == "vector" else Calibration(fitted.scale[0], fitted.bias[0])
    columns = []
    for score, truth, weight in zip(data.scores.T, data.truth.T, data.sample_weight.T, strict=True):
        if len({*truth[weight > 0]}) < 2:
            columns.append((1.0, 0.0))
            continue
        # A label is a problem of two classes, the first of which has the logit 0.
        scale, bias = _fit(np.stack([np.zeros_like(score), score], axis=1), truth, weight, method)
        columns.append((scale[1], bias[1] - bias[0]))
    scale, bias = np.array(columns).T
    return Calibration(scale[0], bias[0]) if data.problem == "binary" else Calibration(scale, bias)


def logits_of(probabilities: ArrayLike, problem: ProblemName) -> FloatArray:
    """The logits of probabilities, which are known to the precision of float32.

    >>> logits_of([0.5, 1.0], "binary")
    array([ 0.        , 16.63553227])
    """
    values = np.asarray(probabilities, np.float64)
    if problem == "multiclass":
        logs: FloatArray = np.log(np.maximum(values, np.finfo(np.float32).tiny))
        return logs
    known = np.clip(values, np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
    logits: FloatArray = np.log(known) - np.log1p(-known)
    return logits


def probabilities_of(logits: ArrayLike, problem: ProblemName) -> FloatArray:
    """The probabilities of logits: softmax of a multiclass problem, else sigmoid.

    >>> probabilities_of([[0.0, 0.0]], "multiclass")
    array([[0.5, 0.5]])
    """
    from scipy import special

    values = np.asarray(logits, np.float64)
    result: FloatArray = special.softmax(values, axis=1) if problem == "multiclass" else special.expit(values)
    return result


def _fit(logits: FloatArray, truth: NDArray[np.int64], weight: FloatArray, method: Method) -> Calibration:
    """The calibration of (N, K) logits, with a scale and a bias for each class."""
    classes = logits.shape[1]
    temperature = _scale(logits, truth, weight)
    start = np.repeat([1.0, 0.0], classes)
    if method == "temperature":
        return Calibration(temperature * start[:classes], start[classes:])
    from scipy import optimize, special

    is_true, total, scaled = truth[:, None] == np.arange(classes), weight.sum(), temperature * logits

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        logs = special.log_softmax(scaled * values[:classes] + values[classes:], axis=1)
        distance, excess = values - start, weight[:, None] * (np.exp(logs) - is_true)
        gradient = np.concatenate([(excess * scaled).sum(axis=0), excess.sum(axis=0)]) + distance
        return (distance @ distance / 2 - weight @ logs[is_true]) / total, gradient / total

    # It is convex: any descent ends in the one minimum.
    solution = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-13, "gtol": 1e-8}).x
    return Calibration(temperature * solution[:classes], solution[classes:])


def _scale(logits: FloatArray, truth: NDArray[np.int64], weight: FloatArray) -> float:
    """The scale of (N, K) logits whose log loss is least: the zero of the derivative, which increases."""
    from scipy import optimize, special

    gaps = logits - np.take_along_axis(logits, truth[:, None], axis=1)
    if not (gaps[weight > 0] > 0).any():
        return 1.0

    def derivative(scale: float) -> float:
        return float(weight @ (special.softmax(scale * gaps, axis=1) * gaps).sum(axis=1))

    if derivative(1 / _MOST) >= 0:
        return 1 / _MOST
    return _MOST if derivative(_MOST) <= 0 else float(optimize.brentq(derivative, 1 / _MOST, _MOST, xtol=1e-12))
