"""Classification losses: pure functions of logits that return one value per example and share their options.

Every loss is called `loss(logits, labels, *, its own options, **options)` with logits, never probabilities. There are
two families.

- *Sigmoid* (binary and multi-label): `logits` and `labels` have one shape, `(N,)` or `(..., L)`. Labels are 0 and 1, or
  soft in [0, 1]; hinge losses convert them to ±1 themselves. One-dimensional logits give one value per element; with
  more axes, the value of an example is the mean over its last axis, over the labels that count.
- *Softmax* (multiclass): `logits` are `(..., K)`; `labels` are integer class indices `(...)`, or distributions
  `(..., K)`, one-hot or soft. One value per example, `(...)`.

Half-precision logits are computed, and values returned, in float32. Values and gradients are finite and accurate for
logits up to ±1e4. Masked elements are replaced *before* the operation, so a NaN there reaches neither value nor
gradient. A label that is out of range gives NaN rather than a plausible loss; :func:`jaxcls._utils.labels.validate`
finds it on the host.

`detection_loss` is the loss of a detector: a sigmoid loss of the classes at its anchors, and a loss of its boxes. `get`
finds a loss by its name, jaxcls's or Keras's. `class_weights` and `resolve_class_weight` compute weights from training
labels.
"""

from jaxcls._utils.labels import class_weights, resolve_class_weight
from jaxcls.losses.by_name import find, get, names
from jaxcls.losses.detection import detection_loss
from jaxcls.losses.sigmoid import asymmetric, hinge, sigmoid_cross_entropy, sigmoid_focal, sigmoid_poly, squared_hinge
from jaxcls.losses.softmax import (
    categorical_hinge,
    logit_adjusted_cross_entropy,
    softmax_cross_entropy,
    softmax_focal,
    softmax_poly,
)
from jaxcls.losses.weighting import Options, SigmoidOptions

__all__ = [
    "Options", "SigmoidOptions", "asymmetric", "categorical_hinge", "class_weights", "detection_loss", "find", "get",
    "hinge", "logit_adjusted_cross_entropy", "names", "resolve_class_weight", "sigmoid_cross_entropy", "sigmoid_focal",
    "sigmoid_poly", "softmax_cross_entropy", "softmax_focal", "softmax_poly", "squared_hinge",
]  # fmt: skip
