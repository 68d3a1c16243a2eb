"""What the recipe fills in, what does not fit together, and what every task must say."""

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest

from jaxcls import tasks
from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Dataset, Provenance, Split
from jaxcls.tasks import build
from jaxcls.training.settings import Settings

FASHION = tasks.get("fashion_mnist")
RECIPE = FASHION.recipe("default")


def resolved(**options):
    return build.with_recipe(FASHION, Settings(**options))


@pytest.mark.parametrize(
    ("options", "expected"),
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
def test_the_recipe_fills_in_what_was_not_given_and_fits(options, expected):
    settings = resolved(**options)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnett"}, "Did you mean 'resnet'?"),
        ({"preset": "bets"}, "Did you mean 'best'?"),
        ({"monitor": "acuracy"}, "Did you mean 'accuracy'?"),
        ({"monitor": "subset_accuracy"}, "does not fit a multiclass problem"),
        ({"optimizer": "adamm"}, "Did you mean 'adam"),
        ({"loss": "hinge"}, "does not fit a multiclass problem"),
        ({"epochs": 0}, "--epochs is 0; it must be an integer of 1 or more"),
        ({"validation_fraction": 1.0}, "--validation-fraction is 1.0; it must be"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"vocabulary_size": 256}, "--vocabulary-size is 256; it must be an integer of 257 or more"),
        ({"gradient_accumulation_steps": 0}, "--gradient-accumulation-steps is 0; it must be an integer of 1 or more"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_with_the_correction(options, message):
    with pytest.raises(InputError) as error:
        resolved(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("leaf", {"text_column": "x"}, "--task leaf takes no --text-column, which is for text_csv."),
        (
            "leaf",
            {"image_size": 32},
            "which is for image_folder, chest_xray, disease_tagging, detection. Its data settings are",
        ),
        (
            "leaf",
            {"data": Path("x.csv")},
            "for image_folder, csv, text_csv. Its data settings are --data-dir, --source, ",
        ),
        ("csv", {"data_dir": Path("x"), "data": Path("x.csv")}, "--task csv takes no --data-dir, which is for mnist, "),
        ("mnist", {"drop_column": ("x",)}, "takes no --drop-column, which is for csv, text_csv."),
        ("mnist", {"test_fraction": 0.2}, "Its data settings are --data-dir, --source, --validation-fraction."),
        ("chest_xray", {"uncertain": "ones"}, "which is for disease_tagging."),
    ],
    ids=str,
)
def test_data_settings_that_a_task_does_not_use_are_refused_before_a_file_is_opened(task, options, message):
    with pytest.raises(InputError) as error:
        build.specialized(Settings(task=task, **options))
    assert message in str(error.value)


def test_data_of_tasks_on_public_layouts_is_their_data_dir():
    resolved = build.resolve(Settings(task="detection", data=Path("x")))[1]
    assert (resolved.data, resolved.data_dir) == (None, Path("x"))
    assert resolved.image_size > build.resolve(Settings(task="detection"))[1].image_size


@pytest.mark.parametrize(
    ("task", "labels", "validation", "message"),
    [
        ("mnist", [3] * 8, [1, 2], "all 8 training examples have class 3"),
        ("sentiment", [1] * 8, [0, 1], "all 8 training examples have class 1"),
        ("sentiment", [0, 1] * 4, [0, 0], "all 2 validation examples have class 0"),
        ("toxic_comment", [[0.0, 1.0, np.nan] * 2] * 8, [[0.0] * 6], "all 8 training examples have the same labels"),
        ("mnist", [0, 1] * 4, [1, 1], None),
        ("toxic_comment", [[0.0] * 6, [0.0] * 5 + [1.0]], [[0.0] * 6], None),
    ],
)
def test_examples_of_one_class_are_refused_by_split_and_source(task, labels, validation, message):
    count, kind = {"mnist": (10, np.int32), "sentiment": (2, np.int32), "toxic_comment": (6, np.float32)}[task]
    train, others = (Split(np.zeros((len(values), 3)), np.asarray(values, kind)) for values in (labels, validation))
    task = tasks.get(task)
    record = Provenance("files", "some/folder", {}, synthetic=False, note="")
    dataset = Dataset(task.name, train, others, tuple("abcdefghij"[:count]), record, validation=others)
    options = build.with_recipe(task, Settings(task=task.name))
    if message is None:
        assert build.split(task, options, dataset).train is dataset.train
        return
    with pytest.raises(InputError, match=f"some/folder: {message}"):
        build.split(task, options, dataset)


@pytest.mark.parametrize("role", ["validation", "test"])
def test_a_fraction_with_data_that_replaces_it_is_refused(role):
    options = Settings(task="csv", data=Path("x.csv"), **{f"{role}_data": Path("y.csv"), f"{role}_fraction": 0.5})
    with pytest.raises(InputError, match="leave one out"):
        build.with_recipe(tasks.get("csv"), options)


def _is_optional(field, task):
    return type(None) in typing.get_args(field.type) or (field.name == "loss" and task.specialize is not None)


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=lambda task: task.name)
def test_every_recipe_sets_all_required_settings_and_only_settings_without_defaults(task):
    assert "default" in task.presets
    blank = Settings()
    for name, preset in task.presets.items():
        filled = build.with_recipe(task, Settings(preset=name, task=task.name))
        for field in dataclasses.fields(Settings):
            value, default = getattr(preset.settings, field.name), getattr(blank, field.name)
            assert value == default or default is None, f"{name} sets {field.name}, which a recipe cannot"
            assert getattr(filled, field.name) is not None or _is_optional(field, task)
