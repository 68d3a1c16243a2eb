"""Fitting an experiment to a user's arrays, with or without a run directory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Batch, Examples
from jaxcls.data.dataset import Split
from jaxcls.kernels import native
from jaxcls.reports.callbacks import Callback
from jaxcls.reports.run_directory import RunDirectory
from jaxcls.training.experiment import Experiment, check_batch_size
from jaxcls.training.history import History
from jaxcls.training.loop import FitConfig
from jaxcls.training.objective import by_output
from jaxcls.training.run import Reported, RunData, RunOptions, Say, execute, sha256, train
from jaxcls.training.saving import array_provenance, predictor_record
from jaxcls.training.steps import TrainState


def fit(
    experiment: Experiment,
    state: TrainState,
    data: RunData,
    config: FitConfig,
    *,
    run_dir: Path | None,
    callbacks: Sequence[Callback],
    verbose: bool,
) -> tuple[TrainState, History]:
    """Fits an experiment to a user's arrays; see :meth:`jaxcls.training.experiment.Experiment.fit`."""
    if config.epochs < 1:
        raise InputError(f"epochs is {config.epochs}; it must be 1 or more.")
    check_batch_size(config.batch_size, "batch_size")
    # The loop donates its state; the caller's stays valid.
    own_state = jax.tree.map(jnp.copy, state)
    say: Say | None = print if verbose else None
    if run_dir is None:
        return train(experiment, own_state, data, config, callbacks=callbacks, say=say)
    test_split = "test" if data.test is not None else "validation" if data.validation is not None else "train"
    validation = data.validation or data.train
    arrays = {"train": data.train, "validation": validation, "test": data.test or validation}
    data_record = array_provenance({name: sha256(tuple(examples)) for name, examples in arrays.items()})
    record = dict(experiment.settings) | {name: value for name, value in config._asdict().items() if value is not None}
    directory = RunDirectory(
        run_dir.absolute(),
        record,
        identity=["batch_size"],
        environment=environment.record() | native.record(),
        data=data_record,
        predictor=predictor_record(experiment, data.train),
    )
    result = execute(
        experiment,
        own_state,
        data,
        config,
        RunOptions(),
        directory,
        Reported(
            {name: _as_split(experiment, examples) for name, examples in arrays.items()},
            test_split=test_split,
            headline=[*experiment.measured_names],
        ),
        # All that decides the result of a program whose functions are the user's: the compiled step itself.
        identity={
            "batch_size": config.batch_size,
            "step": _step_sha256(experiment, data.train, config.batch_size),
            "initial_state": sha256(state._replace(key=jax.random.key_data(state.key))),
            "data": data_record["sha256"],
        },
        callbacks=callbacks,
        say=say or (lambda line: None),
    )
    return result.state, result.history


def _step_sha256(experiment: Experiment, train: Examples, batch_size: int) -> str:
    """Hashes the program of the training step: model, loss, optimizer, rates and class weights are all in it."""
    inputs, labels, weights = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype), tuple(train)
    )
    mask: Any = jax.ShapeDtypeStruct((batch_size,), bool)
    lowered = jax.jit(experiment.step).lower(experiment.state_shapes, Batch(inputs, labels, mask, weights))
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def _as_split(experiment: Experiment, examples: Examples) -> Split:
    """Returns array examples as a split, with the most likely class of soft labels."""
    labels = {}
    outputs = examples.labels
    for name, spec, truth, _, _ in by_output(experiment.objective, outputs, outputs, None):
        if spec.problem == "multiclass" and truth.ndim == 2:
            truth = truth.argmax(axis=1)
        elif spec.problem == "binary":
            truth = (truth >= 0.5).astype(np.int32)
        labels[name] = truth
    return Split(examples.inputs, labels.get(None, labels), examples.sample_weight)
