"""Ensembles: their scores, and their run directories."""

import json

import jax
import numpy as np
import pretrained_folder
import pytest
import safetensors.numpy
import small_data
from flax import nnx

import jaxcls
from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.data.formats.tables import read_csv, write_csv
from jaxcls.data.preprocessing import from_record
from jaxcls.export import loader
from jaxcls.tasks import build, predictor
from jaxcls.training import ensemble, problems, run, saving
from jaxcls.training.settings import Settings

WEIGHTS = (0.5, 0.0, 0.2, 0.3)


def write_plants(path):
    random = np.random.default_rng(0)
    size, color = random.normal(10, 3, 120), random.choice(["red", "green", "blue"], 120)
    size[::7] = np.nan
    notes = [" ".join(random.choice(["a", "tall", "old", "leaf", "of", "oak"], 2 + row % 20)) for row in range(120)]
    kind, big = random.choice(["tree", "herb", "fern"], 120), random.integers(0, 2, 120)
    write_csv(path, {"id": range(120), "size": size, "color": color, "notes": notes, "kind": kind, "big": big})
    return path


def settings_of(task, folder):
    if task == "fashion_mnist":
        return Settings(task=task, data_dir=small_data.write(folder), model="mlp", eval_batch_size=32)
    data = write_plants(folder / "plants.csv")
    table = {"data": data, "id_column": "id", "eval_batch_size": 32, "test_fraction": 0.25}
    if task == "csv":
        return Settings(task=task, label_column=("kind",), drop_column=("big", "notes"), **table)
    return Settings(task=task, label_column=("big",), text_column="notes", model="cnn", max_length=24,
                    vocabulary_size=300, **table)  # fmt: skip


def changed(state, seed):
    """A state whose parameters are random: those of a linear model start at zero."""
    random = np.random.default_rng(seed)
    return state._replace(params=jax.tree.map(lambda leaf: leaf + random.normal(0, 0.3, leaf.shape), state.params))


class Saved:
    """An ensemble of untrained members whose preprocessors were fitted to two halves of the training examples."""

    def __init__(self, task, folder):
        self.settings = settings_of(task, folder)
        built = build.build(self.settings, say=lambda line: None)
        train, self.test = built.splits.train, built.splits.test
        rows = np.arange(train.num_examples // 2 * 2)
        if task == "fashion_mnist":  # dark and bright images, for different statistics
            rows = train.inputs[rows].mean(axis=(1, 2, 3)).argsort()
        halves = np.split(rows, 2)
        fitted = [built.task.fit_preprocessor(train.take(rows).inputs, built.settings) for rows in halves]
        if task == "csv":  # of the same program
            fitted = [built.experiment.preprocessor.refit(train.take(rows).inputs) for rows in halves]
        experiments = [
            build.with_objective(
                built.task, built.settings, one, built.experiment.class_names, built.experiment.objective,
                built.experiment.optimizer,
            )
            for one in fitted
        ]  # fmt: skip
        experiment_of = (0, 1, 0, 1)
        states = [changed(experiments[index].init(seed), seed) for seed, index in enumerate(experiment_of)]
        self.names = [f"fold{index}-seed{seed}" for seed, index in enumerate(experiment_of)]
        self.experiment = ensemble.ensemble(experiments, experiment_of, WEIGHTS, self.names)
        self.state = ensemble.state(self.experiment, states)
        each = [experiments[index].predict(states[seed], self.test.inputs) for seed, index in enumerate(experiment_of)]
        self.mean = np.tensordot(WEIGHTS, np.stack(each).astype(np.float64), 1)
        self.path = folder / "run"
        record = vars(built.provenance)
        directory = saving.run_directory(
            self.experiment, None, self.path, self.experiment.settings, dict(record) | {"duplicates_in_test": 0}
        )
        epoch = {"epoch": 1, "step": 1, "loss": 0.5, "skipped_steps": 0, "seconds": 1.0, "examples_per_second": 1.0}
        self.result = run.save_ensemble(
            self.experiment,
            self.state,
            build.preprocess(self.experiment.preprocessor, self.test),
            problems.default_thresholds(built.task.problem),
            directory,
            run.Reported(built.splits._asdict(), headline=["accuracy"]),
            [[epoch]] * 4,
        )


@pytest.fixture(scope="module", params=["fashion_mnist", "csv", "text_csv"])
def saved(request, tmp_path_factory):
    return Saved(request.param, tmp_path_factory.mktemp(request.param))


def test_the_scores_are_the_weighted_mean_of_the_members_and_are_loaded_again(saved):
    assert saved.mean.std(axis=0).max() > 1e-3
    scores = saved.experiment.predict(saved.state, saved.test.inputs)
    np.testing.assert_allclose(scores, saved.mean, atol=1e-6)
    learned = predictor.load(saved.path)
    np.testing.assert_array_equal(learned.predict(saved.test.inputs), scores)
    record = from_record(learned.experiment.preprocessor.as_record())
    assert record == learned.experiment.preprocessor == saved.experiment.preprocessor
    members = learned.experiment.model.members
    if saved.settings.task == "csv":
        assert learned.weights["params"].keys() == {"0"}  # one program
    assert [member.name for member in members] == [saved.names[i] for i in (0, 2, 3)]
    assert [member.weight for member in members] == pytest.approx([0.5, 0.2, 0.3])
    each = learned.experiment.model.unstack(learned.weights)
    of_member = members[2].experiment
    one = of_member.scores(each[2], of_member.transform(saved.test.inputs))
    others = saved.experiment.model.unstack(saved.state._asdict())[2]
    np.testing.assert_array_equal(one, of_member.scores(others, of_member.transform(saved.test.inputs)))


def test_it_is_evaluated_reported_and_predicts_as_any_run(saved, tmp_path, capsys):
    assert main(["evaluate", "--run-dir", str(saved.path)]) == 0
    results = json.loads((saved.path / "evaluation-test.json").read_text())
    assert results["metrics"] == pytest.approx(saved.result.report["metrics"])
    assert main(["report", "--run-dir", str(saved.path)]) == 0
    if saved.settings.task != "fashion_mnist":
        columns = read_csv(saved.settings.data)
        write_csv(tmp_path / "new.csv", {name: columns[name] for name in columns if name not in ("kind", "big")})
        new, output = str(tmp_path / "new.csv"), tmp_path / "predicted.csv"
        assert main(["predict", "--run-dir", str(saved.path), "--input", new, "--output", str(output)]) == 0
        assert len(read_csv(output)["id"]) == 120
    capsys.readouterr()


def test_its_export_predicts_the_same(saved, tmp_path):
    export = ["export", "--run-dir", str(saved.path), "--output", str(tmp_path / "model")]
    assert main(export) == 0
    exported = loader.load(tmp_path / "model")
    scores = exported.predict(saved.test.inputs)
    np.testing.assert_array_equal(scores, predictor.load(saved.path, portable=True).predict(saved.test.inputs))
    if saved.settings.task != "csv":
        return
    assert main([*export[:-1], str(tmp_path / "weights"), "--format", "safetensors"]) == 0
    arrays = safetensors.numpy.load_file(tmp_path / "weights" / "model.safetensors")
    assert {len(leaf) for leaf in arrays.values()} == {3}
    pytest.importorskip("jax2onnx", reason="it asks for flax>=0.12.1", exc_type=ImportError)
    assert main([*export[:-1], str(tmp_path / "onnx"), "--format", "onnx"]) == 0  # compared there, on random inputs
    assert "numeric_1" in json.loads((tmp_path / "onnx" / "model.json").read_text())["inputs"]


def test_frozen_weights_of_a_pretrained_encoder_are_stored_once(tmp_path):
    data, encoder = pretrained_folder.write_texts(tmp_path / "texts.csv"), pretrained_folder.write(tmp_path / "bert")
    words = ["train", "--task", "text_csv", "--data", data, "--text-column", "text", "--label-column", "label"]
    words += ["--pretrained", encoder, "--freeze", "embeddings", "--epochs", "1", "--batch-size", "16", "--quiet"]
    assert main([*map(str, words), "--seeds", "0", "1", "--run-dir", str(tmp_path / "run")]) == 0
    learned = predictor.load(tmp_path / "run")
    model = learned.experiment.model
    one, other = model.unstack(learned.weights)
    assert learned.weights["model_state"]["0"]["backbone"]["LayerNorm"]["bias"].ndim == 1
    texts = np.array(["a very good film", "the plot is dull"], object)
    each = [
        member.experiment.scores(weights, member.experiment.transform(texts))
        for member, weights in zip(model.members, (one, other), strict=True)
    ]
    np.testing.assert_allclose(learned.predict(texts), np.mean(each, axis=0), atol=1e-6)


def two_outputs():

    class Both(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(3, 5, rngs=rngs)

        def __call__(self, x):
            return {"kind": self.layer(x)[:, :1], "tags": self.layer(x)[:, 1:]}

    return jaxcls.compile(Both, loss={"kind": "binary_crossentropy", "tags": "categorical_crossentropy"})


def test_of_several_outputs_with_the_loss_of_the_mean_and_saved_with_another_model(tmp_path):
    one, random = two_outputs(), np.random.default_rng(0)
    x = random.normal(size=(20, 3)).astype(np.float32)
    labels = {"kind": random.integers(0, 2, 20), "tags": np.eye(4, dtype=np.float32)[random.integers(0, 4, 20)]}
    states = [one.init(seed) for seed in range(3)]
    made = ensemble.ensemble([one], [0, 0, 0], names=["a", "b", "c"])
    state = ensemble.state(made, states)
    scores, each = made.predict(state, x), [one.predict(state, x) for state in states]
    for name in labels:
        np.testing.assert_allclose(scores[name], np.mean([one[name] for one in each], axis=0), atol=1e-6)
    kind = scores["kind"].astype(np.float64)
    expected = -np.log(np.where(labels["kind"] == 1, kind, 1 - kind)).mean()
    assert made.evaluate(state, (x, labels))["kind_loss"] == pytest.approx(expected, rel=1e-5)
    made.save(state, tmp_path / "saved")
    for model in (made, one):
        loaded = jaxcls.load(tmp_path / "saved", model).predict(x)
        jax.tree.map(np.testing.assert_array_equal, loaded, scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0],), "the index of an experiment"),
        (([0, 0], [1, -1]), "not negative"),
        (([0, 0], [0, 0]), "one above 0"),
        (([0, 0], None, ["a", "a"]), "2 different ones"),
    ],
)
def test_invalid_members_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ensemble.ensemble([two_outputs()] if len(arguments) > 1 else [], *arguments)
