"""Tests run on two simulated devices, without implicit rank promotion, and with warnings as errors."""

import functools
import os

# Keras is a reference here, on the JAX backend, which it reads when it is imported.
os.environ["KERAS_BACKEND"] = "jax"

from jaxcls._utils import environment

# As the commands do: compiler flags and the compilation cache.
environment.configure()

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadline: the first example compiles, and the machine may be busy.
hypothesis.settings.register_profile("jaxcls", deadline=None)
hypothesis.settings.load_profile("jaxcls")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """Trains a task for an epoch on a few examples, once; returns the directory of the run and the folder of its data.

    A test that changes them copies them.
    """
    import small_tasks

    return functools.cache(lambda task: small_tasks.train(task, tmp_path_factory.mktemp(task)))


@pytest.fixture(scope="session")
def fashion_run(tmp_path_factory):
    """A finished run on a few images, its lines, and the folder of its data. A test that changes them copies them."""
    import small_data

    lines: list[str] = []
    folder = small_data.write(tmp_path_factory.mktemp("fashion") / "data")
    return small_data.train(folder, folder.parent / "run", lines), lines, folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives a file to one process, which then trains the run that its tests share once; in order, short files last."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)
