"""A training step looked at on concrete values: the first number that is not finite, by its name and its examples."""

import functools
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import checkify

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Batch
from jaxcls.data.formats import npz
from jaxcls.models.activations import recorded
from jaxcls.models.functional import Model
from jaxcls.training.objective import Objective, by_output, total_loss
from jaxcls.training.steps import Augment, StepMetrics, TrainState, TrainStep, step_keys

PyTree = Any


class NonFiniteError(RuntimeError):
    """A step met a number that is not finite; its state and its batch are kept."""


_RECORD = {"finding": {"kind": str, "path": str}, "settings?": {str: schemas.ANYTHING}, "rows?": [int]}


class Parts(NamedTuple):
    """What a train step is made of; see :func:`jaxcls.training.steps.make_train_step`."""

    model: Model
    heads: Objective
    optimizer: optax.GradientTransformation
    preprocess: Callable[[PyTree], PyTree]
    augment: Augment


class Finding(NamedTuple):
    """The first thing in a step that is not finite.

    Attributes:
      kind: 'parameter', 'model state', 'input', 'layer', 'output', 'loss', 'gradient' or 'update'.
      path: its place in the tree of its kind, or of the model; of a loss, the name of the output.
      examples: the places in the batch of the examples that it happens in; none where it is in all or of no example.
      source: what operation made it, and where it stands in the code, as checkify says; '' where it cannot be told.
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


def examine(parts: Parts, state: TrainState, batch: Batch) -> Finding | None:
    """Takes a step apart on concrete values, in the order in which it is computed, and changes nothing.

    The forward pass runs outside of any compiled function, so that what a model prints, or a debugger shows, are
    values.

    Returns:
      The first thing that is not finite, or None.

    Raises:
      InputError: the outputs of a multiclass problem are probabilities.
    """
    for kind, tree in (("parameter", state.params), ("model state", state.model_state)):
        if found := _first_bad(kind, tree):
            return found
    augment_key, model_key = step_keys(state)
    inputs, labels = parts.augment(augment_key, batch.inputs, batch.labels)
    inputs, batch = parts.preprocess(inputs), batch._replace(labels=labels)
    counted = np.asarray(batch.mask)
    if found := _first_bad("input", inputs, counted):
        return found
    with recorded() as calls:
        outputs, model_state = parts.model.apply(state.params, state.model_state, inputs, key=model_key)
    # A layer that is done before another one is inside of it, or comes before it.
    for call in sorted(calls, key=lambda call: call.done):
        if found := _first_bad("layer", call.outputs, counted):
            source = _checked(
                lambda params: parts.model.apply(params, state.model_state, inputs, key=model_key), state.params
            )
            return found._replace(path=f"{call.path} ({call.kind})", source=source)
    if found := _first_bad("output", outputs, counted):
        return found
    _refuse_probabilities(parts.heads, outputs, counted)
    if found := _bad_loss(parts.heads, outputs, batch):
        return found

    loss = total_loss(parts.heads)

    def objective(params: PyTree, inputs: PyTree, labels: PyTree, weights: PyTree, mask: jax.Array) -> jax.Array:
        outputs, _ = parts.model.apply(params, state.model_state, inputs, key=model_key)
        return loss(outputs, labels, sample_weight=weights, mask=mask)

    given = (inputs, batch.labels, batch.sample_weight)
    differentiate = jax.jit(jax.grad(objective))
    gradient = differentiate(state.params, *given, batch.mask)
    if found := _first_bad("gradient", gradient):
        bad = []
        for place in np.flatnonzero(counted):
            # A batch of the one example: 0 times the infinite slope of another one would be NaN as well.
            alone = jax.tree.map(lambda leaf, place=place: jnp.repeat(leaf[place][None], len(counted), axis=0), given)
            if _first_bad("gradient", differentiate(state.params, *alone, batch.mask)):
                bad.append(int(place))
        source = _checked(lambda params: jax.grad(objective)(params, *given, batch.mask), state.params)
        return found._replace(examples=tuple(bad), source=source)
    updates, _ = parts.optimizer.update(gradient, state.opt_state, state.params)
    return _first_bad("update", updates) or _first_bad("model state", model_state)


def layers(parts: Parts, state: TrainState, batch: Batch) -> str:
    """The layers of a model in the order in which they are done, with what they give for the batch, as a table.

    Only modules of Flax NNX are seen.
    """
    augment_key, model_key = step_keys(state)
    inputs = parts.preprocess(parts.augment(augment_key, batch.inputs, batch.labels)[0])
    with recorded() as calls:
        parts.model.apply(state.params, state.model_state, inputs, key=model_key)
    rows: list[tuple[str, ...]] = [("layer", "output", "lowest", "mean", "highest", "not finite")]
    for call in sorted(calls, key=lambda call: call.done):
        for leaf in jax.tree.leaves(call.outputs):
            values = np.asarray(leaf).astype(np.float64)
            finite = values[np.isfinite(values)]
            summary = (finite.min(), finite.mean(), finite.max()) if finite.size else (np.nan,) * 3
            numbers = (*(f"{value:.4g}" for value in summary), f"{values.size - finite.size:,}")
            rows.append((f"{call.path} ({call.kind})", f"{leaf.dtype}{[*leaf.shape]}", *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(
            zip(row, widths, strict=True)
        )).rstrip() for row in rows
    )  # fmt: skip


def make_chunk(
    parts: Parts, folder: Path, about: Mapping[str, Any], rows_of: Callable[[TrainState], np.ndarray] | None = None
) -> Callable[[TrainStep], Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]]:
    """As :func:`jaxcls.training.steps.make_train_chunk`, but each step is examined before it is made, and made by itself.

    Args:
      folder: where a step that is not finite is kept.
      about: what is kept beside it, as JSON.
      rows_of: the rows of the training examples that a state's next batch holds.

    The chunk raises NonFiniteError at the first number that is not finite.
    """

    def make(train_step: TrainStep) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
        single = jax.jit(train_step)

        def chunk(state: TrainState, batches: Batch) -> tuple[TrainState, StepMetrics]:
            collected = []
            for place in range(len(batches.mask)):
                batch = jax.tree.map(lambda leaf, place=place: leaf[place], batches)
                # Those past the end of an epoch are masked whole.
                found = examine(parts, state, batch) if np.any(batch.mask) else None
                if found is not None:
                    raise NonFiniteError(_kept(found, folder, about, rows_of, state, batch))
                state, metrics = single(state, batch)
                collected.append(metrics)
            return state, jax.tree.map(lambda *leaves: np.stack(leaves), *collected)

        return chunk

    return make


def keep(
    parts: Parts, folder: Path, about: Mapping[str, Any], rows_of: Callable[[TrainState], np.ndarray] | None = None
) -> Callable[[TrainState, Batch], str]:
    """``(state, batch) -> what was found``, which keeps the step for a replay; for `examine` of :func:`jaxcls.training.loop.fit`.

    The arguments are those of :func:`make_chunk`.
    """

    def examined(state: TrainState, batch: Batch) -> str:
        # What overflows in the compiled step may just not do so when each operation is computed by itself.
        found = examine(parts, state, batch) or Finding("compiled step", "")
        try:
            said = _kept(found, folder, about, rows_of, state, batch)
        except OSError as error:
            return f"step {int(state.step)}: {found}. It could not be kept ({error})."
        return f"{said}: jaxcls replay looks at it again." if "settings" in about else f"{said}."

    return examined


def _kept(
    found: Finding,
    folder: Path,
    about: Mapping[str, Any],
    rows_of: Callable[[TrainState], np.ndarray] | None,
    state: TrainState,
    batch: Batch,
) -> str:
    """Keeps a step, and says so."""
    # Where it is no example's own, all of the batch are given.
    places = list(found.examples) or np.flatnonzero(batch.mask).tolist()
    rows = rows_of(state)[places].tolist() if rows_of else []
    step = int(state.step)
    path = save(folder / f"step-{step:06}.npz", found, state, batch, {"rows": rows, **about})
    shown = f"{', '.join(map(str, rows[:10]))}{f' and {len(rows) - 10} more' if len(rows) > 10 else ''}"
    named = f" (rows {shown} of the training examples)" if rows else ""
    return f"step {step}: {found}{named}. It is kept in {path}"


def save(path: Path, found: Finding, state: TrainState, batch: Batch, about: Mapping[str, Any]) -> Path:
    """Keeps a step in an npz file, its arrays by their paths, with a record in JSON as the entry 'record'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"finding": found._asdict(), **about}
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _named(_plain(state), batch)}
    np.savez(path, record=np.array(json.dumps(record)), **arrays)
    return path


def record_of(path: Path) -> dict[str, Any]:
    """What is kept beside a step.

    Raises:
      InputError: the file is missing, or none that :func:`save` wrote.
    """
    with npz.opened(path) as file:
        return _record(path, file)


def load(path: Path, like: TrainState, batch_like: Batch | None = None) -> tuple[TrainState, Batch]:
    """The state and the batch that :func:`save` kept.

    Args:
      like: a state of the same model and optimizer, or the shapes of one.
      batch_like: likewise a batch; without it, whether the batch fits the model is not looked at.

    Raises:
      InputError: the file is missing, is none that was kept, or is of another model or optimizer.
    """
    with npz.opened(path) as file:
        _record(path, file)
        entries = {name: npz.array(path, file, name) for name in _names(file) if name != "record"}
    structure = jax.eval_shape(_plain, like)
    wanted = dict(_named(structure, () if batch_like is None else batch_like))
    batch_names = [name for name in entries if name.startswith("batch/")]
    names = {*wanted, *([] if batch_like is not None else batch_names)}
    if names != set(entries):
        differing = sorted(names ^ set(entries))
        raise InputError(f"{path} was kept from another model or optimizer; they differ in {', '.join(differing[:3])}.")
    leaves = {name: _as_kept(path, name, entries[name], leaf) for name, leaf in wanted.items()}
    plain = jax.tree.unflatten(jax.tree.structure(structure), [leaves[name] for name, _ in _named(structure, ())])
    state = plain._replace(key=jax.random.wrap_key_data(plain.key))
    return state, Batch(**{field: _nested(entries, f"batch/{field}") for field in Batch._fields})


def _as_kept(path: Path, name: str, array: np.ndarray, leaf: Any) -> jax.Array:
    # NumPy does not know bfloat16, and keeps its bytes.
    if array.dtype.kind == "V" and array.dtype.itemsize == leaf.dtype.itemsize:
        array = array.view(leaf.dtype)
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
        raise InputError(
            f"{path} was kept from another model: {name} is {array.dtype}{[*array.shape]}, not "
            f"{leaf.dtype}{[*leaf.shape]}."
        )
    return jnp.asarray(array)


def _names(file: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in file.namelist()]


def _record(path: Path, file: zipfile.ZipFile) -> dict[str, Any]:
    if "record" not in _names(file):
        raise InputError(f"{path} is no step that --debug kept.")
    text = npz.array(path, file, "record")
    if text.dtype.kind != "U" or text.shape:
        raise InputError(f"{path}: its record is {text.dtype} of shape {text.shape}; it is damaged.")
    record: dict[str, Any] = schemas.parse(str(text), _RECORD, f"{path}: its record")
    return record


def _plain(state: TrainState) -> TrainState:
    return state._replace(key=jax.random.key_data(state.key))


def _named(state: PyTree, batch: PyTree) -> list[tuple[str, Any]]:
    tree = {"state": state, "batch": batch}
    return [(_path(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _nested(entries: Mapping[str, np.ndarray], prefix: str) -> PyTree:
    """An array, or dicts of them, from their paths."""
    if prefix in entries:
        return jnp.asarray(entries[prefix])
    within = [name.removeprefix(f"{prefix}/") for name in entries if name.startswith(f"{prefix}/")]
    return {key: _nested(entries, f"{prefix}/{key}") for key in dict.fromkeys(name.split("/")[0] for name in within)}


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _first_bad(kind: str, tree: PyTree, counted: np.ndarray | None = None) -> Finding | None:
    """The first leaf that holds a number that is not finite, in an example that counts where they are given."""
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


def _refuse_probabilities(heads: Objective, outputs: PyTree, counted: np.ndarray) -> None:
    """Rows that are not negative and sum to 1 are no logits."""
    for name, head, logits, _, _ in by_output(heads, outputs, outputs, None):
        rows = np.asarray(logits).astype(np.float64)[counted]
        if head.problem == "multiclass" and np.all(rows >= 0) and np.all(np.abs(rows.sum(axis=-1) - 1) < 1e-5):
            where = f"output {name!r}" if name else "the model"
            raise InputError(f"{where} gives probabilities, and losses take logits: leave out its softmax.")


def _bad_loss(heads: Objective, outputs: PyTree, batch: Batch) -> Finding | None:
    for name, head, logits, labels, weights in by_output(heads, outputs, batch.labels, batch.sample_weight):
        terms = head.loss(logits, labels, sample_weight=weights, mask=batch.mask, normalizer="none")
        if found := _first_bad("loss", terms, np.asarray(batch.mask)):
            options = {"sample_weight": weights, "mask": batch.mask}
            source = _checked(functools.partial(head.loss, **options), logits, labels)
            return found._replace(path=name or "", source=source)
    return None


def _checked(function: Callable[..., PyTree], *arguments: PyTree) -> str:
    """The operation that makes a NaN of numbers, and its line."""
    try:
        error, _ = checkify.checkify(function, errors=checkify.float_checks)(*arguments)
    except NotImplementedError:  # an operation that checkify has no rule for
        return ""
    return (error.get() or "").split("\n")[0]
