"""Ensembles: one experiment whose scores are the weighted mean of the probabilities of several trained members.

>>> import jax, numpy as np
>>> import jaxcls
>>> from flax import nnx
>>> compiled = jaxcls.compile(lambda rngs: nnx.Linear(2, 3, rngs=rngs), loss="sparse_categorical_crossentropy")
>>> states = [compiled.init(seed) for seed in (0, 1)]
>>> both = ensemble([compiled], [0, 0], weights=[3, 1])
>>> scores = both.predict(state(both, states), np.ones((1, 2), np.float32))
>>> each = [compiled.predict(one, np.ones((1, 2), np.float32)) for one in states]
>>> bool(np.allclose(scores, 0.75 * each[0] + 0.25 * each[1]))
True
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcls._utils.errors import InputError
from jaxcls.data.preprocessing.ensemble import EnsemblePreprocessor
from jaxcls.models import Model
from jaxcls.training import objective as objectives
from jaxcls.training import settings
from jaxcls.training.experiment import Experiment
from jaxcls.training.objective import Objective, OutputSpec
from jaxcls.training.steps import TrainState, evaluated_weights

PyTree = Any
# "params" and "model_state".
Weights = Mapping[str, PyTree]


class Member(NamedTuple):
    """A member of an ensemble.

    Attributes:
      name: such as 'fold1-seed0'.
      weight: its share of the mean; those of all members add up to 1.
      experiment: the experiment that it was trained by, or one with the same model and preprocessor.
    """

    name: str
    weight: float
    experiment: Experiment


class EnsembleModel(Model):
    """The model of an ensemble. Its outputs are logits of the weighted mean of the members' probabilities.

    Members whose experiments compile to the same program are a group: their weights are stacked, as
    ``params[str(group)]`` and ``model_state[str(group)]``, and one program computes one member after the other. Frozen
    weights of a pretrained encoder, which all members have in common, are stored once.

    Attributes:
      members: those that count, in their order.
      counted: their indices among all that :func:`ensemble` was given, where some had the weight 0.
      preprocessor_of: of each, the index of its preprocessor among the distinct ones, in the order of the members.
    """

    members: tuple[Member, ...]
    counted: tuple[int, ...]
    preprocessor_of: tuple[int, ...]
    _groups: tuple["_Group", ...]

    def stack(self, weights: Sequence[Weights]) -> dict[str, PyTree]:
        """Returns the weights of the ensemble.

        Args:
          weights: "params" and "model_state" of all members that :func:`ensemble` was given, in that order.
        """
        counted = [weights[index] for index in self.counted]
        stacked: dict[str, PyTree] = {"params": {}, "model_state": {}}
        for number, group in enumerate(self._groups):
            members = [counted[i] for i in group.members]
            stacked["params"][str(number)] = jax.tree.map(_stacked, *[one["params"] for one in members])
            stacked["model_state"][str(number)] = group.map_state(
                lambda *leaves: jnp.asarray(leaves[0]), _stacked, *[one["model_state"] for one in members]
            )
        return stacked

    def unstack(self, weights: Weights) -> list[dict[str, PyTree]]:
        """Returns "params" and "model_state" of each of :attr:`members`, from the weights of the ensemble."""
        each: list[Any] = [None] * len(self.members)
        for number, group in enumerate(self._groups):
            params, model_state = (weights[part][str(number)] for part in ("params", "model_state"))
            for row, member in enumerate(group.members):
                of_member = functools.partial(_row, row)
                each[member] = {
                    "params": jax.tree.map(of_member, params),
                    "model_state": group.map_state(_unchanged, of_member, model_state),
                }
        return each

    def record(self) -> list[dict[str, Any]]:
        """Returns JSON values of the members: name, weight, index of the preprocessor, and settings of its own."""
        common, *_ = each = [architecture(member.experiment.settings) for member in self.members]
        return [
            {
                "name": member.name,
                "weight": member.weight,
                "preprocessor": index,
                "settings": {name: one.get(name) for name in {**common, **one} if one.get(name) != common.get(name)},
            }
            for member, index, one in zip(self.members, self.preprocessor_of, each, strict=True)
        ]


class _Group(NamedTuple):
    """Members that one program computes.

    Attributes:
      experiment: of the first one.
      members: their indices.
      encoders: of each, the index of the encoder of its inputs.
    """

    experiment: Experiment
    members: tuple[int, ...]
    encoders: tuple[int, ...]

    def map_state(self, common: Any, others: Any, *model_states: PyTree) -> PyTree:
        """Maps a function over the leaves of model states that all members have in common, and one over the others."""
        frozen = self.experiment.constant_leaves

        def one(path: Any, *leaves: Any) -> Any:
            return (common if f".model_state{jax.tree_util.keystr(path)}" in frozen else others)(*leaves)

        return jax.tree.map_with_path(one, *model_states)


def ensemble(
    experiments: Sequence[Experiment],
    experiment_of: Sequence[int],
    weights: Sequence[float] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> Experiment:
    """Returns the experiment whose scores are the weighted mean of its members' probabilities.

    It evaluates and predicts, and does not train. Its state is made by :func:`state`, its weights by
    :meth:`EnsembleModel.stack`. Give members of the same model one experiment, or copies of it with other
    preprocessors (``dataclasses.replace``): only experiments of tasks are recognized as equal otherwise.

    Args:
      experiments: distinct ones, of one problem and the same classes; one for each preprocessor or model.
      experiment_of: of each member, the index of its experiment.
      weights: one per member, not negative; equal by default. Members of weight 0 are left out.
      names: of the members, all different; 'member0', 'member1', ... by default.

    Raises:
      InputError: there is no member, the weights are invalid, the experiments are of different problems or classes, or
        they have no probabilities to average, as detectors.
    """
    shares = np.ones(len(experiment_of)) if weights is None else np.asarray(weights, np.float64)
    names = [f"member{number}" for number in range(len(experiment_of))] if names is None else names
    _check(experiments, experiment_of, shares, names)
    counted = tuple(np.flatnonzero(shares).tolist())
    if abs(shares.sum() - 1) > 1e-9:  # those that were divided before keep their bits
        shares = shares / shares.sum()
    members = tuple(Member(names[i], float(shares[i]), experiments[experiment_of[i]]) for i in counted)
    first = members[0].experiment

    fitted_to, program = ({i: of(experiments[i]) for i in {*experiment_of}} for of in (_fitted, _program))
    fitted = [fitted_to[experiment_of[i]] for i in counted]
    distinct = {key: member.experiment.preprocessor for key, member in zip(fitted, members, strict=True)}
    preprocessor_of = tuple(map([*distinct].index, fitted))
    preprocessor: Any = first.preprocessor
    if len(distinct) > 1:
        preprocessor = EnsemblePreprocessor(tuple(distinct.values()))  # type: ignore[arg-type]
    encoder_of = preprocessor.encoder_of if len(distinct) > 1 else (0,)

    by_program: dict[Any, list[int]] = {}
    for number, i in enumerate(counted):
        by_program.setdefault(program[experiment_of[i]], []).append(number)
    groups = tuple(
        _Group(
            members[numbers[0]].experiment,
            tuple(numbers),
            tuple(encoder_of[preprocessor_of[number]] for number in numbers),
        )
        for numbers in by_program.values()
    )
    model = EnsembleModel(functools.partial(_init, groups), _apply(members, groups, preprocessor, first.objective))
    model.members, model.counted, model.preprocessor_of, model._groups = members, counted, preprocessor_of, groups
    made = Experiment(
        model=model,
        objective=first.objective,
        optimizer=optax.identity(),
        buckets=first.buckets if preprocessor is None else preprocessor.buckets,
        eval_batch_size=first.eval_batch_size,
        class_names=first.class_names,
        preprocessor=preprocessor,
        settings=first.settings,
    )
    made._class_weights.update(first._class_weights)
    return made


def state(experiment: Experiment, states: Sequence[TrainState]) -> TrainState:
    """Returns the state of an ensemble, with the weights of its members that are evaluated.

    Args:
      experiment: from :func:`ensemble`.
      states: of all its members, in their order.
    """
    step = max(int(one.step) for one in states)
    return state_of_weights(experiment, [*map(evaluated_weights, states)], step)._replace(key=states[0].key)


def state_of_weights(experiment: Experiment, weights: Sequence[Weights], step: int) -> TrainState:
    """Returns the state of an ensemble from the "params" and "model_state" of all its members, in their order."""
    model: Any = experiment.model
    return TrainState(jnp.int32(step), jax.random.key(0), **model.stack(weights), opt_state=optax.EmptyState())


def _check(
    experiments: Sequence[Experiment], experiment_of: Sequence[int], weights: np.ndarray, names: Sequence[str]
) -> None:
    count = len(experiment_of)
    if not count or not {*experiment_of} <= {*range(len(experiments))}:
        raise InputError(f"experiment_of is {[*experiment_of]}; give the index of an experiment for each member.")
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise InputError(f"the weights are {weights}; give {count} numbers, not negative and one above 0.")
    if len(names) != count or len({*names}) < count:
        raise InputError(f"the names of the members are {', '.join(names)}; give {count} different ones.")
    first = experiments[experiment_of[0]]
    problem: Any = objectives.problems(first.objective)
    if any(spec.problem == "detection" or spec.scores is not None for _, spec in objectives.specs(first.objective)):
        raise InputError(
            "an ensemble is the mean of the probabilities of its members, and a detector has none to average: use its "
            "best member."
        )
    for index in {*experiment_of}:
        other = experiments[index]
        if objectives.problems(other.objective) != problem or other.class_names != first.class_names:
            raise InputError("the members of an ensemble must be of one problem and have the same classes.")


def _fitted(experiment: Experiment) -> str:
    """Returns what distinguishes the preprocessors of experiments."""
    return "" if experiment.preprocessor is None else json.dumps(experiment.preprocessor.as_record(), sort_keys=True)


def architecture(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a task's record from which, with the preprocessor, the model and its scores follow."""
    names = ("task", "preset", *settings.names(settings.ModelSettings), *settings.names(settings.FineTuningSettings))
    return {name: record[name] for name in names if record.get(name) is not None}


def _program(experiment: Experiment) -> Any:
    """Returns what decides the compiled prediction: equal for experiments whose members can be computed by one."""
    preprocessor = experiment.preprocessor
    if preprocessor is None:
        return experiment.model.apply, experiment.preprocess, *experiment.tta
    chosen = architecture(experiment.settings)
    # Its rate changes no prediction.
    chosen["dropout"] = bool(chosen.get("dropout"))
    return json.dumps(chosen), preprocessor.program, str(preprocessor.shapes(1))


def _init(groups: Sequence[_Group], key: jax.Array) -> tuple[PyTree, PyTree]:
    """Initial weights, for their shapes: those of an ensemble come from its members."""
    params, model_state = {}, {}
    for number, group in enumerate(groups):
        keys = jax.random.split(jax.random.fold_in(key, number), len(group.members))
        params[str(number)], state = jax.vmap(group.experiment.model.init)(keys)
        model_state[str(number)] = group.map_state(functools.partial(_row, 0), _unchanged, state)
    return params, model_state


def _unchanged(leaf: Any) -> Any:
    return leaf


def _row(row: int, leaf: Any) -> Any:
    return leaf[row]


def _stacked(*leaves: Any) -> jax.Array:
    return jnp.stack(leaves)


def _apply(members: Sequence[Member], groups: Sequence[_Group], preprocessor: Any, objective: Objective) -> Any:
    shares = np.array([member.weight for member in members], np.float32)

    def of_group(group: _Group, params: PyTree, model_state: PyTree, arrays: Sequence[PyTree]) -> PyTree:
        """Returns the logarithm of the probabilities times the shares, summed over the members of a group."""
        logs = np.log(shares[[*group.members]])
        used = [*dict.fromkeys(group.encoders)]
        if len(group.members) == 1:
            only = functools.partial(_row, 0)
            of_member = jax.tree.map(only, params), group.map_state(_unchanged, only, model_state)
            first = log_probabilities(objective, group.experiment, of_member[0], of_member[1], arrays[used[0]])
            return jax.tree.map(lambda log: log + logs[0], first)
        # Only inputs that are encoded differently are stacked, once for each member.
        encoded = [arrays[encoder] for encoder in group.encoders]
        stacked = jax.tree.map(_stacked, *encoded) if len(used) > 1 else None
        varying = group.map_state(lambda leaf: None, _unchanged, model_state)

        def one(member: tuple[PyTree, PyTree, jax.Array, PyTree]) -> PyTree:
            inputs = arrays[used[0]] if stacked is None else member[3]
            leaves = iter(jax.tree.leaves(member[1]))
            of_member = group.map_state(_unchanged, lambda leaf: next(leaves), model_state)
            logs_of_member = log_probabilities(objective, group.experiment, member[0], of_member, inputs)
            return jax.tree.map(lambda leaf: leaf + member[2], logs_of_member)

        each = jax.lax.map(one, (params, varying, logs, stacked))
        return jax.tree.map(lambda leaf: _log_sum_exp(leaf), each)

    def apply(params: PyTree, model_state: PyTree, inputs: PyTree, *, key: Any = None) -> tuple[PyTree, PyTree]:
        if key is not None:
            raise InputError("an ensemble is not trained: train its members.")
        arrays = preprocessor.arrays(inputs) if isinstance(preprocessor, EnsemblePreprocessor) else [inputs]
        each = [
            of_group(group, params[str(number)], model_state[str(number)], arrays)
            for number, group in enumerate(groups)
        ]
        total = each[0] if len(each) == 1 else jax.tree.map(lambda *logs: _log_sum_exp(jnp.stack(logs)), *each)
        return as_logits(objective, total), model_state

    return apply


def _log_sum_exp(logs: jax.Array) -> jax.Array:
    """The logarithm of the sum over the first axis, as of SciPy, in operations that ONNX infers the shapes of."""
    largest = logs.max(axis=0)
    return largest + jnp.log(jnp.exp(logs - largest[None]).sum(axis=0))


def _log_probabilities(objective: Objective, outputs: PyTree) -> PyTree:
    """Returns the logarithms of the probabilities of the classes, or of 0 and 1 of each label along a first axis."""
    if not isinstance(objective, OutputSpec):
        return {name: _log_probabilities(spec, outputs[name]) for name, spec in objective.items()}
    if objective.problem == "multiclass":
        return jax.nn.log_softmax(outputs)
    return jnp.stack([jax.nn.log_sigmoid(-outputs), jax.nn.log_sigmoid(outputs)])


def log_probabilities(
    objective: Objective, experiment: Experiment, params: PyTree, model_state: PyTree, inputs: PyTree
) -> PyTree:
    """Returns the logarithms of a model's probabilities, the mean over the inputs and their test-time augmentation.

    As :func:`jaxcls.training.steps.make_prediction_step` averages them. See :func:`as_logits`.
    """
    views = [
        _log_probabilities(
            objective, experiment.model.apply(params, model_state, experiment.preprocess(view(inputs)))[0]
        )
        for view in (lambda inputs: inputs, *experiment.tta)
    ]
    if len(views) == 1:
        return views[0]
    return jax.tree.map(lambda *logs: _log_sum_exp(jnp.stack(logs)) - np.log(np.float32(len(logs))), *views)


def as_logits(objective: Objective, logs: PyTree) -> PyTree:
    """Returns logits of the probabilities that have these logarithms."""
    if not isinstance(objective, OutputSpec):
        return {name: as_logits(spec, logs[name]) for name, spec in objective.items()}
    return logs if objective.problem == "multiclass" else logs[1] - logs[0]
