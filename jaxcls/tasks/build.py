"""The chain from settings to an experiment and its data: resolve, load, split, preprocess, build."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxcls import losses, optimizers, tasks
from jaxcls._utils import ranges
from jaxcls._utils.clock import clock
from jaxcls._utils.errors import InputError, error_context, flag, listed, unknown_name
from jaxcls.data.batching import Examples, copies, examples, steps_per_epoch
from jaxcls.data.dataset import Dataset, Provenance, Split, describe
from jaxcls.data.preprocessing import Preprocessor, from_record, tables
from jaxcls.data.preprocessing.ensemble import first
from jaxcls.models import Model, functional
from jaxcls.models.layers import with_variable_rates
from jaxcls.optimizers.hyperparameters import with_hyperparameters
from jaxcls.tasks import pretrained
from jaxcls.tasks.task import Task
from jaxcls.training import mesh, problems, settings
from jaxcls.training.experiment import ClassNames, Experiment, shaped_outputs, split_outputs
from jaxcls.training.objective import Objective
from jaxcls.training.settings import Settings

PyTree = Any


class Splits(NamedTuple):
    """The disjoint splits of a data set: to learn from, to choose by, and to be tested on."""

    train: Split
    validation: Split
    test: Split


class Built(NamedTuple):
    """An experiment and the data that it was built on.

    Attributes:
      task, settings: resolved, as :func:`resolve` returns them.
      experiment: with the preprocessor that was fitted on the training split.
      provenance: of the data set.
      splits: raw, as the preprocessor takes them.
      train: the preprocessed training examples.
    """

    task: Task
    settings: Settings
    experiment: Experiment
    provenance: Provenance
    splits: Splits
    train: Examples


class Data(NamedTuple):
    """The data of a task, as its settings read it.

    Attributes:
      source: of a pretrained encoder, or None.
      preprocessor: fitted on the training split.
      train: the preprocessed training examples.
    """

    dataset: Dataset
    splits: Splits
    source: pretrained.Source | None
    preprocessor: Preprocessor
    train: Examples


def build(
    user_settings: Settings,
    *,
    learning_rate: optax.Schedule | None = None,
    preprocessor: Preprocessor | None = None,
    say: Callable[[str], None] = print,
) -> Built:
    """Loads the data of a task and builds its experiment.

    Args:
      user_settings: what the user gave; the task's recipe fills in the rest.
      learning_rate: a schedule in place of that of the settings.
      preprocessor: a fitted one; by default, one is fitted on the training split.
      say: takes the line that describes the data.

    Raises:
      InputError: something given is wrong; nothing was compiled or written yet.
    """
    task, resolved = resolve(user_settings)
    dataset, splits = load(task, resolved, say=say)
    built = of_splits(task, resolved, dataset, splits, learning_rate=learning_rate, preprocessor=preprocessor, say=say)
    check_step(built)
    return built


def of_splits(
    task: Task,
    resolved: Settings,
    dataset: Dataset,
    splits: Splits,
    *,
    learning_rate: optax.Schedule | None = None,
    preprocessor: Preprocessor | None = None,
    say: Callable[[str], None] = print,
) -> Built:
    """Builds the experiment of a task on a data set that was loaded and divided; see :func:`build`."""
    data = preprocessed(task, resolved, dataset, splits, preprocessor=preprocessor, say=say)
    return of_data(task, resolved, data, learning_rate=learning_rate)


def preprocessed(
    task: Task,
    resolved: Settings,
    dataset: Dataset,
    splits: Splits,
    *,
    preprocessor: Preprocessor | None = None,
    say: Callable[[str], None] = print,
) -> Data:
    """Preprocesses the training examples of a data set; see :func:`build`."""
    with error_context(dataset.provenance.location):
        with clock("preprocessing the training examples", say):
            source = None if resolved.pretrained is None else pretrained.find(resolved)
            if preprocessor is None:
                fit = (
                    task.fit_preprocessor if source is None else functools.partial(pretrained.fit_preprocessor, source)
                )
                preprocessor = fit(splits.train.inputs, resolved)
            if dataset.white is not None:
                preprocessor = from_record(preprocessor.as_record() | {"white": dataset.white})
            train = preprocess(preprocessor, splits.train)
        if isinstance(preprocessor, tables.TablePreprocessor) and task.takes("label_column"):
            say(tables.summary(preprocessor))
    if task.problem == "multiclass" and task.takes("data") and resolved.class_weight is None:
        for line in rare_class(splits.train.labels, dataset.class_names):
            say(line)
    return Data(dataset, splits, source, preprocessor, train)


def of_data(
    task: Task,
    resolved: Settings,
    data: Data,
    *,
    learning_rate: optax.Schedule | None = None,
    traced: Collection[str] = (),
) -> Built:
    """Builds the experiment of resolved settings on data that was read and preprocessed with them.

    Args:
      learning_rate: a schedule in place of that of the settings.
      traced: settings that are no constants of the program: 'dropout' is in the model's state, those of the optimizer
        and the loss are in the optimizer's; see :mod:`jaxcls.optimizers.hyperparameters`.
    """
    class_names, train, source = data.dataset.class_names, data.train, data.source
    metrics = [name for name in dict.fromkeys([*task.metrics, resolved.monitor]) if name != "loss"]
    problem = problems.get(task.problem, class_names)
    values = {name: getattr(resolved, name) for name in traced if name != "dropout"}
    of_loss = [name for name in values if name in settings.names(settings.LossOptions)]

    def objective_of(values: Mapping[str, Any]) -> Objective:
        chosen = dataclasses.replace(resolved, **{name: values[name] for name in of_loss})
        return problem.objective(chosen, train.labels, metrics)

    record = None if source is None else source.checkpoint.record

    def make(**values: Any) -> optax.GradientTransformation:
        chosen = dataclasses.replace(resolved, **values)
        return optimizer_of(chosen, learning_rate or _schedule(chosen, len(train)), record, len(train))

    optimizer = with_hyperparameters(make, values) if values else make()
    experiment = with_objective(
        task, resolved, data.preprocessor, class_names, objective_of(values), optimizer, record, source,
        variable_dropout="dropout" in traced,
    )  # fmt: skip
    if of_loss:
        experiment = dataclasses.replace(experiment, traced_objective=objective_of)
    return Built(task, resolved, experiment, data.dataset.provenance, data.splits, train)


def check_step(built: Built) -> None:
    """Traces a training step, without compiling it: settings that do not fit together are refused here."""
    experiment = built.experiment
    batch = copies(built.train, experiment.step_size(built.settings.batch_size))
    jax.eval_shape(experiment.step, experiment.state_shapes, batch)


def with_objective(
    task: Task,
    resolved: Settings,
    preprocessor: Preprocessor,
    class_names: ClassNames,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    record: Mapping[str, Any] | None = None,
    source: pretrained.Source | None = None,
    *,
    variable_dropout: bool = False,
) -> Experiment:
    """Builds the experiment of resolved settings from its objective and optimizer.

    Args:
      record: of the checkpoint of a pretrained encoder.
      source: what its first weights are read from; without it, they are random.
      variable_dropout: see :func:`build_model`.
    """
    preset = task.presets[resolved.preset]
    sizes: Any = jax.tree.map(lambda name, names: 1 if name == "binary" else len(names), task.problem, class_names)
    num_classes = sum(jax.tree.leaves(sizes))
    encoder = None if record is None else pretrained.build_model(resolved, num_classes, record, source)
    model = encoder or build_model(task, resolved, preprocessor, num_classes, variable_dropout=variable_dropout)
    return Experiment(
        model=shaped_outputs(split_outputs(model, sizes) if isinstance(sizes, Mapping) else model, task.problem),
        objective=objective,
        optimizer=optimizer,
        preprocess=preprocessor.normalize,
        augment=preset.augment,
        tta=preset.tta,
        buckets=preprocessor.buckets,
        eval_batch_size=resolved.eval_batch_size,
        run_eagerly=resolved.debug,
        class_names=class_names,
        preprocessor=preprocessor,
        pretrained=encoder,
        mesh=resolved.mesh,
        settings=settings.as_record(resolved),
    )


def optimizer_of(
    resolved: Settings, learning_rate: optax.Schedule, record: Mapping[str, Any] | None = None, count: int = 0
) -> optax.GradientTransformation:
    """Returns the optimizer of resolved settings.

    Args:
      record: of the checkpoint of a pretrained encoder.
      count: number of training examples.
    """
    options = settings.select(resolved, settings.OptimizerOptions)
    if record is not None:
        options["learning_rate_scale"] = pretrained.learning_rate_scale(record, resolved, updates(resolved, count))
    return optimizers.get(resolved.optimizer, learning_rate=learning_rate, **options)


def resolve(user_settings: Settings) -> tuple[Task, Settings]:
    """Returns the task and its settings with the recipe filled in, checked as far as possible before data is read."""
    user_settings = with_data_dir(user_settings)
    task = specialized(user_settings)
    if user_settings.mesh is not None:
        mesh.make(user_settings.mesh)
    return task, with_recipe(task, user_settings)


def with_data_dir(user_settings: Settings) -> Settings:
    """Returns the settings with --data as the --data-dir of a task that takes no --data."""
    data = user_settings.data
    if data is None or user_settings.data_dir is not None or tasks.get(user_settings.task).takes("data"):
        return user_settings
    return dataclasses.replace(user_settings, data=None, data_dir=data)


def specialized(user_settings: Settings) -> Task:
    """Returns the task, with what the user's own data decides (such as its problem) filled in.

    Raises:
      InputError: there is no such task, or it does not use a setting that is given; before any file is opened.
    """
    task = tasks.get(user_settings.task)
    for name in settings.select(user_settings, settings.DataSettings):
        if not task.takes(name):
            others = [other.name for other in tasks.TASKS.values() if other.takes(name)]
            taken = [flag(other) for other in settings.names(settings.DataSettings) if task.takes(other)]
            raise InputError(
                f"--task {task.name} takes no {flag(name)}, which is for {', '.join(others)}. Its data settings are "
                f"{', '.join(taken)}."
            )
    specialized = task.specialize(task, settings.resolve(user_settings, task.recipe(user_settings.preset)))
    return pretrained.specialize(specialized, user_settings) if user_settings.pretrained else specialized


def with_recipe(task: Task, user_settings: Settings) -> Settings:
    """Fills in the task's recipe where the user gave nothing, and checks the result.

    A recipe's options suit its own optimizer, schedule and loss, and are left out where the user chooses a different
    one.
    """
    recipe = task.recipe(user_settings.preset)
    for role in ("validation", "test"):
        fraction = f"{role}_fraction"
        path = getattr(user_settings, f"{role}_data")
        if path is not None and getattr(user_settings, fraction) not in (None, getattr(recipe, fraction)):
            raise InputError(
                f"{flag(fraction)} sets a share of --data aside, and --{role}-data replaces it: leave one out."
            )
    without: list[str] = []
    if user_settings.optimizer not in (None, recipe.optimizer):
        without += settings.names(settings.OptimizerSettings)
        # Schedule-free averages the weights instead of lowering the rate.
        without += ["schedule"] if user_settings.optimizer == "schedule_free" else []
    if user_settings.schedule not in (None, recipe.schedule):
        without += settings.names(settings.ScheduleSettings)
    if user_settings.loss is not None and _loss(user_settings.loss, task) != _loss(recipe.loss, task):
        without += settings.names(settings.LossOptions)
    resolved = settings.resolve(user_settings, recipe, without=without)
    rate = optimizers.default_learning_rate(resolved.optimizer)
    resolved = settings.resolve(resolved, Settings(schedule="constant", learning_rate=rate))
    check(task, resolved)
    return resolved


def differs_from_preset(task: Task, resolved: Settings) -> dict[str, Any]:
    """Returns the settings that decide the result and differ from those of the preset, with the preset's values."""
    of_preset = Settings(task=task.name, preset=resolved.preset, pretrained=resolved.pretrained)
    preset, identity = settings.identity(with_recipe(task, of_preset)), settings.identity(resolved)
    return {name: preset[name] for name in sorted(identity) if preset[name] != identity[name]}


def check(task: Task, resolved: Settings) -> None:
    """Checks everything about resolved settings that can be checked before data is read."""
    for name in settings.required():
        if getattr(resolved, name) is None:
            raise InputError(f"the settings have no {name}, which every run needs.")
    pretrained.check(resolved)
    if resolved.pretrained is None and resolved.model not in task.models:
        raise unknown_name(f"model of {task.name}", str(resolved.model), task.models)
    problems.get(task.problem).check_settings(resolved)
    ranges.check(settings.select(resolved, Settings), flag)
    for name, (group, takes) in options(task).items():
        chosen = getattr(resolved, name)
        if chosen not in takes:
            raise unknown_name(name, chosen, takes)
        for option in settings.select(resolved, group):
            if option not in takes[chosen]:
                others = [other for other in takes if option in takes[other]]
                flags = [flag(each) for each in settings.names(group) if each in takes[chosen]]
                raise InputError(
                    f"{flag(name)} {chosen} takes no {flag(option)}{', which is for ' * bool(others)}{listed(others)}. "
                    f"It takes: {', '.join(flags) or 'none'}."
                )


def options(task: Task) -> dict[str, tuple[type, dict[str, set[str]]]]:
    """The options of losses, optimizers and schedules, by the setting that chooses one: all, and those of each choice.

    >>> _, takes = options(tasks.get("fashion_mnist"))["optimizer"]
    >>> "momentum" in takes["sgd"], "momentum" in takes["adam"]
    (True, False)
    """
    fitting = {name: losses.find(name, task.first_problem) for name in losses.names(task.first_problem)}
    of_losses = losses.Options if task.first_problem == "multiclass" else losses.SigmoidOptions
    groups: dict[str, tuple[type, Mapping[str, Callable[..., Any]], Collection[str]]] = {
        "loss": (settings.LossOptions, fitting, of_losses.__annotations__),
        "optimizer": (settings.OptimizerOptions, optimizers.OPTIMIZERS, optimizers.Options.__annotations__),
        "schedule": (settings.ScheduleOptions, optimizers.SCHEDULES, ()),
    }
    return {
        name: (group, {one: {*inspect.getfullargspec(make).kwonlyargs, *common} for one, make in known.items()})
        for name, (group, known, common) in groups.items()
    }


def load(task: Task, resolved: Settings, *, say: Callable[[str], None] = print) -> tuple[Dataset, Splits]:
    """Loads a data set, checks its labels, and divides it."""
    with clock(f"reading the data of {task.name}", say):
        dataset = task.load(resolved)
    say(describe(dataset))
    splits = split(task, resolved, dataset)
    # The training examples of a split are copies; those that they were taken from need not stay in memory.
    return dataset._replace(train=splits.train, validation=splits.validation), splits


def split(task: Task, resolved: Settings, dataset: Dataset) -> Splits:
    """Checks the labels, and takes validation examples from the training ones if the data set has none."""
    problem = check_labels(task, dataset)
    location = dataset.provenance.location
    with error_context(location):
        if dataset.validation is None:
            rows = task.split(dataset.train, resolved.validation_fraction, seed=split_seed(resolved))
            train, validation = (dataset.train.take(chosen) for chosen in rows)
        else:
            train, validation = dataset.train, dataset.validation
        problem.check_learnable(train, validation)
    return Splits(train, validation, dataset.test)


def check_labels(task: Task, dataset: Dataset) -> problems.Problem:
    """Checks the labels of a data set, and returns the problem that they pose."""
    problem = problems.get(task.problem, dataset.class_names)
    location = dataset.provenance.location
    for name, one in (("training", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        if one is None:
            continue
        if not one.num_examples:
            raise InputError(f"{location}: there is no {name} example in {dataset.name}.")
        with error_context(f"{location}: {name} examples"):
            problem.check_labels(one)
    return problem


def split_seed(resolved: Settings) -> int:
    """Returns the seed of the validation split or the folds."""
    return resolved.seed if resolved.split_seed is None else resolved.split_seed


def preprocess(preprocessor: Preprocessor, one: Split) -> Examples:
    """Returns a split as arrays with sample weights."""
    return examples(preprocessor.transform(one.inputs), one.labels, one.sample_weight)


def label_counts(resolved: Settings, one: Split) -> bytes:
    """Returns the training labels of each class where the program of a step contains weights from them."""
    weighted = resolved.class_weight in (("balanced",), ("effective",)) or resolved.loss == "weighted_crossentropy"
    if not weighted and resolved.loss != "logit_adjusted_cross_entropy":
        return b""
    values, counts = np.unique(one.labels, return_counts=True, axis=None if one.labels.ndim == 1 else 0)
    return values.tobytes() + counts.tobytes()


def rare_class(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Says what to do where a class has less than a third of its share, in a line, or none.

    >>> rare_class(np.repeat([0, 1, 2], [5, 80, 15]), ["hate", "offensive", "neither"])
    ["5% of the training examples are 'hate': accuracy hardly counts them; --class-weight balanced does, for macro F1"]
    """
    shares = np.bincount(labels, minlength=len(class_names)) / len(labels)
    rarest = int(shares.argmin())
    if shares[rarest] >= 1 / (3 * len(class_names)):
        return []
    share, name = f"{shares[rarest]:.0%} of the training examples are", class_names[rarest]
    return [f"{share} {name!r}: accuracy hardly counts them; --class-weight balanced does, for macro F1"]


def unfamiliar(preprocessor: Preprocessor | None, inputs: PyTree) -> list[str]:
    """Says how inputs differ from those that the preprocessor was fitted on, one line each."""
    one = first(preprocessor)
    return one.unfamiliar(inputs) if isinstance(one, tables.TablePreprocessor) else []


def build_model(
    task: Task, resolved: Settings, preprocessor: Preprocessor, num_classes: int, *, variable_dropout: bool = False
) -> Model:
    """Builds the model of resolved settings, with this number of logits.

    Args:
      variable_dropout: see :func:`jaxcls.models.layers.with_variable_rates`.
    """
    maker = task.models[resolved.model]
    accepted = inspect.signature(getattr(maker, "func", maker).__init__).parameters
    if not accepted.keys() >= preprocessor.model_arguments.keys():
        raise InputError(f"--model {resolved.model} of {task.name} takes other inputs than the preprocessor returns.")
    with error_context(f"--model {resolved.model}"):

        def module(rngs: nnx.Rngs) -> nnx.Module:
            return maker(
                num_classes=num_classes,
                dropout=resolved.dropout,
                dtype=jnp.dtype(resolved.dtype),
                rngs=rngs,
                **preprocessor.model_arguments,
            )

        return functional(with_variable_rates(module) if variable_dropout else module, remat=resolved.remat)


def _loss(name: str, task: Task) -> tuple[Any, bool]:
    """Returns what a name of a loss means: the function, and whether it has class weights."""
    return losses.find(name, task.first_problem), name == "weighted_crossentropy"


def updates(resolved: Settings, count: int) -> int:
    """Returns the updates of an epoch of this many examples; with gradient accumulation, several batches make one."""
    return steps_per_epoch(count, resolved.batch_size * (resolved.gradient_accumulation_steps or 1))


def _schedule(resolved: Settings, count: int) -> optax.Schedule:
    total = resolved.epochs * updates(resolved, count)
    return optimizers.schedule(
        resolved.schedule,
        learning_rate=resolved.learning_rate,
        total_steps=total,
        warmup_steps=round((resolved.warmup or 0) * total),
        **settings.select(resolved, settings.ScheduleOptions),
    )
