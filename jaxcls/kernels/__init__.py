"""Operations whose fastest implementation depends on the platform, which callers need not know."""

from jaxcls.kernels.accumulation import add_rows
from jaxcls.kernels.attention import attention
from jaxcls.kernels.convolution import conv, pooled_convolution
from jaxcls.kernels.dropout import dropout
from jaxcls.kernels.linear import add_bias, dot_general, linear
from jaxcls.kernels.normalization import batch_norm
from jaxcls.kernels.pooling import max_pool

__all__ = [
    "add_bias", "add_rows", "attention", "batch_norm", "conv", "dot_general", "dropout", "linear", "max_pool",
    "pooled_convolution",
]  # fmt: skip
