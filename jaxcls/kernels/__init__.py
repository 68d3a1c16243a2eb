"""Operations whose fastest implementation depends on the platform, which callers need not know."""

from jaxcls.kernels.attention import attention
from jaxcls.kernels.convolution import conv, max_pool, overlapping_max_pool, pooled_convolution
from jaxcls.kernels.dense import add_bias, dot_general, dropout, linear
from jaxcls.kernels.normalization import add_rows, batch_norm, masked_rows

__all__ = [
    "add_bias", "add_rows", "attention", "batch_norm", "conv", "dot_general", "dropout", "linear", "masked_rows",
    "max_pool", "overlapping_max_pool", "pooled_convolution",
]  # fmt: skip
