"""What the README tells its reader to type is what is run."""

import re
from pathlib import Path

from jaxcls import tasks
from jaxcls.cli import train
from jaxcls.training import program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_examples_of_the_library_run():
    assert blocks("python")
    for block in blocks("python"):
        exec(block, {})


def test_the_cheat_sheet_names_what_its_commands_do():
    rows = re.findall(r"^\| (\w+-?\w*)[^|]* \| `(\w+)` \| `(\w+)` \| `(--task [^`]*)` \|$", README, re.MULTILINE)
    assert len(rows) >= 8
    for problem, loss, optimizer, flags in rows:
        given = train._parse(flags.split())
        task = tasks.get(given.task)
        resolved = program.resolve(task, given)
        assert (task.problem, resolved.loss, resolved.optimizer) == (problem.replace("-", ""), loss, optimizer), flags


def test_the_files_that_it_links_to_are_there_and_its_anchors_are_headings():
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link
    assert (ROOT / "experiments" / "report.png").stat().st_size < 300_000


def test_ci_runs_the_test_command_of_the_readme():
    shown = re.findall(r"<!-- test command -->\s*```sh\n(.*)\n```", README)
    assert len(shown) == 1, "the README shows its test command, on one line, below its marker"
    run = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert shown[0] in run
