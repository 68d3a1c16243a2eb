"""Examine a training step that was saved because it was not finite.

Prints the output of each layer, and the first value that is not finite. The exit
status is 1 if there is one.

Examples:
    jaxcls replay runs/fashion_mnist-1a2b3c4d/debug/step-000012.npz
"""

import dataclasses
from pathlib import Path

from jaxcls._utils.errors import InputError, listed
from jaxcls._utils.text_table import text_table
from jaxcls.cli import console


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    file: Path = dataclasses.field(metadata={"positional": True})
    """file that training with --debug saved"""


def run(options: Options) -> int:
    import jax

    from jaxcls.tasks import build
    from jaxcls.training import debugging
    from jaxcls.training.settings import from_record

    record = debugging.read_record(options.file)
    if "settings" not in record:
        raise InputError(
            f"{options.file} was saved by a program that uses jaxcls.compile: examine it there, with compiled.replay()."
        )
    settings = from_record(record["settings"], where=str(options.file))
    # The data is read as well: class weights come from the training examples.
    built = build.build(settings, say=console.say)
    shapes = jax.eval_shape(lambda: build.one_batch(built.train, built.settings.batch_size))
    state, batch = debugging.load(options.file, built.experiment.state_shapes, shapes)
    finding = debugging.examine(built.experiment, state, batch)
    console.say(f"\n{text_table(debugging.layers(built.experiment, state, batch), left=2)}\n")
    console.say(f"step {int(state.step)}: {finding or 'everything is finite'}")
    if rows := record.get("rows"):
        console.say(f"rows of the training examples: {listed(rows)}")
    return 0 if finding is None else console.FAILED
