"""Settings, their TOML file and the identity of a run."""

from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from jaxcls._utils.errors import InputError
from jaxcls.training import settings
from jaxcls.training.settings import Settings


@given(
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(1e-12, 1e6),
    run_dir=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(Path),
    restore_best=st.booleans(),
)
def test_settings_survive_a_round_trip_through_toml(tmp_path_factory, **values):
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
def test_invalid_toml_is_refused_with_a_suggestion(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"run\.toml") as error:
        settings.from_toml(path)
    assert message in str(error.value)


def test_an_integer_is_accepted_for_a_float():
    assert settings.from_record({"learning_rate": 1}, where="here") == Settings(learning_rate=1.0)


def test_toml_arrays_become_tuples(tmp_path):
    values = Settings(boundaries=(3, 5), scales=(0.5, 0.1))
    assert settings.from_record(settings.as_record(values), where="here") == values
    with pytest.raises(InputError, match="scales = 'x'"):
        settings.from_record({"scales": ["x"]}, where="here")


def test_digest_depends_on_settings_and_data_but_not_on_paths():
    base = settings.digest(Settings(), {"a": "1"})
    assert settings.digest(Settings(run_dir=Path("x"), data_dir=Path("y"), resume=False), {"a": "1"}) == base
    assert settings.digest(Settings(learning_rate=1e-3), {"a": "1"}) != base
    assert settings.digest(Settings(), {"a": "2"}) != base
