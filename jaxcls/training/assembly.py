"""From a model, what is asked of its outputs, and an optimizer, to the pure functions that training takes.

The tasks and :func:`jaxcls.compile` both come through here.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxcls import optimizers
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Examples
from jaxcls.data.buckets import Buckets
from jaxcls.models.functional import Model
from jaxcls.training import objective, steps
from jaxcls.training.debugging import Parts
from jaxcls.training.objective import Objective, OutputSpec
from jaxcls.training.steps import Augment, PredictionStep, TrainState, TrainStep

PyTree = Any
Predict = Callable[[PyTree, PyTree, PyTree], PyTree]

# Random numbers take long to compile and no time to draw: for a ResNet 1.5 s in place of 4.4 s.
_FOR_ONE_RUN = {"xla_backend_optimization_level": 0}


class Functions(NamedTuple):
    """The pure functions of training.

    Attributes:
      init: ``seed -> state``, uint32, on every device.
      train_step: ``(state, batch) -> (state, metrics)``.
      predict: ``(params, model_state, inputs) -> scores`` of any number of encoded inputs, on the host.
      validate: ``(state, examples) -> {name: value}``, the loss and the metrics, of the weights that are tested.
      parts: what the train step is made of, for :mod:`jaxcls.training.debugging`.
      replicated, sharded: an array whole on every device, and one whose first axis is split over them.
    """

    init: Callable[[np.uint32], TrainState]
    train_step: TrainStep
    predict: Predict
    validate: Callable[[TrainState, Examples], Mapping[str, float]]
    parts: Parts
    replicated: jax.sharding.NamedSharding
    sharded: jax.sharding.NamedSharding


def _unchanged(inputs: PyTree) -> PyTree:
    return inputs


def _not_augmented(key: jax.Array, inputs: PyTree, labels: PyTree) -> tuple[PyTree, PyTree]:
    return inputs, labels


def assemble(
    model: Model,
    asked: Objective,
    optimizer: optax.GradientTransformation,
    *,
    eval_batch_size: int,
    preprocess: Callable[[PyTree], PyTree] = _unchanged,
    augment: Augment = _not_augmented,
    views: Sequence[Callable[[PyTree], PyTree]] = (),
    buckets: Buckets | None = None,
) -> Functions:
    """The functions of training; nothing is compiled before they are called.

    Args:
      preprocess, augment, views: see :func:`jaxcls.training.steps.make_train_step` and `make_prediction_step`.
      buckets: what batches of padded examples are cut to; see :func:`jaxcls.training.steps.bucketed`.
    """
    loss = objective.total_loss(asked)
    train_step = steps.make_train_step(model, loss, optimizer, preprocess=preprocess, augment=augment)
    replicated, sharded = shardings()
    step = steps.make_prediction_step(model, scores=objective.scores(asked), preprocess=preprocess, views=views)
    predict = predict_all(step, eval_batch_size=eval_batch_size, buckets=buckets)
    example_losses = jax.jit(functools.partial(_example_losses, asked))

    def judge(params: PyTree, model_state: PyTree, inputs: PyTree, labels: PyTree) -> tuple[PyTree, PyTree]:
        # The outputs of a detector are many times as large as its inputs: they are judged as they come.
        scores, outputs = step(params, model_state, inputs)
        return scores, example_losses(outputs, labels)

    judge_all = _of_all(judge, eval_batch_size, buckets)

    def validate(state: TrainState, data: Examples) -> Mapping[str, float]:
        params = optimizers.evaluation_params(state.opt_state, state.params)
        scores, found = judge_all(params, state.model_state, data.inputs, data.labels)
        return objective.measure(asked, scores, found, data.labels, data.sample_weight)

    return Functions(
        # The seed is an argument, so that one compiled program serves all.
        init=jax.jit(
            functools.partial(steps.init_state, model, optimizer),
            out_shardings=replicated,
            compiler_options=_FOR_ONE_RUN if jax.default_backend() == "cpu" else None,
        ),
        train_step=train_step if buckets is None else steps.bucketed(train_step, buckets),
        predict=predict,
        validate=validate,
        parts=Parts(model, asked, optimizer, preprocess, augment),
        replicated=replicated,
        sharded=sharded,
    )


def predict_all(step: PredictionStep, *, eval_batch_size: int, buckets: Buckets | None = None) -> Predict:
    """``(params, model_state, inputs) -> scores`` of encoded inputs, whatever their number, on the host."""

    def scores(params: PyTree, model_state: PyTree, inputs: PyTree) -> PyTree:
        return step(params, model_state, inputs)[0]

    return _of_all(scores, eval_batch_size, buckets)


def _of_all(step: Callable[..., PyTree], eval_batch_size: int, buckets: Buckets | None) -> Callable[..., PyTree]:
    batch_size = -(-eval_batch_size // jax.device_count()) * jax.device_count()
    _, sharded = shardings()
    return functools.partial(steps.collect, step, batch_size=batch_size, buckets=buckets, sharding=sharded)


def one_logit(model: Model, problems: str | Mapping[str, str]) -> Model:
    """The model, with outputs (N,) where a binary problem is answered by (N, 1)."""

    names: Any = jax.tree.structure(problems)

    def squeezed(problem: str, outputs: jax.Array) -> jax.Array:
        return outputs[:, 0] if problem == "binary" and outputs.ndim == 2 and outputs.shape[1] == 1 else outputs

    def apply(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        outputs, model_state = model.apply(params, model_state, inputs, key=key)
        # Outputs of other names, or of none, are for a check to name.
        if names == jax.tree.structure(outputs):
            outputs = jax.tree.map(squeezed, problems, outputs)
        return outputs, model_state

    return Model(model.init, apply)


def shardings() -> tuple[jax.sharding.NamedSharding, jax.sharding.NamedSharding]:
    """An array whole on every device, and one whose first axis is split over them."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    return jax.sharding.NamedSharding(mesh, spec()), jax.sharding.NamedSharding(mesh, spec("data"))


def check_batch_size(batch_size: int, name: str) -> None:
    """Refuses a batch that the devices cannot share.

    Args:
      name: what the user calls it.
    """
    count = jax.device_count()
    if batch_size < 1 or batch_size % count:
        raise InputError(
            f"{name} {batch_size} cannot be split over {count} devices; give {max(1, -(-batch_size // count)) * count}."
        )


def _example_losses(asked: Objective, outputs: PyTree, labels: PyTree) -> PyTree:
    if isinstance(asked, OutputSpec):
        return asked.loss(outputs, labels, normalizer="none")
    return {name: head.loss(outputs[name], labels[name], normalizer="none") for name, head in asked.items()}
