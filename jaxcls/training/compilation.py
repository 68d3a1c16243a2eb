"""``jaxcls.compile``: a model of the reader's own, an optimizer, losses and metrics as pure functions of training."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from jaxcls import metrics as metrics_room
from jaxcls import optimizers
from jaxcls._utils import labels
from jaxcls._utils.errors import InputError, error_context, unknown_name
from jaxcls._utils.labels import AnyProblemName, ProblemName
from jaxcls.checkpoints import CheckpointManager
from jaxcls.data import batching, streaming
from jaxcls.data.adapters import as_arrays, as_examples
from jaxcls.data.augmentation import inputs_only
from jaxcls.data.batching import Batch, Examples
from jaxcls.metrics.by_name import ALIASES, METRICS
from jaxcls.models.functional import Model, functional
from jaxcls.models.linen import from_linen
from jaxcls.reports.progress import ProgressBar
from jaxcls.training import assembly, debugging, steps, user_objective
from jaxcls.training.assembly import Functions
from jaxcls.training.debugging import Finding
from jaxcls.training.loop import fit
from jaxcls.training.objective import Objective, OutputSpec, by_output, problems
from jaxcls.training.steps import StepMetrics, TrainState
from jaxcls.training.user_objective import Loss, Metric, PerOutput, inside

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
    example: PyTree = None,
    preprocess: Callable[[PyTree], PyTree] = lambda inputs: inputs,
    augment: Callable[[jax.Array, PyTree], PyTree] = lambda key, inputs: inputs,
    eval_batch_size: int = 500,
) -> "Compiled":
    """A model with all that it takes to train it, as a value of pure functions; nothing in it ever changes.

    It is the machinery of the tasks: the same compiled steps, losses, metrics and loop. As in Keras, a model with
    several outputs, which gives a dict, takes dicts of losses, metrics, weights and labels. Unlike in Keras, outputs
    are always logits: a model ends with its last dense layer, not with a softmax or a sigmoid. The loss of validation
    examples is that of training, class weights included.

    Args:
      model: what builds a Flax NNX module from ``rngs``, such as its class; a Flax Linen module (with ``example``); a
        :class:`jaxcls.models.functional.Model`; or a pair of functions ``init(key) -> params`` and
        ``apply(params, inputs) -> outputs``, whose ``apply`` may take ``key``, which is None but in training.
      optimizer: a name, or any optax transformation, such as ``optimizers.adam(1e-3, clipnorm=1.0)``.
      loss: a name, ours or Keras's; a function of :mod:`jaxcls.losses`, or ``losses.get(name, gamma=2.0, ...)``; or
        a function of your own, ``(outputs, labels) -> (N,)``, which needs ``problem``. Labels that a loss was given as
        its ``ignore_label`` are masked, and not scored either.
      metrics: names, or functions ``(scores, labels) -> float`` of probabilities and labels of all examples at once,
        which may take ``sample_weight``. A list serves every output.
      loss_weights: of several outputs, what each loss is multiplied by in their sum; 1 where none is given.
      class_weight: an array, or a dict {class: weight} that names every class. For 'balanced' weights, give
        ``losses.class_weights(labels, num_classes)``.
      run_eagerly: ``fit`` looks at every step on concrete values before it makes it, and stops at the first number that
        is not finite: it is named, with its examples, and kept for ``replay``. Slow.
      problem: 'binary', 'multiclass' or 'multilabel'. A softmax loss says 'multiclass'; a sigmoid loss is taken to be
        'binary', unless 'multilabel' is given.
      example: a batch of inputs, or :class:`jax.ShapeDtypeStruct` in its place, for a Linen module.
      preprocess: what is done to a batch of inputs inside the compiled step, such as uint8 pixels to floats.
      augment: ``(key, inputs) -> inputs``, in training alone, before ``preprocess``; see :mod:`jaxcls.data.augmentation`.
      eval_batch_size: examples that are predicted together.

    Raises:
      InputError: a name is unknown, or two arguments do not fit together.

    >>> compiled = compile(lambda rngs: nnx.Linear(2, 3, rngs=rngs), optimizer=optimizers.sgd(0.5))
    >>> inputs = np.eye(2)[[0, 1, 0, 1]]
    >>> state = compiled.init(seed=0)
    >>> state, history = compiled.fit(state, (inputs, [2, 0, 2, 0]), epochs=20, batch_size=4, verbose=False)
    >>> compiled.predict(state, inputs).argmax(axis=1)
    array([2, 0, 2, 0])
    >>> compiled.evaluate(state, (inputs, [2, 0, 2, 1]))["accuracy"]
    0.75
    """
    heads = user_objective.heads(loss, metrics, loss_weights, class_weight, problem)
    made = assembly.one_logit(_as_model(model, example), problems(heads))
    chosen = _optimizer(optimizer)
    functions = assembly.assemble(
        made, heads, chosen, eval_batch_size=eval_batch_size, preprocess=preprocess, augment=inputs_only(augment)
    )
    return Compiled(made, heads, chosen, functions, run_eagerly)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What :func:`compile` gives: a value whose methods are pure functions of a state and of data.

    Attributes:
      model: as a pair of pure functions, ``init`` and ``apply``.
      heads: the problem, loss and metrics of its output, or of each by name.
      optimizer: an optax transformation.
      functions: those that a task's training takes as well.
      run_eagerly: whether ``fit`` looks at every step.
    """

    model: Model
    heads: Objective
    optimizer: optax.GradientTransformation
    functions: Functions
    run_eagerly: bool

    def init(self, seed: int = 0) -> TrainState:
        """The state before the first step; everything random follows from the seed."""
        return self.functions.init(np.uint32(seed))

    @functools.cached_property
    def train_step(self) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
        """One step ``(state, batch) -> (state, metrics)``, compiled, for a loop of your own.

        :func:`batch` makes a batch of arrays.
        """
        return jax.jit(self.functions.train_step)

    def predict(self, state: TrainState, inputs: PyTree) -> PyTree:
        """Probabilities on the host, (N,) of a binary problem, else (N, classes); of several outputs, a dict of them.

        The weights are those that are evaluated: an average, where the optimizer keeps one.
        """
        params = optimizers.evaluation_params(state.opt_state, state.params)
        return self.functions.predict(params, state.model_state, as_arrays(inputs))

    def evaluate(self, state: TrainState, data: Any) -> dict[str, float]:
        """The loss and the metrics of examples; of several outputs, also of each, as in ``article_accuracy``.

        Args:
          data: see :func:`jaxcls.data.adapters.as_examples`.
        """
        return dict(self.functions.validate(state, self.examples(data)))

    def fit(
        self,
        state: TrainState,
        data: Any,
        epochs: int,
        validation_data: Any = None,
        *,
        batch_size: int = 32,
        monitor: str | None = None,
        patience: int | None = None,
        max_skipped_steps: int = 20,
        checkpoint_dir: Path | str | None = None,
        verbose: bool = True,
    ) -> tuple[TrainState, list[dict[str, Any]]]:
        """Trains for so many epochs more, and leaves the given state as it is.

        Args:
          state: of ``init``, or of another ``fit``.
          data: see :func:`jaxcls.data.adapters.as_examples`; kept on the devices if they have room, else on the host.
          validation_data: examples whose loss and metrics are taken after each epoch.
          batch_size: examples a step, on all devices together. The last batch of an epoch is padded, and masked.
          monitor: the value of the validation examples, such as 'accuracy' or 'loss', that ``patience`` and the best
            checkpoint go by.
          patience: stop after so many epochs without a better value.
          max_skipped_steps: stop with an error after so many steps in a row that are not finite.
          checkpoint_dir: where the state is kept as it changes; the same call goes on from there.
          verbose: show a line for each epoch, and a bar in a terminal.

        Returns:
          The last state, and an entry for each epoch: 'loss', 'val_loss', 'val_accuracy', and what it took.

        Raises:
          InputError: the data does not fit the problem, the model or the devices; before anything is compiled. Or the
            checkpoint is of another model, seed, batch size or data.
          DivergedError: the loss, its gradient or the update stayed not finite. With ``checkpoint_dir``, the last such
            step is kept in its ``debug/``.
          NonFiniteError: with ``run_eagerly``, something was not finite once. The step is kept in ``debug/`` of
            ``checkpoint_dir``, or of the working directory without one.
        """
        if epochs < 1:
            raise InputError(f"epochs is {epochs}; it must be 1 or more.")
        assembly.check_batch_size(batch_size, "batch_size")
        mode = self._mode(monitor, patience, validation_data)
        train = self.examples(data)
        validation = None if validation_data is None else self.examples(validation_data)
        streams = not streaming.fits(train, jax.local_devices())
        # What can be told of a run whose settings are functions. Its seed is in its state.
        labels_sha256 = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(train.labels)))
        identity = {"batch_size": batch_size, "examples": len(train), "labels_sha256": labels_sha256.hexdigest()}
        debug = Path(checkpoint_dir or ".") / "debug"
        steps_in_all = int(state.step) + epochs * batching.steps_per_epoch(len(train), batch_size)
        with (
            CheckpointManager(Path(checkpoint_dir).absolute(), best_metric=monitor, best_mode=mode, identity=identity)
            if checkpoint_dir is not None else contextlib.nullcontext() as checkpoints,
            ProgressBar(steps_in_all, epochs=epochs, batch_size=batch_size)
            if verbose else contextlib.nullcontext() as bar,
        ):  # fmt: skip
            return fit(
                # The loop donates its state; the caller's stays.
                jax.tree.map(jnp.copy, state),
                self.functions.train_step,
                train if streams else jax.device_put(train, self.functions.replicated),
                epochs=epochs,
                batch_size=batch_size,
                validate=lambda state: {} if validation is None else self.functions.validate(state, validation),
                feed=streaming.host_feed if streams else batching.device_feed,
                monitor=monitor,
                mode=mode,
                patience=patience,
                max_skipped_steps=max_skipped_steps,
                checkpoints=checkpoints,
                reporter=bar,
                sharding=self.functions.sharded,
                make_chunk=debugging.make_chunk(self.functions.parts, debug, {})
                if self.run_eagerly
                else lambda _: self._train_chunk,
                examine=debugging.keep(self.functions.parts, debug, {}) if checkpoint_dir is not None else None,
            )

    def replay(self, path: Path | str) -> Finding | None:
        """Looks again at a step that was kept, and gives what is not finite in it; None if nothing is any more.

        Raises:
          InputError: the file is none that ``fit`` kept, or is of another model or optimizer.
        """
        state, batch = debugging.load(Path(path), self._state_shapes)
        return debugging.examine(self.functions.parts, state, batch)

    def examples(self, data: Any) -> Examples:
        """The examples as arrays, checked against the problem and what the model gives, by shapes and by values.

        Labels (N, 1) of binary and multiclass problems become (N,), one-hot labels become indices.

        Raises:
          InputError: something does not fit; it names the output, the row and the rule.
        """
        given = as_examples(data)
        outputs = self._output_shapes(given.inputs)
        if not isinstance(self.heads, OutputSpec):
            _check_names("labels", given.labels, self.heads)
            if isinstance(given.sample_weight, Mapping):
                _check_names("sample_weight", given.sample_weight, self.heads)
        checked = {}
        for name, head, logits, truth, weights in by_output(self.heads, outputs, given.labels, given.sample_weight):
            with error_context(f"output {name!r}") if name is not None else contextlib.nullcontext():
                checked[name] = _checked_labels(truth, head, logits)
                if not np.all(np.isfinite(weights) & (weights >= 0)):
                    raise InputError("weights of examples are finite and not negative.")
        found = checked[None] if isinstance(self.heads, OutputSpec) else checked
        return Examples(given.inputs, found, given.sample_weight)

    @functools.cached_property
    def _train_chunk(self) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
        """Kept, so that a second ``fit`` of the same shapes compiles nothing."""
        return steps.make_train_chunk(self.functions.train_step)

    @functools.cached_property
    def _state_shapes(self) -> TrainState:
        return jax.eval_shape(self.functions.init, np.uint32(0))

    def _output_shapes(self, inputs: PyTree) -> PyTree:
        """What the model gives for the inputs, traced and not computed; refused if it does not fit the problem."""
        outputs = jax.eval_shape(
            lambda state, inputs: self.model.apply(
                state.params, state.model_state, self.functions.parts.preprocess(inputs)
            )[0],
            self._state_shapes,
            inputs,
        )
        if not isinstance(self.heads, OutputSpec):
            _check_names("outputs of the model", outputs, self.heads)
        for name, head, logits, _, _ in by_output(self.heads, outputs, outputs, None):
            with error_context(f"output {name!r}") if name is not None else contextlib.nullcontext():
                _check_logits(logits, head.problem)
        return outputs

    def _mode(self, monitor: str | None, patience: int | None, validation_data: Any) -> Literal["max", "min"]:
        if monitor is None:
            if patience is not None:
                raise InputError("patience needs monitor, the value to go by, such as monitor='loss'.")
            return "max"
        if validation_data is None:
            raise InputError(f"monitor={monitor!r} is a value of validation examples: give validation_data.")
        single = isinstance(self.heads, OutputSpec)
        modes: dict[str, Literal["max", "min"]] = {"loss": "min"}
        for name, head, *_ in by_output(self.heads, *(None if single else dict.fromkeys(self.heads) for _ in range(3))):
            prefix = "" if name is None else f"{name}_"
            known = {metric: _direction(metric) for metric in head.metrics}
            modes |= {prefix + metric: mode for metric, mode in {"loss": "min", **known}.items()}
        if monitor not in modes:
            raise unknown_name("value to monitor", monitor, modes)
        return modes[monitor]


def batch(inputs: PyTree, labels: PyTree, sample_weight: PyTree = None, mask: Any = None) -> Batch:
    """A batch for :attr:`Compiled.train_step`; examples where the mask (N,) is False count nowhere.

    >>> batch(np.ones((2, 3)), np.array([0, 1])).mask
    Array([ True,  True], dtype=bool)
    """
    given = as_examples((inputs, labels) if sample_weight is None else (inputs, labels, sample_weight))
    mask = np.ones(len(given), bool) if mask is None else np.asarray(mask, bool)
    return jax.tree.map(jnp.asarray, Batch(given.inputs, given.labels, mask, given.sample_weight))


def _as_model(model: Any, example: PyTree) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, linen.Module):
        if example is None:
            raise InputError("a Linen module is initialised with inputs: give a batch of them as example=.")
        return from_linen(model, example)
    if isinstance(model, nnx.Module):
        raise InputError(
            "a module that is built already was given; give what builds it, such as its class or "
            "lambda rngs: MyModule(..., rngs=rngs), so that every seed gives weights of its own."
        )
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return _of_pair(*model)
    if not callable(model):
        raise InputError(
            f"a model of type {type(model).__name__} was given; give what builds a Flax NNX module, a Linen module, or "
            "a pair of functions (init, apply)."
        )
    built = inside(model)
    # The signature of a class of Flax is that of its metaclass.
    signature = inspect.signature(built.__init__ if inspect.isclass(built) else built)
    return functional((lambda rngs: model(rngs=rngs)) if "rngs" in signature.parameters else model)


def _of_pair(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Model:
    keyed = "key" in inspect.signature(apply).parameters

    def applied(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        return (apply(params, inputs, key=key) if keyed else apply(params, inputs)), model_state

    return Model(lambda key: (init(key), {}), applied)


def _optimizer(optimizer: str | optax.GradientTransformation) -> optax.GradientTransformation:
    if isinstance(optimizer, str):
        return optimizers.get(optimizer, learning_rate=optimizers.default_learning_rate(optimizer))
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(
            f"an optimizer of type {type(optimizer).__name__} was given; give a name, or an optax transformation such "
            "as optimizers.adam(1e-3)."
        )
    return optimizer


def _direction(metric: str) -> Literal["max", "min"]:
    """Whether more is better: so of a metric of your own."""
    known = {*METRICS, *ALIASES}
    return metrics_room.direction(metric) if metric in known else "max"


def _check_names(what: str, given: Any, heads: Mapping[str, OutputSpec]) -> None:
    names = set(given) if isinstance(given, Mapping) else None
    if names != set(heads):
        shown = type(given).__name__ if names is None else f"a dict of {', '.join(sorted(map(str, names)))}"
        raise InputError(f"{what} must be a dict of {', '.join(heads)}, as loss is; got {shown}.")


def _check_logits(logits: Any, problem: AnyProblemName) -> None:
    shape = getattr(logits, "shape", None)
    if shape is None:
        raise InputError(f"the model gives a {type(logits).__name__}; several outputs need a dict of losses.")
    # A single column of a binary problem is gone by now.
    rank, right = {
        "binary": (1, "(N,) or (N, 1), one logit an example"),
        "multiclass": (2, "(N, classes), two at least"),
        "multilabel": (2, "(N, labels)"),
    }[problem]
    if len(shape) != rank or (problem == "multiclass" and shape[1] < 2):
        others = ", ".join(other for other in get_args(ProblemName) if other != problem)
        raise InputError(
            f"the model gives {tuple(shape)} for a {problem} problem, which needs {right}. Is the problem another one "
            f"({others})? Then say problem=."
        )


def _checked_labels(truth: np.ndarray, head: OutputSpec, logits: Any) -> np.ndarray:
    count = 1 if head.problem == "binary" else logits.shape[1]
    if head.problem != "multilabel" and truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if head.problem == "multiclass" and truth.ndim == 1 and truth.dtype.kind == "b":
        truth = truth.astype(np.int32)
    if head.problem == "multiclass" and truth.ndim == 1 and truth.dtype.kind == "f" and np.all(truth == np.rint(truth)):
        truth = truth.astype(np.int32)
    labels.validate(truth, head.problem, count, ignore_label=head.ignore_label)
    if head.problem == "multiclass":
        hard = truth.ndim == 2 and np.all((truth == 0) | (truth == 1))
        return truth.argmax(axis=1).astype(np.int32) if hard else truth
    if head.problem == "binary" and truth.dtype.kind != "f":
        return truth.astype(np.int32)
    return truth.astype(np.float32)
