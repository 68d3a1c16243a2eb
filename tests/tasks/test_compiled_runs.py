"""A compiled model can do what a task's run can: run directories, reports, saving, loading, exports, callbacks."""

import json

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jaxcls
from jaxcls import losses, optimizers
from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.data import adapters
from jaxcls.export import loader
from jaxcls.training import memory

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(96, 4)).astype(np.float32)
LABELS = np.where(np.arange(96) % 6 == 0, 2, (INPUTS[:, 0] > 0)).astype(np.int32)
TRAIN, VALIDATION = (INPUTS[:64], LABELS[:64]), (INPUTS[64:], LABELS[64:])


def build(rngs):
    return nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 3, rngs=rngs))


class Two(nnx.Module):
    def __init__(self, rngs):
        self.kind, self.flag = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, inputs):
        return {"kind": self.kind(inputs), "flag": self.flag(inputs)}


def compiled(**options):
    return jaxcls.compile(build, optimizers.adam(0.05), **options)


def fit(experiment, run_dir=None, *, seed=0, epochs=3, **options):
    return experiment.fit(
        experiment.init(seed), TRAIN, epochs, VALIDATION, batch_size=16, verbose=False, run_dir=run_dir, **options
    )


def fit_again(run_dir):
    experiment = compiled()
    trained, _ = fit(experiment, epochs=1)
    experiment.fit(trained, TRAIN, 3, VALIDATION, batch_size=16, verbose=False, run_dir=run_dir)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "compiled"
    experiment = compiled(class_names=("left", "right", "sixth"))
    state, history = fit(experiment, directory)
    return experiment, state, history, directory


def test_a_run_directory_has_the_files_of_a_task_run(run):
    experiment, state, _, directory = run
    names = {path.name for path in directory.iterdir()}
    assert names >= {
        "SHA256SUMS", "checkpoints", "config.toml", "data.json", "environment.json", "metrics.jsonl", "model",
        "predictor.json", "report.html", "results.json", "summary.json",
    }  # fmt: skip
    results = json.loads((directory / "results.json").read_text())
    assert results["split"] == "validation"
    assert results["metrics"]["accuracy"] == experiment.evaluate(state, VALIDATION)["accuracy"]
    assert "sixth" in (directory / "report.html").read_text()


def test_the_report_command_rewrites_the_report(run):
    *_, directory = run
    before = (directory / "report.html").read_text()
    (directory / "report.html").unlink()
    assert main(["report", "--run-dir", str(directory)]) == 0
    assert (directory / "report.html").read_text() == before


def test_a_run_is_extended_by_the_same_call_and_equals_an_uninterrupted_one(tmp_path):
    experiment = compiled()
    whole, history = fit(experiment, epochs=4)
    fit(experiment, tmp_path / "run", epochs=2)
    resumed, continued = fit(experiment, tmp_path / "run", epochs=4)
    chex.assert_trees_all_equal(resumed, whole)
    assert continued.as_dict()["val_loss"] == history.as_dict()["val_loss"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    fit(compiled(), directory)
    return directory


def test_a_run_is_not_cut_short_by_another_call(ended):
    with pytest.raises(InputError, match="the run has 3 epochs already, more than epochs=1"):
        fit(compiled(), ended, epochs=1)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda run_dir: fit(compiled(), run_dir, seed=1), "initial state"),
        (lambda run_dir: fit(jaxcls.compile(build, optimizers.adam(0.1)), run_dir), "step"),
        (lambda run_dir: fit(compiled(loss="categorical_focal_crossentropy"), run_dir), "step"),
        (lambda run_dir: fit(compiled(class_weight={0: 1.0, 1: 2.0, 2: 3.0}), run_dir), "step"),
        (
            lambda run_dir: compiled().fit(
                compiled().init(0), (TRAIN[0] + 1, TRAIN[1]), 3, VALIDATION, batch_size=16, verbose=False,
                run_dir=run_dir,
            ),
            "train",
        ),
        (
            lambda run_dir: compiled().fit(
                compiled().init(0), TRAIN, 3, batch_size=16, verbose=False, run_dir=run_dir
            ),
            "now validation",
        ),
        (
            lambda run_dir: compiled().fit(
                compiled().init(0), TRAIN, 3, VALIDATION, batch_size=16, verbose=False, run_dir=run_dir,
                monitor="loss", patience=1,
            ),
            "patience",
        ),
        (fit_again, "initial state"),
    ],
    ids=["seed", "rate", "loss", "class weights", "inputs", "validation data", "patience", "trained state"],
)  # fmt: skip
def test_what_decides_the_result_is_part_of_the_identity_of_a_run(ended, change, difference):
    with pytest.raises(InputError, match=difference):
        change(ended)


def test_a_saved_experiment_and_its_run_load_and_predict_the_same(run, tmp_path):
    experiment, state, _, directory = run
    expected = experiment.predict(state, INPUTS)
    experiment.save(state, tmp_path / "saved")
    for predictor in (
        jaxcls.load(directory, build),
        jaxcls.load(directory, experiment),
        jaxcls.load(tmp_path / "saved", build),
    ):
        np.testing.assert_array_equal(predictor.predict(INPUTS), expected)
        assert predictor.class_names == ("left", "right", "sixth")


def test_loading_asks_for_the_model_code_and_refuses_another_model(run):
    *_, directory = run
    with pytest.raises(InputError, match=r"load it with jaxcls.load\(path, model\)"):
        jaxcls.load(directory)
    with pytest.raises(InputError, match="kernel"):
        jaxcls.load(directory, lambda rngs: nnx.Linear(4, 3, rngs=rngs))


def test_the_predict_command_imports_the_model(run, tmp_path, monkeypatch, capsys):
    experiment, state, _, directory = run
    (tmp_path / "my_model.py").write_text(
        "from flax import nnx\n\ndef build(rngs):\n    return nnx.Sequential("
        "nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 3, rngs=rngs))\n"
    )
    np.save(tmp_path / "inputs.npy", INPUTS)
    monkeypatch.chdir(tmp_path)
    command = ["predict", "--run-dir", str(directory), "--input", "inputs.npy", "--output", "predicted.csv"]
    assert main(command) == 2
    command += ["--model", "my_model:build"]
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.npy").touch()
    for name, why in (
        ("a.png", "is no .npy"),
        ("empty.npy", "is no .npy"),
        (".", "Is a directory"),
        ("b.npy", "No such"),
    ):
        capsys.readouterr()
        assert main([name if word == "inputs.npy" else word for word in command]) == 2
        message = capsys.readouterr().err
        assert f"{name}: {why}" in message
        assert "does not know how your program decodes images" in message
        assert "numpy.save" in message
    assert main(command) == 0
    rows = (tmp_path / "predicted.csv").read_text().splitlines()
    assert rows[0] == "id,predicted,probability_left,probability_right,probability_sixth"
    names = np.array(experiment.class_names)[experiment.predict(state, INPUTS).argmax(axis=1)]
    assert [row.split(",")[1] for row in rows[1:]] == names.tolist()


def test_an_export_predicts_without_the_code(run, tmp_path):
    experiment, state, *_ = run
    experiment.export(state, tmp_path / "export", INPUTS[:2])
    model = loader.load(tmp_path / "export")
    expected = experiment.predict(state, INPUTS)
    np.testing.assert_allclose(model.predict(INPUTS), expected, rtol=1e-5, atol=1e-6)
    names = np.array(experiment.class_names)
    assert model.decide(model.predict(INPUTS)) == names[expected.argmax(axis=1)].tolist()


def test_balanced_class_weights_are_those_of_the_training_labels():
    balanced, explicit = (
        compiled(class_weight=weight) for weight in ("balanced", losses.class_weights(TRAIN[1], num_classes=3))
    )
    with pytest.raises(InputError, match="call fit first"):
        balanced.evaluate(balanced.init(0), VALIDATION)
    state, history = fit(balanced)
    expected, expected_history = fit(explicit)
    chex.assert_trees_all_equal(state, expected)
    assert history.as_dict()["val_loss"] == expected_history.as_dict()["val_loss"]
    assert balanced.evaluate(state, VALIDATION)["loss"] == history[-1]["val_loss"]


def test_every_fit_balances_the_classes_of_its_own_training_labels():
    traced = []

    def own_loss(outputs, labels):
        traced.append(outputs.shape)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    balanced = compiled(loss=own_loss, problem="multiclass", class_weight="balanced")
    explicit = compiled(
        loss=own_loss, problem="multiclass", class_weight=losses.class_weights(VALIDATION[1], num_classes=3)
    )
    fit(balanced)
    options = {"epochs": 2, "batch_size": 16, "verbose": False}
    state, history = balanced.fit(balanced.init(0), VALIDATION, validation_data=TRAIN, **options)
    expected, expected_history = explicit.fit(explicit.init(0), VALIDATION, validation_data=TRAIN, **options)
    chex.assert_trees_all_equal(state, expected)
    assert history.as_dict()["val_loss"] == expected_history.as_dict()["val_loss"]
    # The same weights again need no other program.
    before = len(traced)
    balanced.fit(balanced.init(1), VALIDATION, validation_data=TRAIN, **options)
    assert len(traced) == before


def test_a_fit_that_examines_every_step_knows_its_class_weights():
    eager, quick = (compiled(class_weight="balanced", run_eagerly=eager) for eager in (True, False))
    (state, _), (expected, _) = fit(eager, epochs=1), fit(quick, epochs=1)
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-5)


def test_a_silent_fit_prints_nothing(tmp_path, capsys):
    fit(compiled(), tmp_path / "run", epochs=1)
    assert capsys.readouterr().out == ""


def test_callbacks_follow_training():
    moments = []

    class Recorder(jaxcls.Callback):
        def on_train_begin(self, step):
            moments.append(("begin", step))

        def on_epoch_end(self, history):
            moments.append(("epoch", len(history)))

        def on_train_end(self, history):
            moments.append(("end", len(history)))

    fit(compiled(), epochs=2, callbacks=[Recorder()])
    assert moments == [("begin", 0), ("epoch", 1), ("epoch", 2), ("end", 2)]


def test_several_outputs_leave_a_report_with_a_section_each(tmp_path):
    loss = {"kind": "sparse_categorical_crossentropy", "flag": "binary_crossentropy"}
    experiment = jaxcls.compile(Two, "adam", loss)
    labels = {"kind": LABELS, "flag": (INPUTS[:, 1] > 0).astype(np.int32)}
    state, _ = experiment.fit(experiment.init(0), (INPUTS, labels), 1, verbose=False, run_dir=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {name: output["problem"] for name, output in results["outputs"].items()} == {
        "kind": "multiclass",
        "flag": "binary",
    }
    report = (tmp_path / "run" / "report.html").read_text()
    assert "kind: Confusion" in report
    predictor = jaxcls.load(tmp_path / "run", Two)
    jax.tree.map(np.testing.assert_array_equal, predictor.predict(INPUTS), experiment.predict(state, INPUTS))


class Examples:
    """Examples with access by index, as of a grain.MapDataset or a data set of PyTorch."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]


def test_a_source_that_is_not_read_at_once_gives_the_same_run(run, tmp_path, monkeypatch):
    experiment, state, history, directory = run
    expected = json.loads((directory / "results.json").read_text())
    monkeypatch.setattr(adapters, "SMALL", 1100)
    monkeypatch.setattr(adapters, "_SAMPLE", 8)
    monkeypatch.setattr(memory, "SMALL", 0)
    sources = Examples(*TRAIN), Examples(*VALIDATION)
    for _ in range(2):  # the second time it continues
        again, losses_ = experiment.fit(
            experiment.init(0), sources[0], 3, sources[1], batch_size=16, verbose=False, run_dir=tmp_path / "run"
        )
        chex.assert_trees_all_equal(again.params, state.params)
        assert [entry["val_loss"] for entry in losses_] == [entry["val_loss"] for entry in history]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["params_sha256"] == expected["params_sha256"]
    assert results["metrics"] == expected["metrics"]
    sources[0].labels = np.where(np.arange(64) == 40, 9, LABELS[:64])
    with pytest.raises(
        InputError,
        match=r"labels that were not checked before training: labels: row \d+ holds 9.* lie in 0 to 2.$",
    ):
        experiment.fit(experiment.init(0), sources[0], 1, batch_size=16, verbose=False)


def test_folds_and_class_weights_of_a_source_are_those_of_its_arrays(monkeypatch):
    experiment = compiled(class_weight="balanced")
    expected = experiment.fit_population(TRAIN, 1, folds=2, batch_size=16, verbose=False)
    monkeypatch.setattr(adapters, "SMALL", 1100)
    monkeypatch.setattr(memory, "SMALL", 0)
    got = experiment.fit_population(Examples(*TRAIN), 1, folds=2, batch_size=16, verbose=False)
    np.testing.assert_array_equal(got.out_of_fold, expected.out_of_fold)
