"""Detection from files to predictions: a short run on a few scenes, its records and exports."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.data.datasets import object_detection
from jaxcls.data.samples import scenes
from jaxcls.export import loader, onnx
from jaxcls.tasks import predictor
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

pytestmark = pytest.mark.slow


def widen(data, role):
    """Doubles the width of every second image with a dark half."""
    file = data / "annotations" / f"instances_{role}.json"
    record = json.loads(file.read_text())
    for image in record["images"][::2]:
        path = data / role / image["file_name"]
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.pad(pixels, [(0, 0), (0, 128)])).save(path)
        image["width"] = 256
    file.write_text(json.dumps(record))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a run and its data."""
    root = tmp_path_factory.mktemp("detection")
    (root / "data").mkdir()
    scenes.write(root / "data", train=18, val=6, test=6)
    for role in ("train", "val", "test"):
        widen(root / "data", role)
    lines = []
    settings = Settings(
        task="detection",
        data_dir=root / "data",
        run_dir=root / "run",
        image_size=64,
        epochs=2,
        batch_size=8,
        eval_batch_size=6,
        # That of the recipe is for hundreds of steps; here are six.
        learning_rate=1e-3,
    )
    # An epoch of 18 scenes has a tail of two, filled up and masked.
    train_task(settings, say=lines.append)
    return root / "run", root / "data", lines


def test_a_run_saves_the_scores_of_every_class_and_its_report(trained):
    directory, _, lines = trained
    assert "18 + 6 + 6 examples" in lines[0]
    results = json.loads((directory / "results.json").read_text())
    assert list(results["labels"]) == list(scenes.CLASSES)
    assert {"map", "map_50", "map_75"} <= set(results["metrics"])
    history = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert history[1]["loss"] < history[0]["loss"]
    assert "val_map" in history[0]
    assert "False alarms" in (directory / "report.html").read_text()


def test_wide_images_have_their_own_canvas(trained):
    learned = predictor.load(trained[0])
    assert learned.experiment.preprocessor.canvases == ((32, 64), (64, 64))


def test_gray_images_read_in_color_have_one_channel(trained):
    learned = predictor.load(trained[0])
    assert learned.experiment.preprocessor.model_arguments["input_shape"] == (64, 64, 1)


def test_evaluation_reproduces_the_results_of_the_run(trained):
    directory, *_ = trained
    assert main(["evaluate", "--run-dir", str(directory)]) == 0
    evaluated = json.loads((directory / "evaluation-test.json").read_text())
    results = json.loads((directory / "results.json").read_text())
    assert evaluated["metrics"] == pytest.approx(results["metrics"])


def test_predictions_are_in_pixels_of_the_original_images(trained, tmp_path):
    """The same image at three times the size has boxes of three times the size."""
    directory, data, _ = trained
    (tmp_path / "in" / "more").mkdir(parents=True)
    small = Image.open(data / "test" / "000001.png")
    small.save(tmp_path / "in" / "a.png")
    small.resize((384, 384), Image.Resampling.NEAREST).save(tmp_path / "in" / "more" / "b.png")
    flags = ["--run-dir", directory, "--input", tmp_path / "in", "--output", tmp_path / "out.json"]
    assert main(["predict", *(str(word) for word in [*flags, "--draw", tmp_path / "drawn"])]) == 0
    detections = json.loads((tmp_path / "out.json").read_text())
    first, second = ([one for one in detections if one["image_id"] == name] for name in ("a.png", "more/b.png"))
    assert len(first) > 10
    for one in detections:
        assert one["category"] == scenes.CLASSES[one["category_id"] - 1]
        x, y, width, height = one["bbox"]
        side = 128 if one["image_id"] == "a.png" else 384
        assert min(x, y) >= 0
        assert max(x + width, y + height) <= side + 0.01
        assert 0.05 < one["score"] <= 1
    assert np.median([one["bbox"][2] for one in second]) > 2 * np.median([one["bbox"][2] for one in first])
    with Image.open(tmp_path / "drawn" / "more" / "b.png.png") as drawn:
        assert drawn.size == (384, 384)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--draw", "{}"], "is there already; name a new folder"),
        (["--sample-submission", "{}/x.csv"], "--sample-submission is for classification"),
    ],
)
def test_predictions_that_a_detector_does_not_write_are_rejected(trained, tmp_path, capsys, flags, message):
    directory, data, _ = trained
    arguments = ["--run-dir", directory, "--input", data / "test", "--output", tmp_path / "out.json"]
    flags = [word.replace("{}", str(tmp_path)) for word in flags]
    assert main(["predict", *(str(word) for word in [*arguments, *flags])]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_an_exported_detector_returns_the_same_detections(trained, tmp_path):
    directory, data, _ = trained
    assert main(["export", "--run-dir", str(directory), "--output", str(tmp_path / "model")]) == 0
    learned = predictor.load(directory)
    inputs = object_detection.read_unlabeled(data / "test", 64, 3).inputs
    encoded = learned.experiment.preprocessor.transform(inputs)
    expected, detections = learned.predict(inputs), loader.load(tmp_path / "model").predict(encoded)
    assert (expected["classes"] >= 0).any(axis=1).all()
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    assert record["programs"] == ["program-32x64.bin", "program-64x64.bin"]
    for name, array in expected.items():
        np.testing.assert_allclose(detections[name], array, atol=1e-3)

    # From a file come images that fill the square.
    square = (encoded["size"] == 64).all(axis=1)
    np.save(tmp_path / "images.npy", encoded["image"][square])
    command = [sys.executable, tmp_path / "model" / "loader.py", "--input", tmp_path / "images.npy"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = json.loads(printed)
    assert len(records) == (detections["classes"][square] >= 0).sum() > 0
    assert set(records[0]) == {"row", "class", "bbox", "score"}

    # Of a folder of images, boxes are in pixels of the originals.
    command[-1] = data / "test"
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    output = tmp_path / "found.json"
    flags = ["--run-dir", str(directory), "--input", str(data / "test"), "--output", str(output)]
    assert main(["predict", *flags]) == 0
    pairs = [sorted((one[key], one["score"], one["bbox"]) for one in json.loads(text))
             for text, key in ((printed, "image"), (output.read_text(), "image_id"))]  # fmt: skip
    # There, boxes are clipped, and those without area are left out.
    assert {name for name, *_ in pairs[0]} == {name for name, *_ in pairs[1]}
    best = [{name: (score, box) for name, score, box in side} for side in pairs]
    for name, (score, box) in best[1].items():
        np.testing.assert_allclose(best[0][name][0], score, atol=1e-3)
        np.testing.assert_allclose(np.maximum(best[0][name][1][:2], 0), box[:2], atol=0.1)


def test_onnx_on_the_whole_canvas_returns_the_same_detections(trained, tmp_path):
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    import onnxruntime

    directory, data, _ = trained
    flags = ["--run-dir", str(directory), "--output", str(tmp_path / "model"), "--format", "onnx"]
    assert main(["export", *flags]) == 0
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    assert (record["inputs"], record["outputs"]) == (["image", "size"], ["boxes", "classes", "scores"])
    learned = predictor.load(directory, portable=True)
    inputs = object_detection.read_unlabeled(data / "test", 64, 3).inputs
    square = (inputs["size"] == 64).all(axis=1)
    inputs = {name: array[square] for name, array in inputs.items()}
    expected = learned.predict(inputs)
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    detections = dict(
        zip(
            record["outputs"],
            session.run(record["outputs"], learned.experiment.preprocessor.transform(inputs)),
            strict=True,
        )
    )
    assert (expected["classes"] >= 0).any()
    assert detections["classes"].dtype == np.int32
    assert onnx.difference(detections, expected) < 1e-5


@pytest.mark.parametrize("changed", ["boxes", "classes", "scores"])
def test_an_onnx_model_with_other_detections_is_reported(changed):
    expected = {
        "boxes": np.array([[[4.0, 4, 9, 9], [2, 2, 8, 8], [0, 0, 0, 0]]]),
        "classes": np.array([[1, 0, -1]]),
        "scores": np.array([[0.9, 0.9, 0.0]]),
    }
    # Of two equal scores either may come first.
    swapped = {name: array[:, [1, 0, 2]] for name, array in expected.items()}
    assert onnx.difference(swapped, expected) == 0
    other = {name: array.copy() for name, array in expected.items()}
    other[changed][0, 1] = {"boxes": [2, 2, 8, 8.1], "classes": 1, "scores": 0.8}[changed]
    assert onnx.difference(other, expected) > 1e-3


def test_a_damaged_annotation_is_rejected_before_compilation(trained, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    scenes.write(folder, train=4, val=2, test=2)
    file = folder / "annotations" / "instances_train.json"
    record = json.loads(file.read_text())
    record["annotations"][0]["bbox"] = [4, 4, -3, 8]
    file.write_text(json.dumps(record))
    settings = Settings(task="detection", data_dir=folder, run_dir=tmp_path / "run", strict_annotations=True)
    with pytest.raises(InputError, match=r"instances_train\.json"):
        train_task(settings, say=lambda line: None)
    assert not (tmp_path / "run").exists()
