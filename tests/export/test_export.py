"""jaxcls export, and the loader of its folders."""

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import jax
import jax.numpy as jnp
import kaggle_leaves
import numpy as np
import pytest
import small_data
from hypothesis import strategies as st
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.data.formats import pixels, tables
from jaxcls.data.preprocessing import from_record
from jaxcls.data.preprocessing import tables as table_preparation
from jaxcls.data.samples import toxic_comment
from jaxcls.export import folder, loader, onnx, quantization, stablehlo
from jaxcls.export.exportable import Exportable, named_arrays
from jaxcls.kernels import native
from jaxcls.models import functional, tabular, text, vision
from jaxcls.tasks import predictor
from jaxcls.tasks.train import train_task
from jaxcls.training import steps
from jaxcls.training.settings import Settings

TASKS = ["fashion_mnist", "leaf", "toxic_comment"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run per type of input, by task: its directory, its predictor and its test inputs."""
    root = tmp_path_factory.mktemp("export")
    small_data.write(root / "images")
    for name, sample, sizes in (
        ("leaf", kaggle_leaves, {"species": 4}),
        ("toxic_comment", toxic_comment, {"train_rows": 300, "test_rows": 60}),
    ):
        (root / name).mkdir()
        sample.write(root / name, **sizes)
    settings_by_task = {
        # Augmented in training, and averaged over a mirror image in prediction.
        "fashion_mnist": {"data_dir": root / "images", "model": "cnn", "batch_size": 16},
        "leaf": {"data_dir": root / "leaf", "model": "linear"},
        # Long enough for several widths.
        "toxic_comment": {"data_dir": root / "toxic_comment", "max_length": 200, "vocabulary_size": 400},
    }
    finished = {}
    for task, settings in settings_by_task.items():
        directory = root / f"run-{task}"
        train_task(
            Settings(task=task, run_dir=directory, epochs=1, calibrate="temperature", **settings), say=lambda line: None
        )
        learned = predictor.load(directory, portable=True)
        assert learned.experiment.calibration is not None
        finished[task] = directory, learned, learned.task.load(learned.settings).test.inputs
    return finished


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    for task, (directory, *_) in runs.items():
        assert main(["export", "--run-dir", str(directory), "--output", str(root / task)]) == 0
    return root


def refused(capsys, *arguments):
    """Runs an export that must fail, and returns its message."""
    assert main(["export", *(str(word) for word in arguments)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_a_loaded_model_predicts_the_bits_of_jaxcls_predict(runs, exports, task):
    _, learned, inputs = runs[task]
    if task == "toxic_comment":
        # It loses its middle.
        inputs = np.append(inputs, " ".join(inputs[:20]))
    model = loader.load(exports / task)
    expected = learned.predict(inputs)
    np.testing.assert_array_equal(model.predict(inputs), expected)
    for count in (1, 5, 12):
        few = jax.tree.map(lambda values, count=count: values[:count], inputs)
        # The program of a small batch may add in another order: with older versions of jax it does.
        np.testing.assert_allclose(model.predict(few), learned.predict(few), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.predict(inputs, batch_size=7), expected, rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, model.encode(inputs), learned.experiment.preprocessor.transform(inputs))
    assert tuple(model.record["class_names"]) == learned.class_names
    assert model.record["synthetic"] is False
    np.testing.assert_array_equal(model.record["thresholds"], learned.thresholds)


def test_image_files_are_read_as_by_jaxcls_predict_and_keep_their_names(runs, exports, tmp_path, capsys):
    _, learned, inputs = runs["fashion_mnist"]
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name, image in zip(("a.png", "more/b.PNG", "more/c.png"), inputs, strict=False):
        Image.fromarray(image[..., 0]).save(tmp_path / "images" / name, "PNG")
    photo = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "images" / "d.jpg")
    model = loader.load(exports / "fashion_mnist")
    ids, read = model.read(tmp_path / "images")
    expected = learned.read(tmp_path / "images")
    assert ids == expected.ids.tolist() == ["a.png", "d.jpg", "more/b.PNG", "more/c.png"]
    np.testing.assert_array_equal(read, expected.inputs)
    assert loader._csv(model, model.predict(read), ids).splitlines()[2].startswith("d.jpg,")
    assert model.read(tmp_path / "images" / "d.jpg")[0] == ["d.jpg"]
    (tmp_path / "images" / "e.png").write_bytes(b"no")
    with pytest.raises(loader.ExportError, match=r"e\.png: cannot be read as an image"):
        model.read(tmp_path / "images")


@pytest.mark.parametrize("kind", ["images", "detection"])
def test_images_of_12_bits_are_read_as_by_jaxcls_predict(tmp_path, kind):
    deep = np.random.default_rng(0).integers(0, 4096, (16, 16), np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    record = {"type": kind, "shape": [16, 16, 1], "mean": [0.0], "deviation": [1.0], "white": 4095, "canvases": []}
    learned = SimpleNamespace(
        experiment=SimpleNamespace(preprocessor=from_record(record)), task=SimpleNamespace(read=None)
    )
    model = loader.Model({"preprocessor": record}, {}, (), folder=Path(pixels.__file__).parent)
    expected = np.rint(deep / 4095 * 255)
    for read in (model.read(tmp_path)[1], predictor.Predictor.read(learned, tmp_path).inputs):
        read = read["image"] if kind == "detection" else read
        np.testing.assert_allclose(read[0, ..., 0], expected, atol=1)


def test_texts_use_the_program_of_the_smallest_width_that_holds_them(runs, exports):
    _, learned, inputs = runs["toxic_comment"]
    model = loader.load(exports / "toxic_comment")
    widths = learned.experiment.preprocessor.widths
    assert [*model.record["programs"]] == [f"program-{width}.bin" for width in widths]
    assert len(widths) > 1
    one = inputs[:1]
    np.testing.assert_array_equal(model.predict(one), learned.predict(one))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_loader_runs_without_flax_and_jaxcls(runs, exports, tmp_path, task, capsys):
    directory, learned, inputs = runs[task]
    shutil.copytree(exports / task, tmp_path / "model")
    if task == "fashion_mnist":
        path = tmp_path / "inputs.npy"
        np.save(path, inputs[..., 0])
        read = learned.settings.data_dir / "t10k-images-idx3-ubyte.gz"
    elif task == "leaf":
        path = read = tmp_path / "inputs.csv"
        tables.write_csv(path, {"id": np.arange(len(next(iter(inputs.values())))), **inputs})
    else:
        path = read = tmp_path / "inputs.txt"
        inputs = np.array([" ".join(text.split()) for text in inputs], object)
        path.write_text("\n".join(inputs) + "\n", encoding="utf-8")
    # A module that is None in sys.modules cannot be imported.
    blocked = "import runpy, sys; sys.modules.update(flax=None, jaxcls=None, optax=None)"
    code = f"{blocked}; runpy.run_path({str(tmp_path / 'model' / 'loader.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "--input", path, "--output", tmp_path / "predicted.csv"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = tables.read_csv(tmp_path / "predicted.csv", text=["predicted"])
    scores = learned.predict(inputs)
    for index, name in enumerate(learned.class_names):
        np.testing.assert_array_equal(written[f"probability_{name}"].astype(np.float32), scores[:, index])
    if task != "toxic_comment":
        # jaxcls predict reads these files too.
        output = tmp_path / "expected.csv"
        assert main(["predict", "--run-dir", str(directory), "--input", str(read), "--output", str(output)]) == 0
        expected = tables.read_csv(output, text=["predicted"])
        np.testing.assert_array_equal(written["predicted"], expected["predicted"])


@pytest.fixture(scope="module")
def contents(exports):
    """The files of the export of a text model, which has every type of file, by name."""
    return {path.name: path.read_bytes() for path in (exports / "toxic_comment").iterdir()}


def write(folder, files):
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def test_the_folder_has_all_files(contents):
    programs = {name for name in contents if re.fullmatch(r"program-\d+\.bin", name)}
    others = {"model.json", "tokenizer.json", "parameters.npz", "loader.py", "SHA256SUMS"}
    assert contents.keys() == programs | others


@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_a_flipped_bit_is_refused_with_the_name_of_the_file(contents, somewhere, data):
    name = data.draw(st.sampled_from(sorted(contents)))
    bit = data.draw(st.integers(0, 8 * len(contents[name]) - 1))
    damaged = bytearray(contents[name])
    damaged[bit // 8] ^= 1 << bit % 8
    write(somewhere, {**contents, name: bytes(damaged)})
    with pytest.raises(loader.ExportError, match=re.escape(name)):
        loader.load(somewhere)


@pytest.mark.parametrize("offset", [0, 1, 0.5, -1])
@pytest.mark.parametrize(
    "name", ["model.json", "tokenizer.json", "parameters.npz", "loader.py", "SHA256SUMS", "program"]
)
def test_every_file_is_checked_from_its_first_byte_to_its_last(contents, somewhere, name, offset):
    name = next(known for known in sorted(contents) if known.startswith(name))
    damaged = bytearray(contents[name])
    damaged[int(offset * len(damaged)) if offset == 0.5 else offset] ^= 1
    write(somewhere, {**contents, name: bytes(damaged)})
    with pytest.raises(loader.ExportError, match=re.escape(name)):
        loader.verified(somewhere)


def test_a_missing_and_an_unexpected_file_are_refused(contents, somewhere):
    for name in contents:
        write(somewhere, {other: contents[other] for other in contents if other != name})
        with pytest.raises(loader.ExportError, match=f"{re.escape(name)} is missing"):
            loader.load(somewhere)
    write(somewhere, {**contents, "more.bin": b""})
    with pytest.raises(loader.ExportError, match=r"more\.bin does not belong there"):
        loader.load(somewhere)
    write(somewhere, {**contents, "SHA256SUMS": contents["SHA256SUMS"] + b"\n"})
    with pytest.raises(loader.ExportError, match="SHA256SUMS"):
        loader.load(somewhere)
    with pytest.raises(loader.ExportError, match="nowhere: cannot be read"):
        loader.load(somewhere / "nowhere")


def test_pycache_is_ignored(contents, tmp_path):
    write(tmp_path, contents)
    (tmp_path / "__pycache__").mkdir()
    assert loader.verified(tmp_path).keys() | {"SHA256SUMS"} == contents.keys()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_checks_the_sums(exports):
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=exports / "leaf", capture_output=True)
    assert done.returncode == 0


MIXED = {
    "size": np.array([1.0, 2.0, np.nan, 4.0, 1e300, 7.0]),
    "same": np.ones(6),
    "code": np.array(["07", "8", "x", "", "8", "07"], object),
    "plain": np.array(["a", "b", "a", "b", "a", "b"], object),
}


@pytest.mark.parametrize(
    "columns",
    [
        MIXED,
        {**MIXED, "code": np.array([7.0, 8.0, 9.0, np.nan, 7.5, 8.0])},
        {**MIXED, "size": np.array(["1", "2", "NA", "", "-1e5", "3"], object), "plain": np.array([*"abcdea"], object)},
        {name: MIXED[name][:1] for name in reversed(MIXED)},
    ],
    ids=["the same", "words as numbers", "numbers as words", "one row"],
)
def test_tables_are_encoded_as_in_training(columns):
    fitted = table_preparation.fit(MIXED)
    record = json.loads(json.dumps(fitted.as_record()))
    assert from_record(record) == fitted
    encode = loader.Model({"preprocessor": record}, {}, ()).encode
    expected = fitted.transform(columns)
    encoded = encode({name: column.tolist() for name, column in columns.items()})
    assert encoded.keys() == expected.keys()
    for name, array in expected.items():
        assert encoded[name].dtype == array.dtype
        np.testing.assert_array_equal(encoded[name], array)


def test_invalid_inputs_are_refused(exports, tmp_path):
    images, leaves = (loader.load(exports / task) for task in ("fashion_mnist", "leaf"))
    with pytest.raises(loader.ExportError, match=r"float32 of shape \(2, 28, 28, 1\); give uint8 of \(N, 28, 28, 1\)"):
        images.predict(np.zeros((2, 28, 28), np.float32))
    with pytest.raises(loader.ExportError, match="no input"):
        images.predict(np.zeros((0, 28, 28, 1), np.uint8))
    with pytest.raises(loader.ExportError, match="no column 'margin1'"):
        leaves.predict({"width": [1.0]})


@pytest.mark.parametrize(
    ("problem", "thresholds", "scores", "expected"),
    [
        ("binary", 0.25, [0.2, 0.25], ["a", "b"]),
        ("multiclass", 0.5, [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], ["b", "a"]),
        ("multilabel", [0.5, 0.1, 0.9], [[0.5, 0.2, 0.8], [0.1, 0.0, 0.0]], ["a|b", ""]),
    ],
)
def test_decisions_are_made_at_the_thresholds(problem, thresholds, scores, expected):
    record = {"class_names": ["a", "b", "c"], "problem": problem, "thresholds": thresholds}
    model = loader.Model(record, {}, ())
    assert model.decide(np.array(scores)) == expected


def exported_step(folder_, step, inputs, **description):
    """Exports a step without weights or preprocessor, and loads it."""
    exportable = Exportable(
        {"synthetic": False, "dtype": "float32", **description},
        weights={"params": {"scale": jnp.ones(())}, "model_state": {}}, prediction_step=step, batch_size=2,
        input_shapes=lambda count: jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype), inputs),
    )  # fmt: skip
    folder.export(folder_, exportable, "stablehlo")
    return loader.load(folder_)


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_model_without_preprocessor_takes_arrays(tmp_path, as_dict):
    def step(params, model_state, inputs):
        scores = jax.nn.softmax(params["scale"] * (inputs["x"] if as_dict else inputs))
        return scores, scores

    array = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    inputs = {"x": array} if as_dict else array
    model = exported_step(
        tmp_path / "model", step, inputs, problem="multiclass", class_names=[*"abc"], thresholds=0.5
    )  # fmt: skip
    scores = model.predict(inputs)
    np.testing.assert_allclose(scores, jax.nn.softmax(array), rtol=1e-6)
    assert model.decide(scores) == ["abc"[index] for index in scores.argmax(axis=1)]
    np.testing.assert_array_equal(model.predict(jax.tree.map(np.float64, inputs)), scores)
    wrong = np.zeros((5, 4)) if not as_dict else array
    with pytest.raises(loader.ExportError, match=r"give float32 of \(N, 3\)|a dict of the arrays x"):
        model.predict(wrong)
    saved = tmp_path / ("inputs.npz" if as_dict else "inputs.npy")
    np.savez(saved, **inputs) if as_dict else np.save(saved, inputs)
    jax.tree.map(np.testing.assert_array_equal, loader._read(saved, None), inputs)
    saved.write_bytes(b"\x89PNG")
    with pytest.raises(loader.ExportError, match=r"must be an \.npy or \.npz file of what the model takes"):
        loader._read(saved, None)


def test_several_outputs_are_decided_and_written_together(tmp_path):
    def step(params, model_state, inputs):
        scores = {"size": jax.nn.sigmoid(inputs[:, 0]), "color": jax.nn.softmax(inputs)}
        return scores, scores

    model = exported_step(
        tmp_path / "model", step, np.zeros((1, 3), np.float32),
        problem={"size": "binary", "color": "multiclass"}, class_names={"size": ["S", "L"], "color": ["r", "g", "b"]},
        thresholds={"size": 0.5, "color": 0.5},
    )  # fmt: skip
    scores = model.predict(np.array([[1, 2, 3], [-1, -2, -3]]))
    assert model.decide(scores) == ["L|b", "S|r"]
    header, *rows = loader._csv(model, scores).splitlines()
    assert header == "row,predicted,probability_size: L,probability_color: r,probability_color: g,probability_color: b"
    assert [row.split(",")[:2] for row in rows] == [["1", "L|b"], ["2", "S|r"]]


IMAGE = {"input_shape": (16, 16, 1)}
TOKENS = {"vocabulary_size": 50, "max_length": 12}
COLUMNS = {"bins": ((0.0, 0.5, 1.0), ()), "flags": 1, "cardinalities": (3,)}
FAMILIES = {
    "vision.MLP": (vision.MLP, IMAGE),
    "vision.CNN": (vision.CNN, {**IMAGE, "channels": (8, 8)}),
    "vision.ResNet": (vision.ResNet, {**IMAGE, "widths": (8, 16)}),
    "vision.VGG": (vision.VGG, {**IMAGE, "stages": ((8,), (8,))}),
    "text.NGramClassifier": (text.NGramClassifier, {**TOKENS, "buckets": 64}),
    "text.TextCNN": (text.TextCNN, TOKENS),
    "text.Transformer": (text.Transformer, {**TOKENS, "features": 16, "layers": 1}),
    "tabular.TabularLinear": (tabular.TabularLinear, COLUMNS),
    "tabular.TabularMLP": (tabular.TabularMLP, {**COLUMNS, "hidden": (16,), "members": 2}),
}


def drawn(arguments, count, rng):
    if arguments is IMAGE:
        return rng.normal(size=(count, 16, 16, 1)).astype(np.float32)
    if arguments is COLUMNS:
        return {
            "numeric": rng.normal(size=(count, 2)).astype(np.float32),
            "missing": rng.integers(0, 2, (count, 1)).astype(np.float32),
            "categories": rng.integers(0, 3, (count, 1)).astype(np.int32),
        }
    return rng.integers(0, 50, (count, 12)).astype(np.int32)


@functools.cache
def predicted(family):
    """The prediction step of a model, its weights, five inputs and their probabilities."""
    build, arguments = FAMILIES[family]
    model = functional(lambda rngs: build(num_classes=3, rngs=rngs, **arguments))
    weights = model.init(jax.random.key(0))
    step = steps.make_prediction_step(model, scores=jax.nn.softmax)
    arguments = next((known for known in (IMAGE, COLUMNS) if known.items() <= arguments.items()), TOKENS)
    inputs = drawn(arguments, 5, np.random.default_rng(0))
    with native.portable():
        return step, weights, inputs, step(*weights, inputs)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_one_program_for_any_number_of_inputs_on_every_platform(family):
    step, weights, inputs, scores = predicted(family)
    (count,) = jax.export.symbolic_shape("count")
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype), inputs)
    exported = jax.export.export(step, platforms=stablehlo.PLATFORMS)(*jax.eval_shape(lambda: weights), shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    # No call that only jaxcls or one platform could run, such as a native kernel.
    targets = set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))
    assert targets <= {"shape_assertion", "Sharding"}
    np.testing.assert_array_equal(jax.jit(exported.call)(*weights, inputs)[0], scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_that_jax2onnx_cannot_convert_are_replaced(family):
    """For a symbolic number of rows; needs no jax2onnx."""
    step, weights, inputs, scores = predicted(family)
    inputs, tree = jax.tree.flatten(inputs)

    def plain(*leaves):
        return step(*weights, jax.tree.unflatten(tree, leaves))[0]

    (count,) = jax.export.symbolic_shape("count")
    shapes = [jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype) for array in inputs]
    traced = jax.make_jaxpr(plain)(*shapes)
    rewritten = jax.make_jaxpr(lambda *leaves: onnx.evaluate(traced.jaxpr, traced.consts, leaves))
    pattern = r"= (pad|rem|stack|platform_index)\b"
    if family in ("vision.VGG", "text.NGramClassifier", "text.TextCNN"):
        assert re.findall(pattern, str(traced))
    assert not re.findall(pattern, str(rewritten(*shapes)))
    closed = jax.make_jaxpr(plain)(*inputs)
    evaluated = jax.jit(lambda *leaves: onnx.evaluate(closed.jaxpr, closed.consts, leaves)[0])(*inputs)
    np.testing.assert_allclose(evaluated, scores, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_stack_is_replaced_by_a_concatenation(axis):
    arrays = [np.arange(6.0).reshape(2, 3) + offset for offset in range(3)]
    traced = jax.make_jaxpr(lambda *arrays: jnp.stack(arrays, axis))(*arrays)
    rewritten = jax.make_jaxpr(lambda *leaves: onnx.evaluate(traced.jaxpr, traced.consts, leaves))
    assert "stack" not in str(rewritten(*arrays))
    np.testing.assert_array_equal(rewritten(*arrays).out_avals[0].shape, np.stack(arrays, axis).shape)
    np.testing.assert_array_equal(onnx.evaluate(traced.jaxpr, traced.consts, arrays)[0], np.stack(arrays, axis))


def test_weights_in_safetensors_are_read_back_equal(runs, tmp_path, capsys):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    directory, learned, _ = runs["toxic_comment"]
    output = tmp_path / "weights"
    flags = ["--run-dir", str(directory), "--output", str(output), "--format", "safetensors", "--json"]
    assert main(["export", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "safetensors"
    read, expected = load_file(output / "model.safetensors"), named_arrays(learned.weights)
    assert read.keys() == expected.keys()
    assert "params/votes/embedding" in read
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    with safe_open(output / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["class_names"]) == [*learned.class_names]
    assert metadata["problem"] == "multilabel"
    assert (output / "tokenizer.json").read_text(encoding="utf-8") == learned.experiment.preprocessor.tokenizer
    assert "SHA256SUMS" not in loader.verified(output)
    with pytest.raises(loader.ExportError, match="format safetensors, which this loader does not run"):
        loader.load(output)


def test_weights_in_8_bits_take_a_quarter_and_predict_nearly_the_same(runs, exports, tmp_path, capsys):
    directory, learned, inputs = runs["fashion_mnist"]
    output = tmp_path / "model"
    assert main(["export", "--run-dir", str(directory), "--output", str(output), "--weights", "int8"]) == 0
    assert "stablehlo in 8 bits" in capsys.readouterr().out
    model, whole = loader.load(output), loader.load(exports / "fashion_mnist")
    assert (model.record["weights"], whole.record["weights"]) == ("int8", "float32")
    assert model.record["parameters"] == whole.record["parameters"]
    small, large = (sum(array.nbytes for array in one.parameters.values()) for one in (model, whole))
    assert small < 0.3 * large
    weights = quantization.restored(quantization.quantized(learned.exportable()).weights)
    expected = learned._replace(weights=weights).predict(inputs)
    np.testing.assert_allclose(model.predict(inputs), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(expected, learned.predict(inputs), atol=0.02)


def test_a_model_of_synthetic_examples_is_marked_synthetic(runs, tmp_path, capsys):
    _, learned, _ = runs["fashion_mnist"]
    synthetic = learned._replace(data={**learned.data, "synthetic": True})
    folder.export(tmp_path / "model", synthetic.exportable(), "stablehlo")
    assert loader.load(tmp_path / "model").record["synthetic"] is True


def test_an_existing_folder_is_not_written_to(runs, tmp_path, capsys):
    directory, *_ = runs["leaf"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "exists already" in refused(capsys, "--run-dir", directory, "--output", tmp_path / "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
    missing = tmp_path / "not" / "there"
    assert "inside an existing one" in refused(capsys, "--run-dir", directory, "--output", missing)
    assert "holds no run" in refused(capsys, "--run-dir", tmp_path, "--output", tmp_path / "model")


@pytest.mark.parametrize(("format", "package"), [("stablehlo", "flatbuffers"), ("onnx", "jax2onnx")])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    runs, tmp_path, capsys, monkeypatch, format, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find(name))
    directory, *_ = runs["leaf"]
    message = refused(capsys, "--run-dir", directory, "--output", tmp_path / "model", "--format", format)
    extra = "onnx" if format == "onnx" else "export"
    assert f"needs the package {package}: pip install 'jaxcls[{extra}]'" in message


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_onnx_predicts_like_the_run_up_to_rounding(runs, tmp_path, task):
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    import onnxruntime

    directory, learned, inputs = runs[task]
    output = tmp_path / "model"
    assert main(["export", "--run-dir", str(directory), "--output", str(output), "--format", "onnx"]) == 0
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    record = json.loads((output / "model.json").read_text())
    assert [one.name for one in session.get_inputs()] == record["inputs"]
    encoded = learned.experiment.preprocessor.transform(inputs)
    arrays = encoded if isinstance(encoded, dict) else {record["inputs"][0]: encoded}
    (scores,) = session.run(["probabilities"], {name: arrays[name] for name in record["inputs"]})
    np.testing.assert_allclose(scores, learned.predict(inputs), atol=1e-5)
    assert loader.verified(output).keys() - {"tokenizer.json"} == {"model.json", "model.onnx"}


@pytest.mark.slow
def test_onnx_takes_the_columns_of_a_table_and_weights_in_8_bits(runs, tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    import onnx as onnx_format
    import onnxruntime

    directory, learned, inputs = runs["leaf"]
    monkeypatch.setattr(quantization, "_LEAST_SIZE", 100)
    flags = ["--run-dir", str(directory), "--output", str(tmp_path / "model"), "--format", "onnx"]
    assert main(["export", *flags, "--with-preprocessing", "--weights", "int8"]) == 0
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    assert (record["with_preprocessing"], record["weights"]) == (True, "int8")
    assert {*record["inputs"]} == {*learned.experiment.preprocessor.columns}
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {name: np.asarray(inputs[name], np.float64) for name in record["inputs"]})
    weights = quantization.restored(quantization.quantized(learned.exportable()).weights)
    np.testing.assert_allclose(scores, learned._replace(weights=weights).predict(inputs), atol=1e-5)
    stored = onnx_format.load(tmp_path / "model" / "model.onnx").graph.initializer
    assert sum(array.data_type == onnx_format.TensorProto.INT8 for array in stored) == 1


def test_preprocessing_is_for_onnx_of_images_and_tables(runs, tmp_path, capsys):
    directory, *_ = runs["toxic_comment"]
    flags = ["--run-dir", directory, "--output", tmp_path / "model", "--with-preprocessing"]
    assert "--with-preprocessing is for --format onnx, not for stablehlo" in refused(capsys, *flags)
    if importlib.util.find_spec("jax2onnx") and importlib.util.find_spec("onnxruntime"):
        assert "cannot split texts into tokens" in refused(capsys, *flags, "--format", "onnx")


def test_onnx_takes_float32_alone(runs):
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    _, learned, _ = runs["leaf"]
    exportable = learned.exportable()
    halved = exportable._replace(record=exportable.record | {"dtype": "bfloat16"})
    with pytest.raises(InputError, match="compute in float32, not in bfloat16"):
        onnx.files(halved)
