"""Losses of classification: pure functions of logits, one value per example, the weighting the same for all.

Every loss is called ``loss(logits, labels, *, own options, **weighting)`` and takes logits, never
probabilities. There are two families.

- *Sigmoid* (binary and multi-label): ``logits`` and ``labels`` have the same shape, ``(N,)`` or ``(..., L)``.
  Labels are 0 and 1, or soft in [0, 1]; hinge losses turn them into ±1 themselves. One value per element of
  1-D logits; from two dimensions on, an example's value is the mean over its last axis, over the labels that
  count.
- *Softmax* (multiclass): ``logits`` is ``(..., K)``; ``labels`` holds integer indices ``(...)``, or a
  distribution over the classes ``(..., K)``: one-hot or soft. One value for each example, of shape ``(...)``.

Half-precision logits are computed on, and values returned, in float32. Values and gradients are finite and
right for logits up to 1e4 either way. Masked places are replaced *before* the operation, so a NaN there reaches
neither value nor gradient. A label that is out of range gives NaN, not a number that looks like a loss;
``jaxcls._utils.labels.validate`` finds it on the host and says where it is.

``detection_loss`` is that of a detector: one of the sigmoid family at its anchors, and one of its boxes.

``get`` finds a loss by its name here or in Keras. ``class_weights`` and ``resolve_class_weight`` (of
``jaxcls._utils.labels``) compute weights from the training labels.
"""

from jaxcls._utils.labels import class_weights, resolve_class_weight
from jaxcls.losses.by_name import ALIASES, SIGMOID_FAMILY, SOFTMAX_FAMILY, Loss, ProblemName, find, get, names
from jaxcls.losses.detection import detection_loss, smooth_l1
from jaxcls.losses.sigmoid import asymmetric, hinge, sigmoid_cross_entropy, sigmoid_focal, sigmoid_poly, squared_hinge
from jaxcls.losses.softmax import (
    categorical_hinge,
    logit_adjusted_cross_entropy,
    softmax_cross_entropy,
    softmax_focal,
    softmax_poly,
)
from jaxcls.losses.weighting import Normalizer, SigmoidWeighting, Weighting

__all__ = [
    "ALIASES",
    "SIGMOID_FAMILY",
    "SOFTMAX_FAMILY",
    "Loss",
    "Normalizer",
    "ProblemName",
    "SigmoidWeighting",
    "Weighting",
    "asymmetric",
    "categorical_hinge",
    "class_weights",
    "detection_loss",
    "find",
    "get",
    "hinge",
    "logit_adjusted_cross_entropy",
    "names",
    "resolve_class_weight",
    "sigmoid_cross_entropy",
    "sigmoid_focal",
    "sigmoid_poly",
    "smooth_l1",
    "softmax_cross_entropy",
    "softmax_focal",
    "softmax_poly",
    "squared_hinge",
]
