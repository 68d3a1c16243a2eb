"""What the README tells its reader to type is what is run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_examples_of_the_library_run():
    assert blocks("python")
    for block in blocks("python"):
        exec(block, {})


def test_ci_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"<!-- test command -->\s*```sh\n(.*)\n```", readme)
    assert len(shown) == 1, "the README shows its test command, on one line, below its marker"
    run = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert shown[0] in run
