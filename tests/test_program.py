"""What the recipe fills in, what does not fit together, and what every task must say."""

import dataclasses

import pytest

from jaxcls import program, tasks
from jaxcls.errors import InputError
from jaxcls.settings import Settings

FASHION = tasks.get("fashion_mnist")
RECIPE = FASHION.presets["default"].settings


def resolved(**given):
    return program.resolve(FASHION, Settings(**given))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"epochs": RECIPE.epochs, "weight_decay": RECIPE.weight_decay, "warmup": RECIPE.warmup}),
        ({"epochs": 2, "restore_best": True}, {"epochs": 2, "restore_best": True}),
        ({"optimizer": "sgd"}, {"weight_decay": None, "learning_rate": 0.01, "schedule": RECIPE.schedule}),
        ({"optimizer": "sgd", "learning_rate": 0.5}, {"learning_rate": 0.5}),
        ({"optimizer": RECIPE.optimizer}, {"weight_decay": RECIPE.weight_decay}),
        ({"optimizer": "schedule_free"}, {"schedule": "constant", "learning_rate": 0.0025}),
        ({"schedule": "one_cycle"}, {"warmup": None, "learning_rate": RECIPE.learning_rate}),
        ({"loss": "focal_loss"}, {"label_smoothing": None, "weight_decay": RECIPE.weight_decay}),
        ({"loss": "softmax_cross_entropy"}, {"label_smoothing": RECIPE.label_smoothing}),
        ({"loss": "weighted_crossentropy"}, {"label_smoothing": None}),
    ],
    ids=str,
)
def test_the_recipe_fills_in_what_was_not_given_and_fits(given, expected):
    settings = resolved(**given)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "resnett"}, "Did you mean 'resnet'?"),
        ({"preset": "bets"}, "Did you mean 'best'?"),
        ({"monitor": "acuracy"}, "Did you mean 'accuracy'?"),
        ({"monitor": "subset_accuracy"}, "does not fit a multiclass problem"),
        ({"optimizer": "adamm"}, "Did you mean 'adam"),
        ({"loss": "hinge"}, "does not fit a multiclass problem"),
        ({"epochs": 0}, "--epochs is 0; it must be 1 or more"),
        ({"validation_fraction": 1.0}, "--validation-fraction is 1.0; it must be"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"gradient_accumulation_steps": 0}, "--gradient-accumulation-steps is 0; it must be 1 or more"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_with_what_would_be_right(given, message):
    with pytest.raises(InputError) as error:
        resolved(**given)
    assert message in str(error.value)


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_recipe_fills_in_all_that_must_be_and_touches_nothing_else(task):
    assert "default" in task.presets
    blank = Settings()
    for name, preset in task.presets.items():
        filled = program.resolve(task, Settings(preset=name, task=task.name))
        for field in dataclasses.fields(Settings):
            value, default = getattr(preset.settings, field.name), getattr(blank, field.name)
            assert value == default or default is None, f"{name} sets {field.name}, which a recipe cannot"
            assert getattr(filled, field.name) is not None or "None" in str(field.type)
