"""Clocks, time zones and unusual paths have no effect."""

import os

import pytest
import real_runs
import tally

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.tasks.train import train_task
from jaxcls.training.settings import Settings

# Sets the clock back by four months, and stops the run after one more save.
CLOCK = """
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = (lambda: now() - 1e7), (lambda: now_ns() - 10**16)
left[0], statement = 1, "signal.raise_signal(signal.SIGTERM)"
"""


@pytest.mark.slow
@tally.trial("clocks and paths: a clock set back, another time zone, file times, Unicode, spaces, links, long paths")
def test_clocks_time_zones_and_unusual_paths_change_nothing(expected, tmp_path):
    deep = tmp_path / "mit Leerzeichen und Ümläuten" / "'quoted' & \"double\" $HOME %s" / ("名" * 60) / ("long" * 50)
    (deep / "run").mkdir(parents=True)
    link = tmp_path / "a link"
    link.symlink_to(deep, target_is_directory=True)
    # The programs that are compiled already, at another path.
    (deep / "cache é").symlink_to(environment.cache_directory().parent, target_is_directory=True)
    there = real_runs.with_environment(TZ="Pacific/Kiritimati", LC_ALL="C", XDG_CACHE_HOME=str(deep / "cache é"))
    done = real_runs.after_saves(3, CLOCK, *real_runs.TABLE, "--run-dir", deep / "run", env=there)
    assert done.returncode == 75, done.stderr
    # No decision depends on file times.
    for number, path in enumerate(sorted((deep / "run").rglob("*"))):
        os.utime(path, (number * 1e6, (100 - number) * 1e8))
    here = real_runs.with_environment(TZ="America/Anchorage")
    done = real_runs.run(*real_runs.TABLE, "--run-dir", "a link/run", env=here, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert real_runs.outcome(link / "run") == expected


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 2100, "circle/run"], ids=["name", "path", "circular links"])
def test_an_impossible_path_is_refused(tmp_path, name):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(InputError, match=r"(run|checkpoint) directory .* cannot be used"):
        train_task(Settings(task="csv", model="linear", epochs=1, run_dir=tmp_path / name), say=lambda line: None)
