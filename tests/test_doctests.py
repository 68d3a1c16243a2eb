"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import jaxcls

MODULES = [module.name for module in pkgutil.walk_packages(jaxcls.__path__, "jaxcls.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
