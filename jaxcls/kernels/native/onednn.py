"""Finds oneDNN, the library by Intel and others with the fastest convolutions on CPUs."""

import os
import re
import site
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from jaxcls._utils.errors import InputError

# Version 3.0 changed the C++ interface.
_OLDEST = (3, 0)
# OpenMP's threads, XLA's threads, or a single one. Builds for TBB and SYCL need further libraries.
_RUNTIMES = ("OMP", "THREADPOOL", "SEQ")


class Unavailable(Exception):
    """The native kernels are not available; the message is the reason."""


class OneDNN(NamedTuple):
    """An installed oneDNN.

    Attributes:
      version: major, minor and patch version.
      include: folder of its headers.
      library: shared library to link with.
    """

    version: str
    include: Path
    library: Path


def find() -> OneDNN:
    """Finds oneDNN in the folder ``JAXCLS_ONEDNN``; if that is not set, in the environment of this Python or the
    system.

    Raises:
      InputError: the folder ``JAXCLS_ONEDNN`` contains no usable one.
      Unavailable: there is no usable one.
    """
    user_folder = os.environ.get("JAXCLS_ONEDNN")
    if user_folder:
        try:
            return _installed(Path(user_folder))
        except Unavailable as reason:
            raise InputError(
                f"JAXCLS_ONEDNN={user_folder}: {reason}; set it to the folder of include/oneapi/dnnl and lib/libdnnl.so"
            ) from reason
    reasons = []
    for prefix in _prefixes():
        try:
            return _installed(prefix)
        except Unavailable as reason:
            reasons.append(str(reason))
    # The reason why an installed one is unusable is more helpful than a missing one.
    raise Unavailable(next((reason for reason in reasons if "no oneDNN" not in reason), "no oneDNN is installed"))


def _prefixes() -> list[Path]:
    # The wheels onednn-cpu-gomp and onednn-devel-cpu-gomp install into the prefix of Python, like conda.
    return [Path(prefix) for prefix in dict.fromkeys([sys.prefix, site.getuserbase(), "/usr/local", "/usr"])]


def _installed(prefix: Path) -> OneDNN:
    headers = prefix / "include" / "oneapi" / "dnnl"
    try:
        version_header = (headers / "dnnl_version.h").read_text(encoding="utf-8")
        config_header = (headers / "dnnl_config.h").read_text(encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"no oneDNN in {prefix}") from error
    version = tuple(int(_macro(f"DNNL_VERSION_{name}", version_header)) for name in ("MAJOR", "MINOR", "PATCH"))
    name = f"oneDNN {'.'.join(map(str, version))} in {prefix}"
    if version < _OLDEST:
        raise Unavailable(f"{name} is older than {'.'.join(map(str, _OLDEST))}")
    runtime = _macro("DNNL_CPU_THREADING_RUNTIME", config_header).removeprefix("DNNL_RUNTIME_")
    if runtime not in _RUNTIMES:
        raise Unavailable(f"{name} is built for {runtime}, not for OpenMP or a thread pool")
    folders = [prefix / "lib", prefix / "lib64", prefix / "lib" / (sysconfig.get_config_var("MULTIARCH") or "")]
    for folder in folders:
        # Runtime packages of Linux distributions have no libdnnl.so without the version.
        library = folder / f"libdnnl.so.{version[0]}"
        if library.exists():
            return OneDNN(".".join(map(str, version)), prefix / "include", library)
    raise Unavailable(f"{name} has headers, but no libdnnl.so.{version[0]}")


def _macro(name: str, header: str) -> str:
    """Returns the value of a macro, or "" if it is not defined."""
    match = re.search(rf"^#define {name} +(\S+)", header, re.MULTILINE)
    return match[1] if match else ""
