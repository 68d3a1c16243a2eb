"""Operations whose fastest sound form depends on the platform; the models ask here and know nothing of it."""

from jaxcls.kernels.accumulation import add_rows
from jaxcls.kernels.attention import attention
from jaxcls.kernels.convolution import conv
from jaxcls.kernels.dense import dot_general
from jaxcls.kernels.dropout import dropout
from jaxcls.kernels.linear import add_bias, linear
from jaxcls.kernels.normalization import batch_norm
from jaxcls.kernels.pooled_convolution import pooled_convolution
from jaxcls.kernels.pooling import max_pool

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
