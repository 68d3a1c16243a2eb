"""The frameworks that jaxcls is compared to, each training the same models as its documentation recommends."""

from typing import NamedTuple


class Peer(NamedTuple):
    """The title in tables, the function in this package, and the required packages."""

    title: str
    function: str
    packages: tuple[str, ...]


CONTENDERS = {
    "jaxcls": Peer("jaxcls", "jax_loops.jaxcls", ("jax", "flax", "optax")),
    "jaxcls-bfloat16": Peer("jaxcls, bfloat16", "jax_loops.jaxcls_bfloat16", ("jax", "flax", "optax")),
    "jaxcls-pure": Peer("jaxcls in pure JAX", "jax_loops.jaxcls_pure", ("jax", "flax", "optax")),
    "jit-step": Peer("jitted step", "jax_loops.jit_step", ("jax", "flax", "optax")),
    "flax-nnx": Peer("Flax NNX", "jax_loops.flax_nnx", ("jax", "flax", "optax")),
    "keras-jax": Peer("Keras on JAX", "keras_fit.keras_jax", ("keras", "jax")),
    "keras-tensorflow": Peer("Keras on TensorFlow", "keras_fit.keras_tensorflow", ("keras", "tensorflow")),
    "torch": Peer("PyTorch", "torch_loops.eager", ("torch",)),
    "torch-compiled": Peer("PyTorch compiled", "torch_loops.compiled", ("torch",)),
    "torch-bfloat16": Peer("PyTorch, bfloat16", "torch_loops.eager_bfloat16", ("torch",)),
    "torch-compiled-bfloat16": Peer("PyTorch compiled, bfloat16", "torch_loops.compiled_bfloat16", ("torch",)),
}
