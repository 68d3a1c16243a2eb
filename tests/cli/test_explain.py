"""`jaxcls explain`: from the command line to the report."""

import json

import html5lib
import numpy as np
import pytest
import small_data

from jaxcls.cli.main import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    texts = folder / "texts.csv"
    rows = [f"{word} film {number},{label}" for number in range(40) for word, label in (("good", "yes"), ("bad", "no"))]
    texts.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    commands = {
        "rows": ["--task", "csv", "--model", "linear", "--epochs", "2"],
        "words": ["--task", "text_csv", "--data", str(texts), "--text-column", "text", "--label-column", "label"],
        "images": ["--task", "fashion_mnist", "--model", "mlp", "--epochs", "1", "--data-dir",
                   str(small_data.write(folder / "images"))],
    }  # fmt: skip
    for name, options in commands.items():
        assert main(["train", *options, "--run-dir", str(folder / name), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize("name", ["rows", "words", "images"])
def test_examples_are_explained_in_the_report(runs, name, capsys):
    output = runs / f"{name}.json"
    command = ["explain", "--run-dir", str(runs / name), "--rows", "1", "0", "--output", str(output)]
    assert main(command) == 0
    record = json.loads(output.read_text(encoding="utf-8"))
    assert [one["row"] for one in record["examples"]] == [1, 0]
    for one in record["examples"]:
        assert 0 < one["confidence"] <= 1
    page = (runs / name / "report.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(page)
    assert 'id="explanations"' in page
    assert "saved in" in capsys.readouterr().out


def test_the_words_that_decide_are_named(runs, capsys):
    new = runs / "new.csv"
    new.write_text("text\na good film\na bad film\n", encoding="utf-8")
    assert (
        main(["explain", "--run-dir", str(runs / "words"), "--input", str(new), "--output", str(runs / "new.json")])
        == 0
    )
    good, bad = json.loads((runs / "new.json").read_text(encoding="utf-8"))["examples"]
    for explanation, word in ((good, "good"), (bad, "bad")):
        [*words] = explanation["why"]["words"]
        assert max(words, key=lambda pair: pair[1])[0] == word


def test_columns_add_up_to_the_logit_and_their_importance_is_sorted(runs, capsys):
    command = ["explain", "--run-dir", str(runs / "rows"), "--rows", "0", "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    increases = [one["increase"] for one in record["importance"]]
    assert increases == sorted(increases, reverse=True)
    assert len(increases) == len(record["examples"][0]["why"]["columns"]) == 13
    assert np.isfinite(record["examples"][0]["why"]["base"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "99999"], "there is no row 99999; the test examples are numbered 0 to"),
        (["--rows", "0", "--input", "x.csv"], "give either --input or --rows"),
        (["--split", "train"], "give --rows"),
        (["--rows", "0", "--method", "grad_cam"], "the model has no feature map"),
    ],
)
def test_what_cannot_be_explained_is_refused(runs, options, message, capsys):
    assert main(["explain", "--run-dir", str(runs / "images"), *options]) == 2
    assert message in capsys.readouterr().err
