"""Operations whose fastest sound form depends on the platform; the models ask here and know nothing of it."""

from jaxcls.ops.convolution import conv
from jaxcls.ops.pooling import max_pool

__all__ = ["conv", "max_pool"]
