"""The README: its examples run, its commands are those of CI, and its links resolve."""

import re
from pathlib import Path

from jaxcls import tasks
from jaxcls.cli import train
from jaxcls.cli.arguments import parse
from jaxcls.tasks import build

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples_run():
    assert blocks("python")
    for block in blocks("python"):
        exec(block, {})


def test_cheat_sheet_matches_its_commands():
    rows = re.findall(r"^\| (\w+-?\w*)[^|]* \| `(\w+)` \| `(\w+)` \| `(--task [^`]*)` \|$", README, re.MULTILINE)
    assert len(rows) >= 8
    for problem, loss, optimizer, flags in rows:
        settings = parse(train, flags.split())
        task = tasks.get(settings.task)
        resolved = build.with_recipe(task, settings)
        assert (task.problem, resolved.loss, resolved.optimizer) == (problem.replace("-", ""), loss, optimizer), flags


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
