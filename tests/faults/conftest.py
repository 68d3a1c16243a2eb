"""An uninterrupted run, with which all others are compared."""

import pytest
import real_runs


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The directory of an uninterrupted run of `real_runs.TABLE`."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = real_runs.run(*real_runs.TABLE, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="session")
def expected(uninterrupted):
    return real_runs.outcome(uninterrupted)
