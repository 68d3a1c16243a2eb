"""``jaxcls find-lr``: the learning-rate range test, its suggestions and its files."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.data.formats import tables
from jaxcls.tasks import learning_rate_search
from jaxcls.tasks.learning_rate_search import Search
from jaxcls.training.settings import Settings


@pytest.fixture(scope="module")
def settings():
    """9 steps an epoch."""
    return Settings(task="csv", model="linear", optimizer="sgd", batch_size=16, dropout=0.0)


def search(settings, **options):
    printed = []
    result = learning_rate_search.search(
        settings, **{"lowest": 1e-5, "highest": 1e-1, "steps": 40, **options}, say=printed.append
    )
    assert "csv: 142 + 36 examples" in printed[0]
    return result


@pytest.fixture(scope="module")
def result(settings):
    return search(settings)


def test_rate_rises_exponentially_over_several_epochs_and_the_loss_falls(result):
    np.testing.assert_allclose(result.rates, np.logspace(-5, -1, 40), rtol=1e-5)
    assert result.losses[-10:].mean() < result.losses[:10].mean()
    np.testing.assert_allclose(result.smoothed, learning_rate_search.smooth(result.losses))


def test_equal_seeds_give_equal_losses(settings, result):
    again, other = search(settings), search(dataclasses.replace(settings, seed=1))
    np.testing.assert_array_equal(again.losses, result.losses)
    assert not np.array_equal(again.losses, other.losses)


def test_losses_do_not_depend_on_the_number_of_steps(settings, result):
    """What a step sees depends on its number, not on how many there are."""
    some = search(settings, steps=10, highest=result.rates[9])
    np.testing.assert_allclose(some.losses, result.losses[:10], rtol=1e-4)


def test_accumulated_steps_are_those_of_the_large_batch(settings, result):
    accumulated = search(dataclasses.replace(settings, batch_size=4, gradient_accumulation_steps=4))
    np.testing.assert_allclose(accumulated.rates, result.rates)
    np.testing.assert_allclose(accumulated.losses, result.losses, rtol=1e-3)


def test_search_stops_when_the_loss_diverges(settings):
    result = search(settings, highest=1e6, steps=100)
    assert len(result.losses) < 100
    assert np.isfinite(result.losses).all()
    best = np.minimum.accumulate(result.smoothed)
    assert (result.smoothed[:-1] <= 4 * best[:-1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0.1, "highest": 0.1}, "do not rise; give 0 < --lowest < --highest"),
        ({"lowest": 0.0}, "do not rise"),
        ({"highest": float("inf")}, "do not rise"),
        ({"steps": 9}, "--steps is 9; it must be 10 or more"),
    ],
    ids=str,
)
def test_invalid_range_or_step_count_is_refused(settings, options, message):
    with pytest.raises(InputError, match=message):
        search(settings, **options)


def test_no_suggestion_if_the_loss_never_falls():
    rates = np.logspace(-4, 0, 50)
    assert learning_rate_search.suggest(Search(rates, rates, rates)) == (None, None)


def test_suggestions_for_a_known_curve():
    rates = np.logspace(-4, 0, 401)
    # In the logarithm of the rate it falls fastest at 0.01, and is lowest at 0.1.
    at = np.log10(rates)
    losses = np.where(at < -1, 1 + np.cos((at + 3) * np.pi / 2) * (at > -3) + (at <= -3), (at + 1) * 5)
    result = learning_rate_search.suggest(Search(rates, losses, losses))
    np.testing.assert_allclose(result, (0.01, 0.01), rtol=0.05)


def test_plots_span_the_curve():
    rates = np.logspace(-4, 0, 50)
    losses = np.linspace(3, 1, 50)
    result = Search(rates, losses + np.tile([0.1, -0.1], 25), losses)
    lines = learning_rate_search.plot(result).splitlines()
    assert lines[0].startswith("         3 | •")
    assert lines[11].endswith("•")
    assert lines[11].startswith("         1 | ")
    assert "1.0e-04" in lines[-1]
    assert lines[-1].endswith("1.0e+00")
    root = ElementTree.fromstring(learning_rate_search.svg(result, 1e-2))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.01", "-4", "0", "log10 of the learning rate"} <= set(texts)
    assert len([*root.iter("{http://www.w3.org/2000/svg}path")]) > 2


def test_command_prints_suggestions_and_writes_csv_and_svg(result, tmp_path, capsys):
    output = tmp_path / "rates"
    flags = ["--task", "csv", "--model", "linear", "--batch-size", "16", "--dropout", "0"]
    options = ["--optimizer", "sgd", "--lowest", "1e-5", "--highest", "0.1", "--steps", "40", "--output", str(output)]
    assert main(["find-lr", *flags, *options]) == 0
    printed = capsys.readouterr().out
    assert "•" in printed
    suggestions = learning_rate_search.suggest(result)
    assert f"the loss falls fastest at {suggestions.steepest:.2g}; " in printed
    assert f"a tenth of the rate with the lowest loss is {suggestions.tenth_of_lowest:.2g}\n" in printed
    assert suggestions.recommended == min(suggestions)
    assert printed.count("--learning-rate") == 1
    assert f"recommended: --learning-rate {suggestions.recommended:.2g}, " in printed
    table = tables.read_csv(output / "find_lr.csv")
    assert [*table] == ["step", "rate", "loss", "smoothed_loss"]
    np.testing.assert_array_equal(table["loss"], result.losses)
    assert ElementTree.fromstring((output / "find_lr.svg").read_text(encoding="utf-8")).tag.endswith("svg")


def test_config_of_a_run_is_accepted_but_not_options_of_its_schedule(settings, tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text('task = "fashion_mnist"\nepochs = 3\nlearning_rate = 0.5\nmodel = "mlpp"\n')
    assert main(["find-lr", "--config", str(config)]) == 2
    assert "Did you mean 'mlp'?" in capsys.readouterr().err
    for flag in (["--epochs", "4"], ["--learning-rate", "0.1"], ["--run-dir", "x"], ["--no-resume"]):
        assert main(["find-lr", "--task", "fashion_mnist", *flag]) == 2
        assert f"unknown option {flag[0]!r}" in capsys.readouterr().err
    assert main(["find-lr", "--output", str(config)]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
