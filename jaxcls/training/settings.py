"""The settings of a run as frozen dataclasses, from which the command line, the TOML file and the record follow.

Each group is one section of ``jaxcls train --help``; the docstring of a field is the help text of its option.
"""

import dataclasses
import hashlib
import json
import sys
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from jaxcls._utils.errors import InputError, did_you_mean, error_context
from jaxcls._utils.files import local

# Not set by the user; the task's preset sets it before training. The type of such a field is that of the set value.
UNSET: Any = None
# The help of the command line lists these options first, as the most used.
COMMON = {"common": True}
# The losses by name, those of jaxcls first.
SoftmaxLoss = Literal[
    "softmax_cross_entropy", "softmax_focal", "softmax_poly", "categorical_hinge", "logit_adjusted_cross_entropy",
    "focal_loss", "weighted_crossentropy", "sparse_categorical_crossentropy", "categorical_crossentropy",
    "categorical_focal_crossentropy",
]  # fmt: skip
SigmoidLoss = Literal[
    "sigmoid_cross_entropy", "sigmoid_focal", "sigmoid_poly", "hinge", "squared_hinge", "asymmetric", "focal_loss",
    "weighted_crossentropy", "binary_crossentropy", "binary_focal_crossentropy",
]  # fmt: skip
Loss = Literal[SoftmaxLoss, SigmoidLoss]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The task."""

    task: str = field(default="fashion_mnist", metadata=COMMON)
    """the task to train, by name; --list-tasks describes all of them"""
    preset: str = field(default="default", metadata=COMMON)
    """the recipe of the task that sets every option not given here; --list-tasks names the presets of each task"""
    seed: int = field(default=0, metadata=COMMON)
    """seed of everything random: initial weights, data order, augmentation, dropout and the validation split"""
    split_seed: int | None = None
    """seed of the validation split or the folds (default: that of everything random)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """Several models of one run. The mean of their probabilities is what the run predicts."""

    folds: int | None = field(default=None, metadata=COMMON)
    """number of folds of the training examples; a model is trained for each on all others, so that every example has a
    prediction of a model that has not seen it (out_of_fold.csv)"""
    seeds: tuple[int, ...] | None = field(default=None, metadata=COMMON)
    """train a model for each of these seeds on the same split, or on each fold"""
    ensemble: Literal["mean", "greedy"] | None = None
    """weights of the models of --seeds in the ensemble: equal, or chosen greedily by the log loss of the out-of-fold or
    validation predictions (Caruana et al. 2004) (default: mean)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the data is read from. Each task uses some of these."""

    data: Path | None = field(default=None, metadata=COMMON)
    """your data: a CSV file (tasks csv, text_csv) or a folder with one subfolder of images per class (image_folder); in
    other tasks the same as --data-dir"""
    test_data: Path | None = None
    """your test examples, in the format of --data; without it, --test-fraction of --data is held out"""
    data_dir: Path | None = field(default=None, metadata=COMMON)
    """folder with the files of a public data set, in their original format"""
    source: Literal["auto", "files", "tfds", "sample"] = "auto"
    """where to read a public data set from: files on disk, a TensorFlow Datasets download, or the small sample that
    comes with jaxcls; auto takes the first that is available"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(DataSource):
    """What is read from the data, and how it is split. Each task uses some of these."""

    validation_data: Path | None = None
    """your validation examples, in the format of --data; without it, --validation-fraction of --data is held out"""
    test_fraction: float | None = None
    """fraction of the examples held out as the test set, if the data has none"""
    validation_fraction: float = UNSET
    """fraction of the training examples held out for early stopping, the best epoch and thresholds"""
    label_column: tuple[str, ...] | None = None
    """column of --data with the class; several columns of 0 and 1 make a multi-label problem (default of text_csv: all
    columns without another role)"""
    text_column: str | None = None
    """column of --data with the text (text_csv)"""
    weight_column: str | None = None
    """column of --data with the sample weight of each row"""
    id_column: str | None = None
    """column of --data that identifies each row; not a feature"""
    drop_column: tuple[str, ...] | None = None
    """columns of --data to ignore, such as: Name Ticket, or Name,Ticket"""
    separator: str | None = None
    """character between the values of a CSV file of --data (default: found)"""
    decimal: Literal[".", ","] | None = None
    """decimal sign of the numbers of --data (default: found)"""
    uncertain: Literal["ignore", "ones", "zeros"] | None = None
    """how to read an uncertain label (CheXpert's -1): as unknown, positive or negative"""
    skip_damaged: bool | None = None
    """skip and count images that cannot be decoded, instead of stopping (image_folder)"""
    strict_annotations: bool | None = None
    """stop at annotations that are not as they should be and images that cannot be decoded, instead of repairing or
    leaving them out (detection)"""
    image_size: int | None = None
    """height and width in pixels to which images are resized"""
    standardize: Literal["dataset", "image"] | None = None
    """mean and deviation that standardize the pixels of an image: those of the training images (or of a pretrained
    encoder), or its own, so that a different exposure changes nothing"""
    max_length: int | None = None
    """tokens of a text that are read; a longer text loses its middle, and keeps more of its end than of its start"""
    vocabulary_size: int | None = None
    """maximum number of tokens in the vocabulary of the tokenizer (default: chosen by the amount of text)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model."""

    model: str = field(default=UNSET, metadata=COMMON)
    """the network; --list-tasks names the models of each task"""
    dropout: float = UNSET
    """dropout rate of the network"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """data type of the network's computations; parameters, losses and statistics stay float32"""
    remat: bool = False
    """recompute activations in the backward pass (jax.checkpoint for each block): less memory, more time"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedSource:
    """Where a pretrained encoder comes from."""

    pretrained: str | None = field(default=None, metadata=COMMON)
    """pretrained encoder to fine-tune, in place of --model: a folder with config.json and model.safetensors, or a name
    on the Hugging Face hub, such as sentence-transformers/all-MiniLM-L6-v2 (texts and images)"""
    revision: str | None = None
    """commit, tag or branch of a --pretrained on the hub (default: the newest)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningSettings(PretrainedSource):
    """A pretrained encoder and how it is fine-tuned. Tasks on texts and on images use these."""

    pooling: Literal["mean", "cls", "max"] | None = None
    """how the features of a text's tokens become one vector (default: mean); cls takes the first token"""
    freeze: str | None = None
    """weights that do not learn: nothing, embeddings, backbone (all but the classifier; its features are then computed
    once), or a number of blocks, with the embeddings"""
    head_epochs: int | None = None
    """epochs in which the classifier alone learns, before all weights do"""
    layer_decay: float | None = None
    """factor of the learning rate from each block to the one before it, such as 0.8"""
    lora_rank: int | None = None
    """learn low-rank changes of the attention layers, of this rank, and the classifier (LoRA)"""
    lora_alpha: float | None = None
    """scale of the low-rank changes (default: twice the rank)"""
    lora_targets: tuple[str, ...] | None = None
    """names of the layers that LoRA changes (default: query and value, or qkv)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """The options of :func:`jaxcls.losses.get`. Each loss uses some of these."""

    label_smoothing: float | None = None
    """fraction of each label that is spread over the other classes"""
    class_weight: tuple[str, ...] | None = None
    """weights of classes by name or number, such as 0:1 1:3, others having weight 1; or from the training labels:
    balanced is n / (classes * count), as in scikit-learn; effective uses the effective number of samples (Cui et al.
    2019)"""
    pos_weight: float | None = None
    """weight of positive labels in binary and multi-label losses"""
    gamma: float | None = None
    """focusing exponent of focal losses (default of the loss: 2)"""
    alpha: float | None = None
    """weight of positive labels in focal losses, 0 to 1; negative ones get 1 - alpha"""
    epsilon: float | None = None
    """coefficient of the first polynomial term of poly losses (default of the loss: 1)"""
    gamma_negative: float | None = None
    """focusing exponent of the asymmetric loss for negative labels (default of the loss: 4)"""
    gamma_positive: float | None = None
    """focusing exponent of the asymmetric loss for positive labels (default of the loss: 1)"""
    clip: float | None = None
    """probability below which the asymmetric loss ignores negative labels (default of the loss: 0.05)"""
    tau: float | None = None
    """strength of the logit adjustment by the log of the class frequencies (default of the loss: 1)"""
    normalizer: Literal["batch", "weights", "positives"] | None = None
    """what the summed loss of a batch is divided by: the number of examples, of positives, or the sum of weights"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings(LossOptions):
    """The loss. Each loss uses some of these."""

    loss: Loss = field(default=UNSET, metadata=COMMON)
    """the loss by its name in jaxcls.losses or Keras"""
    box_loss: Literal["smooth_l1", "giou"] | None = None
    """regression loss of a detector's boxes"""
    loss_weights: tuple[float, float] | None = None
    """factors of two losses in their sum: of classes and boxes in detection, or of two outputs"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The options of :func:`jaxcls.optimizers.get`. Each optimizer uses some of these."""

    momentum: float | None = None
    """momentum of sgd and rmsprop"""
    nesterov: bool | None = None
    """use Nesterov momentum in sgd and rmsprop"""
    b1: float | None = None
    """decay rate of the first moment of the gradients (adam, adamw, nadam, lion)"""
    b2: float | None = None
    """decay rate of the second moment of the gradients (adam, adamw, nadam, lion)"""
    eps: float | None = None
    """term added to the denominator for numerical stability"""
    decay: float | None = None
    """decay rate of the mean squared gradient in rmsprop"""
    centered: bool | None = None
    """divide by the estimated standard deviation of the gradient in rmsprop, not by its root mean square"""
    initial_accumulator_value: float | None = None
    """initial value of the sum of squared gradients in adagrad"""
    weight_decay: float | None = None
    """decoupled weight decay; not applied to biases and normalization scales, except with --semantics keras"""
    clipnorm: float | None = None
    """maximum L2 norm of the gradient of each variable"""
    global_clipnorm: float | None = None
    """maximum L2 norm of the gradient of all variables together"""
    clipvalue: float | None = None
    """maximum absolute value of each element of the gradient"""
    gradient_accumulation_steps: int | None = None
    """batches of --batch-size that make one update, as one large batch would; schedules count updates"""
    ema_decay: float | None = None
    """decay of an exponential moving average of the weights, which is evaluated in their place"""
    semantics: Literal["optax", "keras"] | None = None
    """whose update rule to follow where Optax and Keras differ"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings(OptimizerOptions):
    """The optimizer. Each optimizer uses some of these."""

    optimizer: Literal[
        "sgd", "rmsprop", "adam", "adamw", "adagrad", "nadam", "lion", "muon", "schedule_free"
    ] = field(default=UNSET, metadata=COMMON)  # fmt: skip
    """the optimizer"""
    learning_rate: float = field(default=UNSET, metadata=COMMON)
    """learning rate: the peak of the schedule"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The options of :func:`jaxcls.optimizers.schedule`. Each schedule uses some of these."""

    end_factor: float | None = None
    """final learning rate of linear, cosine and exponential, as a fraction of the peak"""
    boundaries: tuple[int, ...] | None = None
    """updates at which piecewise changes the learning rate"""
    scales: tuple[float, ...] | None = None
    """factors by which piecewise multiplies the learning rate, one for each boundary"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleSettings(ScheduleOptions):
    """The schedule of the learning rate. Each schedule uses some of these."""

    schedule: Literal[
        "constant", "linear", "cosine", "warmup_cosine", "one_cycle", "exponential", "piecewise"
    ] = UNSET  # fmt: skip
    """how the learning rate changes"""
    warmup: float | None = None
    """fraction of all updates over which the learning rate first rises linearly from 0"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The training loop."""

    epochs: int = field(default=UNSET, metadata=COMMON)
    """passes over the training examples"""
    batch_size: int = field(default=UNSET, metadata=COMMON)
    """examples per training step, over all devices"""
    max_skipped_steps: int = 20
    """stop after this many steps in a row with a loss or gradient that is not finite; such steps change no weights"""
    debug: bool = False
    """check every step on concrete values and stop at the first that is not finite, with a report of where, and a file
    for jaxcls replay; slow"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Evaluation and the choice of the best epoch."""

    monitor: str = UNSET
    """validation metric that decides which epoch is best, such as accuracy, or loss"""
    patience: int | None = None
    """stop after this many epochs without a better --monitor; without it, train for all epochs"""
    restore_best: bool = UNSET
    """test the weights of the best epoch instead of the last"""
    tune_threshold: Literal["f1", "accuracy", "balanced_accuracy", "mcc"] | None = None
    """tune decision thresholds on the validation examples to maximize this metric; without it, they are 0.5"""
    calibrate: Literal["temperature", "vector"] | None = None
    """calibrate the probabilities on the validation or out-of-fold examples: by a temperature (of several labels, one
    each), which changes no decision, or by a scale and a bias for each class. Also of a finished run, without training
    it again; needed for sets of classes (predict --coverage)"""
    eval_batch_size: int = UNSET
    """examples per evaluation step"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """What a command prints."""

    quiet: bool = False
    """print only warnings and errors"""
    json: bool = False
    """print the results as one line of JSON on standard output, and all other lines on standard error"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandSettings(OutputSettings):
    """What this call of the command does. These are not recorded with the run."""

    config: Path | None = field(default=None, metadata=COMMON)
    """TOML file with options; options on the command line override it. Every run folder has one, config.toml"""
    list_tasks: bool = field(default=False, metadata=COMMON)
    """list the tasks with their models and presets, and exit"""
    resume: bool = True
    """continue the run in --run-dir; --no-resume refuses a folder with a run in it"""
    profile: Path | None = None
    """folder for a JAX profiler trace of a few steps, for XProf or Perfetto; prints the slowest operations"""
    distributed: str = "auto"
    """train in several processes: auto joins those that SLURM, Open MPI, Kubernetes or a TPU pod started with this one;
    off trains alone; HOST:PORT,N,I is this process I of N, of which process 0 listens at HOST:PORT"""
    join_seconds: float = 300.0
    """seconds to wait for the other processes at the start"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionSettings(CommandSettings):
    """Where and how the run is executed and saved. These do not affect the result."""

    run_dir: Path | None = field(default=None, metadata=COMMON)
    """folder of the run; the same command continues an interrupted run (default: a folder in runs/ named after the task
    and a hash of the settings)"""
    continue_from: Path | None = None
    """folder of a finished or stopped run: train from its last weights for --epochs more in a new folder, with a new
    optimizer and schedule; options not given are those of that run, and its history is kept"""
    checkpoint_seconds: float = 60.0
    """seconds between checkpoints within an epoch; the end of an epoch is always saved"""
    data_on: Literal["auto", "device", "host"] = "auto"
    """where training examples are kept: in device memory, or on the host with batches sent ahead; auto chooses the host
    if they take more than half of the free device memory"""
    mesh: str | None = None
    """how all devices share the work, such as data=4,fsdp=2: each axis divides batches, and fsdp also parameters and
    the optimizer's state (default: all devices along data)"""
    deterministic: bool = False
    """use only deterministic operations on a GPU: slower; a CPU is always deterministic"""
    stall_seconds: float = 1800.0
    """exit with a stack trace of each thread after this many seconds without progress; 0 waits forever"""
    train_metrics: bool = False
    """also compute the metrics of the training examples after each epoch, by a pass over them without dropout and
    augmentation, which takes about a third of the time of training"""
    tensorboard: bool = False
    """also write metrics for TensorBoard, to the folder tensorboard/ of the run"""
    wandb: bool = False
    """also log metrics to Weights & Biases, configured by its environment variables (WANDB_PROJECT, WANDB_MODE)"""


# What a run that continues from another must share with it: its examples are split and read in the same way, so that
# no example that trained the first tests the second.
SHARED = (
    *TaskSettings.__dataclass_fields__,
    "model",
    *(name for name in DataSettings.__dataclass_fields__ if name not in DataSource.__dataclass_fields__),
)


# A dataclass takes the fields of its last base first.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(
    ExecutionSettings,
    EvaluationSettings,
    TrainingSettings,
    ScheduleSettings,
    OptimizerSettings,
    LossSettings,
    FineTuningSettings,
    ModelSettings,
    DataSettings,
    PopulationSettings,
    TaskSettings,
):
    """All settings of a run."""


def resolve(settings: Settings, recipe: Settings, *, without: Collection[str] = ()) -> Settings:
    """Fills in unset settings from a recipe, except for those named in ``without``.

    >>> resolve(Settings(epochs=3), Settings(epochs=10, model="cnn")).model
    'cnn'
    """
    missing = {
        name: getattr(recipe, name)
        for name in names(Settings)
        if getattr(settings, name) is None and name not in without
    }
    return dataclasses.replace(settings, **missing)


def inherited(run: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that continues from another takes over from it: what decides the result and is not chosen.

    Options of an optimizer, a schedule or a loss are left out where another one is chosen.

    Raises:
      InputError: there is no run in the folder.
    """
    if not (run / "config.toml").exists():
        raise InputError(f"--continue-from {run} holds no run; give the directory that training printed.")
    before = select(from_toml(run / "config.toml"), Settings)
    without = {*names(ExecutionSettings)}
    for choice, options in (("optimizer", OptimizerSettings), ("schedule", ScheduleSettings), ("loss", LossSettings)):
        if chosen.get(choice, before.get(choice)) != before.get(choice):
            without |= {*names(options)}
    return {name: value for name, value in before.items() if name not in without}


def names(group: type) -> tuple[str, ...]:
    """The names of the settings of a group.

    >>> names(ModelSettings)
    ('model', 'dropout', 'dtype', 'remat')
    """
    return tuple(setting.name for setting in dataclasses.fields(group))


def required() -> list[str]:
    """The names of the settings that every run has: where the user gives none, the recipe of the task does."""
    return [
        setting.name
        for setting in dataclasses.fields(Settings)
        if setting.default is UNSET and type(None) not in typing.get_args(setting.type)
    ]


def select(settings: object, group: type) -> dict[str, Any]:
    """The settings of a group that are set, of any object that has them.

    >>> select(Settings(momentum=0.9), OptimizerOptions)
    {'momentum': 0.9}
    """
    return {name: value for name in names(group) if (value := getattr(settings, name)) is not None}


def identity(settings: Settings) -> dict[str, Any]:
    """The settings that decide the result of a run, as JSON values; None for those that are unset.

    Two runs with the same identity on data with the same checksums compute the same.
    """
    record = as_record(settings)
    # A run that has finished can be calibrated.
    irrelevant = {*names(DataSource), *names(PretrainedSource), *names(ExecutionSettings), "calibrate"}
    return {name: record.get(name) for name in names(Settings) if name not in irrelevant}


def digest(settings: Settings, sha256: Mapping[str, str]) -> str:
    """Eight hexadecimal digits that identify the computation.

    Args:
      settings: resolved ones.
      sha256: the checksums of the data by file.

    >>> digest(Settings(run_dir=Path("a")), {}) == digest(Settings(), {}) != digest(Settings(seed=1), {})
    True
    """
    decided = {name: value for name, value in identity(settings).items() if value is not None}
    content = json.dumps([decided, dict(sha256)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def as_record(settings: Settings) -> dict[str, Any]:
    """The settings that are set, as JSON and TOML values.

    >>> as_record(Settings(scales=(0.5, 0.1)))["scales"]
    [0.5, 0.1]
    """
    record: dict[str, Any] = json.loads(json.dumps(select(settings, Settings), default=str))
    return record


def from_toml(path: Path) -> Settings:
    """Reads settings from a TOML file.

    Raises:
      InputError: the file is missing or not TOML, a name is unknown, or a value has the wrong type.
    """
    where = f"--config {path}"
    return from_record(read_toml(path, where), where=where)


def read_toml(path: Path, where: str) -> dict[str, Any]:
    """Reads a user's TOML file; ``where`` names it in messages.

    Raises:
      InputError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}; give a TOML file.") from None
    # ValueError: also a number of thousands of digits. RecursionError: brackets within brackets.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a TOML file: {error}") from None


def from_record(record: Mapping[str, Any], *, where: str) -> Settings:
    """Makes settings from a record, as :func:`as_record` returns it.

    Args:
      record: values by the name of their setting.
      where: what the record was read from, for messages.

    Raises:
      InputError: a name is unknown, or a value has the wrong type.

    >>> from_record({"epoch": 3}, where="run.toml")
    Traceback (most recent call last):
    ...
    jaxcls._utils.errors.InputError: run.toml: unknown setting 'epoch'. Did you mean 'epochs'?
    """
    hints = typing.get_type_hints(Settings)
    for name in record:
        if name not in hints:
            raise InputError(f"{where}: unknown setting {name!r}.{did_you_mean(name, hints)}")
    return Settings(**{name: _converted(value, hints[name], f"{where}: {name}") for name, value in record.items()})


def value_type(hint: Any) -> tuple[Any, tuple[str, ...] | None, int | str | None]:
    """The type of a field as its scalar type, its choices, and its number of values as argparse counts them.

    >>> value_type(tuple[float, ...] | None), value_type(Literal["a", "b"])
    ((<class 'float'>, None, '+'), (<class 'str'>, ('a', 'b'), None))
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # X | None
        hint = typing.get_args(hint)[0]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return str, arguments, None
    if typing.get_origin(hint) is tuple:
        return arguments[0], None, "+" if arguments[-1] is Ellipsis else len(arguments)
    return hint, None, None


def _converted(value: Any, hint: Any, where: str) -> Any:
    kind, choices, count = value_type(hint)
    if count == "+" and isinstance(value, str):
        value = [value]
    if count is not None and isinstance(value, list):
        return tuple(_converted(item, kind, where) for item in value)
    if choices is not None and value not in choices:
        hint = did_you_mean(str(value), choices)
        raise InputError(f"{where} = {value!r}: must be one of {', '.join(map(repr, choices))}.{hint}")
    if kind is Path and isinstance(value, str):
        if "\0" in value:
            raise InputError(f"{where} = {value!r}: a path cannot contain a null character.")
        with error_context(where):
            return local(value)
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is not kind or count is not None:
        raise InputError(f"{where} = {value!r}: must be a value of type {getattr(kind, '__name__', kind)}.")
    return value
