"""``jaxcls.compile``: an experiment from a model, an optimizer, losses and metrics, as in Keras."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from jaxcls import losses, optimizers
from jaxcls import metrics as metric_functions
from jaxcls._utils import labels, ranges
from jaxcls._utils.errors import InputError, error_context, reason, unknown_name
from jaxcls._utils.labels import ProblemName
from jaxcls.data.adapters import as_examples
from jaxcls.data.augmentation import inputs_only
from jaxcls.data.batching import Batch
from jaxcls.losses import SIGMOID_FAMILY, SOFTMAX_FAMILY
from jaxcls.losses.shared import Terms, reduce
from jaxcls.models import Model, from_linen, functional
from jaxcls.models.pretrained import PretrainedModel
from jaxcls.training import mesh as meshes
from jaxcls.training import steps
from jaxcls.training.experiment import ClassNames, Experiment, shaped_outputs
from jaxcls.training.objective import Objective, OutputSpec, problems

PyTree = Any
_Value = TypeVar("_Value")
# One value for all outputs, or a dict of them by output.
PerOutput: TypeAlias = _Value | Mapping[str, _Value]
Loss = str | Callable[..., jax.Array]
Metric = str | Callable[..., float]


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
    mesh: str | None = None,
) -> Experiment:
    """Makes an experiment of your model; it is trained by the same compiled steps and loop as the tasks.

    As in Keras, a model with several outputs returns a dict and takes dicts of losses, metrics, weights and labels.
    Unlike in Keras, outputs are always logits: a model ends with its last dense layer, without softmax or sigmoid. The
    loss of validation examples is that of training, class weights included.

    Args:
      model: what builds a Flax NNX module from ``rngs``, such as its class; a Flax Linen module or its class (with
        ``example``); a :class:`jaxcls.models.Model`; or a pair of functions ``init(key) -> params`` and
        ``apply(params, inputs) -> outputs``, whose ``apply`` may take ``key``, which is None except in training.
      optimizer: a name, or any Optax transformation, such as ``optimizers.adam(1e-3, clipnorm=1.0)``.
      loss: a name, ours or Keras's; a function of :mod:`jaxcls.losses`, or ``losses.get(name, gamma=2.0, ...)``; or
        your function, ``(outputs, labels) -> (N,)``, which needs ``problem``. Labels equal to the
        ``ignore_label`` of a loss are not scored either.
      metrics: names, or functions ``(scores, labels) -> float`` of the probabilities and labels of all examples, which
        may take ``sample_weight``. A list serves every output.
      loss_weights: of several outputs, the factor of each loss in their sum; 1 by default.
      class_weight: 'balanced' or 'effective', computed from the training labels of every ``fit`` (``evaluate`` takes
        those of the last one); an array; or a dict {class: weight} with every class.
      run_eagerly: ``fit`` examines every step on concrete values before it runs it, and stops at the first number that
        is not finite: it is named, with its examples, and saved for ``replay``. Slow.
      problem: 'binary', 'multiclass' or 'multilabel'. A softmax loss implies 'multiclass'; a sigmoid loss 'binary',
        unless 'multilabel' is given.
      class_names: for reports and exports; numbers by default.
      example: a batch of inputs, or :class:`jax.ShapeDtypeStruct` in its place, for a Linen module.
      preprocess: applied to a batch of inputs inside the compiled step, such as uint8 pixels to floats.
      augment: ``(key, inputs) -> inputs`` before ``preprocess``, in training only; see :mod:`jaxcls.data.augmentation`.
      eval_batch_size: examples per prediction step.
      mesh: how the devices share the work, such as 'data=4,fsdp=2': each axis divides batches, and fsdp also parameters
        and the optimizer's state. By default, all devices are along data.

    Raises:
      InputError: a name is unknown, the mesh is not of the devices that there are, or two arguments do not fit
        together.

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
    ranges.check({"eval_batch_size": eval_batch_size})
    if mesh is not None:
        meshes.make(mesh)
    objective = _objective(loss, metrics, loss_weights, class_weight, problem)
    return Experiment(
        model=shaped_outputs(as_model(model, example), problems(objective)),
        objective=objective,
        optimizer=_optimizer(optimizer),
        preprocess=preprocess,
        augment=steps.no_augmentation if augment is None else inputs_only(augment),
        eval_batch_size=eval_batch_size,
        run_eagerly=run_eagerly,
        class_names=class_names,
        pretrained=model if isinstance(model, PretrainedModel) else None,
        mesh=mesh,
        settings={
            "task": "compile",
            "model": _name(model),
            "loss": _name(loss),
            "optimizer": _name(optimizer),
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


def as_model(model: Any, example: PyTree) -> Model:
    """Turns a builder of an NNX module, a Linen module or a pair of functions into a Model."""
    if isinstance(model, Model):
        return model
    built = _unwrapped(model)
    if inspect.isclass(built) and issubclass(built, linen.Module):
        try:
            model = model()
        except TypeError as error:
            raise InputError(
                f"the class {built.__name__} of a Linen module was given, which has settings ({reason(error)}): give "
                f"the module, {built.__name__}(...)."
            ) from error
    if isinstance(model, linen.Module):
        if example is None:
            raise InputError("a Linen module is initialized with inputs: give a batch of them as example=.")
        return from_linen(model, example)
    if isinstance(model, nnx.Module):
        raise InputError(
            "a built module was given; give what builds it, such as its class or lambda rngs: MyModule(rngs=rngs), so "
            "that every seed gives other initial weights."
        )
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return _from_pair(*model)
    if not callable(model):
        raise InputError(
            f"a model of type {type(model).__name__} was given; give what builds a Flax NNX module, a Linen module, or "
            "a pair of functions (init, apply)."
        )
    # The signature of a Flax class is that of its metaclass.
    signature = inspect.signature(built.__init__ if inspect.isclass(built) else built)
    try:
        return functional((lambda rngs: model(rngs=rngs)) if "rngs" in signature.parameters else model)
    except InputError:
        raise
    except Exception as error:  # whatever the code of the model raises
        raise InputError(f"{_name(model)} does not build a Flax NNX module: {reason(error)}.") from error


def _from_pair(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Model:
    takes_key = "key" in inspect.signature(apply).parameters

    def applied(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        return (apply(params, inputs, key=key) if takes_key else apply(params, inputs)), model_state

    return Model(lambda key: (init(key), {}), applied)


def _optimizer(optimizer: str | optax.GradientTransformation) -> optax.GradientTransformation:
    """Turns a name into an Optax transformation with the default learning rate of that optimizer."""
    if isinstance(optimizer, str):
        return optimizers.get(optimizer, learning_rate=optimizers.default_learning_rate(optimizer))
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(
            f"an optimizer of type {type(optimizer).__name__} was given; give a name, or an optax transformation such "
            "as optimizers.adam(1e-3)."
        )
    return optimizer


def _objective(loss: Any, metrics: Any, loss_weights: Any, class_weight: Any, problem: Any) -> Objective:
    """Turns losses and metrics, by name or as functions, into an objective."""
    if not isinstance(loss, Mapping):
        if isinstance(metrics, Mapping) or isinstance(problem, Mapping) or loss_weights is not None:
            raise InputError(
                "metrics, problem or loss_weights name outputs, and loss does not: give a dict {output: loss}."
            )
        return _output_spec(loss, metrics, class_weight, problem, 1.0)
    if not loss:
        raise InputError("loss is an empty dict; it must name every output.")
    by_argument = {
        "metrics": metrics if isinstance(metrics, Mapping) else dict.fromkeys(loss, metrics),
        "loss_weights": loss_weights or {},
        "class_weight": class_weight or {},
        "problem": problem if isinstance(problem, Mapping) else dict.fromkeys(loss, problem),
    }
    for argument, values in by_argument.items():
        if not isinstance(values, Mapping):
            raise InputError(f"{argument} must be a dict by output, as loss is.")
        for name in values:
            if name not in loss:
                raise unknown_name(f"output in {argument}", str(name), loss)
    specs = {}
    for name, output_loss in loss.items():
        with error_context(f"output {name!r}"):
            specs[name] = _output_spec(
                output_loss,
                by_argument["metrics"].get(name, ()),
                by_argument["class_weight"].get(name),
                by_argument["problem"].get(name),
                float(by_argument["loss_weights"].get(name, 1.0)),
            )
    return specs


def _output_spec(loss: Any, metrics: Any, class_weight: Any, problem: Any, weight: float) -> OutputSpec:
    if problem is not None:
        labels.check_problem(problem)
    if not (isinstance(loss, str) or callable(loss)):
        raise InputError(f"a loss of type {type(loss).__name__} was given; give a name or a function.")
    function = losses.find(loss, problem) if isinstance(loss, str) else _unwrapped(loss)
    family = "multiclass" if function in SOFTMAX_FAMILY else "binary" if function in SIGMOID_FAMILY else None
    problem = problem or family
    if problem is None:
        raise InputError("your own loss function needs problem='multiclass', or another.")
    if family is not None and (problem == "multiclass") != (family == "multiclass"):
        raise InputError(f"loss {function.__name__!r} does not fit a {problem} problem.")

    from_labels = isinstance(class_weight, str)
    if from_labels and class_weight not in ("balanced", "effective"):
        raise unknown_name("class_weight", class_weight, ("balanced", "effective"))
    options: dict[str, Any] = {}
    if from_labels:
        options["class_weight"] = class_weight  # until the training labels are known
    elif class_weight is not None:
        # How many classes the model has is not known before the loss is traced, which checks it again.
        numbers = class_weight if isinstance(class_weight, Mapping) else range(len(class_weight))
        count = 1 + max((int(number) for number in numbers if isinstance(number, Integral)), default=0)
        weights = labels.resolve_class_weight(class_weight, problem, count)
        options["class_weight"] = weights.astype(np.float32)
    ignore_label = None
    if family is None:
        if options and problem == "multilabel":
            raise InputError("with your own loss function, apply the class_weight of a multilabel problem inside it.")
        bound: Callable[..., jax.Array] = functools.partial(_user_loss, loss, **options)
    else:
        defaults = {"normalizer": "batch", "ignore_label": float("nan") if problem == "multilabel" else None}
        options = defaults | getattr(loss, "keywords", {}) | options
        ignore_label = options["ignore_label"]
        bound = losses.get(loss, problem, **options) if isinstance(loss, str) else functools.partial(loss, **options)
    if isinstance(class_weight, Mapping) and problem == "multiclass":
        bound = functools.partial(_with_every_class, bound, class_weight)

    def weights_from_labels(train_labels: np.ndarray, num_classes: int) -> np.ndarray:
        return labels.resolve_class_weight(
            class_weight, problem, num_classes, labels=train_labels, ignore_label=ignore_label
        ).astype(np.float32)

    return OutputSpec(
        problem,
        bound,
        _metrics(metrics, problem),
        weight,
        ignore_label,
        class_weight=weights_from_labels if from_labels else None,
    )


def _with_every_class(
    loss: Callable[..., jax.Array],
    class_weight: Mapping[int, float],
    outputs: jax.Array,
    *arguments: Any,
    **options: Any,
) -> jax.Array:
    """The loss, once the model's classes are those that have a weight."""
    labels.resolve_class_weight(class_weight, "multiclass", outputs.shape[1])
    return loss(outputs, *arguments, **options)


def _user_loss(
    loss: Callable[..., jax.Array],
    outputs: jax.Array,
    truth: jax.Array,
    *,
    mask: Any = None,
    normalizer: Any = "batch",
    sample_weight: Any = None,
    class_weight: Any = None,
    as_ratio: bool = False,
) -> jax.Array:
    """Gives a loss ``(outputs, labels) -> (N,)`` the weighting and reduction of the losses here."""
    values = loss(outputs, truth)
    if values.shape != truth.shape[:1]:
        raise InputError(
            f"the loss function returned {values.shape} for {truth.shape[0]} examples; it must return one value each, "
            f"{truth.shape[:1]}."
        )
    elements = jnp.ones(values.shape, values.dtype) if mask is None else mask.astype(values.dtype)
    weight = elements
    if class_weight is not None:
        weights = jnp.asarray(class_weight, values.dtype)
        if jnp.issubdtype(truth.dtype, jnp.integer):
            weight = elements * weights[truth]
        else:  # a soft label has its expected weight
            weight = elements * (truth @ weights if truth.ndim == 2 else weights[0] + truth * (weights[1] - weights[0]))
    # Masked before the product: 0 times NaN is NaN.
    values = weight * jnp.where(elements > 0, values, 0)
    terms = Terms(values, weight, elements, positives=elements)
    return reduce(terms, {"normalizer": normalizer, "sample_weight": sample_weight, "as_ratio": as_ratio})


def _metrics(chosen: Sequence[Metric], problem: ProblemName) -> dict[str, Callable[..., float]]:
    if isinstance(chosen, str) or callable(chosen):
        raise InputError(f"metrics is a list, such as metrics=[{chosen!r}].")
    functions: dict[str, Callable[..., float]] = {}
    for metric in chosen:
        if isinstance(metric, str):
            functions[metric] = metric_functions.get(metric, problem)
        elif callable(metric):
            functions[getattr(metric, "__name__", type(metric).__name__)] = _user_metric(metric)
        else:
            raise InputError(f"a metric of type {type(metric).__name__} was given; give a name or a function.")
    return functions


def _user_metric(metric: Callable[..., Any]) -> Callable[..., float]:
    takes_weight = "sample_weight" in inspect.signature(metric).parameters

    def measured(scores: np.ndarray, truth: np.ndarray, *, sample_weight: np.ndarray, mask: np.ndarray) -> float:
        options = {"sample_weight": sample_weight[mask]} if takes_weight else {}
        return float(metric(scores[mask], truth[mask], **options))

    return measured


def _unwrapped(function: Any) -> Any:
    """Returns the function inside nested ``functools.partial``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(argument: Any) -> str:
    """Names a model, loss or optimizer for the record of a run.

    >>> _name({"kind": "hinge", "flag": np.mean})
    'kind: hinge, flag: mean'
    """
    if isinstance(argument, Mapping):
        return ", ".join(f"{name}: {_name(value)}" for name, value in argument.items())
    if isinstance(argument, str):
        return argument
    function = _unwrapped(argument)
    return str(getattr(function, "__name__", type(function).__name__))
