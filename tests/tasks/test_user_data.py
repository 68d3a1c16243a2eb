"""Settings of user-supplied data: what is required, and when a task trains on its sample."""

from pathlib import Path

import pytest

from jaxcls._utils.errors import InputError
from jaxcls.tasks import user_data
from jaxcls.training.settings import Settings

DATA = Path("rows.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "files"}, "--task csv needs --data"),
        ({"data": DATA}, "--task csv needs --label-column"),
        ({"data": DATA, "label_column": ("y",)}, "--task csv needs --test-fraction"),
        (
            {"data": DATA, "label_column": ("y",), "source": "sample"},
            "--data goes with --source auto or files, not with sample",
        ),
    ],
)
def test_missing_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        user_data.load_table("csv", Settings(task="csv", **settings))


def test_the_sample_is_used_only_if_neither_data_nor_its_columns_are_given():
    assert user_data.uses_sample(Settings(task="csv"))
    assert user_data.uses_sample(Settings(task="csv", source="sample"))
    assert not user_data.uses_sample(Settings(task="csv", data=DATA, label_column=("y",)))
    assert not user_data.uses_sample(Settings(task="csv", source="tfds"))
    with pytest.raises(InputError, match="--label-column goes with --data"):
        user_data.uses_sample(Settings(task="csv", label_column=("y",)))
