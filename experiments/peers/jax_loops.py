"""The contenders in JAX: the loop of jaxcls, a jitted step as a careful user writes it, and Flax NNX's API."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcls.reports.callbacks import Callback
from peers import workloads
from peers.workloads import Train, Workload


def jaxcls(workload: Workload, *, dtype: str = "float32", native: str = "1") -> tuple[int, Train]:
    """The training loop of the jaxcls command.

    Args:
      dtype: of the computation.
      native: "1" or "0", whether with native kernels.
    """
    # Without native kernels this contender fails and is skipped.
    os.environ["JAXCLS_NATIVE"] = native
    import jax

    from jaxcls import losses, optimizers
    from jaxcls.data import batching
    from jaxcls.data.batching import sequence_buckets
    from jaxcls.data.preprocessing import images
    from jaxcls.models import functional, pretrained, text, vision
    from jaxcls.models.pretrained import bert
    from jaxcls.models.retinanet import RetinaNet
    from jaxcls.training import loop
    from jaxcls.training.experiment import Experiment
    from jaxcls.training.loop import FitConfig
    from jaxcls.training.objective import OutputSpec
    from jaxcls.training.problems.detection import loss_on_canvas

    inputs, labels = workload.inputs, workload.labels
    builders: dict[str, Callable[..., Any]] = {
        "mlp": functools.partial(vision.MLP, workloads.IMAGE, hidden=workloads.HIDDEN),
        "cnn": functools.partial(
            vision.CNN, workloads.IMAGE, channels=workloads.CHANNELS, dense=workloads.DENSE, dropout=0.0
        ),
        "resnet": functools.partial(vision.ResNet, workloads.IMAGE, widths=workloads.WIDTHS),
        "transformer": functools.partial(
            text.Transformer,
            vocabulary_size=workloads.VOCABULARY,
            max_length=workloads.LENGTH,
            features=workloads.FEATURES,
            layers=workloads.LAYERS,
            heads=workloads.HEADS,
            dropout=workloads.DROPOUT,
        ),
        "retinanet": functools.partial(RetinaNet, workloads.CANVAS),
    }
    loss = losses.get("sparse_categorical_crossentropy", normalizer="batch")
    if workload.model == "retinanet":
        focal = losses.get("focal_loss", "detection", gamma=workloads.GAMMA, alpha=workloads.ALPHA)
        loss = functools.partial(loss_on_canvas, class_loss=focal)
    options: dict[str, Any] = (
        {"buckets": sequence_buckets((inputs.shape[1],))}
        if workload.is_text
        else {"preprocess": images.fit(inputs).normalize}
    )
    if workload.model == "minilm":
        settings: Any = {"dropout": workloads.DROPOUT, "dtype": jax.numpy.dtype(dtype), "record": {}}
        architecture = bert.architecture(workloads.MINILM, "MiniLM")
        model: Any = pretrained.build(architecture, workload.classes, pretrained.FineTuning(), **settings)
    else:
        build = builders[workload.model]
        model = functional(lambda rngs: build(num_classes=workload.classes, dtype=jax.numpy.dtype(dtype), rngs=rngs))
    experiment = Experiment(
        model=model,
        objective=OutputSpec("detection" if workload.model == "retinanet" else "multiclass", loss),
        optimizer=optimizers.adam(workloads.LEARNING_RATE),
        **options,
    )

    def train(count: int, epochs: int, turn: Callable[[], None]) -> None:
        data = batching.examples(*jax.tree.map(lambda array: array[:count], (inputs, labels)))
        loop.train(
            experiment, experiment.init(), data, None, FitConfig(epochs, workload.batch_size), callbacks=[_Turns(turn)]
        )

    parameters = jax.tree.leaves(experiment.state_shapes.params)
    return sum(leaf.size for leaf in parameters), train


jaxcls_pure = functools.partial(jaxcls, native="0")
jaxcls_bfloat16 = functools.partial(jaxcls, dtype="bfloat16")


def jit_step(workload: Workload) -> tuple[int, Train]:
    """A pure jitted step that donates its state; uint8 batches are sent from the host while it runs."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from peers import flax_models

    workloads.refuse_newer(workload)
    inputs, labels = workload.inputs, workload.labels
    prepare = _normalization(workload)
    graph, *variables = nnx.split(flax_models.build(workload.model, nnx.Rngs(0)), nnx.Param, ...)
    # Plain arrays: variables created outside cannot be changed inside a gradient.
    params, rest = map(nnx.to_pure_dict, variables)
    optimizer = optax.adam(workloads.LEARNING_RATE)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, inputs: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, rest, opt_state = state

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            network: Any = nnx.merge(graph, params, rest)
            losses = optax.softmax_cross_entropy_with_integer_labels(network(prepare(inputs)), labels)
            return losses.mean(), nnx.to_pure_dict(nnx.state(network, nnx.Not(nnx.Param)))

        (loss, rest), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), rest, opt_state), loss

    def train(count: int, epochs: int, turn: Callable[[], None]) -> None:
        state = jax.tree.map(jnp.copy, (params, rest, optimizer.init(params)))
        generator = np.random.default_rng(0)
        for _ in range(epochs):
            for rows in np.split(generator.permutation(count), count // workload.batch_size):
                state, loss = step(state, inputs[rows], labels[rows])
            loss.block_until_ready()
            turn()

    return sum(leaf.size for leaf in jax.tree.leaves(params)), train


def flax_nnx(workload: Workload) -> tuple[int, Train]:
    """Trains as Flax's MNIST tutorial does: nnx.jit, nnx.value_and_grad, nnx.Optimizer and nnx.MultiMetric."""
    import jax
    import optax
    from flax import nnx

    from peers import flax_models

    workloads.refuse_newer(workload)
    inputs, labels = workload.inputs, workload.labels
    if workload.model != "transformer":
        inputs = workloads.normalized(inputs)
    network = flax_models.build(workload.model, nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.adam(workloads.LEARNING_RATE), wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"))

    @nnx.jit
    def step(network: Any, optimizer: Any, metrics: Any, inputs: Any, labels: Any) -> None:
        def loss_of(network: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(network(inputs), labels).mean()

        loss, gradient = nnx.value_and_grad(loss_of)(network)
        metrics.update(loss=loss)
        optimizer.update(network, gradient)

    def train(count: int, epochs: int, turn: Callable[[], None]) -> None:
        network.train()
        generator = np.random.default_rng(0)
        for _ in range(epochs):
            for rows in np.split(generator.permutation(count), count // workload.batch_size):
                step(network, optimizer, metrics, inputs[rows], labels[rows])
            # Waits for the last step.
            float(metrics.compute()["loss"])
            metrics.reset()
            turn()

    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))), train


def _normalization(workload: Workload) -> Callable[[Any], Any]:
    """Converts a uint8 batch inside the compiled step."""
    if workload.model == "transformer":
        return lambda tokens: tokens
    mean, deviation = np.float32(workload.inputs.mean()), np.float32(workload.inputs.std())
    return lambda images: (images.astype(np.float32) - mean) / deviation


class _Turns(Callback):
    """A reporter that only notes the ends of epochs."""

    def __init__(self, turn: Callable[[], None]):
        self._turn = turn

    def on_epoch_end(self, history: Sequence[dict[str, Any]]) -> None:
        self._turn()
