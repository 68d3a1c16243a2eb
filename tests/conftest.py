"""Every test runs on two simulated devices, refuses implicit rank promotion, and sees warnings as errors."""

import os

# Keras is an oracle here, on the JAX backend; it reads this when it is imported.
os.environ["KERAS_BACKEND"] = "jax"

from jaxcls._utils import environment

# What the command lines set: the compiler's flags, and the cache that keeps what it compiled.
environment.configure()

import hypothesis
import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example pays for a compilation, and the machine may be busy: time is no criterion.
hypothesis.settings.register_profile("jaxcls", deadline=None)
hypothesis.settings.load_profile("jaxcls")
