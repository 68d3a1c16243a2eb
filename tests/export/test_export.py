"""The command line that takes a finished run elsewhere, and the loader that runs it there."""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_data
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.data.formats import tables
from jaxcls.data.preprocessing import from_record
from jaxcls.data.preprocessing import tables as table_preparation
from jaxcls.data.samples import leaf, toxic_comment
from jaxcls.export import folder, loader, onnx, predictor, stablehlo
from jaxcls.kernels import native
from jaxcls.models import functional, tabular, text, vision
from jaxcls.tasks import run
from jaxcls.training import steps
from jaxcls.training.settings import Settings

KINDS = ["fashion_mnist", "leaf", "toxic_comment"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each kind of input, by its task: its directory, and its test examples as they are read."""
    root = tmp_path_factory.mktemp("export")
    small_data.write(root / "images")
    for name, sample, sizes in (
        ("leaf", leaf, {"species": 4}),
        ("toxic_comment", toxic_comment, {"train_rows": 300, "test_rows": 60}),
    ):
        (root / name).mkdir()
        sample.write(root / name, **sizes)
    given = {
        # Augmented in training, and averaged over a mirror image in prediction.
        "fashion_mnist": {"data_dir": root / "images", "model": "cnn", "batch_size": 16},
        "leaf": {"data_dir": root / "leaf", "model": "linear"},
        # So that there are several widths.
        "toxic_comment": {"data_dir": root / "toxic_comment", "max_length": 200, "vocabulary_size": 400},
    }
    found = {}
    for task, settings in given.items():
        directory = root / f"run-{task}"
        run.run(Settings(task=task, run_dir=directory, epochs=1, **settings), say=lambda line: None)
        learned = predictor.load(directory, portable=True)
        found[task] = directory, learned, learned.task.load(learned.settings).test.inputs
    return found


@pytest.fixture(scope="module")
def artifacts(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    for task, (directory, *_) in runs.items():
        assert main(["export", "--run-dir", str(directory), "--output", str(root / task)]) == 0
    return root


def refused(capsys, *given):
    """The message with which an export ends that is not made."""
    assert main(["export", *(str(word) for word in given)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("task", KINDS)
def test_what_is_loaded_predicts_as_the_command_does_bit_for_bit(runs, artifacts, task):
    _, learned, inputs = runs[task]
    model = loader.load(artifacts / task)
    expected = learned.predict(inputs)
    np.testing.assert_array_equal(model.predict(inputs), expected)
    np.testing.assert_allclose(model.predict(inputs, batch_size=7), expected, rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, model.encode(inputs), learned.preprocessor.transform(inputs))
    assert tuple(model.record["class_names"]) == learned.class_names
    assert model.record["synthetic"] is False, "the files were given as real ones"
    np.testing.assert_array_equal(model.record["thresholds"], learned.thresholds)


def test_texts_go_through_the_width_that_holds_them(runs, artifacts):
    _, learned, inputs = runs["toxic_comment"]
    model = loader.load(artifacts / "toxic_comment")
    widths = learned.preprocessor.widths
    assert [*model.record["programs"]] == [f"program-{width}.bin" for width in widths]
    assert len(widths) > 1
    one = inputs[:1]
    np.testing.assert_array_equal(model.predict(one), learned.predict(one))


@pytest.mark.slow
@pytest.mark.parametrize("task", KINDS)
def test_the_folder_runs_where_there_is_neither_flax_nor_jaxcls(runs, artifacts, tmp_path, task, capsys):
    directory, learned, inputs = runs[task]
    shutil.copytree(artifacts / task, tmp_path / "model")
    if task == "fashion_mnist":
        asked = tmp_path / "inputs.npy"
        np.save(asked, inputs[..., 0])
        read = learned.settings.data_dir / "t10k-images-idx3-ubyte.gz"
    elif task == "leaf":
        asked = read = tmp_path / "inputs.csv"
        tables.write_csv(asked, {"id": np.arange(len(next(iter(inputs.values())))), **inputs})
    else:
        asked = read = tmp_path / "inputs.txt"
        inputs = np.array([" ".join(text.split()) for text in inputs], object)
        asked.write_text("\n".join(inputs) + "\n", encoding="utf-8")
    # What is None in sys.modules cannot be imported.
    blocked = "import runpy, sys; sys.modules.update(flax=None, jaxcls=None, optax=None)"
    code = f"{blocked}; runpy.run_path({str(tmp_path / 'model' / 'loader.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "--input", asked, "--output", tmp_path / "predicted.csv"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = tables.read_csv(tmp_path / "predicted.csv", text=["predicted"])
    scores = learned.predict(inputs)
    for place, name in enumerate(learned.class_names):
        np.testing.assert_array_equal(written[f"probability_{name}"].astype(np.float32), scores[:, place])
    if task != "toxic_comment":
        # The same names as those of the command line, which reads these files too.
        output = tmp_path / "expected.csv"
        assert main(["predict", "--run-dir", str(directory), "--input", str(read), "--output", str(output)]) == 0
        expected = tables.read_csv(output, text=["predicted"])
        np.testing.assert_array_equal(written["predicted"], expected["predicted"])


@pytest.fixture(scope="module")
def contents(artifacts):
    """The files of the artifact of texts, which has all there are, by name."""
    return {path.name: path.read_bytes() for path in (artifacts / "toxic_comment").iterdir()}


def lay(folder, files):
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def test_all_files_are_there(contents):
    programs = {name for name in contents if re.fullmatch(r"program-\d+\.bin", name)}
    others = {"model.json", "tokenizer.json", "parameters.npz", "loader.py", "SHA256SUMS"}
    assert contents.keys() == programs | others


@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused_with_the_name_of_the_file(contents, somewhere, data):
    name = data.draw(st.sampled_from(sorted(contents)))
    place = data.draw(st.integers(0, 8 * len(contents[name]) - 1))
    damaged = bytearray(contents[name])
    damaged[place // 8] ^= 1 << place % 8
    lay(somewhere, {**contents, name: bytes(damaged)})
    with pytest.raises(loader.ArtifactError, match=re.escape(name)):
        loader.load(somewhere)


@pytest.mark.parametrize("offset", [0, 1, 0.5, -1])
@pytest.mark.parametrize(
    "name", ["model.json", "tokenizer.json", "parameters.npz", "loader.py", "SHA256SUMS", "program"]
)
def test_every_file_is_checked_from_its_first_byte_to_its_last(contents, somewhere, name, offset):
    name = next(known for known in sorted(contents) if known.startswith(name))
    damaged = bytearray(contents[name])
    damaged[int(offset * len(damaged)) if offset == 0.5 else offset] ^= 1
    lay(somewhere, {**contents, name: bytes(damaged)})
    with pytest.raises(loader.ArtifactError, match=re.escape(name)):
        loader.verified(somewhere)


def test_a_missing_file_and_one_too_many_are_refused(contents, somewhere):
    for name in contents:
        lay(somewhere, {other: contents[other] for other in contents if other != name})
        with pytest.raises(loader.ArtifactError, match=f"{re.escape(name)} is missing"):
            loader.load(somewhere)
    lay(somewhere, {**contents, "more.bin": b""})
    with pytest.raises(loader.ArtifactError, match=r"more\.bin does not belong there"):
        loader.load(somewhere)
    lay(somewhere, {**contents, "SHA256SUMS": contents["SHA256SUMS"] + b"\n"})
    with pytest.raises(loader.ArtifactError, match="SHA256SUMS"):
        loader.load(somewhere)
    with pytest.raises(loader.ArtifactError, match="nowhere: cannot be read"):
        loader.load(somewhere / "nowhere")


def test_what_python_leaves_behind_is_no_damage(contents, tmp_path):
    lay(tmp_path, contents)
    (tmp_path / "__pycache__").mkdir()
    assert loader.verified(tmp_path).keys() | {"SHA256SUMS"} == contents.keys()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_the_sums_are_those_of_sha256sum(artifacts):
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=artifacts / "leaf", capture_output=True)
    assert done.returncode == 0


MIXED = {
    "size": np.array([1.0, 2.0, np.nan, 4.0, 1e300, 7.0]),
    "same": np.ones(6),
    "code": np.array(["07", "8", "x", "", "8", "07"], object),
    "plain": np.array(["a", "b", "a", "b", "a", "b"], object),
}


@pytest.mark.parametrize(
    "asked",
    [
        MIXED,
        {**MIXED, "code": np.array([7.0, 8.0, 9.0, np.nan, 7.5, 8.0])},
        {**MIXED, "size": np.array(["1", "2", "NA", "", "-1e5", "3"], object), "plain": np.array([*"abcdea"], object)},
        {name: MIXED[name][:1] for name in reversed(MIXED)},
    ],
    ids=["the same", "words as numbers", "numbers as words", "one row"],
)
def test_tables_are_encoded_as_in_the_training(asked):
    fitted = table_preparation.fit(MIXED)
    record = json.loads(json.dumps(fitted.as_record()))
    assert from_record(record) == fitted
    encode = loader._tables(record)
    expected = fitted.transform(asked)
    got = encode({name: column.tolist() for name, column in asked.items()})
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_inputs_that_do_not_fit_are_refused(artifacts, tmp_path):
    images, leaves = (loader.load(artifacts / task) for task in ("fashion_mnist", "leaf"))
    with pytest.raises(
        loader.ArtifactError, match=r"float32 of shape \(2, 28, 28, 1\); give uint8 of \(N, 28, 28, 1\)"
    ):
        images.predict(np.zeros((2, 28, 28), np.float32))
    with pytest.raises(loader.ArtifactError, match="no input"):
        images.predict(np.zeros((0, 28, 28, 1), np.uint8))
    with pytest.raises(loader.ArtifactError, match="no column 'margin1'"):
        leaves.predict({"width": [1.0]})
    columns = {column["name"]: ["1.5", "wide"] for column in leaves.record["preprocessor"]["numeric"]}
    with pytest.raises(loader.ArtifactError, match=r"row 2 of column '.*' is 'wide'"):
        leaves.predict(columns)


@pytest.mark.parametrize(
    ("problem", "thresholds", "scores", "expected"),
    [
        ("binary", 0.25, [0.2, 0.25], ["a", "b"]),
        ("multiclass", 0.5, [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], ["b", "a"]),
        ("multilabel", [0.5, 0.1, 0.9], [[0.5, 0.2, 0.8], [0.1, 0.0, 0.0]], ["a|b", ""]),
        ("multioutput", 0.5, [[0.2, 0.8, 0.7, 0.3], [0.6, 0.4, 0.1, 0.9]], ["x: b|y: c", "x: a|y: d"]),
    ],
)
def test_decisions_are_made_at_the_thresholds(problem, thresholds, scores, expected):
    names = ["x: a", "x: b", "y: c", "y: d"] if problem == "multioutput" else ["a", "b", "c"]
    record = {"class_names": names, "problem": problem, "thresholds": thresholds}
    model = loader.Model(record, {}, (), lambda inputs: inputs)
    assert model.decide(np.array(scores)) == expected


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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_one_program_for_any_number_of_inputs_on_every_platform(family):
    build, arguments = FAMILIES[family]
    model = functional(lambda rngs: build(num_classes=3, rngs=rngs, **arguments))
    weights = model.init(jax.random.key(0))
    step = steps.make_prediction_step(model, scores=jax.nn.softmax)
    arguments = next((known for known in (IMAGE, COLUMNS) if known.items() <= arguments.items()), TOKENS)
    rng = np.random.default_rng(0)
    (count,) = jax.export.symbolic_shape("count")
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype), drawn(arguments, 1, rng))
    exported = jax.export.export(step, platforms=stablehlo.PLATFORMS)(*jax.eval_shape(lambda: weights), shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    # What only jaxcls or one platform could run, such as a kernel of its own.
    targets = set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))
    assert targets <= {"shape_assertion", "Sharding"}
    for rows in (1, 5):
        inputs = drawn(arguments, rows, rng)
        with native.portable():
            np.testing.assert_array_equal(jax.jit(exported.call)(*weights, inputs)[0], step(*weights, inputs)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_jax2onnx_cannot_convert_is_computed_by_other_operations(family):
    """On an open number of rows; it needs no jax2onnx to be seen."""
    build, arguments = FAMILIES[family]
    model = functional(lambda rngs: build(num_classes=3, rngs=rngs, **arguments))
    weights = model.init(jax.random.key(0))
    step = steps.make_prediction_step(model, scores=jax.nn.softmax)
    arguments = next((known for known in (IMAGE, COLUMNS) if known.items() <= arguments.items()), TOKENS)
    inputs, tree = jax.tree.flatten(drawn(arguments, 3, np.random.default_rng(0)))

    def plain(*leaves):
        return step(*weights, jax.tree.unflatten(tree, leaves))[0]

    (count,) = jax.export.symbolic_shape("count")
    shapes = [jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype) for array in inputs]
    traced = jax.make_jaxpr(plain)(*shapes)
    rewritten = jax.make_jaxpr(lambda *leaves: onnx._evaluated(traced.jaxpr, traced.consts, leaves))
    pattern = r"= (pad|rem|stack|platform_index)\b"
    if family in ("vision.VGG", "text.NGramClassifier", "text.TextCNN"):
        assert re.findall(pattern, str(traced))
    assert not re.findall(pattern, str(rewritten(*shapes)))
    closed = jax.make_jaxpr(plain)(*inputs)
    np.testing.assert_allclose(onnx._evaluated(closed.jaxpr, closed.consts, inputs)[0], plain(*inputs), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_stack_is_a_concatenation_to_jax2onnx(axis):
    arrays = [np.arange(6.0).reshape(2, 3) + place for place in range(3)]
    traced = jax.make_jaxpr(lambda *arrays: jnp.stack(arrays, axis))(*arrays)
    rewritten = jax.make_jaxpr(lambda *leaves: onnx._evaluated(traced.jaxpr, traced.consts, leaves))
    assert "stack" not in str(rewritten(*arrays))
    np.testing.assert_array_equal(rewritten(*arrays).out_avals[0].shape, np.stack(arrays, axis).shape)
    np.testing.assert_array_equal(onnx._evaluated(traced.jaxpr, traced.consts, arrays)[0], np.stack(arrays, axis))


def test_weights_in_safetensors_are_read_back_equal(runs, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    directory, learned, _ = runs["toxic_comment"]
    output = tmp_path / "weights"
    assert main(["export", "--run-dir", str(directory), "--output", str(output), "--format", "safetensors"]) == 0
    read, expected = load_file(output / "model.safetensors"), folder.named_weights(learned)
    assert read.keys() == expected.keys()
    assert "params/votes/embedding" in read
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    with safe_open(output / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["class_names"]) == [*learned.class_names]
    assert metadata["problem"] == "multilabel"
    assert (output / "tokenizer.json").read_text(encoding="utf-8") == learned.preprocessor.tokenizer
    assert "SHA256SUMS" not in loader.verified(output)
    with pytest.raises(loader.ArtifactError, match="format safetensors, which this loader does not run"):
        loader.load(output)


def test_what_was_learned_from_synthetic_examples_is_called_so(runs, tmp_path, capsys):
    _, learned, _ = runs["fashion_mnist"]
    synthetic = learned._replace(data={**learned.data, "synthetic": True})
    files = stablehlo.files(synthetic)
    folder.write(tmp_path / "model", files)
    assert loader.load(tmp_path / "model").record["synthetic"] is True


def test_a_folder_that_is_there_is_not_written_to(runs, tmp_path, capsys):
    directory, *_ = runs["leaf"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "is there already" in refused(capsys, "--run-dir", directory, "--output", tmp_path / "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
    missing = tmp_path / "not" / "there"
    assert "inside of one that is there" in refused(capsys, "--run-dir", directory, "--output", missing)
    assert "holds no run" in refused(capsys, "--run-dir", tmp_path, "--output", tmp_path / "model")


@pytest.mark.parametrize(
    ("format", "package"), [("stablehlo", "flatbuffers"), ("safetensors", "safetensors"), ("onnx", "jax2onnx")]
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(runs, tmp_path, capsys, monkeypatch, format, package):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find(name))
    directory, *_ = runs["leaf"]
    message = refused(capsys, "--run-dir", directory, "--output", tmp_path / "model", "--format", format)
    extra = "onnx" if format == "onnx" else "export"
    assert f"needs the package {package}: pip install 'jaxcls[{extra}]'" in message


@pytest.mark.slow
@pytest.mark.parametrize("task", KINDS)
def test_onnx_predicts_as_the_run_does_but_for_rounding(runs, tmp_path, task):
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    import onnxruntime

    directory, learned, inputs = runs[task]
    output = tmp_path / "model"
    assert main(["export", "--run-dir", str(directory), "--output", str(output), "--format", "onnx"]) == 0
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    record = json.loads((output / "model.json").read_text())
    assert [one.name for one in session.get_inputs()] == record["inputs"]
    encoded = learned.preprocessor.transform(inputs)
    given = encoded if isinstance(encoded, dict) else {record["inputs"][0]: encoded}
    (scores,) = session.run(["probabilities"], {name: given[name] for name in record["inputs"]})
    np.testing.assert_allclose(scores, learned.predict(inputs), atol=1e-5)
    assert loader.verified(output).keys() - {"tokenizer.json"} == {"model.json", "model.onnx"}


def test_onnx_takes_float32_alone(runs):
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    _, learned, _ = runs["leaf"]
    halved = learned._replace(settings=dataclasses.replace(learned.settings, dtype="bfloat16"))
    with pytest.raises(InputError, match="compute in float32, not in bfloat16"):
        onnx.files(halved)
