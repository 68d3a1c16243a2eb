"""``jaxcls.compile``: an experiment from a model, an optimizer, losses and metrics, as in Keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls._utils.labels import ProblemName
from jaxcls.data.adapters import as_examples
from jaxcls.data.augmentation import inputs_only
from jaxcls.data.batching import Batch
from jaxcls.training import arguments, steps
from jaxcls.training.arguments import Loss, Metric, PerOutput
from jaxcls.training.experiment import ClassNames, Experiment, shaped_outputs
from jaxcls.training.objective import problems

PyTree = Any


def compile(
    model: Any,
    optimizer: str | optax.GradientTransformation = "adam",
    loss: PerOutput[Loss] = "sparse_categorical_crossentropy",
    metrics: PerOutput[Sequence[Metric]] = ("accuracy",),
    loss_weights: Mapping[str, float] | None = None,
    class_weight: Any = None,
    run_eagerly: bool = False,
    *,
    problem: PerOutput[ProblemName] | None = None,
    class_names: ClassNames | None = None,
    example: PyTree = None,
    preprocess: Callable[[PyTree], PyTree] = steps.identity,
    augment: Callable[[jax.Array, PyTree], PyTree] | None = None,
    eval_batch_size: int = 500,
) -> Experiment:
    """Makes an experiment of your model; it is trained by the same compiled steps and loop as the tasks.

    As in Keras, a model with several outputs returns a dict and takes dicts of losses, metrics, weights and labels.
    Unlike in Keras, outputs are always logits: a model ends with its last dense layer, without softmax or sigmoid. The
    loss of validation examples is that of training, class weights included.

    Args:
      model: what builds a Flax NNX module from ``rngs``, such as its class; a Flax Linen module (with ``example``); a
        :class:`jaxcls.models.Model`; or a pair of functions ``init(key) -> params`` and
        ``apply(params, inputs) -> outputs``, whose ``apply`` may take ``key``, which is None except in training.
      optimizer: a name, or any Optax transformation, such as ``optimizers.adam(1e-3, clipnorm=1.0)``.
      loss: a name, ours or Keras's; a function of :mod:`jaxcls.losses`, or ``losses.get(name, gamma=2.0, ...)``; or
        your function, ``(outputs, labels) -> (N,)``, which needs ``problem``. Labels equal to the
        ``ignore_label`` of a loss are not scored either.
      metrics: names, or functions ``(scores, labels) -> float`` of the probabilities and labels of all examples, which
        may take ``sample_weight``. A list serves every output.
      loss_weights: of several outputs, the factor of each loss in their sum; 1 by default.
      class_weight: 'balanced' or 'effective', computed from the training labels of the first ``fit``; an array; or a
        dict {class: weight} with every class.
      run_eagerly: ``fit`` examines every step on concrete values before it runs it, and stops at the first number that
        is not finite: it is named, with its examples, and saved for ``replay``. Slow.
      problem: 'binary', 'multiclass' or 'multilabel'. A softmax loss implies 'multiclass'; a sigmoid loss 'binary',
        unless 'multilabel' is given.
      class_names: for reports and exports; numbers by default.
      example: a batch of inputs, or :class:`jax.ShapeDtypeStruct` in its place, for a Linen module.
      preprocess: applied to a batch of inputs inside the compiled step, such as uint8 pixels to floats.
      augment: ``(key, inputs) -> inputs`` before ``preprocess``, in training only; see :mod:`jaxcls.data.augmentation`.
      eval_batch_size: examples per prediction step.

    Raises:
      InputError: a name is unknown, or two arguments do not fit together.

    >>> from flax import nnx
    >>> from jaxcls import optimizers
    >>> compiled = compile(lambda rngs: nnx.Linear(2, 3, rngs=rngs), optimizer=optimizers.sgd(0.5))
    >>> inputs = np.eye(2)[[0, 1, 0, 1]]
    >>> state = compiled.init(seed=0)
    >>> state, history = compiled.fit(state, (inputs, [2, 0, 2, 0]), epochs=20, batch_size=4, verbose=False)
    >>> compiled.predict(state, inputs).argmax(axis=1)
    array([2, 0, 2, 0])
    >>> compiled.evaluate(state, (inputs, [2, 0, 2, 1]))["accuracy"]
    0.75
    """
    objective = arguments.as_objective(loss, metrics, loss_weights, class_weight, problem)
    return Experiment(
        model=shaped_outputs(arguments.as_model(model, example), problems(objective)),
        objective=objective,
        optimizer=arguments.as_optimizer(optimizer),
        preprocess=preprocess,
        augment=steps.no_augmentation if augment is None else inputs_only(augment),
        eval_batch_size=eval_batch_size,
        run_eagerly=run_eagerly,
        class_names=class_names,
        settings={
            "task": "compile",
            "model": arguments.name_of(model),
            "loss": arguments.name_of(loss),
            "optimizer": arguments.name_of(optimizer),
        },
    )


def batch(inputs: PyTree, labels: PyTree, sample_weight: PyTree = None, mask: Any = None) -> Batch:
    """Makes a batch for :attr:`Experiment.train_step`; examples whose mask, (N,), is False do not count.

    >>> batch(np.ones((2, 3)), np.array([0, 1])).mask
    Array([ True,  True], dtype=bool)
    """
    arrays = as_examples((inputs, labels) if sample_weight is None else (inputs, labels, sample_weight))
    mask = np.ones(len(arrays), bool) if mask is None else np.asarray(mask, bool)
    return jax.tree.map(jnp.asarray, Batch(arrays.inputs, arrays.labels, mask, arrays.sample_weight))
