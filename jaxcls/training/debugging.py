"""Debugging of training steps: finds the first non-finite number on concrete values, and saves and replays the step."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxcls import kernels
from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError, RunError, listed
from jaxcls.data.batching import Batch, Examples, batch_rows, steps_per_epoch
from jaxcls.data.formats import npz
from jaxcls.models.activations import capture_activations
from jaxcls.models.layers import dense
from jaxcls.optimizers.chain import per_update
from jaxcls.training.objective import Objective, by_output, total_loss
from jaxcls.training.steps import StepMetrics, TrainState, clear_masked, step_keys

if TYPE_CHECKING:
    from jaxcls.training.experiment import Experiment

PyTree = Any
_RECORD = {"finding": {"kind": str, "path": str}, "settings?": {str: schemas.ANYTHING}, "rows?": [int]}


class NonFiniteError(RunError):
    """A step met a number that is not finite; its state and batch are saved."""


class Finding(NamedTuple):
    """The first non-finite value of a step.

    Attributes:
      kind: 'parameter', 'model state', 'input', 'layer', 'output', 'loss', 'gradient' or 'update'.
      path: in the tree of that kind, or of the layer in the model; of a loss, the name of the output.
      examples: the indices in the batch of the examples that have it; empty if all of them do, or none by itself.
      source: the operation that produced it and its line of code, from checkify; '' if unknown.
    """

    kind: str
    path: str
    examples: tuple[int, ...] = ()
    source: str = ""

    def __str__(self) -> str:
        name = f"the {self.kind} {self.path}" if self.path else f"the {self.kind}"
        shown = ", ".join(map(str, self.examples[:10])) + (", ..." if len(self.examples) > 10 else "")
        where = f", in the examples {shown} of the batch" if self.examples else ""
        return f"{name} is not finite{where}{f': {self.source}' if self.source else ''}"


def examine(experiment: "Experiment", state: TrainState, batch: Batch) -> Finding | None:
    """Runs a step on concrete values, in the order of its computation, without changing anything.

    The forward pass runs outside any compiled function, so what a model prints, or a debugger shows, are values.

    Returns:
      The first non-finite value, or None.

    Raises:
      InputError: the outputs of a multiclass problem are probabilities, not logits.
    """
    with kernels.masked_rows(batch.mask):
        return _examine(experiment, state, batch)


def _examine(experiment: "Experiment", state: TrainState, batch: Batch) -> Finding | None:
    model, objective = experiment.model, experiment.complete_objective
    for kind, tree in (("parameter", state.params), ("model state", state.model_state)):
        if finding := _first_non_finite(kind, tree):
            return finding
    augment_key, model_key = step_keys(state)
    inputs, labels = experiment.augment(augment_key, batch.inputs, batch.labels)
    inputs, batch = clear_masked(experiment.preprocess(inputs), batch.mask), batch._replace(labels=labels)
    counted = np.asarray(batch.mask)
    if finding := _first_non_finite("input", inputs, counted):
        return finding
    with capture_activations() as calls:
        outputs, model_state = model.apply(state.params, state.model_state, inputs, key=model_key)
    outputs = dense(outputs)
    # A layer that returns before another one is inside it, or runs before it.
    for call in sorted(calls, key=lambda call: call.order):
        if finding := _first_non_finite("layer", dense(call.outputs), counted):
            source = _source(lambda params: model.apply(params, state.model_state, inputs, key=model_key), state.params)
            return finding._replace(path=f"{call.path} ({call.class_name})", source=source)
    if finding := _first_non_finite("output", outputs, counted):
        return finding
    if finding := _non_finite_loss(objective, outputs, batch):
        return finding
    loss = total_loss(objective)

    def loss_of(params: PyTree, inputs: PyTree, labels: PyTree, weight: PyTree, mask: jax.Array) -> jax.Array:
        outputs, _ = model.apply(params, state.model_state, inputs, key=model_key)
        return loss(outputs, labels, sample_weight=weight, mask=mask)

    data = (inputs, batch.labels, batch.sample_weight)
    differentiate = jax.jit(jax.grad(loss_of))
    gradient = differentiate(state.params, *data, batch.mask)
    if finding := _first_non_finite("gradient", gradient):
        bad = []
        for row in np.flatnonzero(counted):
            # A batch of copies of this example: 0 times the infinite slope of another one would be NaN too.
            copies = jax.tree.map(lambda leaf, row=row: jnp.repeat(leaf[row][None], len(counted), axis=0), data)
            if _first_non_finite("gradient", differentiate(state.params, *copies, batch.mask)):
                bad.append(int(row))
        source = _source(lambda params: jax.grad(loss_of)(params, *data, batch.mask), state.params)
        return finding._replace(examples=tuple(bad), source=source)
    updates, _ = per_update(experiment.optimizer).update(gradient, state.opt_state, state.params)
    return _first_non_finite("update", updates) or _first_non_finite("model state", model_state)


def layers(experiment: "Experiment", state: TrainState, batch: Batch) -> list[tuple[str, ...]]:
    """Returns a table of the layers in the order of computation, with statistics of their outputs for a batch.

    Only Flax NNX modules are seen.
    """
    augment_key, model_key = step_keys(state)
    inputs = experiment.preprocess(experiment.augment(augment_key, batch.inputs, batch.labels)[0])
    with capture_activations() as calls:
        experiment.model.apply(state.params, state.model_state, inputs, key=model_key)
    rows: list[tuple[str, ...]] = [("layer", "output", "minimum", "mean", "maximum", "not finite")]
    for call in sorted(calls, key=lambda call: call.order):
        for leaf in jax.tree.leaves(dense(call.outputs)):
            values = np.asarray(leaf).astype(np.float64)
            finite = values[np.isfinite(values)]
            summary = (finite.min(), finite.mean(), finite.max()) if finite.size else (np.nan,) * 3
            numbers = (*(f"{value:.4g}" for value in summary), f"{values.size - finite.size:,}")
            rows.append((f"{call.path} ({call.class_name})", f"{leaf.dtype}{[*leaf.shape]}", *numbers))
    return rows


class StepSaver(NamedTuple):
    """Saves non-finite steps for a replay.

    Attributes:
      experiment: whose steps they are.
      folder: for the files, ``step-000012.npz``.
      train, batch_size: the training examples and the size of their batches, for the rows of the examples in a step.
    """

    experiment: "Experiment"
    folder: Path
    train: Examples
    batch_size: int

    def train_chunk(self, state: TrainState, batches: Batch) -> tuple[TrainState, StepMetrics]:
        """Runs a chunk step by step, each examined first.

        Raises:
          NonFiniteError: at the first number that is not finite.
        """
        collected = []
        for index in range(len(batches.mask)):
            batch = jax.tree.map(lambda leaf, index=index: leaf[index], batches)
            # Batches past the end of an epoch are masked whole.
            if np.any(batch.mask) and (finding := examine(self.experiment, state, batch)):
                raise NonFiniteError(self._save(finding, state, batch))
            state, metrics = self.experiment.train_step(state, batch)
            collected.append(metrics)
        return state, jax.tree.map(lambda *leaves: np.stack(leaves), *collected)

    def examine(self, state: TrainState, batch: Batch) -> str:
        """Examines and saves a step, and returns the message about it; see :func:`jaxcls.training.loop.train`."""
        # What overflows in the compiled step may not do so when each operation is computed by itself.
        finding = examine(self.experiment, state, batch) or Finding("compiled step", "")
        try:
            message = self._save(finding, state, batch)
        except OSError as error:
            return f"step {int(state.step)}: {finding}. It could not be saved ({error})."
        return f"{message}." if self.experiment.name == "compile" else f"{message}: jaxcls replay examines it again."

    def _save(self, finding: Finding, state: TrainState, batch: Batch) -> str:
        # Where no single example is the cause, the rows of all of the batch are saved.
        indices = list(finding.examples) or np.flatnonzero(batch.mask).tolist()
        step = int(state.step)
        epoch, index = divmod(step, steps_per_epoch(len(self.train), self.batch_size))
        order = np.asarray(self.experiment.epoch_order(self.train, self.batch_size)(state.key, epoch))
        rows = batch_rows(order, index, batch_size=self.batch_size, length=1)[0][0, indices].tolist()
        # From its settings, jaxcls replay builds the experiment of a task again; the code of another is the user's.
        settings = {} if self.experiment.name == "compile" else {"settings": self.experiment.settings}
        path = save(self.folder / f"step-{step:06}.npz", finding, state, batch, {"rows": rows} | settings)
        return f"step {step}: {finding} (rows {listed(rows)} of the training examples). It is saved in {path}"


def save(path: Path, finding: Finding, state: TrainState, batch: Batch, about: Mapping[str, Any]) -> Path:
    """Saves a step as an npz file: its arrays by their paths, and a JSON record as the entry 'record'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"finding": finding._asdict(), **about}
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _named(_with_key_data(state), batch)}
    np.savez(path, record=np.array(json.dumps(record)), **arrays)
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Returns the record of a saved step.

    Raises:
      InputError: the file is missing, or :func:`save` did not write it.
    """
    with npz.opened(path) as file:
        if "record.npy" not in file.namelist():
            raise InputError(f"{path} is not a training step that --debug saved.")
        text = npz.array(path, file, "record")
    if text.dtype.kind != "U" or text.shape:
        raise InputError(f"{path}: its record is {text.dtype} of shape {text.shape}; it is damaged.")
    record: dict[str, Any] = schemas.parse(str(text), _RECORD, f"{path}: its record")
    return record


def load(path: Path, like: TrainState, batch_like: Batch | None = None) -> tuple[TrainState, Batch]:
    """Returns the state and the batch of a saved step.

    Args:
      like: a state of the same model and optimizer, or its shapes.
      batch_like: likewise a batch; without it, the batch is not compared with the model.

    Raises:
      InputError: the file is missing, was not saved here, or is of another model or optimizer.
    """
    read_record(path)
    with npz.opened(path) as file:
        names = [member.removesuffix(".npy") for member in file.namelist()]
        entries = {name: npz.array(path, file, name) for name in names if name != "record"}
    structure = jax.eval_shape(_with_key_data, like)
    wanted = dict(_named(structure, () if batch_like is None else batch_like))
    expected = {*wanted} | {name for name in entries if batch_like is None and name.startswith("batch/")}
    if differing := sorted(expected ^ {*entries}):
        raise InputError(f"{path} is of another model or optimizer; they differ in {', '.join(differing[:3])}.")
    leaves = {name: _restored(path, name, entries[name], leaf) for name, leaf in wanted.items()}
    plain = jax.tree.unflatten(jax.tree.structure(structure), [leaves[name] for name, _ in _named(structure, ())])
    state = plain._replace(key=jax.random.wrap_key_data(plain.key))
    return state, Batch(**{field: _nested(entries, f"batch/{field}") for field in Batch._fields})


def _restored(path: Path, name: str, array: np.ndarray, leaf: Any) -> jax.Array:
    # NumPy does not know bfloat16, and saves its bytes.
    if array.dtype.kind == "V" and array.dtype.itemsize == leaf.dtype.itemsize:
        array = array.view(leaf.dtype)
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
        raise InputError(
            f"{path} is of another model: {name} is {array.dtype}{[*array.shape]}, not {leaf.dtype}{[*leaf.shape]}."
        )
    return jnp.asarray(array)


def _with_key_data(state: TrainState) -> TrainState:
    return state._replace(key=jax.random.key_data(state.key))


def _named(state: PyTree, batch: PyTree) -> list[tuple[str, Any]]:
    tree = {"state": state, "batch": batch}
    return [(_path(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _nested(entries: Mapping[str, np.ndarray], prefix: str) -> PyTree:
    """Rebuilds an array, or nested dicts of arrays, from their paths."""
    if prefix in entries:
        return jnp.asarray(entries[prefix])
    within = [name.removeprefix(f"{prefix}/") for name in entries if name.startswith(f"{prefix}/")]
    return {key: _nested(entries, f"{prefix}/{key}") for key in dict.fromkeys(name.split("/")[0] for name in within)}


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _first_non_finite(kind: str, tree: PyTree, counted: np.ndarray | None = None) -> Finding | None:
    """Finds the first leaf with a non-finite number, in the examples that count where leaves have one row each."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        bad = ~np.isfinite(np.asarray(leaf).astype(np.float64))
        if counted is not None and bad.shape[:1] == counted.shape:
            rows = bad.reshape(len(bad), -1).any(axis=1) & counted
            if rows.any():
                return Finding(kind, _path(path), tuple(np.flatnonzero(rows).tolist()))
        elif bad.any():
            return Finding(kind, _path(path))
    return None


def _non_finite_loss(objective: Objective, outputs: PyTree, batch: Batch) -> Finding | None:
    """Finds the first output whose loss is not finite.

    Raises:
      InputError: multiclass outputs are not negative and sum to 1 in all rows: they are no logits.
    """
    counted = np.asarray(batch.mask)
    for name, spec, logits, labels, weight in by_output(objective, outputs, batch.labels, batch.sample_weight):
        if spec.problem == "multiclass":
            rows = np.asarray(logits).astype(np.float64)[counted]
            if np.all(rows >= 0) and np.all(np.abs(rows.sum(axis=-1) - 1) < 1e-5):
                where = f"output {name!r}" if name else "the model"
                raise InputError(f"{where} returns probabilities, and losses take logits: remove its softmax.")
        loss = functools.partial(spec.loss, sample_weight=weight, mask=batch.mask)
        if finding := _first_non_finite("loss", loss(logits, labels, normalizer="none"), counted):
            return finding._replace(path=name or "", source=_source(loss, logits, labels))
    return None


def _source(function: Callable[..., PyTree], *arguments: PyTree) -> str:
    """Returns the operation that turns numbers into NaN, and its line of code."""
    try:
        error, _ = checkify.checkify(function, errors=checkify.float_checks)(*arguments)
    except NotImplementedError:  # an operation that checkify has no rule for
        return ""
    return (error.get() or "").split("\n")[0]
