"""jaxcls: a functional training framework for classification in JAX and Flax.

The rooms are imported by name, each when it is needed: ``from jaxcls import losses``.
"""

__version__ = "0.1.0"
