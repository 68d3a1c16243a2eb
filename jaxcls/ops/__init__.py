"""Operations whose fastest sound form depends on the platform; the models ask here and know nothing of it."""

from jaxcls.ops.convolution import conv
from jaxcls.ops.dense import dot_general
from jaxcls.ops.normalisation import batch_norm
from jaxcls.ops.pooling import max_pool

__all__ = ["batch_norm", "conv", "dot_general", "max_pool"]
