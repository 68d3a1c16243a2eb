"""The README and the cheat sheet: examples run, commands are those of CI, links resolve, and the README stays short."""

import re
from pathlib import Path

import pytest

from jaxcls import tasks
from jaxcls.cli.arguments import parse
from jaxcls.cli.commands import Train
from jaxcls.tasks import build

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TASKS = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples_run():
    assert blocks("python")
    for block in blocks("python"):
        exec(block, {})


def test_cheat_sheet_matches_its_commands():
    rows = re.findall(r"^\| (\w+-?\w*)[^|]* \| `(\w+)` \| `(\w+)` \| `(--task [^`]*)` \|$", TASKS, re.MULTILINE)
    assert len(rows) >= 8
    for problem, loss, optimizer, flags in rows:
        settings = parse(Train, flags.split())
        task = tasks.get(settings.task)
        resolved = build.with_recipe(task, settings)
        assert (resolved.loss, resolved.optimizer) == (loss, optimizer), flags
        if isinstance(task.problem, str):
            assert problem.replace("-", "") in (task.problem, "object"), flags


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_the_first_pages_stay_short(name):
    assert len((ROOT / name).read_text(encoding="utf-8")) <= 8000


def test_every_task_is_in_the_table_of_tasks():
    assert not [name for name in tasks.TASKS if f"`{name}`" not in TASKS]


def test_links_and_anchors_resolve():
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link
    assert (ROOT / "experiments" / "report.png").stat().st_size < 300_000


def test_ci_runs_the_test_command():
    shown = re.findall(r"<!-- test command -->\s*```sh\n(.*)\n```", README)
    assert len(shown) == 1, "the README needs one line with the test command below its marker"
    run = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert shown[0] in run
