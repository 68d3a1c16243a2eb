"""The space of a search: what a file may say, and where its points are."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxcls._utils.errors import InputError
from jaxcls.training import search_space
from jaxcls.training.search_space import Choices, Range

SPACE = {
    "learning_rate": Range(1e-4, 1e-1, log=True, integer=False),
    "batch_size": Range(8, 64, log=False, integer=True),
    "optimizer": Choices(("adam", "sgd", "lion")),
}


def test_file_has_ranges_and_choices(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        "learning_rate = {low = 1e-4, high = 1, log = true}\nbatch_size = {low = 8, high = 64}\n"
        'class_weight = {choices = ["balanced", ["0:1", "1:3"]]}\n'
    )
    space = search_space.read(file)
    assert space == {
        "learning_rate": Range(1e-4, 1.0, log=True, integer=False),
        "batch_size": Range(8, 64, log=False, integer=True),
        "class_weight": Choices((("balanced",), ("0:1", "1:3"))),
    }
    assert search_space.from_record(json.loads(json.dumps(search_space.as_record(space))), "") == space


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "it is empty; give a setting, as in"),
        ("learning_rat = {low = 1e-4, high = 1}", "'learning_rat' is no setting. Did you mean 'learning_rate'"),
        ("monitor = {choices = ['f1']}", "'monitor' cannot be searched: it changes how trials are compared"),
        ("seed = {low = 0, high = 9}", "'seed' cannot be searched"),
        ("quiet = {choices = [true]}", "'quiet' cannot be searched"),
        ("dropout = 0.5", "dropout = 0.5; it must be dropout = {low = ..., high = ...}"),
        ("dropout = {low = 0.5}", "it must be dropout = {low"),
        ("dropout = {low = 0.5, high = 0.5}", "dropout goes from 0.5 to 0.5; low must be less than high"),
        ("dropout = {low = 0.5, high = 1.5}", "dropout is 1.5; it must be a number of at least 0 and less than 1"),
        ("dropout = {low = 0, high = 0.5, log = true}", "dropout begins at 0.0; with log = true, low must be above 0"),
        ("dropout = {low = 0, high = 0.5, log = 1}", "dropout has log = 1; it must be true or false"),
        ("dropout = {choices = []}", "dropout has the choices []; give a list"),
        ("dropout = {choices = ['a']}", "dropout = 'a': must be a value of type float"),
        ("batch_size = {low = 8, high = 9.5}", "batch_size = 9.5: must be a value of type int"),
        ("optimizer = {low = 1, high = 2}", "optimizer = 1: must be one of"),
        ("optimizer = {choices = ['adamm']}", "Did you mean 'adam'"),
        ("optimizer = {choices = ['adam'], log = true}", "optimizer has choices, to which log does not apply"),
        ("model = {low = 'a', high = 'b'}", "model is no number; it must be model = {choices = [...]}"),
        ("dropout = [", "not a TOML file"),
    ],
)  # fmt: skip
def test_file_that_is_not_right_is_refused_by_name(tmp_path, line, message):
    file = tmp_path / "space.toml"
    file.write_text(line)
    with pytest.raises(InputError) as error:
        search_space.read(file)
    assert str(error.value).startswith(f"--space {file}: ")
    assert message in str(error.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file or directory; give a TOML file"):
        search_space.read(tmp_path / "none.toml")


@pytest.mark.parametrize("sampler", ["sobol", "random"])
def test_points_are_uniform_in_their_range_and_the_first_do_not_depend_on_their_number(sampler):
    points = search_space.sample(SPACE, 256, sampler=sampler, seed=3)
    assert search_space.sample(SPACE, 20, sampler=sampler, seed=3) == points[:20]
    assert search_space.sample(SPACE, 20, sampler=sampler, seed=4) != points[:20]
    rates = np.log10([point["learning_rate"] for point in points])
    assert stats.kstest(rates, stats.uniform(-4, 3).cdf).pvalue > 0.01
    sizes = [point["batch_size"] for point in points]
    assert {*sizes} <= {*range(8, 65)}
    assert stats.kstest(np.array(sizes) - 8 + 0.5, stats.uniform(0, 57).cdf).pvalue > 0.01
    counts = np.unique([point["optimizer"] for point in points], return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 0.01
    if sampler == "sobol":
        # As even as can be in each setting, which random points are not.
        assert np.ptp(counts) <= 1
        assert (np.histogram(rates, bins=64, range=(-4, -1))[0] == 4).mean() > 0.9


def test_ends_of_a_range_are_reached_and_numbers_are_short():
    assert [SPACE["batch_size"].at(quantile) for quantile in (0.0, 1 - 1e-9)] == [8, 64]
    assert [SPACE["learning_rate"].at(quantile) for quantile in (0.0, 1.0)] == [1e-4, 1e-1]
    assert len(str(SPACE["learning_rate"].at(0.777))) <= 8


def test_space_of_the_documentation_is_right(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    (tmp_path / "space.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert len(search_space.read(tmp_path / "space.toml")) == 7
