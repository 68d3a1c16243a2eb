"""Packages whose names are imported on first use."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]], submodules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its public names on first use (PEP 562).

    Args:
      package: its `__name__`.
      modules: by submodule, the names that it defines.
      submodules: those that are public themselves.

    >>> getattribute, _ = lazy_exports("jaxcls", {"_utils.errors": ["InputError"]}, ["losses"])
    >>> getattribute("InputError").__name__, getattribute("losses").__name__
    ('InputError', 'jaxcls.losses')
    """
    origins = {name: module for module, names in modules.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name in origins:
            return getattr(importlib.import_module(f"{package}.{origins[name]}"), name)
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get_attribute, lambda: sorted([*origins, *submodules])
