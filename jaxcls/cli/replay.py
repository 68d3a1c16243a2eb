"""jaxcls replay: looks again at a step that --debug kept, layer by layer.

jaxcls replay runs/fashion_mnist-1a2b3c4d/debug/step-000012.npz
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.cli import console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """Look again at a step that was not finite; a step of a program's own is looked at by its `compiled.replay`."""

    file: tyro.conf.Positional[Path]
    """The file that --debug named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 1 where the step is still not finite."""
    return console.exit_status(lambda: _run(tyro.cli(Replay, args=arguments, prog="jaxcls replay")))


def _run(asked: Replay) -> int:
    # From here on jax is needed, and --help is answered.
    environment.configure()
    import jax

    from jaxcls.training import debugging, program
    from jaxcls.training.settings import from_record

    record = debugging.record_of(asked.file)
    if "settings" not in record:
        raise InputError(f"{asked.file} was kept by a program of yours: give it to replay() of what compile() gave.")
    given = from_record(record["settings"], where=str(asked.file))
    # Class weights come from the training examples.
    functions = program.of(given, say=console.say)
    state, batch = debugging.load(asked.file, jax.eval_shape(lambda: functions.state), functions.batch)
    found = debugging.examine(functions.parts, state, batch)
    console.say(f"\n{debugging.layers(functions.parts, state, batch)}\n")
    console.say(f"step {int(state.step)}: {found or 'everything is finite'}")
    if rows := record.get("rows"):
        console.say(f"rows of the training examples: {_some(rows)}")
    return 0 if found is None else console.FAILED


def _some(rows: Sequence[int], most: int = 10) -> str:
    """The first of them, and how many there are.

    >>> _some([3, 5]), _some(range(12), most=2)
    ('3, 5', '0, 1 and 10 more, 12 in all')
    """
    more = f" and {len(rows) - most:,} more, {len(rows):,} in all" if len(rows) > most else ""
    return f"{', '.join(map(str, rows[:most]))}{more}"
