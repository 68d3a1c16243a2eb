"""Tasks with ``--pretrained``: the recipe, the preprocessor and the model of a pretrained encoder.

    python -m jaxcls.train --task sentiment --pretrained FOLDER
    python -m jaxcls.train --task image_folder --data PHOTOS --pretrained FOLDER --freeze backbone

Without an option, all weights learn, at a low rate. --freeze backbone computes the features of each example once and
learns the classifier alone: the fastest. --lora-rank 8 learns small changes of the attention layers.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcls._utils import processes
from jaxcls._utils.array_cache import ROW_KEY, cached_rows
from jaxcls._utils.clock import clock
from jaxcls._utils.errors import InputError, flag
from jaxcls.data.batching import Buckets, Examples
from jaxcls.data.preprocessing import Preprocessor, images, texts
from jaxcls.data.rows import select
from jaxcls.models import pretrained
from jaxcls.models.pretrained import FineTuning, PretrainedModel, architecture, checkpoint
from jaxcls.models.pretrained.architecture import Architecture
from jaxcls.models.pretrained.checkpoint import Checkpoint
from jaxcls.tasks.task import Task, required
from jaxcls.training import settings as all_settings
from jaxcls.training import steps
from jaxcls.training.experiment import Experiment
from jaxcls.training.run import RunData
from jaxcls.training.settings import FineTuningSettings, Settings
from jaxcls.training.steps import TrainState

NAME = "pretrained"
# Longer texts are rarely worth their time, which grows with the square of the length.
_MAX_LENGTH = 256

# By what learns: a new classifier on fixed features needs many cheap epochs at a high rate, and all weights few at a
# low one (Devlin et al. 2018, appendix A.3; Hu et al. 2021, appendix D).
_COMMON = {
    "model": NAME, "optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.1, "dropout": 0.1,
    "batch_size": 32, "pooling": "mean",
}  # fmt: skip
_TEXT_RATES = {"all": (3, 5e-5), "lora": (4, 1e-3), "backbone": (20, 1e-3)}
_BERT_WIDTH = 768
_IMAGE_RATES = {"all": (8, 3e-4), "lora": (8, 2e-3), "backbone": (30, 1e-3)}


class Source(NamedTuple):
    """The checkpoint that a run starts from."""

    checkpoint: Checkpoint
    architecture: Architecture


def find(settings: Settings) -> Source:
    """Finds the checkpoint of ``--pretrained``; its weights are not read yet."""
    source = checkpoint.find(required(settings, "pretrained"), settings.revision)
    return Source(source, architecture.find(source.config, source.name))


def specialize(task: Task, settings: Settings) -> Task:
    """Returns the task with a recipe for fine-tuning in place of that of its own models.

    Raises:
      InputError: the task takes no such encoder.
    """
    source = find(settings)
    if task.pretrained != source.architecture.inputs:
        takes = f"takes encoders of {task.pretrained}" if task.pretrained else "takes no --pretrained"
        raise InputError(
            f"--task {task.name} {takes}, and {settings.pretrained} is an encoder of {source.architecture.inputs}."
        )
    mode = "lora" if settings.lora_rank else "backbone" if settings.freeze == "backbone" else "all"
    epochs, rate = (_TEXT_RATES if task.pretrained == "texts" else _IMAGE_RATES)[mode]
    changes: dict[str, Any] = {"epochs": epochs, "learning_rate": rate, "freeze": settings.freeze or "nothing"}
    if mode == "all" and source.architecture.width:
        # The best rate falls with the width (Yang et al. 2022, arXiv 2203.03466): on SST-2, MiniLM (384) has a better
        # validation accuracy with 1e-4 than with 5e-5, which suits BERT-base (768).
        changes["learning_rate"] = rate * _BERT_WIDTH / source.architecture.width
    if task.pretrained == "texts":
        changes |= {"max_length": min(_MAX_LENGTH, source.architecture.max_length or _MAX_LENGTH)}
    else:
        changes |= {"image_size": source.checkpoint.pixels[0], "pooling": None}
    if "accuracy" in task.metrics:
        # The loss of validation examples rises while their accuracy does: the probabilities become too certain.
        changes["monitor"] = "accuracy"
    of_model = (*all_settings.names(all_settings.OptimizerSettings), *all_settings.names(all_settings.ScheduleSettings))
    return task.with_settings(**dict.fromkeys((*of_model, "vocabulary_size")) | _COMMON | changes)


def check(settings: Settings) -> None:
    """Raises InputError for options of a pretrained encoder that do not fit together, or have none."""
    if settings.pretrained is None:
        for name in all_settings.select(settings, FineTuningSettings):
            raise InputError(f"{flag(name)} is for a pretrained encoder: give --pretrained, or leave it out.")
    elif settings.model != NAME:
        raise InputError(f"--pretrained replaces --model {settings.model}: leave one out.")
    if settings.lora_rank is not None and settings.freeze not in (None, "nothing"):
        raise InputError(f"--lora-rank freezes all but its own weights: leave out --freeze {settings.freeze}.")
    for name in ("lora_alpha", "lora_targets"):
        if settings.lora_rank is None and getattr(settings, name) is not None:
            raise InputError(f"{flag(name)} goes with --lora-rank; give both, or leave it out.")


def fit_preprocessor(source: Source, inputs: np.ndarray, settings: Settings) -> Preprocessor:
    """Returns the preprocessor of the checkpoint: its tokenizer, or its mean and deviation of pixels."""
    if source.architecture.inputs == "texts":
        return texts.pretrained(
            source.checkpoint.tokenizer,
            inputs,
            padding=source.architecture.padding,
            vocabulary_size=int(source.checkpoint.config["vocab_size"]),
            max_length=required(settings, "max_length"),
            where=source.checkpoint.name,
        )
    _, mean, deviation = source.checkpoint.pixels
    height, width, channels = inputs.shape[1:]
    return images.ImagePreprocessor(
        (height, width, channels),
        tuple(255 * value for value in mean),
        tuple(255 * value for value in deviation),
        per_image=settings.standardize == "image",
    )


def build_model(
    settings: Settings, num_classes: int, record: Mapping[str, Any], source: Source | None = None
) -> PretrainedModel:
    """Builds the model of resolved settings.

    Args:
      num_classes: number of logits.
      record: of the checkpoint.
      source: where the first weights are read from; without it, they are random.
    """
    options = FineTuning(
        settings.pooling or "mean",
        settings.freeze or "nothing",
        settings.lora_rank,
        settings.lora_alpha,
        settings.lora_targets or FineTuning().lora_targets,
    )
    model = pretrained.build(
        architecture.find(record["config"], "the record of the run"),
        num_classes,
        options,
        record=record,
        dropout=settings.dropout,
        dtype=jnp.dtype(settings.dtype),
        remat=settings.remat,
    )
    if source is None:
        return model
    return pretrained.with_weights(model, source.checkpoint.tensors(), source.checkpoint.name)


def on_features(
    experiment: Experiment, state: TrainState, data: RunData, settings: Settings, say: Callable[[str], None]
) -> tuple[Experiment, RunData]:
    """Returns the experiment and the data with the features of a frozen encoder in place of its inputs.

    The features of every example are saved in the cache directory: with another seed or more data, only those of new
    examples are computed.
    """
    assert experiment.pretrained is not None
    assert experiment.preprocessor is not None
    # Without the widths of batches: the one of an example is in its key.
    record = {name: value for name, value in experiment.preprocessor.as_record().items() if name != "widths"}
    decides = [experiment.pretrained.record["sha256"], record, settings.pooling, settings.dtype, jax.__version__]

    def replaced(examples: Examples | None) -> Examples | None:
        if examples is None:
            return None

        def compute(rows: np.ndarray) -> np.ndarray:
            with clock(f"computing the features of {len(rows):,} of {len(examples):,} examples", say):
                return experiment.features_of_arrays(state, select(examples.inputs, rows))

        if processes.count() > 1:
            # They compute each batch together, and their caches may differ.
            return Examples(compute(np.arange(len(examples))), *tuple(examples)[1:])
        keys = _example_keys(examples.inputs, experiment.buckets)
        return Examples(cached_rows("features", decides, keys, compute), *tuple(examples)[1:])

    learner = dataclasses.replace(
        experiment, preprocess=steps.identity, augment=steps.no_augmentation, tta=(), buckets=None, preprocessor=None
    )
    train = replaced(data.train)
    assert train is not None
    return learner, RunData(train, replaced(data.validation), replaced(data.test))


def _example_keys(inputs: Any, buckets: Buckets | None) -> np.ndarray:
    """Returns a hash of each example, bytes (N,), with the padding that it has in a batch."""
    if buckets is None:
        rows: Any = inputs
    else:
        sizes = [buckets.sizes[index] for index in buckets.indices(inputs)]
        rows = (buckets.cut(inputs[row : row + 1], size) for row, size in enumerate(sizes))
    return np.array([hashlib.blake2b(row.tobytes(), digest_size=ROW_KEY.itemsize).digest() for row in rows], ROW_KEY)


def learning_rate_scale(record: Mapping[str, Any], settings: Settings, updates_per_epoch: int = 0) -> Any:
    """Returns the factors of the learning rate, for :func:`jaxcls.optimizers.get`.

    Args:
      record: of the checkpoint.
    """
    return pretrained.learning_rate_scale(
        architecture.find(record["config"], "the record of the run"),
        settings.layer_decay or 1.0,
        (settings.head_epochs or 0) * updates_per_epoch,
    )
