"""The settings of a run: one frozen dataclass, from which the command line, the TOML file and the record follow."""

import argparse
import dataclasses
import hashlib
import json
import sys
import tomllib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from jaxcls._utils.errors import InputError, did_you_mean

_Value = TypeVar("_Value")
# A setting that need not be given. The task's recipe fills it in, unless it is optional (its type holds None).
# To the type checker it has its value: whoever reads settings reads resolved ones.
if TYPE_CHECKING:
    Maybe = Annotated[_Value, "filled in"]
else:
    Maybe = Annotated[_Value | None, tyro.conf.DisallowNone, tyro.conf.arg(help_behavior_hint="")]
UNSET: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What is learned."""

    task: str = "fashion_mnist"
    """What to learn; --list-tasks lists them."""
    preset: str = "default"
    """One of the task's recipes: default, or best, which takes longer."""
    seed: int = 0
    """Everything random follows from it: initial weights, order, augmentation, dropout, the validation split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the data lies. None of these decides the result: the checksums of the data do."""

    source: Literal["auto", "files", "tfds", "sample"] = "auto"
    """Where the data comes from: your files or the system's, a download by TFDS, the sample in the package, or
    the first of these that is there."""
    data_dir: Maybe[Path | None] = None
    """The folder that holds the data's own files (--source files)."""
    data: Maybe[Path | None] = None
    """Your own data: a CSV file (tasks csv and text_csv) or a folder with a folder of images for each class
    (image_folder)."""
    test_data: Maybe[Path | None] = None
    """Your own test examples, in the same form; without them, --test-fraction of --data is set aside."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(DataSource):
    """What the data is and how it is read and split. Each task takes some of these."""

    test_fraction: Maybe[float | None] = None
    """The share of the examples that is set aside for the test where the data has no test part of its own."""
    label_column: Maybe[tuple[str, ...] | None] = None
    """The column of --data that holds the label; several columns of 0 and 1 make a multi-label problem."""
    text_column: Maybe[str | None] = None
    """The column of --data that holds the text (text_csv)."""
    weight_column: Maybe[str | None] = None
    """The column of --data that holds how much each row counts."""
    id_column: Maybe[str | None] = None
    """The column of --data that names each row; it is not learned from."""
    drop_column: Maybe[tuple[str, ...] | None] = None
    """Columns of --data that are not learned from."""
    uncertain: Maybe[Literal["ignore", "ones", "zeros"] | None] = None
    """What an uncertain label counts as (CheXpert): as not known, as positive, or as negative."""
    skip_damaged: Maybe[bool | None] = None
    """Leave out, and count, images that cannot be decoded (image_folder), in place of ending with an error."""
    image_size: Maybe[int | None] = None
    """The height and width, in pixels, that images of any size are brought to."""
    max_length: Maybe[int | None] = None
    """The tokens of a text that are read; those after them are cut off."""
    vocabulary_size: Maybe[int | None] = None
    """The tokens that the tokenizer knows, at the most."""
    validation_fraction: Maybe[float] = UNSET
    """The share of the training examples that is held out for choices: stopping, the best epoch, thresholds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network."""

    model: Maybe[str] = UNSET
    """The network, one of the task's."""
    dropout: Maybe[float] = UNSET
    """The rate of dropout in the network."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type that the network computes in. Parameters, losses and statistics stay float32."""
    remat: bool = False
    """Keeps of each block of the network its inputs alone, and computes the rest again for the gradient: less memory
    and more time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """The options of :func:`jaxcls.losses.get`, each for some losses."""

    label_smoothing: Maybe[float | None] = None
    """Moves this share of each label to the others."""
    class_weight: Maybe[Literal["balanced", "effective"] | None] = None
    """Weighs the classes by their frequency in the training examples."""
    pos_weight: Maybe[float | None] = None
    """Weighs the positive class of binary and multi-label losses."""
    gamma: Maybe[float | None] = None
    """How much a focal loss turns from easy examples."""
    alpha: Maybe[float | None] = None
    """The weight of the positive class in a focal loss."""
    epsilon: Maybe[float | None] = None
    """The first coefficient of a poly loss."""
    gamma_negative: Maybe[float | None] = None
    """How much the asymmetric loss turns from easy negatives."""
    gamma_positive: Maybe[float | None] = None
    """How much the asymmetric loss turns from easy positives."""
    clip: Maybe[float | None] = None
    """The probability below which the asymmetric loss ignores negatives."""
    tau: Maybe[float | None] = None
    """The strength of the logit adjustment; the class frequencies are those of the training examples."""
    normalizer: Maybe[Literal["batch", "weights", "positives"] | None] = None
    """What the sum of a batch's losses is divided by."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings(LossOptions):
    """The loss."""

    loss: Maybe[str] = UNSET
    """The loss, by our name, Keras's, or the cheat sheet's (focal_loss, weighted_crossentropy)."""
    box_loss: Maybe[Literal["smooth_l1", "giou"] | None] = None
    """The loss of a detector's boxes."""
    loss_weights: Maybe[tuple[float, float] | None] = None
    """What two losses are multiplied by in their sum: those of classes and of boxes, or of two outputs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The options of :func:`jaxcls.optimizers.get`, each for some optimizers."""

    momentum: Maybe[float | None] = None
    """Momentum of sgd and rmsprop."""
    nesterov: Maybe[bool | None] = None
    """Nesterov's form of momentum."""
    b1: Maybe[float | None] = None
    """Decay of the mean of the gradients (adam and its kin)."""
    b2: Maybe[float | None] = None
    """Decay of the mean of their squares."""
    eps: Maybe[float | None] = None
    """The small number that keeps a division finite."""
    decay: Maybe[float | None] = None
    """Decay of the mean of the squares in rmsprop."""
    centered: Maybe[bool | None] = None
    """Divide rmsprop's gradient by its standard deviation, not by its root mean square."""
    initial_accumulator_value: Maybe[float | None] = None
    """Where adagrad's sum of squares begins."""
    weight_decay: Maybe[float | None] = None
    """Decoupled decay of the weights. Biases and normalisation scales are left alone, but not by Keras's semantics."""
    clipnorm: Maybe[float | None] = None
    """Clips the gradient of each variable to this norm."""
    global_clipnorm: Maybe[float | None] = None
    """Clips the gradient of all variables together to this norm."""
    clipvalue: Maybe[float | None] = None
    """Clips each element of the gradient to this size."""
    gradient_accumulation_steps: Maybe[int | None] = None
    """Batches whose mean gradient makes one update. Each counts alike, the smaller last one of an epoch too; one that
    is not finite is left out, and the next takes its place. Schedules count updates."""
    ema_decay: Maybe[float | None] = None
    """Keeps an exponential average of the weights with this decay, and evaluates with it."""
    semantics: Maybe[Literal["optax", "keras"] | None] = None
    """Whose update to follow where Optax and Keras differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings(OptimizerOptions):
    """The optimizer."""

    optimizer: Maybe[str] = UNSET
    """The optimizer: sgd, rmsprop, adam, adamw, adagrad, nadam, lion, muon or schedule_free."""
    learning_rate: Maybe[float] = UNSET
    """The highest rate of the schedule."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The options of :func:`jaxcls.optimizers.schedule`, each for some schedules."""

    end_factor: Maybe[float | None] = None
    """Where linear, cosine and exponential end, as a share of the highest rate."""
    boundaries: Maybe[tuple[int, ...] | None] = None
    """The steps at which piecewise changes the rate."""
    scales: Maybe[tuple[float, ...] | None] = None
    """What piecewise multiplies the rate by, at each of the boundaries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleSettings(ScheduleOptions):
    """The schedule of the learning rate."""

    schedule: Maybe[str] = UNSET
    """How the rate changes: constant, linear, cosine, warmup_cosine, one_cycle, exponential or piecewise."""
    warmup: Maybe[float | None] = None
    """The share of the steps over which the rate rises from zero before the schedule begins."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long training takes, and when it stops."""

    epochs: Maybe[int] = UNSET
    """Passes over the training examples."""
    batch_size: Maybe[int] = UNSET
    """Examples a step, on all devices together."""
    max_skipped_steps: int = 20
    """Stop after so many steps in a row whose loss or gradient was not finite. Such a step changes nothing."""
    debug: bool = False
    """Look at every step on concrete values before it is made, and stop at the first number that is not finite: it is
    named, with its examples, and kept for jaxcls replay. Slow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How the best epoch is chosen and tested."""

    eval_batch_size: int = 500
    """Examples that are predicted together."""
    monitor: Maybe[str] = UNSET
    """What decides which epoch is best: a metric of the validation examples, such as accuracy, or their loss."""
    patience: Maybe[int | None] = None
    """Stop after this many epochs without a better --monitor; without it, all epochs are run."""
    restore_best: Maybe[bool] = UNSET
    """Test the weights of the best epoch, not of the last."""
    tune_threshold: Maybe[str | None] = None
    """Tunes the thresholds of decisions on the validation examples for this metric, such as f1 or
    balanced_accuracy; without it, they are 0.5."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """How and where a run is executed and saved. None of these decides the result."""

    run_dir: Maybe[Path | None] = None
    """Where the run is kept; the same command continues it. By default runs/ and a name made of the settings."""
    resume: bool = True
    """Continue the run that --run-dir holds; --no-resume refuses a directory that holds one."""
    config: Maybe[Path | None] = None
    """A TOML file of these settings; flags win over it. A run directory holds its own as config.toml."""
    list_tasks: bool = False
    """List the tasks with their models and presets, and stop."""
    checkpoint_seconds: float = 60.0
    """Save this often within an epoch, at the next boundary; the end of an epoch is always saved."""
    data_on: Literal["auto", "device", "host"] = "auto"
    """Where the training examples are kept: on the device, or on the host, from which each batch is sent ahead; auto
    keeps them on the host if they take more than half of the device's free memory. The result is the same."""
    deterministic: bool = False
    """On a GPU, take only operations that give the same bits each time: slower. A CPU gives them anyway."""
    stall_seconds: float = 1800.0
    """End the process, and say where each of its threads is, if it gets no further for so long; 0 waits for ever."""
    profile: Maybe[Path | None] = None
    """A folder for a trace of JAX's profiler of some steps, for XProf or Perfetto; where their time went is printed."""
    tensorboard: bool = False
    """Write what each epoch gives for TensorBoard too, into tensorboard/ of the run's directory."""
    wandb: bool = False
    """Write what each epoch gives to Weights & Biases too, as its own settings say (WANDB_PROJECT, WANDB_MODE)."""


# dataclasses collect the fields of the last base first.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(
    ExecutionSettings,
    EvaluationSettings,
    TrainingSettings,
    ScheduleSettings,
    OptimizerSettings,
    LossSettings,
    ModelSettings,
    DataSettings,
    TaskSettings,
):
    """Train a classifier. What is not given follows the task's recipe."""


def resolve(given: Settings, recipe: Settings, *, without: Collection[str] = ()) -> Settings:
    """What was given, and where nothing was, the recipe; but not its settings ``without``.

    >>> resolve(Settings(epochs=3), Settings(epochs=10, model="cnn")).model
    'cnn'
    """
    missing = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(Settings)
        if getattr(given, field.name) is None and field.name not in without
    }
    return dataclasses.replace(given, **missing)


def names(group: type) -> tuple[str, ...]:
    """The names of the settings of a group.

    >>> names(ScheduleOptions)
    ('end_factor', 'boundaries', 'scales')
    """
    return tuple(field.name for field in dataclasses.fields(group))


def select(settings: Settings, group: type) -> dict[str, Any]:
    """The settings of a group that have a value.

    >>> select(Settings(momentum=0.9), OptimizerOptions)
    {'momentum': 0.9}
    """
    return {name: value for name in names(group) if (value := getattr(settings, name)) is not None}


def identity(settings: Settings) -> dict[str, Any]:
    """The settings that decide the result of a run, as plain values; None where a setting has no value.

    Two runs with the same identity on data with the same checksums compute the same.
    """
    without = {*names(DataSource), *names(ExecutionSettings)}
    record = as_record(settings)
    return {name: record.get(name) for name in names(Settings) if name not in without}


def digest(settings: Settings, data: Mapping[str, str]) -> str:
    """Eight hexadecimal digits that are the same for the same computation on data of the same checksums.

    >>> digest(Settings(run_dir=Path("a")), {}) == digest(Settings(), {}) != digest(Settings(seed=1), {})
    True
    """
    decided = {name: value for name, value in identity(settings).items() if value is not None}
    content = json.dumps([decided, dict(data)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def as_record(settings: Settings) -> dict[str, Any]:
    """All settings that have a value, as plain JSON and TOML values."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in plain.items() if value is not None
    }


def config_of(arguments: Sequence[str]) -> Settings:
    """The settings of the file that --config names among the arguments of a command line; without it, none.

    They are its defaults, and so must be known before all of its arguments are read.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    config = early.parse_known_args(arguments)[0].config
    return Settings() if config is None else dataclasses.replace(from_toml(config), config=config)


def from_toml(path: Path) -> Settings:
    """Reads settings from a TOML file.

    Raises:
      InputError: the file is missing or no TOML, a name is unknown, or a value has the wrong type.
    """
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}; give a TOML file.") from None
    # ValueError: also a number of thousands of digits. RecursionError: brackets within brackets.
    except (ValueError, RecursionError) as error:
        raise InputError(f"--config {path}: not a TOML file: {error}") from None
    return from_record(record, where=f"--config {path}")


def from_record(record: dict[str, Any], *, where: str) -> Settings:
    """The settings of a record such as :func:`as_record` makes.

    >>> from_record({"epoch": 3}, where="run.toml")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: run.toml: unknown setting 'epoch'. Did you mean 'epochs'?
    """
    kinds = typing.get_type_hints(Settings)
    for name in record:
        if name not in kinds:
            raise InputError(f"{where}: unknown setting {name!r}.{did_you_mean(name, kinds)}")
    return Settings(**{name: _converted(value, kinds[name], f"{where}: {name}") for name, value in record.items()})


def _converted(value: Any, kind: Any, where: str) -> Any:
    options = [option for option in typing.get_args(kind) if option is not types.NoneType]
    if typing.get_origin(kind) is Literal:
        if value not in options:
            raise InputError(f"{where} = {value!r}: must be one of {', '.join(map(repr, options))}.")
        return value
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_converted(item, options[0], where) for item in value)
    if typing.get_origin(kind) is types.UnionType or typing.get_origin(kind) is typing.Union:  # X | None
        return _converted(value, options[0], where)
    if kind is Path and isinstance(value, str):
        if "\0" in value:
            raise InputError(f"{where} = {value!r}: no path holds a zero character.")
        return Path(value)
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{where} = {value!r}: must be a value of type {getattr(kind, '__name__', kind)}.")
    return value
