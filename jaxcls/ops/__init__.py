"""Operations whose fastest sound form depends on the platform; the models ask here and know nothing of it."""

from jaxcls.ops.attention import attention
from jaxcls.ops.chains import add_rows
from jaxcls.ops.convolution import conv
from jaxcls.ops.dense import dot_general
from jaxcls.ops.dropout import dropout
from jaxcls.ops.linear import add_bias, linear
from jaxcls.ops.normalisation import batch_norm
from jaxcls.ops.pooled_convolution import pooled_convolution
from jaxcls.ops.pooling import max_pool

__all__ = [
    "add_bias",
    "add_rows",
    "attention",
    "batch_norm",
    "conv",
    "dot_general",
    "dropout",
    "linear",
    "max_pool",
    "pooled_convolution",
]
