"""What `compile` takes, that it is the machinery of the tasks, several outputs, and what it refuses."""

import functools
import subprocess
import sys

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from sklearn import metrics as oracle

import jaxcls
from jaxcls import losses, optimizers
from jaxcls._utils.errors import InputError
from jaxcls.data.batching import Batch
from jaxcls.models import functional
from jaxcls.training import steps

COUNT, FEATURES, CLASSES = 48, 4, 3
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(COUNT, FEATURES)).astype(np.float32)
KINDS = (INPUTS @ RANDOM.normal(size=(FEATURES, CLASSES))).argmax(axis=1).astype(np.int32)
FLAGS = (INPUTS[:, 0] > 0.3).astype(np.int32)
SOFT = np.eye(CLASSES)[KINDS] * 0.7 + 0.1
TAGS = np.stack([INPUTS[:, 0] > 0, INPUTS[:, 1] > 0.5], axis=1).astype(np.float32)


def linear(rngs, features=CLASSES):
    return nnx.Linear(FEATURES, features, rngs=rngs)


class Dense(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Linear(FEATURES, CLASSES, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, inputs):
        return self.drop(self.layer(inputs))


def single(rngs):
    return nnx.Linear(FEATURES, 1, rngs=rngs)


class Settings(linen.Module):
    features: int


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, inputs, train):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(8)(inputs))
        return linen.Dense(CLASSES)(linen.Dropout(0.2, deterministic=not train)(linen.relu(x)))


class Two(nnx.Module):
    def __init__(self, rngs):
        self.kind = nnx.Linear(FEATURES, CLASSES, rngs=rngs)
        self.flag = nnx.Linear(FEATURES, 1, rngs=rngs)

    def __call__(self, inputs):
        return {"kind": self.kind(inputs), "flag": self.flag(inputs)}


def two(**options):
    chosen = {
        "optimizer": optimizers.sgd(0.5),
        "loss": {"kind": "sparse_categorical_crossentropy", "flag": "binary_crossentropy"},
        "metrics": {"kind": ["accuracy"], "flag": ["accuracy", "roc_auc"]},
        "loss_weights": {"flag": 0.25},
    }
    return jaxcls.compile(Two, **{**chosen, **options})


def init_pair(key):
    return {"kernel": jax.random.normal(key, (FEATURES, CLASSES)) * 0.1}


def apply_pair(params, inputs):
    return inputs @ params["kernel"]


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (linear, None),
        (Dense, None),
        (functools.partial(Dense), None),
        (functional(linear), None),
        ((init_pair, apply_pair), None),
        (LinenNet(), jax.ShapeDtypeStruct((1, FEATURES), "float32")),
    ],
    ids=["builder", "class", "partial", "model", "pair", "linen"],
)
def test_every_form_of_model_learns(model, example):
    compiled = jaxcls.compile(model, optimizers.adam(0.05), metrics=["accuracy", "roc_auc"], example=example)
    state = compiled.init(0)
    before = jax.device_get(state.params)
    data = (INPUTS, KINDS)
    state_after, history = compiled.fit(state, data, 30, data, batch_size=16, verbose=False)
    assert [entry["epoch"] for entry in history] == list(range(1, 31))
    assert history[-1]["val_loss"] < 0.5 < history[0]["val_loss"]
    assert history[-1]["val_accuracy"] > 0.8
    scores = compiled.predict(state_after, INPUTS)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    result = compiled.evaluate(state_after, data)
    assert result["accuracy"] == oracle.accuracy_score(KINDS, scores.argmax(axis=1)) == history[-1]["val_accuracy"]
    assert result["roc_auc"] == pytest.approx(oracle.roc_auc_score(KINDS, scores, multi_class="ovr"))
    # The state that was options is still there.
    chex.assert_trees_all_equal(jax.device_get(state.params), before)


def test_the_step_is_that_of_the_tasks():
    optimizer = optimizers.adamw(0.01, clipnorm=1.0)
    compiled = jaxcls.compile(Dense, optimizer)
    loss = losses.get("softmax_cross_entropy", "multiclass", normalizer="batch")
    model = functional(lambda rngs: Dense(rngs=rngs))
    step = jax.jit(steps.make_train_step(model, loss, optimizer))
    state, expected = compiled.init(3), steps.init_state(model, optimizer, 3)
    for first in range(0, COUNT, 16):
        rows = slice(first, first + 16)
        batch = jaxcls.batch(INPUTS[rows], KINDS[rows])
        state, metrics = compiled.train_step(state, batch)
        by_hand = Batch(INPUTS[rows], KINDS[rows], np.ones(16, bool), np.ones(16, np.float32))
        expected, expected_metrics = step(expected, by_hand)
        chex.assert_trees_all_equal((state, metrics), (expected, expected_metrics))


def test_a_second_fit_continues_with_the_orders_of_later_epochs():
    compiled = jaxcls.compile(Dense, optimizers.adam(0.01))
    one, _ = compiled.fit(compiled.init(0), (INPUTS, KINDS), 3, batch_size=16, verbose=False)
    two, _ = compiled.fit(compiled.init(0), (INPUTS, KINDS), 1, batch_size=16, verbose=False)
    two, _ = compiled.fit(two, (INPUTS, KINDS), 2, batch_size=16, verbose=False)
    chex.assert_trees_all_equal(one, two)


def test_a_second_fit_compiles_no_step_again():
    traced = []

    def surprise(outputs, labels):
        traced.append(outputs.shape)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    compiled = jaxcls.compile(Dense, "adam", surprise, problem="multiclass")
    state, _ = compiled.fit(compiled.init(0), (INPUTS, KINDS), 1, batch_size=16, verbose=False)
    # It was checked with the labels before it was compiled.
    assert traced == [(500, CLASSES), (16, CLASSES)]
    compiled.fit(state, (INPUTS, KINDS), 1, batch_size=16, verbose=False)
    assert len(traced) == 2


def test_a_fit_with_a_run_directory_resumes(tmp_path):
    compiled = jaxcls.compile(Dense, optimizers.adam(0.01))
    train = functools.partial(
        compiled.fit, validation_data=(INPUTS, KINDS), batch_size=16, verbose=False, monitor="accuracy",
        train_metrics=True,
    )  # fmt: skip
    whole, history = train(compiled.init(0), (INPUTS, KINDS), 3)
    train(compiled.init(0), (INPUTS, KINDS), 1, run_dir=tmp_path)
    resumed, continued = train(compiled.init(0), (INPUTS, KINDS), 3, run_dir=tmp_path)
    chex.assert_trees_all_equal(resumed, whole)
    for name in ("val_loss", "accuracy"):
        assert [entry[name] for entry in continued] == [entry[name] for entry in history]
    correct = compiled.predict(whole, INPUTS).argmax(axis=1) == KINDS
    assert history[-1]["accuracy"] == history[-1]["val_accuracy"] == pytest.approx(correct.mean())
    without, _ = train(compiled.init(0), (INPUTS, KINDS), 3, train_metrics=False)
    chex.assert_trees_all_equal(without, whole)
    assert "training" in (tmp_path / "report.html").read_text()


def test_a_choice_by_few_validation_examples_gets_a_warning(capsys):
    compiled = jaxcls.compile(linear, "sgd")
    compiled.fit(compiled.init(0), (INPUTS, KINDS), 1, (INPUTS, KINDS), batch_size=16, monitor="loss", patience=1)
    assert "warning: patience chooses by 48 validation examples, which is chance" in capsys.readouterr().out


def test_accumulation_by_optax_is_advised_against(caplog):
    multi = optax.MultiSteps(optax.sgd(0.1), 2)
    jaxcls.compile(linear, optimizers.sgd(0.1, gradient_accumulation_steps=2)).init(0)
    assert not caplog.records
    for optimizer in (multi, optax.chain(optax.clip(1.0), multi.gradient_transformation())):
        jaxcls.compile(linear, optimizer).init(0)
        assert "gradient_accumulation_steps" in caplog.records.pop().message


class Records:
    """As the data sources of TFDS are."""

    class dataset_info:
        supervised_keys = ("image", "label")

    def __len__(self):
        return COUNT

    def __getitem__(self, row):
        return {"image": INPUTS[row], "label": KINDS[row], "id": str(row)}


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS.astype(np.float64), KINDS.astype(np.int64)),
        (INPUTS, KINDS[:, None]),
        (INPUTS, np.eye(CLASSES)[KINDS]),
        (INPUTS, KINDS.tolist()),
        (jnp.asarray(INPUTS), jnp.asarray(KINDS), np.ones(COUNT)),
        list(zip(INPUTS, KINDS, strict=True)),
        [{"inputs": x, "labels": y, "sample_weight": 1.0} for x, y in zip(INPUTS, KINDS, strict=True)],
        grain.MapDataset.range(COUNT).map(lambda row: (INPUTS[row], KINDS[row])),
        Records(),
    ],
    ids=["wide", "column", "one-hot", "list", "jax", "pairs", "dicts", "grain", "tfds"],
)
def test_data_in_any_form_gives_the_same(data):
    compiled = jaxcls.compile(linear, "sgd")
    state, _ = compiled.fit(compiled.init(0), data, 2, batch_size=16, verbose=False)
    expected, _ = compiled.fit(compiled.init(0), (INPUTS, KINDS), 2, batch_size=16, verbose=False)
    chex.assert_trees_all_equal(state, expected)
    assert compiled.evaluate(state, data) == compiled.evaluate(state, (INPUTS, KINDS))


def test_inputs_may_be_a_dict():
    def apply(params, inputs):
        return jnp.concatenate([inputs["left"], inputs["right"]], axis=1) @ params["kernel"]

    compiled = jaxcls.compile((init_pair, apply))
    inputs = {"left": INPUTS[:, :2], "right": INPUTS[:, 2:]}
    state, _ = compiled.fit(compiled.init(0), (inputs, KINDS), 1, batch_size=16, verbose=False)
    assert compiled.predict(state, inputs).shape == (COUNT, CLASSES)


def test_user_losses_and_metrics():
    def surprise(outputs, labels):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def mistakes(scores, labels, sample_weight):
        return np.sum(sample_weight * (scores.argmax(axis=1) != labels))

    weights = np.linspace(0, 2, COUNT, dtype=np.float32)
    weighted = jaxcls.compile(
        linear, optax.sgd(0.1), surprise, [mistakes], problem="multiclass", class_weight={0: 1, 1: 2, 2: 3}
    )
    named = jaxcls.compile(linear, optax.sgd(0.1), metrics=["accuracy"], class_weight=[1.0, 2.0, 3.0])
    state, history = weighted.fit(weighted.init(0), (INPUTS, KINDS, weights), 3, batch_size=20, verbose=False)
    expected, expected_history = named.fit(named.init(0), (INPUTS, KINDS, weights), 3, batch_size=20, verbose=False)
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-5, atol=1e-6)
    assert [e["loss"] for e in history] == pytest.approx([e["loss"] for e in expected_history])
    wrong = weighted.predict(state, INPUTS).argmax(axis=1) != KINDS
    assert weighted.evaluate(state, (INPUTS, KINDS, weights))["mistakes"] == pytest.approx(weights @ wrong)


def test_several_outputs_are_the_weighted_sum_of_their_losses():
    compiled = two(class_weight={"flag": {0: 1.0, 1: 3.0}})
    labels = {"kind": KINDS, "flag": FLAGS}
    weights = {"kind": np.ones(COUNT, np.float32), "flag": np.linspace(0, 1, COUNT, dtype=np.float32)}
    state = compiled.init(0)
    outputs, _ = compiled.model.apply(state.params, state.model_state, INPUTS)
    _, metrics = compiled.train_step(state, jaxcls.batch(INPUTS, labels, weights))
    x, z = (np.asarray(outputs[name], np.float64) for name in ("kind", "flag"))
    kind = np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(COUNT), KINDS])
    flag = np.mean(weights["flag"] * np.where(FLAGS, 3 * np.log1p(np.exp(-z)), np.log1p(np.exp(z))))
    assert float(metrics.loss) == pytest.approx(kind + 0.25 * flag, rel=1e-5)

    after, history = compiled.fit(state, (INPUTS, labels, weights), 30, (INPUTS, labels), batch_size=16, verbose=False)
    last = history[-1]
    assert last["val_loss"] == pytest.approx(last["val_kind_loss"] + 0.25 * last["val_flag_loss"])
    scores = compiled.predict(after, INPUTS)
    assert scores["flag"].shape == (COUNT,)
    assert last["val_flag_roc_auc"] == pytest.approx(oracle.roc_auc_score(FLAGS, scores["flag"]))
    assert last["val_kind_accuracy"] == np.mean(scores["kind"].argmax(axis=1) == KINDS) > 0.8


def test_labels_that_an_output_ignores_are_neither_learned_from_nor_scored():
    unknown = np.arange(COUNT) % 3 == 0
    loss = {"kind": losses.get("softmax_cross_entropy", ignore_label=-1), "flag": "binary_crossentropy"}
    compiled = two(loss=loss)
    options = {"kind": np.where(unknown, -1, KINDS), "flag": FLAGS}
    state = compiled.init(0)
    result = compiled.evaluate(state, (INPUTS, options))
    rest = compiled.evaluate(state, (INPUTS[~unknown], {"kind": KINDS[~unknown], "flag": FLAGS[~unknown]}))
    assert result["kind_loss"] == pytest.approx(rest["kind_loss"], rel=1e-6)
    assert result["kind_accuracy"] == rest["kind_accuracy"]
    assert result["flag_loss"] != rest["flag_loss"]
    with pytest.raises(InputError, match="output 'kind': labels: row 0 holds -1"):
        two().evaluate(state, (INPUTS, options))


def test_a_multilabel_problem_may_have_unknown_labels():
    compiled = jaxcls.compile(
        functools.partial(linear, features=2), "adam", "binary_crossentropy", ["f1"], problem="multilabel"
    )
    tags = TAGS.copy()
    tags[::5, 1] = np.nan
    state, history = compiled.fit(compiled.init(0), (INPUTS, tags), 2, (INPUTS, tags), batch_size=16, verbose=False)
    assert compiled.predict(state, INPUTS).shape == (COUNT, 2)
    assert np.isfinite([history[-1]["val_loss"], history[-1]["val_f1"]]).all()


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def one_number(outputs, labels):
    return jnp.mean(outputs)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: jaxcls.compile(linear, "adamm"), "Did you mean 'adam"),
        (lambda: jaxcls.compile(linear, 1e-3), "an optimizer of type float was given"),
        (lambda: jaxcls.compile(linear, loss="categorical_crossentropi"), "Did you mean 'categorical_crossentropy'"),
        (lambda: jaxcls.compile(linear, loss="focal_loss"), "call losses.get('focal_loss', 'binary')"),
        (lambda: jaxcls.compile(linear, loss=losses.hinge, problem="multiclass"), "'hinge' does not fit a multiclass"),
        (lambda: jaxcls.compile(linear, loss=lambda outputs, labels: 0), "needs problem='multiclass'"),
        (lambda: jaxcls.compile(linear, metrics="accuracy"), "metrics is a list, such as metrics=['accuracy']"),
        (lambda: jaxcls.compile(linear, metrics=["acuracy"]), "Did you mean 'accuracy'?"),
        (lambda: jaxcls.compile(linear, metrics=["subset_accuracy"]), "does not fit a multiclass problem"),
        (lambda: jaxcls.compile(linear, class_weight="balance"), "unknown class_weight 'balance'"),
        (lambda: jaxcls.compile(linear, class_weight={1: 1.0, 2: 1.0}), "class_weight lacks class 0"),
        (lambda: jaxcls.compile(linear, loss_weights={"a": 1.0}), "give a dict {output: loss}"),
        (lambda: jaxcls.compile(linear(nnx.Rngs(0))), "give what builds it"),
        (lambda: jaxcls.compile(LinenNet()), "give a batch of them as example="),
        (lambda: jaxcls.compile("resnet"), "a model of type str was given"),
        (lambda: two(loss_weights={"flg": 1.0}), "unknown output in loss_weights 'flg'. Did you mean 'flag'?"),
        (lambda: two(metrics={"kind": ["f2"]}), "output 'kind': unknown metric 'f2'"),
        (lambda: fitted(linear, (INPUTS, FLAGS), loss="binary_crossentropy"), "returns (N, 3), but a binary"),
        (lambda: fitted(linear, (INPUTS, KINDS + 1)), "labels: row"),
        (lambda: fitted(linear, (INPUTS, KINDS + 0.5)), "indices must be integers"),
        (lambda: fitted(linear, (INPUTS, TAGS)), "must have shape (48,) or (48, 3)"),
        (lambda: fitted(linear, (INPUTS, KINDS[1:])), "at least 1; they have: inputs 48, labels 47"),
        (lambda: fitted(linear, (INPUTS, KINDS, -np.ones(COUNT))), "sample_weight must be finite and not negative"),
        (lambda: fitted(linear, (INPUTS.astype(str), KINDS)), "examples are numbers"),
        (lambda: fitted(linear, {"x": INPUTS}), "dict does not give access to examples by index"),
        (lambda: fitted(linear, [INPUTS[0]]), "an item of list is a ndarray"),
        (lambda: fitted(linear, [(INPUTS[0], 0), (INPUTS[0, :2], 0)]), "1 has an array of shape (2,), example 0"),
        (lambda: fitted(Two, (INPUTS, KINDS)), "several outputs need a dict of losses"),
        (lambda: fitted(Two, (INPUTS, FLAGS), loss="hinge"), "several outputs need a dict of losses"),
        (lambda: fitted(linear, (INPUTS, KINDS), loss={"a": "hinge"}), "the model must be a dict of a, as loss is"),
        (lambda: two().evaluate(two().init(0), (INPUTS, KINDS)), "labels must be a dict of kind, flag"),
        (lambda: fitted(linear, (INPUTS, KINDS), loss=one_number, problem="multiclass"), "must return one value each"),
        (lambda: fitted(linear, (INPUTS, KINDS), monitor="loss"), "give validation_data"),
        (lambda: fitted(linear, (INPUTS, KINDS), patience=2), "patience needs monitor"),
        (lambda: fitted(linear, (INPUTS, KINDS), patience=0), "patience is 0; it must be an integer of 1 or more"),
        (lambda: fitted(linear, (INPUTS, KINDS), monitor="loss", patience=1.5), "it must be an integer of 1 or more"),
        (lambda: fitted(linear, (INPUTS, KINDS), max_skipped_steps=0), "max_skipped_steps is 0; it must be"),
        (lambda: jaxcls.compile(linear, eval_batch_size=0), "eval_batch_size is 0"),
        (lambda: jaxcls.compile(linear).init(-1), "seed is -1"),
        (lambda: jaxcls.compile(Settings, example=INPUTS), "give the module, Settings(...)"),
        (lambda: jaxcls.compile(lambda rngs: 3), "does not build a Flax NNX module"),
        (lambda: fitted(linear, (INPUTS, KINDS.astype(np.int64) + 2**32)), "labels[0] is 42949672"),
        (lambda: fitted(linear, (INPUTS, KINDS * 1e10)), "indices must be integers"),
        (lambda: fitted(linear, (INPUTS[:, :3], KINDS)), "does not take inputs float32 (48, 3)"),
        (lambda: fitted(linear, (INPUTS, KINDS), class_weight={0: 1.0}), "class_weight lacks class 1, 2"),
        (lambda: fitted(linear, (INPUTS, KINDS), class_weight=[1.0, 1.0]), "must have shape (3,)"),
        (lambda: fitted(linear, (INPUTS, SOFT), loss=cross_entropy, problem="multiclass"), "the loss does not take"),
        (lambda: fitted(linear, (INPUTS * np.nan, KINDS)), "48 of 48 rows of the inputs hold NaN"),
        (
            lambda: fitted(linear, (INPUTS, KINDS), metrics=["top_k_accuracy"], validation_data=(INPUTS, KINDS)),
            "metric 'top_k_accuracy': k must be at least 1 and below the 3 classes",
        ),
        (
            lambda: fitted(
                single, (INPUTS, FLAGS), loss="hinge", metrics=["f1"], validation_data=(INPUTS, FLAGS * 0.9)
            ),
            "metric 'f1': row",
        ),
        (
            lambda: fitted(linear, (INPUTS, KINDS), validation_data=(INPUTS, KINDS, np.zeros(COUNT))),
            "no example has both a known label and a weight above 0",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_the_correction(attempt, message):
    with pytest.raises(InputError) as error:
        attempt()
    assert message in str(error.value)


def fitted(
    model, data, validation_data=None, batch_size=16, monitor=None, patience=None, max_skipped_steps=20, **options
):
    compiled = jaxcls.compile(model, **options)
    return compiled.fit(
        compiled.init(0), data, 1, validation_data, batch_size=batch_size, monitor=monitor, patience=patience,
        max_skipped_steps=max_skipped_steps, verbose=False,
    )  # fmt: skip


def test_predictions_of_no_rows_and_of_inputs_of_another_shape():
    compiled = jaxcls.compile(linear)
    state = compiled.init(0)
    assert compiled.predict(state, INPUTS[:0]).shape == (0, CLASSES)
    assert two().predict(two().init(0), INPUTS[:0])["flag"].shape == (0,)
    with pytest.raises(InputError, match=r"float32 \(4,\).*look like one example: give inputs\[None\]"):
        compiled.predict(state, INPUTS[0])
    with pytest.raises(InputError, match=r"float32 \(48, 3\).*The first axis counts the examples"):
        compiled.predict(state, INPUTS[:, :3])
    with pytest.raises(InputError, match=r"does not take inputs float32 \(48, 4\), int32 \(48,\)"):
        compiled.predict(state, (INPUTS, KINDS))


def test_the_class_of_a_linen_module_builds_it():
    example = jax.ShapeDtypeStruct((1, FEATURES), "float32")
    chex.assert_trees_all_equal(
        jaxcls.compile(LinenNet, example=example).init(0), jaxcls.compile(LinenNet(), example=example).init(0)
    )


def test_soft_labels_have_their_expected_class_weight_in_a_users_loss():
    def soft_loss(outputs, labels):
        return optax.softmax_cross_entropy(outputs, labels)

    def sigmoid_loss(outputs, labels):
        return optax.sigmoid_binary_cross_entropy(outputs, labels)

    options = {"metrics": [], "problem": "multiclass", "class_weight": {0: 1, 1: 2, 2: 4}}
    ours = jaxcls.compile(linear, loss=soft_loss, **options)
    outputs = np.asarray(ours.model.apply(ours.init(0).params, {}, INPUTS)[0], np.float64)
    values = np.log(np.exp(outputs).sum(axis=1)) - (SOFT * outputs).sum(axis=1)
    assert ours.evaluate(ours.init(0), (INPUTS, SOFT))["loss"] == pytest.approx(np.mean(SOFT @ [1, 2, 4] * values))

    floats = jaxcls.compile(single, loss=sigmoid_loss, metrics=[], problem="binary", class_weight=[1, 3])
    z = np.asarray(floats.model.apply(floats.init(0).params, {}, INPUTS)[0], np.float64)
    soft = FLAGS * 0.8 + 0.1
    values = (1 + 2 * soft) * (np.log1p(np.exp(z)) - soft * z)
    assert floats.evaluate(floats.init(0), (INPUTS, soft))["loss"] == pytest.approx(values.mean())


def test_soft_labels_are_trained_on_beside_metrics_of_hard_ones():
    compiled = jaxcls.compile(single, loss="binary_crossentropy", metrics=["accuracy", "roc_auc"])
    data = (INPUTS, FLAGS * 0.8 + 0.1)
    _, history = compiled.fit(compiled.init(0), data, 1, (INPUTS, FLAGS), batch_size=16, verbose=False)
    assert 0 <= history[-1]["val_accuracy"] <= 1


def test_missing_numbers_are_named_unless_the_model_replaces_them(capsys):
    gaps = INPUTS.copy()
    gaps[::5, 1] = np.nan
    compiled = jaxcls.compile(linear)
    compiled.fit(compiled.init(0), (gaps, KINDS), 1, batch_size=16)
    assert (
        "warning: 10 of 48 rows of the inputs hold NaN or infinity, the first of them row 0" in capsys.readouterr().out
    )
    compiled = jaxcls.compile(linear, preprocess=jnp.nan_to_num)
    gaps[:, 1] = np.nan
    _, history = compiled.fit(compiled.init(0), (gaps, KINDS), 1, batch_size=16)
    assert "warning" not in capsys.readouterr().out
    assert history[-1]["skipped_steps"] == 0


def test_unknown_labels_are_no_error_with_debug_nans():
    compiled = jaxcls.compile(
        functools.partial(linear, features=2), "adam", "binary_crossentropy", ["f1"], problem="multilabel"
    )
    tags = TAGS.copy()
    tags[::5, 1] = np.nan
    with jax.debug_nans(True):
        _, history = compiled.fit(compiled.init(0), (INPUTS, tags), 2, (INPUTS, tags), batch_size=16, verbose=False)
    assert np.isfinite(history[-1]["val_loss"])


def test_an_unknown_value_to_monitor_is_refused():
    compiled = two()
    labels = {"kind": KINDS, "flag": FLAGS}
    with pytest.raises(InputError, match="Did you mean 'kind_accuracy'"):
        compiled.fit(compiled.init(0), (INPUTS, labels), 1, (INPUTS, labels), monitor="kind_acuracy", patience=1)


def test_importing_the_package_imports_no_jax():
    code = "import jaxcls, sys; assert 'compile' in jaxcls.__all__ and 'jax' not in sys.modules; jaxcls.compile"
    subprocess.run([sys.executable, "-c", code], check=True)
