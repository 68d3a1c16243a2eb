"""The check of names on the command line.

Importing a task imports JAX, which takes a second, so the names of tasks, presets and models are read from the source.
"""

import ast
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jaxcls
from jaxcls._utils.errors import flag, unknown_name
from jaxcls.training.settings import Loss, Settings, SigmoidLoss, SoftmaxLoss, value_type


def check(options: Any) -> None:
    """Refuses names that are not known, without importing JAX.

    Args:
      options: of any command.

    Raises:
      InputError: the message lists the known names.
    """
    # Where JAX is imported already, there may be other tasks, and checking them later takes no longer.
    if isinstance(options, Settings) and "jax" not in sys.modules:
        _check("task", options.task, known_tasks())
        presets, models, problem = known_of_task(options.task)
        _check("preset", options.preset, presets)
        _check(f"model of {options.task}", options.model, models)
        # The problem of a user's data follows from its labels.
        if options.data is None and isinstance(problem, str) and options.loss not in typing.get_args(Loss):
            _check("loss", options.loss, typing.get_args(SoftmaxLoss if problem == "multiclass" else SigmoidLoss))
        if options.monitor is not None and not options.monitor.endswith("loss"):
            from jaxcls import metrics

            metrics.direction(options.monitor)
    for name, hint in typing.get_type_hints(type(options)).items():
        if choices := value_type(hint)[1]:
            _check(flag(name), getattr(options, name), choices)


def known_tasks() -> list[str]:
    """The names of the tasks."""
    tasks: Any = _assigned("__init__")["TASKS"]
    return list(ast.literal_eval(tasks.generators[0].iter))


def known_of_task(name: str) -> tuple[list[str], list[str], Any]:
    """The presets, the models and the problem of a task."""
    call: Any = _assigned(name)["TASK"]
    task = {argument.arg: argument.value for argument in call.keywords}
    return _keys(task["presets"]), _keys(task["models"]), ast.literal_eval(task["problem"])


def _check(kind: str, name: str | None, known: Iterable[str]) -> None:
    if name is not None and name not in known:
        raise unknown_name(kind, name, known)


def _keys(expression: ast.expr) -> list[str]:
    """The keys of a dict that an expression in jaxcls.tasks makes."""
    match expression:
        case ast.Dict(keys):
            return [ast.literal_eval(key) for key in keys if key is not None]
        case ast.BinOp(left, ast.BitOr(), right):
            return list(dict.fromkeys([*_keys(left), *_keys(right)]))
        case ast.Attribute(ast.Name(module), name):
            return _keys(_assigned(module)[name])
    raise TypeError(f"jaxcls.tasks: line {expression.lineno} is not a dict of names")


def _assigned(module: str) -> dict[str, ast.expr]:
    """The expressions that a module of jaxcls.tasks assigns, by name."""
    source = (Path(jaxcls.__file__).parent / "tasks" / f"{module}.py").read_text(encoding="utf-8")
    expressions = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), value=ast.expr() as value):
                expressions[name] = value
    return expressions
