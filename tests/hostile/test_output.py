"""Untrusted names and texts become no formula, no markup and no terminal control sequence in what is written."""

import copy
import csv
import dataclasses
import json
import os
import subprocess
import sys

import html5lib
import made_records
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcls._utils import escaping
from jaxcls._utils.errors import InputError
from jaxcls.cli import console
from jaxcls.data import predictions
from jaxcls.data.formats import columns, tables
from jaxcls.export import loader
from jaxcls.reports import html_report

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", "\N{FULLWIDTH EQUALS SIGN}1"]
TEXTS = ["", "a=b", "cat", "-1.5", "+3", "-.5e-3", "1", "'=1", " =1", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
MARKUP = """"><script>alert(1)</script><img src=x onerror=alert(1)>' onload='x"""
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r\ud800"


def written(path, columns, **options):
    tables.write_csv(path, columns, **options)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_formulas_are_written_as_text(tmp_path):
    ids, names = FORMULAS + TEXTS, ["=cmd|' /C calc'!A0", "dog"]
    scores = np.linspace(0, 1, len(ids))
    columns = predictions.columns(np.array(ids, object), scores, 0.5, "binary", names)
    header, *rows = written(tmp_path / "x.csv", {**columns, "=2": -scores}, for_spreadsheets=True)
    assert header == ["id", "predicted", "probability_dog", "'=2"]
    assert [row[0] for row in rows] == ["'" + name for name in FORMULAS] + TEXTS
    assert {row[1] for row in rows} == {"'" + names[0], "dog"}
    # Numbers stay numbers.
    assert [float(row[3]) for row in rows] == (-scores).tolist()


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_only_cells_that_begin_like_a_formula_are_changed(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "texts.csv"
    _, *rows = written(path, {"text": texts, "other": [0] * len(texts)}, for_spreadsheets=True)
    for text, (cell, _) in zip(texts, rows, strict=True):
        assert cell == ("'" + text if columns.is_formula(text) else text)
        if cell[:1] in set("=+-@\t\r\n"):
            float(cell)


def test_the_exported_loader_writes_no_formula(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "__file__", str(tmp_path / "loader.py"))
    record = {"preprocessor": {"type": "texts"}, "class_names": ["=1+1", "b"], "problem": "binary", "thresholds": 0.5}
    model = loader.Model(record | {"synthetic": False}, {}, ())
    monkeypatch.setattr(loader, "load", lambda folder: model)
    monkeypatch.setattr(loader.Model, "predict", lambda self, inputs, batch_size: np.array([0.25, 0.75]))
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    assert loader.main(["--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.csv")]) == 0
    assert [line.split(",")[1] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == ["'=1+1", "b"]


@pytest.mark.parametrize("text", FORMULAS + TEXTS)
def test_the_exported_loader_detects_the_same_formulas(text):
    assert (loader._no_formula(text) != text) == columns.is_formula(text)


def test_an_array_that_declares_more_than_it_holds_takes_no_memory(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 28, 28), }\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(loader.ExportError, match=r"x\.npy: cannot be read"):
        loader._read(tmp_path / "x.npy", {"type": "images"})


def marked(value):
    """The record with markup added to every text, including keys."""
    if isinstance(value, dict):
        return {marked(name) if len(name) < 2 else name: marked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return value + MARKUP if isinstance(value, str) else value


@pytest.mark.parametrize("kind", ["images", "texts", "tables"])
@pytest.mark.parametrize(
    ("problem", "names"), [("multiclass", [*"abc"]), ("multilabel", [*"abc"]), ("binary", [*"ab"])]
)
def test_no_text_of_a_record_becomes_markup_in_the_report(problem, names, kind):
    made = made_records.made(problem, kind=kind, names=names, rows=20, side=4)
    plain = json.loads(
        json.dumps(dataclasses.asdict(made) if dataclasses.is_dataclass(made) else made._asdict(), default=str)
    )
    changed = {name: marked(plain[name]) for name in ("config", "environment", "data", "summary", "results")}
    # These select code and are not printed.
    changed["results"]["problem"] = problem
    changed["summary"]["headline"] = plain["summary"]["headline"]
    for mistake, original in zip(changed["summary"]["mistakes"], plain["summary"]["mistakes"], strict=True):
        mistake["example"]["type"] = original["example"]["type"]
    html = html_report.render(made._replace(**changed))
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    elements = [element for element in tree.iter() if isinstance(element.tag, str)]
    assert not [element.tag for element in elements if element.tag in {"script", "iframe", "object", "embed", "a"}
                and element.get("href", "#")[0] != "#"]  # fmt: skip
    assert not [name for element in elements for name in element.attrib if name.startswith("on")]
    assert all(image.get("src").startswith("data:image/png;base64,") for image in tree.iter("img"))
    assert "alert(1)" in html


def test_the_comparison_report_escapes_texts(tmp_path):
    runs = [made_records.made(path=tmp_path / f"{MARKUP.replace('/', '')}{seed}", seed=seed) for seed in (0, 1)]
    runs = [
        run._replace(config=copy.deepcopy(run.config) | {"model": MARKUP + str(run.config["seed"])}) for run in runs
    ]
    html = html_report.render_comparison(runs)
    assert "<script" not in html
    assert "<img" not in html


@settings(max_examples=300)
@given(st.text())
def test_escaped_text_has_no_control_characters(text):
    shown = escaping.text(text)
    assert not [c for c in shown if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]
    shown.encode()
    assert "\n" not in escaping.line(text)
    if text.isascii() and text.isprintable():
        assert shown == text


def test_errors_and_tables_print_no_control_characters(capsys):
    def command():
        console.say("read " + ESCAPES)
        raise InputError(f"{ESCAPES}: wrong")

    assert console.exit_status(command) == 2
    output = "".join(capsys.readouterr())
    assert "\x1b" not in output
    assert "\\x1b[2J" in output
    values = {"support": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0, "roc_auc": None}
    forged = "cat\n  accuracy                     0.9999"
    report = {"synthetic": True, "examples": 1, "metrics": {}, "labels": {forged: values, ESCAPES: values}}
    assert "\x1b" not in console.table(report, "test")
    assert len(console.table(report, "test").splitlines()) == 7


def test_a_long_name_is_truncated():
    assert len(escaping.line("x" * 10_000)) < 300
    assert "and 9,800 more characters" in escaping.line("x" * 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["train", "predict"])
def test_help_into_a_closed_pipe_ends_quietly(module):
    code = f"import sys; from jaxcls.cli import main; sys.exit(main.main(['{module}', '--help']))"
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait() == console.PIPE_CLOSED
    done.stderr.close()


def test_characters_that_the_terminal_cannot_show_are_escaped():
    code = "from jaxcls.cli import console; console.exit_status(lambda: console.say('caf\\xe9') or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, text=True
    )
    assert (done.stdout, done.stderr) == ("caf\\xe9\n", "")
