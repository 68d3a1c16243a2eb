"""What is given, what the recipe fills in, and what a file may hold."""

import dataclasses
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from jaxcls import settings, tasks
from jaxcls.errors import InputError
from jaxcls.settings import Settings

RECIPE = Settings(
    model="cnn", epochs=10, optimizer="adamw", learning_rate=3e-3, weight_decay=0.05, loss="softmax_cross_entropy",
    label_smoothing=0.1, nesterov=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("given_settings", "expected"),
    [
        ({}, {"epochs": 10, "weight_decay": 0.05, "label_smoothing": 0.1}),
        ({"epochs": 2, "nesterov": False}, {"epochs": 2, "nesterov": False}),
        ({"optimizer": "sgd"}, {"weight_decay": None, "learning_rate": None, "label_smoothing": 0.1}),
        ({"optimizer": "sgd", "learning_rate": 0.5}, {"learning_rate": 0.5}),
        ({"optimizer": "adamw"}, {"weight_decay": 0.05}),
        ({"loss": "focal_loss"}, {"label_smoothing": None, "weight_decay": 0.05}),
    ],
)
def test_the_recipe_fills_in_what_was_not_given_and_fits(given_settings, expected):
    resolved = settings.resolve(Settings(**given_settings), RECIPE)
    assert {name: getattr(resolved, name) for name in expected} == expected


@given(
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(1e-12, 1e6),
    run_dir=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(Path),
    restore_best=st.booleans(),
)
def test_settings_come_back_from_toml_as_they_went_in(tmp_path_factory, **values):
    path = tmp_path_factory.mktemp("settings") / "run.toml"
    path.write_text(tomli_w.dumps(settings.as_record(Settings(**values))), encoding="utf-8")
    assert settings.from_toml(path) == Settings(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("epochs = 3.5", "epochs = 3.5: must be a value of type int"),
        ("epochs = true", "epochs = True: must be a value of type int"),
        ("source = 'web'", "source = 'web': must be one of 'auto', 'files', 'tfds', 'sample'"),
        ("model = 3", "model = 3: must be a value of type str"),
        ("epochs 3", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_refused_with_what_would_be_right(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"run\.toml") as error:
        settings.from_toml(path)
    assert message in str(error.value)


def test_a_whole_number_will_do_for_a_rate():
    assert settings.from_record({"learning_rate": 1}, where="here") == Settings(learning_rate=1.0)


def test_where_a_run_is_kept_does_not_make_it_another_run():
    base = settings.digest(Settings())
    assert settings.digest(Settings(run_dir=Path("x"), data_dir=Path("y"), eval_batch_size=7)) == base
    assert settings.digest(Settings(learning_rate=1e-3)) != base


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_recipe_fills_in_everything_that_must_be(task):
    assert "default" in task.presets
    for preset in task.presets.values():
        unset = {
            field.name
            for field in dataclasses.fields(Settings)
            if getattr(preset, field.name) is None and "None" not in str(field.type)
        }
        assert unset == set()
        assert preset.model in task.models
        assert preset.monitor in task.metrics
