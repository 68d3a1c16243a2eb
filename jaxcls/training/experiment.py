"""The experiment: one value that holds a model and everything else that training, evaluation and prediction need.

:func:`jaxcls.compile` makes one from a user's model, a task makes one from its settings; the rest is the same for both.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls._utils import processes, ranges
from jaxcls._utils.errors import InputError, reason
from jaxcls._utils.files import local
from jaxcls.data.adapters import as_arrays
from jaxcls.data.batching import Buckets, Examples, prediction_batch_size
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.data.rows import blocks, in_memory, sampled, take
from jaxcls.data.rows import window as rows_window
from jaxcls.models import Model
from jaxcls.models.pretrained import PretrainedModel
from jaxcls.optimizers.chain import accumulation_steps
from jaxcls.reports.callbacks import Callback
from jaxcls.training import mesh, steps
from jaxcls.training import objective as objectives
from jaxcls.training.objective import Objective, OutputSpec
from jaxcls.training.settings import Settings
from jaxcls.training.steps import Augment, TrainState, TrainStep

if TYPE_CHECKING:
    from jaxcls.training.debugging import Finding
    from jaxcls.training.loop import History
    from jaxcls.training.population import Population

PyTree = Any
# With several outputs, a dict by output.
ClassNames: TypeAlias = tuple[str, ...] | Mapping[str, tuple[str, ...]]

# Random numbers take long to compile and no time to draw: without optimization, ``init`` of a ResNet takes 1.5 s, not
# 4.4 s.
_INIT_OPTIONS = {"xla_backend_optimization_level": 0}
# Compiled once for all trainings of a process.
_EPOCH_ORDER = jax.jit(steps.epoch_order, static_argnames="count")
_BUCKETED_ORDER = jax.jit(steps.bucketed_order, static_argnames="batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """A model, its objective and its optimizer, as pure functions of a state and of data.

    It never changes, except that ``fit`` recomputes class weights that come from the training labels.

    Attributes:
      model: the pure functions ``init`` and ``apply``.
      objective: the problem, loss and metrics of the output, or of each output by name.
      optimizer: an Optax transformation.
      preprocess: a batch of input arrays -> what the model takes, inside the compiled step; e.g. uint8 to float.
      augment: ``(key, inputs, labels) -> (inputs, labels)`` before ``preprocess``, in training only.
      tta: test-time augmentation: functions of a batch of inputs; scores are averaged over the inputs and these views.
      buckets: the sizes that batches of padded examples are cut to; None if inputs are not padded.
      eval_batch_size: examples per evaluation or prediction step.
      run_eagerly: ``fit`` examines every step on concrete values and stops at the first non-finite number.
      class_names: one for each class; None if they are only numbered. With several outputs, a dict of them.
      preprocessor: raw inputs -> input arrays, on the host; None if inputs are arrays already.
      pretrained: the model, if its first weights are those of a checkpoint.
      mesh: of the devices, such as 'data=4,fsdp=2'; see :mod:`jaxcls.training.mesh`. By default, all are along data.
      settings: what the experiment was made from, as a plain record, for the run directory.
      calibration: the record of the calibration of the scores, see :mod:`jaxcls.training.calibration`; or None.
      traced_objective: the objective of training for values of the optimizer's state, where it depends on them; see
        :mod:`jaxcls.optimizers.hyperparameters`. Evaluation takes ``objective``.
    """

    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    preprocess: Callable[[PyTree], PyTree] = steps.identity
    augment: Augment = steps.no_augmentation
    tta: Sequence[Callable[[PyTree], PyTree]] = ()
    buckets: Buckets | None = None
    eval_batch_size: int = 500
    run_eagerly: bool = False
    class_names: ClassNames | None = None
    preprocessor: Preprocessor | None = None
    pretrained: PretrainedModel | None = None
    mesh: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    traced_objective: Callable[[Mapping[str, jax.Array]], Objective] | None = None
    # The class weights that come from training labels, by output.
    _class_weights: dict[str | None, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """The name of the task, or 'compile'."""
        return str(self.settings.get("task", "compile"))

    def init(self, seed: int = 0, constants: Sequence[Any] = ()) -> TrainState:
        """Returns the state before the first step, on all devices; everything random follows from the seed.

        Args:
          constants: leaves in place of the model's own; see :func:`jaxcls.training.steps.initial_constants`.
        """
        ranges.check({"seed": seed})
        init = self._init_on(mesh.make(self.mesh))
        return init(np.uint32(seed), **({"constants": constants} if constants else {}))

    @property
    def shardings(self) -> tuple[jax.sharding.NamedSharding, jax.sharding.NamedSharding]:
        """The sharding of an array that is whole on every device, and of one split along its first axis."""
        return mesh.shardings(mesh.make(self.mesh))

    @property
    def state_sharding(self) -> PyTree:
        """The sharding of each leaf of a state, or one for all; see :func:`jaxcls.training.mesh.placed`."""
        if self.mesh is None:
            return self.shardings[0]
        seed, constants = np.uint32(0), steps.initial_constants(self.model)
        init = functools.partial(steps.init_state, self.model, self.optimizer)
        shapes = mesh.placed(mesh.make(self.mesh), jax.eval_shape(init, seed, constants))
        return jax.tree.map(lambda leaf: leaf.sharding, shapes)

    def put(self, state: TrainState) -> TrainState:
        """Returns a state on the devices of this experiment's mesh; what is there already is not copied."""
        return jax.device_put(state, self.state_sharding)

    @functools.cached_property
    def step(self) -> TrainStep:
        """The pure training step ``(state, batch) -> (state, metrics)``, to be traced."""

        def step_of(objective: Objective) -> TrainStep:
            loss = objectives.total_loss(objective)
            return steps.make_train_step(
                self.model, loss, self.optimizer, preprocess=self.preprocess, augment=self.augment, buckets=self.buckets
            )

        objective_of = self.traced_objective
        if objective_of is None:
            return step_of(self.complete_objective)
        return lambda state, batch: step_of(objective_of(state.opt_state.values))(state, batch)

    @functools.cached_property
    def train_step(self) -> TrainStep:
        """The compiled training step ``(state, batch) -> (state, metrics)``, for your own training loop.

        :func:`jaxcls.batch` makes a batch from arrays.
        """
        return jax.jit(self.step, out_shardings=self._pinned)

    @functools.cached_property
    def train_chunk(self) -> TrainStep:
        """Many compiled training steps in one dispatch; see :func:`jaxcls.training.steps.make_train_chunk`."""
        return steps.make_train_chunk(self.step, self._pinned)

    @property
    def _pinned(self) -> Any:
        """The shardings of the results of a step: the compiler may not gather a state that is divided."""
        return None if self.mesh is None else (self.state_sharding, None)

    @functools.cached_property
    def train_chunks(self) -> Any:
        """:attr:`train_chunk` of several members of a population: :func:`jaxcls.training.steps.make_train_chunks`."""
        return steps.make_train_chunks(self.step)

    @functools.cached_property
    def prediction_step(self) -> steps.PredictionStep:
        """The compiled ``(params, model_state, inputs) -> (scores, outputs)`` of a batch of input arrays."""
        return steps.make_prediction_step(
            self.model, scores=objectives.scores(self.objective), preprocess=self.preprocess, tta=self.tta
        )

    def step_size(self, batch_size: int) -> int:
        """The examples of a step: more than a batch where gradients are accumulated over several."""
        return batch_size * accumulation_steps(self.optimizer)

    def predict(self, state: TrainState, inputs: PyTree) -> PyTree:
        """Returns probabilities as NumPy arrays: (N,) for a binary problem, else (N, classes); or a dict by output.

        They are computed with the weights that are evaluated: the averages, if the optimizer keeps any.

        Args:
          inputs: as the preprocessor takes them, or arrays.
        """
        return self.scores(steps.evaluated_weights(state), self.transform(inputs), shrink_batch=True)

    def calibrate(self, state: TrainState, data: Any, *, method: str = "temperature") -> "Experiment":
        """Returns the experiment with scores that are calibrated on examples that ``state`` did not learn from.

        Predictions, evaluations, ``save`` and ``export`` of the returned experiment are calibrated. Of a problem with
        one class per example, ``jaxcls predict --coverage`` writes conformal sets for what it saved.

        Args:
          data: such as validation examples, see :func:`jaxcls.data.adapters.as_examples`; never test examples.
          method: 'temperature', which changes no decision, or 'vector'; see :func:`jaxcls.metrics.calibration.fit`.
        """
        from jaxcls.training import calibration

        split = calibration.as_split(self, self.examples(data))
        logits = calibration.logits(self, steps.evaluated_weights(state), split.inputs)
        problem = objectives.problems(self.objective)
        return calibration.calibrated(self, calibration.fit(problem, logits, split, method))

    def features(self, state: TrainState, inputs: PyTree) -> np.ndarray:
        """Returns the features of inputs that a pretrained encoder computes, float32 (N, features), on the host.

        Raises:
          InputError: the model is not from :func:`jaxcls.models.pretrained.load`.
        """
        if self.pretrained is None:
            raise InputError("features are those of a pretrained encoder; give one, from models.pretrained.load.")
        return self.features_of_arrays(state, self.transform(inputs))

    def evaluate(self, state: TrainState, data: Any) -> dict[str, float]:
        """Returns the loss and the metrics of examples; with several outputs also of each, as in 'article_accuracy'.

        Args:
          data: see :func:`jaxcls.data.adapters.as_examples`.
        """
        return self.loss_and_metrics(state, self.examples(data))

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
        run_dir: Path | str | None = None,
        test_data: Any = None,
        train_metrics: bool = False,
        callbacks: Sequence[Callback] = (),
        verbose: bool = True,
    ) -> tuple[TrainState, "History"]:
        """Trains for ``epochs`` more epochs; the given state is left unchanged.

        Args:
          state: from ``init``, or from another ``fit``.
          data: training examples, see :func:`jaxcls.data.adapters.as_examples`.
          validation_data: examples whose loss and metrics are computed after each epoch.
          batch_size: examples per step, over all devices; with ``gradient_accumulation_steps`` of the optimizer, per
            micro-batch. The last batch of an epoch is padded and masked, and each batch that the devices cannot share
            equally.
          monitor: the validation value, such as 'accuracy' or 'loss', that decides the best
            checkpoint and ``patience``.
          patience: stop after this many epochs without a better value.
          max_skipped_steps: stop with an error after this many consecutive steps that were not finite.
          run_dir: a directory for checkpoints, history, weights and an HTML report, as a task's run leaves it. The
            same call continues an interrupted run.
          test_data: examples for the report's final scores; by default those of ``validation_data``.
          train_metrics: also compute the metrics of the training examples after each epoch, such as 'accuracy', by a
            pass over them without dropout and augmentation, which takes about a third of the time of training.
          callbacks: see :class:`jaxcls.reports.callbacks.Callback`.
          verbose: print a line per epoch, and show a progress bar in a terminal.

        Returns:
          The last state, and a list with an entry for each epoch ('loss', 'val_loss', 'val_accuracy', ...);
          ``history.as_dict()`` gives Keras's dict of lists.

        Raises:
          InputError: the data does not fit the problem or the model, before anything is compiled; or
            ``run_dir`` holds another run.
          DivergedError: loss, gradient or update stayed non-finite. With ``run_dir``, the last such step is saved in
            its ``debug/``.
          NonFiniteError: with ``run_eagerly``, something was not finite.
          Interrupted: of several processes, one received SIGTERM; with ``run_dir``, the state is saved.
        """
        # Imported here because they import this module.
        from jaxcls.training import loop, run

        counts = {"epochs": epochs, "batch_size": batch_size, "max_skipped_steps": max_skipped_steps}
        ranges.check(counts if patience is None else counts | {"patience": patience})
        mode = objectives.monitor_mode(self.objective, monitor, patience, validation_data is not None)
        config = loop.FitConfig(
            epochs, batch_size, monitor, mode, patience, max_skipped_steps, train_metrics=train_metrics
        )
        train = self.examples(data, scored=train_metrics)
        self._check_finite(state, train.inputs, tell=verbose)
        self._compute_class_weights(train)
        validation = None if validation_data is None else self.examples(validation_data)
        test = None if test_data is None else self.examples(test_data)
        # The loop donates its state; the caller's stays valid.
        own_state = self.put(jax.tree.map(jnp.copy, state))
        verbose, stop = verbose and processes.first(), processes.preemption()
        say: Callable[[str], None] = print if verbose else lambda line: None
        if patience and validation and len(validation) < run.FEW_EXAMPLES:
            say(
                f"warning: patience chooses by {len(validation)} validation examples, which is chance: give more "
                "validation_data"
            )
        if run_dir is not None:
            arrays = run.RunData(train, validation, test)
            described = run.array_run(self, state, arrays, config, local(run_dir))
            options = Settings(stall_seconds=0.0, quiet=not verbose)
            result = run.train_and_test(
                self, own_state, arrays, config, *described, options=options, callbacks=callbacks, say=say, stop=stop
            )
            return result.state, result.history
        if processes.count() > 1:
            initial = state._replace(key=jax.random.key_data(state.key))
            processes.compare({"the data": run.sha256(tuple(train)), "the initial state": run.sha256(initial)})
        bar = loop.progress_bar(self, state, train, config) if verbose else None
        with bar or contextlib.nullcontext():
            followers = [bar, *callbacks] if bar else callbacks
            return loop.train(self, own_state, train, validation, config, callbacks=followers, say=say, stop=stop)

    def fit_population(
        self,
        data: Any,
        epochs: int,
        *,
        seeds: Sequence[int] = (0,),
        folds: int | None = None,
        batch_size: int = 32,
        max_skipped_steps: int = 20,
        checkpoints: Path | str | None = None,
        verbose: bool = True,
    ) -> "Population":
        """Trains a model for each fold and each seed with one compiled step; the mean of all is an ensemble.

        Class weights that are computed from labels are those of all examples.

        Args:
          data: training examples, see :func:`jaxcls.data.adapters.as_examples`.
          epochs, batch_size, max_skipped_steps, verbose: of each model, as in :meth:`fit`.
          seeds: of initial weights, order, augmentation and dropout.
          folds: the number of folds, stratified by class; a model is trained on all but each of them.
          checkpoints: a folder in which models are saved; the same call continues after an interruption.

        Raises:
          InputError: see :meth:`fit`; or a class has fewer examples than there are folds.

        >>> import jaxcls, numpy as np
        >>> from flax import nnx
        >>> inputs, labels = np.eye(2)[[0, 1] * 6], np.array([0, 1] * 6)
        >>> compiled = jaxcls.compile(lambda rngs: nnx.Linear(2, 2, rngs=rngs), optimizer="adam")
        >>> population = compiled.fit_population((inputs, labels), 2, folds=3, seeds=[0, 1], verbose=False)
        >>> len(population.members), population.out_of_fold.shape, population.predict(inputs).shape
        (6, (12, 2), (12, 2))
        """
        from jaxcls.training.loop import FitConfig
        from jaxcls.training.population import fit_population

        ranges.check({"epochs": epochs, "batch_size": batch_size, "max_skipped_steps": max_skipped_steps})
        ranges.check({"seeds": tuple(seeds)} if folds is None else {"seeds": tuple(seeds), "folds": folds})
        train = self.examples(data, scored=False)
        self._compute_class_weights(train)
        return fit_population(
            self,
            train,
            FitConfig(epochs, batch_size, max_skipped_steps=max_skipped_steps),
            seeds=seeds,
            folds=folds,
            folder=None if checkpoints is None else Path(checkpoints),
            verbose=verbose,
        )

    def save(self, state: TrainState, path: Path | str) -> None:
        """Writes the evaluated weights and all that :func:`jaxcls.load` needs besides the model's code.

        Args:
          path: a new directory, or an empty one.
        """
        from jaxcls.training import saving

        saving.save(self, state, Path(path))

    def export(
        self,
        state: TrainState,
        path: Path | str,
        inputs: PyTree,
        format: str = "stablehlo",
        *,
        weights: str = "float32",
    ) -> None:
        """Writes a folder that predicts without this code: with jax alone, or as ONNX or safetensors.

        Args:
          path: a new folder.
          inputs: some examples, for their shapes and types.
          format: 'stablehlo', 'onnx' or 'safetensors'.
          weights: 'float32', or 'int8' for a quarter of the size; see :mod:`jaxcls.export.quantization`.
        """
        from jaxcls.training import saving

        saving.export(self, state, Path(path), inputs, format, weights)

    def replay(self, path: Path | str) -> "Finding | None":
        """Examines a saved training step again; returns what is not finite in it, or None.

        Raises:
          InputError: the file was not saved by ``fit``, or is of another model or optimizer.
        """
        from jaxcls.training import debugging

        state, batch = debugging.load(Path(path), self.state_shapes)
        return debugging.examine(self, state, batch)

    def transform(self, inputs: PyTree) -> PyTree:
        """Returns raw inputs as input arrays, on the host; without a preprocessor, the model must take their shapes."""
        if self.preprocessor is not None:
            return self.preprocessor.transform(inputs)
        arrays = as_arrays(inputs)
        self.output_shapes(arrays)
        return arrays

    def examples(self, data: Any, *, scored: bool = True) -> Examples:
        """Returns the examples as arrays, checked against the model, the loss and the metrics; nothing is computed.

        Labels (N, 1) of binary and multiclass problems become (N,), one-hot labels become indices.

        Args:
          scored: whether the metrics are computed of them, and not only the loss.

        Raises:
          InputError: something does not fit; the message names the output, the row and the rule.
        """
        return objectives.checked_examples(self.objective, data, self.output_shapes, scored=scored)

    def scores(self, weights: Mapping[str, PyTree], inputs: PyTree, *, shrink_batch: bool = False) -> PyTree:
        """Returns the scores of any number of examples, input arrays on the host.

        Args:
          weights: "params" and "model_state".
          shrink_batch: compute few examples in a batch that is hardly padded, which may change the last bits.
        """
        count = len(jax.tree.leaves(inputs)[0])
        if not count:
            scores, _ = self.prediction_step.eval_shape(*weights.values(), self._batch_shapes(inputs, 1))
            return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), scores)
        size = prediction_batch_size(count, self.eval_batch_size) if shrink_batch else self.eval_batch_size
        return self._map_batches(lambda *batch: self.prediction_step(*batch)[0], weights, inputs, batch_size=size)

    def outputs(self, weights: Mapping[str, PyTree], inputs: PyTree) -> PyTree:
        """Returns the outputs of the model, such as logits, of any number of examples; see :meth:`scores`."""
        step = self.prediction_step
        return self._map_batches(lambda *batch: step(*batch)[1], weights, inputs, batch_size=self.eval_batch_size)

    def features_of_arrays(self, state: TrainState, arrays: PyTree) -> np.ndarray:
        """Returns the features of input arrays; see :meth:`features`."""
        weights = steps.evaluated_weights(state)
        features: np.ndarray = self._map_batches(self._features_step, weights, arrays, batch_size=64)
        return features

    def loss_and_metrics(self, state: TrainState, data: Examples) -> dict[str, float]:
        """Returns the loss and the metrics of examples that are known to be valid."""
        weights = steps.evaluated_weights(state)
        scores, ratios = self._map_batches(self._evaluation_step, weights, *data, batch_size=self.eval_batch_size)
        # Of a source, they were read with the inputs.
        labels, sample_weight = in_memory((data.labels, data.sample_weight))
        return objectives.loss_and_metrics(self.objective, scores, ratios, labels, sample_weight)

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics; with several outputs, 'output_metric'."""
        return [
            metric if name is None else f"{name}_{metric}"
            for name, spec in objectives.specs(self.objective)
            for metric in spec.metrics
        ]

    @property
    def complete_objective(self) -> Objective:
        """The objective with class weights; those that come from training labels are from the last fit.

        Raises:
          InputError: there was no fit yet.
        """
        complete: dict[Any, OutputSpec] = {}
        for name, spec in objectives.specs(self.objective):
            if spec.class_weight is not None:
                if name not in self._class_weights:
                    raise InputError(
                        "class_weight is computed from the training labels of a fit: call fit first, or give "
                        "losses.class_weights(labels, num_classes)."
                    )
                spec = spec._replace(loss=functools.partial(spec.loss, class_weight=self._class_weights[name]))
            complete[name] = spec
        return complete.get(None, complete)

    def _compute_class_weights(self, train: Examples) -> None:
        """Computes the class weights that come from training labels; if they changed, steps are compiled again."""
        if all(spec.class_weight is None for _, spec in objectives.specs(self.objective)):
            return
        outputs = self.output_shapes(train.inputs)
        weights = {
            name: spec.class_weight(labels, 2 if spec.problem == "binary" else logits.shape[1])
            for name, spec, logits, labels, _ in objectives.by_output(
                self.objective, outputs, in_memory(train.labels), None
            )
            if spec.class_weight is not None
        }
        if not self._class_weights or any((weights[name] != self._class_weights[name]).any() for name in weights):
            self._class_weights.update(weights)
            for name in ("step", "train_step", "train_chunk", "_evaluation_step"):
                self.__dict__.pop(name, None)

    def epoch_order(self, data: Examples, batch_size: int) -> Callable[[jax.Array, int], jax.Array]:
        """Returns ``(key, epoch) -> rows``, the order in which an epoch visits the examples."""
        if (window := rows_window(tuple(data))) is not None:
            return lambda key, epoch: (
                _EPOCH_ORDER(key, epoch, count=len(data)) if epoch else steps.windowed_order(key, len(data), window)
            )
        if self.buckets is None:
            return functools.partial(_EPOCH_ORDER, count=len(data))
        return functools.partial(_BUCKETED_ORDER, buckets=self.buckets.indices(data.inputs), batch_size=batch_size)

    def make_steps(self) -> None:
        """Makes what is compiled, so that threads that train at the same time share it."""
        for name in ("train_chunk", "train_chunks", "prediction_step", "_evaluation_step", "_init_on"):
            getattr(self, name)

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """The shapes and types of a state."""
        # Not traced by another function, which does not take compiler options.
        init = self._init_on(mesh.make(self.mesh))
        return init.func.eval_shape(np.uint32(0), **init.keywords)

    @functools.cached_property
    def constant_leaves(self) -> frozenset[str]:
        """The paths of the leaves of a state that no step changes: those of frozen layers of a pretrained encoder."""
        if self.pretrained is None:
            return frozenset()
        paths = [path for path, _ in jax.tree.leaves_with_path(self.state_shapes.model_state)]
        frozen = [path for path in paths if self.pretrained.is_frozen([entry.key for entry in path])]
        return frozenset(f".model_state{jax.tree_util.keystr(path)}" for path in frozen)

    @functools.cached_property
    def _init_on(self) -> Callable[[jax.sharding.Mesh], Any]:
        constants = steps.initial_constants(self.model)

        @functools.cache
        def init_on(devices: jax.sharding.Mesh) -> Any:
            # The seed is an argument, so that one compiled program serves all seeds.
            init = jax.jit(
                functools.partial(steps.init_state, self.model, self.optimizer),
                out_shardings=mesh.shardings(devices)[0] if self.mesh is None else self.state_sharding,
                compiler_options=_INIT_OPTIONS if jax.default_backend() == "cpu" else None,
            )
            return functools.partial(init, constants=constants)

        return init_on

    @functools.cached_property
    def _features_step(self) -> Callable[..., jax.Array]:
        assert self.pretrained is not None
        encode = self.pretrained.features
        return jax.jit(lambda params, model_state, inputs: encode(params, model_state, self.preprocess(inputs)))

    @functools.cached_property
    def _evaluation_step(self) -> Callable[..., tuple[PyTree, PyTree]]:
        """The compiled ``(params, model_state, inputs, labels, sample_weight) -> (scores, loss ratios)`` of a batch."""
        loss = objectives.total_loss(self.complete_objective)

        @jax.jit
        def ratios(outputs: PyTree, labels: PyTree, weight: PyTree) -> list[tuple[jax.Array, jax.Array]]:
            by_output = loss(outputs, labels, sample_weight=weight, mask=None, as_ratio=True)
            return [(ratio.numerator, ratio.denominator) for ratio in by_output]

        def step(params: PyTree, model_state: PyTree, inputs: PyTree, labels: PyTree, weight: PyTree) -> PyTree:
            # A detector's outputs are many times as large as its inputs: only scores and losses leave the device.
            scores, outputs = self.prediction_step(params, model_state, inputs)
            return scores, ratios(outputs, labels, weight)

        return step

    def _map_batches(
        self, step: Callable[..., PyTree], weights: Mapping[str, PyTree], *arrays: PyTree, batch_size: int
    ) -> PyTree:
        size = self._padded(batch_size)
        step = functools.partial(step, weights["params"], weights["model_state"])
        return steps.collect(step, *arrays, batch_size=size, buckets=self.buckets, sharding=self.shardings[1])

    def _padded(self, batch_size: int) -> int:
        """Returns the next size of a batch that the devices can share equally."""
        return batch_size + mesh.padding(batch_size, mesh.make(self.mesh))

    def _batch_shapes(self, inputs: PyTree, first_axis: int) -> PyTree:
        """Returns the shapes of a prediction batch of examples whose own shapes begin with an axis of the inputs."""
        count = self._padded(self.eval_batch_size)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[first_axis:]), leaf.dtype), inputs)

    @functools.cached_property
    def _outputs(self) -> Any:
        # Only traced: JAX keeps the shapes of the outputs for each shape of the inputs.
        return jax.jit(
            lambda state, inputs: self.model.apply(state.params, state.model_state, self.preprocess(inputs))[0]
        )

    def _batch_outputs(self, inputs: PyTree, first_axis: int) -> PyTree:
        outputs = self._outputs.eval_shape(self.state_shapes, self._batch_shapes(inputs, first_axis))
        count = self._padded(self.eval_batch_size)
        for leaf in jax.tree.leaves(outputs):
            if leaf.shape[:1] != (count,):
                raise ValueError(f"it returns {leaf.shape} for {count} examples")
        return outputs

    def output_shapes(self, inputs: PyTree) -> PyTree:
        """Returns the shapes of the model's outputs for a batch of input arrays like these; nothing is computed.

        Raises:
          InputError: the model does not take such inputs.
        """
        try:
            if len({leaf.shape[:1] or leaf for leaf in jax.tree.leaves(inputs)}) != 1:
                raise ValueError("the first axis of each array must have one length, the number of examples")
            return self._batch_outputs(inputs, 1)
        except InputError:
            raise
        except Exception as error:  # whatever the code of the model raises
            shown = ", ".join(f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(inputs))
            hint = "The first axis counts the examples, and the others are those that the model was built for."
            with contextlib.suppress(Exception):
                self._batch_outputs(inputs, 0)
                hint = "They look like one example: give inputs[None]."
            raise InputError(f"the model does not take inputs {shown}: {reason(error)}. {hint}") from error

    def _check_finite(self, state: TrainState, inputs: PyTree, *, tell: bool) -> None:
        """Refuses inputs of which every step would be skipped, because the model makes NaN of each example."""
        checked = sampled(inputs)
        inputs = inputs if checked is None else take(inputs, checked)
        leaves = [leaf for leaf in jax.tree.leaves(inputs) if leaf.dtype.kind == "f"]
        # A sum is finite only if all its terms are, and takes no memory.
        finite = [np.isfinite(_sum_of_rows(leaf)) for leaf in leaves]
        rows = np.flatnonzero(~np.logical_and.reduce(finite)) if finite else np.zeros(0, int)
        if not rows.size:
            return
        first = take(inputs, rows[:1])
        scores = self.scores(steps.evaluated_weights(state), first)
        if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scores)):
            return  # the model replaces them
        count, row = len(finite[0]), rows[0] if checked is None else checked[rows[0]]
        message = (
            f"{len(rows):,} of {count:,} rows of the inputs hold NaN or infinity, the first of them row {row}, and "
            "the model returns NaN for it. No step learns from a batch with such a row: replace the numbers, as by "
            "np.nan_to_num, or leave the rows out"
        )
        if len(rows) == count:
            raise InputError(f"{message}.")
        if tell:
            print(f"warning: {message}")


def _sum_of_rows(leaf: Any) -> np.ndarray:
    """The sum of each row, (N,)."""
    parts = [block.reshape(len(block), -1).sum(axis=1, dtype=np.float64) for block in blocks(leaf)]
    return np.concatenate(parts)


def shaped_outputs(model: Model, problems: str | Mapping[str, str]) -> Model:
    """Returns the model with outputs (N,) where it answers a binary problem with (N, 1)."""
    names: Any = jax.tree.structure(problems)

    def squeezed(problem: str, outputs: jax.Array) -> jax.Array:
        return outputs[:, 0] if problem == "binary" and outputs.ndim == 2 and outputs.shape[1] == 1 else outputs

    def apply(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        outputs, model_state = model.apply(params, model_state, inputs, key=key)
        # Outputs of other names, or of none, are refused later, by name.
        if names == jax.tree.structure(outputs):
            outputs = jax.tree.map(squeezed, problems, outputs)
        return outputs, model_state

    return Model(model.init, apply)


def split_outputs(model: Model, sizes: Mapping[str, int]) -> Model:
    """Returns the model with its logits (N, sum of sizes) as a dict of (N, size) by output.

    One last layer for all outputs is the same as a layer for each on shared features.
    """

    def apply(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        logits, model_state = model.apply(params, model_state, inputs, key=key)
        outputs, start = {}, 0
        for name, size in sizes.items():
            outputs[name] = logits[..., start : start + size]
            start += size
        return outputs, model_state

    return Model(model.init, apply)
