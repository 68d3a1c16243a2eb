"""The command line that predicts new examples, and writes what Kaggle takes."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_data
from idx_files import write_idx
from PIL import Image

from jaxcls.cli.main import main
from jaxcls.data.formats import idx, tables
from jaxcls.tasks import predictor

IMAGES = "t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def data_dir(fashion_run):
    return fashion_run[2]


@pytest.fixture(scope="module")
def image_run(fashion_run):
    return fashion_run[0].directory


@pytest.fixture(scope="module")
def leaf_run(small_run):
    return small_run("leaf")[0]


@pytest.fixture(scope="module")
def leaves(small_run):
    return small_run("leaf")[1]


def predicted(capsys, directory, input_file, output, *arguments):
    """The columns of the output, all as text, and what was printed."""
    arguments = ["--run-dir", directory, "--input", input_file, "--output", output, *arguments]
    assert main(["predict", *(str(word) for word in arguments)]) == 0, capsys.readouterr().err
    header = output.read_text().split("\n", 1)[0].split(",")
    return tables.read_csv(output, text=header), capsys.readouterr().out


def test_examples_unlike_those_of_the_training_are_told(image_run, data_dir, tmp_path, capsys):
    _, printed = predicted(capsys, image_run, data_dir / IMAGES, tmp_path / "same.csv")
    assert "differ" not in printed
    write_idx(tmp_path / "negative.gz", 255 - idx.read_idx(data_dir / IMAGES))
    _, printed = predicted(capsys, image_run, tmp_path / "negative.gz", tmp_path / "negative.csv")
    assert "negative.gz: the examples differ from those of the training: " in printed
    assert "brightness (0." in printed


def refused(capsys, *arguments):
    """The message with which a prediction ends that is not made."""
    assert main(["predict", *(str(word) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


def test_predictions_equal_those_of_the_test_in_training(image_run, data_dir, tmp_path, capsys):
    columns, printed = predicted(capsys, image_run, data_dir / IMAGES, tmp_path / "out.csv")
    learned = predictor.load(image_run)
    scores = learned.predict(idx.read_idx(data_dir / IMAGES)[..., None])
    assert list(columns) == ["id", "predicted", *(f"probability_{name}" for name in learned.class_names)]
    written = np.stack([columns[f"probability_{name}"].astype(float) for name in learned.class_names], axis=1)
    np.testing.assert_array_equal(written, scores.astype(np.float64))
    names = np.array(learned.class_names)
    np.testing.assert_array_equal(columns["predicted"], names[scores.argmax(axis=1)])
    assert columns["id"].tolist() == [str(row) for row in range(small_data.TEST)]
    assert printed == f"60 predictions by fashion_mnist, saved as {tmp_path / 'out.csv'}\n"
    _, printed = predicted(capsys, image_run, data_dir / IMAGES, tmp_path / "json.csv", "--json", "--quiet")
    assert json.loads(printed) == {
        "run_dir": str(image_run), "output": str(tmp_path / "json.csv"), "examples": 60, "synthetic": False,
    }  # fmt: skip


@pytest.mark.parametrize("task", ["leaf", "toxic_comment"])
def test_submission_has_the_format_of_the_sample(small_run, task, tmp_path, capsys):
    directory, folder = small_run(task)
    sample = folder / "sample_submission.csv"
    plain, _ = predicted(capsys, directory, folder / "test.csv", tmp_path / "out.csv")
    written, printed = predicted(
        capsys, directory, folder / "test.csv", tmp_path / "submission.csv", "--sample-submission", sample
    )
    assert "SYNTHETIC" not in printed, "--data-dir names real files"
    lines = (tmp_path / "submission.csv").read_bytes().split(b"\n")
    assert lines[0] == sample.read_bytes().split(b"\n")[0].rstrip(b"\r")
    expected = tables.read_csv(sample, text=["id"])
    assert list(written) == list(expected)
    assert written["id"].tolist() == expected["id"].tolist()
    scores = np.stack([written[name].astype(float) for name in list(expected)[1:]], axis=1)
    assert np.all((scores >= 0) & (scores <= 1))
    if task == "leaf":
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-12)
    order = {name: row for row, name in enumerate(plain["id"])}
    rows = [order[name] for name in written["id"]]
    for name in list(expected)[1:]:
        same = plain[f"probability_{name}"].astype(float)[rows]
        np.testing.assert_allclose(written[name].astype(float), same, rtol=1e-5, atol=1e-12)


def test_submission_has_the_ids_and_columns_of_the_sample_in_order(leaf_run, leaves, tmp_path, capsys):
    table = tables.read_csv(leaves / "sample_submission.csv", text=["id"])
    names = list(table)
    shuffled = {name: table[name][::-1] for name in [names[0], *reversed(names[1:])]}
    tables.write_csv(tmp_path / "sample.csv", shuffled)
    input_file = leaves / "test.csv"
    flag = ["--sample-submission", tmp_path / "sample.csv"]
    written, _ = predicted(capsys, leaf_run, input_file, tmp_path / "reversed.csv", *flag)
    flag = ["--sample-submission", leaves / "sample_submission.csv"]
    straight, _ = predicted(capsys, leaf_run, input_file, tmp_path / "straight.csv", *flag)
    assert list(written) == list(shuffled)
    for name, column in straight.items():
        np.testing.assert_array_equal(written[name], column[::-1])


def test_sample_submission_with_other_ids_is_refused(leaf_run, leaves, tmp_path, capsys):
    sample = (leaves / "sample_submission.csv").read_text().splitlines()
    last = sample[-1].split(",")[0]
    arguments = ["--run-dir", leaf_run, "--input", leaves / "test.csv", "--output", tmp_path / "out.csv"]
    for lines, message in [
        (sample[:-1], f"id {last!r}"),
        ([*sample, sample[-1].replace(last, "99999", 1)], "has the id '99999', which"),
        ([*sample, sample[-1]], f"of column 'id' is {last!r}, the same as row"),
        ([line.rpartition(",")[0] for line in sample], "has no column 'Acer_Opalus'"),
    ]:
        (tmp_path / "sample.csv").write_text("\n".join(lines) + "\n")
        assert message in refused(capsys, *arguments, "--sample-submission", tmp_path / "sample.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["sample.csv"], "nothing is left behind"


def test_existing_output_is_replaced_only_with_overwrite(image_run, data_dir, tmp_path, capsys):
    output = tmp_path / "out.csv"
    output.write_text("precious")
    arguments = ["--run-dir", image_run, "--input", data_dir / IMAGES, "--output", output]
    assert "exists; name another file" in refused(capsys, *arguments)
    assert output.read_text() == "precious"
    columns, _ = predicted(capsys, image_run, data_dir / IMAGES, output, "--overwrite")
    assert len(columns["id"]) == small_data.TEST
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_invalid_output_is_refused_before_any_work(image_run, data_dir, tmp_path, capsys):
    input_file = tmp_path / IMAGES
    input_file.write_bytes((data_dir / IMAGES).read_bytes())
    arguments = ["--run-dir", image_run, "--input", input_file, "--overwrite", "--output"]
    assert "would replace the --input" in refused(capsys, *arguments, input_file)
    assert "in an existing folder" in refused(capsys, *arguments, tmp_path / "missing" / "out.csv")
    assert "give the name of a file" in refused(capsys, *arguments, tmp_path)
    sample = ["--sample-submission", tmp_path / "sample.csv"]
    assert "would replace the --sample-submission" in refused(capsys, *arguments, tmp_path / "sample.csv", *sample)
    assert input_file.read_bytes() == (data_dir / IMAGES).read_bytes()


def test_unsuitable_input_is_refused(image_run, tmp_path, capsys):
    arguments = ["--run-dir", image_run, "--output", tmp_path / "out.csv", "--input"]
    assert "missing" in refused(capsys, *arguments, tmp_path / "missing")
    write_idx(tmp_path / "small", np.zeros((3, 14, 14), np.uint8))
    assert "shape (14, 14, 1); the training images have (28, 28, 1)" in refused(capsys, *arguments, tmp_path / "small")
    (tmp_path / "cut").write_bytes((tmp_path / "small").read_bytes()[:100])
    assert "cut" in refused(capsys, *arguments, tmp_path / "cut")
    assert not (tmp_path / "out.csv").exists()


def test_missing_run_is_refused(data_dir, tmp_path, capsys):
    arguments = ["--run-dir", tmp_path / "none", "--input", data_dir / IMAGES, "--output", tmp_path / "out.csv"]
    assert "holds no run" in refused(capsys, *arguments)


@pytest.mark.parametrize("name", ["config.toml", "data.json", "predictor.json", "SHA256SUMS"])
@pytest.mark.parametrize("content", ["{}", "[]", "", "\xff", None], ids=repr)
def test_run_with_changed_records_is_refused(image_run, data_dir, tmp_path, capsys, name, content):
    directory = shutil.copytree(image_run, tmp_path / "run")
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content, encoding="latin-1")
    arguments = ["--run-dir", directory, "--input", data_dir / IMAGES, "--output", tmp_path / "out.csv"]
    assert str(directory if content is None else directory / name) in refused(capsys, *arguments)
    assert not (tmp_path / "out.csv").exists()


def test_predict_as_a_process(image_run, data_dir, tmp_path):
    arguments = ["--run-dir", image_run, "--input", data_dir / IMAGES, "--output", tmp_path / "out.csv.gz"]
    done = subprocess.run([sys.executable, "-m", "jaxcls", "predict", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(tables.read_csv(tmp_path / "out.csv.gz")["id"]) == small_data.TEST


def test_ids_that_look_like_formulas_are_escaped_except_in_submissions(leaf_run, leaves, tmp_path, capsys):
    for name in ("test.csv", "sample_submission.csv"):
        table = tables.read_csv(leaves / name, text=["id"])
        table["id"][0] = "=1+1"
        tables.write_csv(tmp_path / name, table)
    written, printed = predicted(capsys, leaf_run, tmp_path / "test.csv", tmp_path / "out.csv")
    assert written["id"][0] == "'=1+1"
    assert "are written with a ' before them" in printed
    flag = ["--sample-submission", tmp_path / "sample_submission.csv"]
    written, printed = predicted(capsys, leaf_run, tmp_path / "test.csv", tmp_path / "submission.csv", *flag)
    assert written["id"][0] == "=1+1"
    assert "do not open it as a spreadsheet" in printed


def test_a_run_on_idx_files_predicts_image_files_and_folders(image_run, data_dir, tmp_path, capsys):
    pixels = idx.read_idx(data_dir / "t10k-images-idx3-ubyte.gz")[:3]
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name, image in zip(("a.png", "b.png", "more/c.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "images" / name)
    learned = predictor.load(image_run)
    examples = learned.read(tmp_path / "images")
    np.testing.assert_array_equal(examples.inputs[..., 0], pixels)
    assert examples.ids.tolist() == ["a.png", "b.png", "more/c.png"]
    np.testing.assert_array_equal(learned.read(tmp_path / "images" / "more" / "c.png").inputs[0, ..., 0], pixels[2])
    Image.fromarray(pixels[2]).convert("RGB").resize((56, 56), 0).save(tmp_path / "photo.jpg")
    output = tmp_path / "predicted.csv"
    assert (
        main(["predict", "--run-dir", str(image_run), "--input", str(tmp_path / "photo.jpg"), "--output", str(output)])
        == 0
    )
    assert output.read_text().splitlines()[1].startswith("photo.jpg,")
