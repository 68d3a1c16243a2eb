"""Nothing outside the named folder is read or overwritten through a link, no reader blocks at a pipe, and nothing of a
run is executed."""

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import Prediction, RunRecords

import jaxcls
from jaxcls import tasks
from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import LOCK_FILE, CheckpointManager
from jaxcls.cli.main import main
from jaxcls.data.datasets import image_folders, object_detection, radiographs
from jaxcls.data.formats import boxes, coco, images, voc
from jaxcls.export import loader
from jaxcls.reports import run_directory
from jaxcls.tasks import predictor
from jaxcls.training.settings import Settings

OUT = "leads out of"
PIPE = "neither a file nor a folder|no plain file|lacks|holds (no|neither|none)|does not hold|has (no|neither|none)"
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes")


@pytest.fixture
def secret(tmp_path):
    """A file outside the folder that is passed to a reader."""
    path = tmp_path / "secret"
    path.write_text("id,label\n1,secret\n")
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def linked(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def piped(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def classes(folder):
    for name in ("a", "b"):
        picture(folder / name / "1.png")


def task_reader(name, **options):
    return lambda folder: tasks.get(name).load(Settings(task=name, data_dir=folder, source="files", **options))


def read_images(folder):
    return image_folders.read(image_folders.layout(folder), size=8, test_fraction=0.5)


def read_boxes(folder):
    """Adds the other file that the layout needs, and reads it."""
    if (folder / "annotations").is_dir():
        (folder / "annotations" / "instances_val.json").write_text("{}")
    else:
        (folder / "JPEGImages").mkdir()
        (folder / "ImageSets" / "Main" / "val.txt").write_text("1")
    object_detection.layout(folder)


FRACTION = {"test_fraction": 0.5}
READS = {
    "idx": ("train-images-idx3-ubyte", task_reader("fashion_mnist")),
    "npz": ("pneumoniamnist.npz", task_reader("chest_xray", image_size=8)),
    "leaf": ("train.csv", task_reader("leaf", **FRACTION)),
    "fraud": ("creditcard.csv", task_reader("fraud", **FRACTION)),
    "reviews": ("IMDB Dataset.csv", task_reader("sentiment", **FRACTION)),
    "archive": ("aclImdb_v1.tar.gz", task_reader("sentiment", **FRACTION)),
    "texts": ("train/neg/1.txt", task_reader("sentiment", **FRACTION)),
    "radiographs": ("Data_Entry_2017.csv", task_reader("disease_tagging", image_size=8, uncertain="zeros", **FRACTION)),
    "chexpert": ("train.csv", task_reader("disease_tagging", image_size=8, uncertain="zeros", **FRACTION)),
    "coco": ("annotations/instances_train.json", read_boxes),
    "voc": ("ImageSets/Main/train.txt", read_boxes),
    "image": ("a/2.png", read_images),
    "images to predict": ("a/2.png", lambda folder: images.read_unlabeled(folder, 8, 3)),
}


@pytest.mark.parametrize("way", [linked, piped])
@pytest.mark.parametrize("kind", READS)
def test_data_behind_an_outside_link_or_a_pipe_is_not_read(folder, secret, monkeypatch, tmp_path, kind, way):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name, read = READS[kind]
    if "image" in kind:
        classes(folder)
    way(folder / name, secret)
    with pytest.raises(InputError, match=OUT if way is linked else PIPE):
        read(folder)


@pytest.mark.parametrize("way", [linked, piped])
def test_an_annotation_behind_an_outside_link_or_a_pipe_is_not_read(folder, secret, way):
    picture(folder / "JPEGImages" / "1.png")
    way(folder / "Annotations" / "1.xml", secret)
    with pytest.raises(InputError, match=OUT if way is linked else PIPE):
        voc.read(folder, ["1"])


def test_annotated_images_behind_an_outside_link_are_not_read(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture(tmp_path / "private" / "1.png")
    for role in ("train", "val"):
        linked(folder / role, tmp_path / "private")
        path = folder / "annotations" / f"instances_{role}.json"
        path.parent.mkdir(exist_ok=True)
        box = boxes.Object(0, (0, 0, 4, 4), crowd=False)
        coco.write(path, boxes.annotated(["1.png"], [(8, 8)], [[box]], {0: "cat"}))
    with pytest.raises(InputError, match=OUT):
        object_detection.load("files", folder, size=16, channels=3)


def test_a_class_folder_behind_an_outside_link_is_not_read(folder, tmp_path):
    classes(folder)
    picture(tmp_path / "private" / "1.png")
    linked(folder / "c", tmp_path / "private")
    with pytest.raises(InputError, match=OUT):
        image_folders.layout(folder)


def test_links_inside_the_folder_and_to_the_folder_are_followed(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(4):
        picture(folder / "all" / f"{number}.png")
        linked(folder / "train" / "ab"[number % 2] / f"{number}.png", f"../../all/{number}.png")
    linked(tmp_path / "named", folder)
    for path in (folder, tmp_path / "named"):
        assert len(read_images(path).train.labels) == 2


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd"])
def test_a_path_outside_the_folder_is_refused(folder, secret, path):
    (folder / "a").mkdir()
    with pytest.raises(InputError, match=OUT):
        files.inside(folder, folder / path)


def test_a_table_cannot_name_an_image_outside(folder, secret):
    with pytest.raises(InputError, match="is not like CheXpert"):
        radiographs._view("CheXpert-v1.0-small/../patient1/../../secret", folder, "row 1")


def test_a_name_that_is_not_utf_8_is_refused(folder):
    classes(folder)
    picture(folder / "a" / "x.png")
    (folder / "a" / "x.png").rename(folder / "a" / os.fsdecode(b"\xff.png"))
    with pytest.raises(InputError, match="not UTF-8"):
        images.read_unlabeled(folder, 8, 3)


@pytest.fixture
def run(tmp_path):
    """A finished run without weights."""
    made = RunRecords(tmp_path)
    made.write(made.runs[0])
    return made.folder


NAMES = (
    "config.toml",
    "data.json",
    "predictor.json",
    "SHA256SUMS",
    "environment.json",
    "metrics.jsonl",
    "results.json",
)


@pytest.mark.parametrize("way", [linked, piped])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_record_behind_an_outside_link_or_a_pipe_is_not_read(run, secret, name, way):
    (run / name).unlink()
    way(run / name, secret)
    with pytest.raises(InputError, match=OUT if way is linked else PIPE):
        run_directory.read_records(run)


def test_a_report_does_not_overwrite_the_target_of_a_link(run, secret):
    content = secret.read_text()
    linked(run / "report.html", secret)
    linked(run / ".partial-report.html", secret)
    assert main(["report", "--run-dir", str(run)]) == 0
    assert secret.read_text() == content
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not (run / "report.html").is_symlink()


@pytest.fixture
def finished(tmp_path):
    """A finished run of a table with its weights."""
    made = Prediction(tmp_path)
    made.valid()
    return made.runs[0][0]


@pytest.mark.parametrize("way", [linked, piped])
def test_weights_behind_an_outside_link_or_a_pipe_are_not_read(finished, secret, way):
    way(finished / "model" / "3" / "more", secret)
    with pytest.raises(InputError, match=OUT if way is linked else PIPE):
        predictor.load(finished)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.toml", "eval_batch_size = 500", "eval_batch_size = 5000000000", "a batch of eval_batch_size"),
        ("config.toml", 'model = "mlp"', 'model = "mlq"', "Did you mean 'mlp'"),
        ("config.toml", 'preset = "default"', 'preset = "other"', "unknown preset"),
        ("config.toml", 'task = "csv"', 'task = "fashion_mnist"', "takes other inputs"),
    ],
)
def test_impossible_settings_are_refused(finished, name, old, new, message):
    text = (finished / name).read_text()
    assert old in text
    (finished / name).write_text(text.replace(old, new))
    (finished / "SHA256SUMS").write_text(run_directory.checksums(finished))
    with pytest.raises(InputError, match=message):
        predictor.load(finished)


def test_declared_weights_that_exceed_the_files_are_not_allocated(finished):
    run = finished.parent / "fashion_mnist"
    record = json.loads((run / "predictor.json").read_text())
    record["preprocessor"]["shape"] = [16_384, 16_384, 1]
    (run / "predictor.json").write_text(json.dumps(record))
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("eval_batch_size = 500", "eval_batch_size = 1"))
    (run / "SHA256SUMS").write_text(run_directory.checksums(run))
    with pytest.raises(InputError, match="declares weights of"):
        predictor.load(run)


def test_a_lock_does_not_truncate_the_target_of_a_link(tmp_path, secret):
    content = secret.read_text()
    linked(tmp_path / "model" / LOCK_FILE, secret)
    with pytest.raises(InputError, match="cannot be used"):
        CheckpointManager(tmp_path / "model")
    assert secret.read_text() == content


@pytest.mark.parametrize("way", [linked, piped])
def test_an_export_with_a_link_or_a_pipe_is_not_loaded(tmp_path, secret, way):
    way(tmp_path / "model" / "parameters.npz", secret)
    with pytest.raises(loader.ExportError, match="is not a regular file"):
        loader.load(tmp_path / "model")


CODE = sorted(Path(jaxcls.__file__).parent.rglob("*.py"))
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(Path(jaxcls.__file__).parent)))
def test_no_module_unpickles_or_executes_data(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not FORBIDDEN & {name.split(".")[0] for name in names}
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert keywords.get("shell", "False") == "False"
        if called in {"np.load", "numpy.load"}:
            assert keywords["allow_pickle"] == "False"
        assert keywords.get("allow_pickle", "False") == "False"
        assert not called.endswith((".extractall", ".unpack_archive"))
