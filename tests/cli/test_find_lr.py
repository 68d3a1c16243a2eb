"""The learning-rate range test: what it sees, what it suggests, and what it leaves behind."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import small_data

from jaxcls._utils.errors import InputError
from jaxcls.cli import find_lr, rate_plot
from jaxcls.data.formats import tables
from jaxcls.training import learning_rate_search
from jaxcls.training.learning_rate_search import Search
from jaxcls.training.settings import Settings


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """15 steps an epoch."""
    folder = small_data.write(tmp_path_factory.mktemp("data"))
    return Settings(task="fashion_mnist", data_dir=folder, model="mlp", optimizer="sgd", batch_size=16)


def search(given, **asked):
    said = []
    found = learning_rate_search.search(
        given, **{"lowest": 1e-5, "highest": 1e-1, "steps": 40, **asked}, say=said.append
    )
    assert "fashion_mnist: 240 + 60 examples" in said[0]
    return found


def test_the_rate_rises_over_several_epochs_and_the_loss_falls(given):
    found = search(given)
    np.testing.assert_allclose(found.rates, np.logspace(-5, -1, 40), rtol=1e-5)
    assert found.losses[-10:].mean() < found.losses[:10].mean()
    np.testing.assert_allclose(found.smoothed, learning_rate_search.smooth(found.losses))


def test_the_same_seed_sees_the_same_and_another_one_does_not(given):
    first, again, other = (search(given, steps=12), search(given, steps=12), search(dataclasses.replace(given, seed=1)))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert not np.array_equal(first.losses, other.losses[:12])


def test_fewer_steps_are_the_same_training_at_the_same_rates(given):
    """What a step sees depends on its number, not on how many there are."""
    some = search(given, steps=10, lowest=1e-3, highest=1e-3 * 1.1**9)
    more = search(given, steps=20, lowest=1e-3, highest=1e-3 * 1.1**19)
    np.testing.assert_allclose(some.losses, more.losses[:10], rtol=1e-4)


def test_with_accumulation_the_rate_rises_with_each_update(given):
    found = search(dataclasses.replace(given, gradient_accumulation_steps=4))
    np.testing.assert_allclose(found.rates, np.repeat(np.logspace(-5, -1, 10), 4), rtol=1e-5)


def test_it_stops_where_training_diverges(given):
    found = search(given, highest=1e6, steps=100)
    assert len(found.losses) < 100
    assert np.isfinite(found.losses).all()
    best = np.minimum.accumulate(found.smoothed)
    assert (found.smoothed[:-1] <= 4 * best[:-1]).all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lowest": 0.1, "highest": 0.1}, "do not rise; give 0 < --lowest < --highest"),
        ({"lowest": 0.0}, "do not rise"),
        ({"highest": float("inf")}, "do not rise"),
        ({"steps": 9}, "--steps is 9; it must be 10 or more"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_before_the_data_is_read(given, asked, message):
    with pytest.raises(InputError, match=message):
        search(given, **asked)


def test_where_nothing_is_learned_nothing_is_suggested():
    rates = np.logspace(-4, 0, 50)
    assert learning_rate_search.suggest(Search(rates, rates, rates)) == (None, None)


def test_the_suggestions_are_those_of_a_known_curve():
    rates = np.logspace(-4, 0, 401)
    # In the logarithm of the rate it falls fastest at 0.01, and is lowest at 0.1.
    at = np.log10(rates)
    losses = np.where(at < -1, 1 + np.cos((at + 3) * np.pi / 2) * (at > -3) + (at <= -3), (at + 1) * 5)
    found = learning_rate_search.suggest(Search(rates, losses, losses))
    np.testing.assert_allclose(found, (0.01, 0.01), rtol=0.05)


def test_the_plots_show_the_curve_from_its_top_to_its_bottom():
    rates = np.logspace(-4, 0, 50)
    losses = np.linspace(3, 1, 50)
    found = Search(rates, losses + np.tile([0.1, -0.1], 25), losses)
    lines = rate_plot.text(found).splitlines()
    assert lines[0].startswith("         3 | •")
    assert lines[11].endswith("•")
    assert lines[11].startswith("         1 | ")
    assert "1.0e-04" in lines[-1]
    assert lines[-1].endswith("1.0e+00")
    root = ElementTree.fromstring(rate_plot.svg(found, [1e-2]))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.01", "1e-4", "1e0", "learning rate"} <= set(texts)
    assert len([*root.iter("{http://www.w3.org/2000/svg}circle")]) == 50


def test_the_command_line_says_and_keeps_what_it_found(given, tmp_path, capsys):
    output = tmp_path / "found"
    flags = ["--task", "fashion_mnist", "--data-dir", str(given.data_dir), "--model", "mlp", "--batch-size", "16"]
    asked = ["--optimizer", "sgd", "--lowest", "1e-5", "--highest", "0.1", "--steps", "40", "--output", str(output)]
    assert find_lr.main([*flags, *asked]) == 0
    said = capsys.readouterr().out
    assert "•" in said
    found = search(given)
    suggestions = learning_rate_search.suggest(found)
    assert f"--learning-rate {suggestions.steepest:.2g} " in said
    assert f"--learning-rate {suggestions.tenth_of_lowest:.2g} " in said
    table = tables.read_csv(output / "find_lr.csv")
    assert [*table] == ["step", "rate", "loss", "smoothed_loss"]
    np.testing.assert_array_equal(table["loss"], found.losses)
    assert ElementTree.fromstring((output / "find_lr.svg").read_text(encoding="utf-8")).tag.endswith("svg")


def test_the_settings_of_a_run_may_be_given_but_not_flags_that_say_nothing(given, tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text('task = "fashion_mnist"\nepochs = 3\nlearning_rate = 0.5\nmodel = "mlpp"\n')
    assert find_lr.main(["--config", str(config)]) == 2
    assert "Did you mean 'mlp'?" in capsys.readouterr().err
    for flag in (["--epochs", "4"], ["--learning-rate", "0.1"], ["--run-dir", "x"], ["--no-resume"]):
        assert find_lr.main(["--task", "fashion_mnist", *flag]) == 2
        assert "says nothing to the search for a learning rate" in capsys.readouterr().err
    assert find_lr.main(["--output", str(config)]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
