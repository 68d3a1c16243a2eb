"""Where oneDNN is: the library of Intel and others whose convolutions are the fastest that a CPU has."""

import os
import re
import site
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from jaxcls._utils.errors import InputError

# The interface in C++ changed with 3.0.
_OLDEST = (3, 0)
# With these OpenMP's threads do the work, XLA's, or one alone. Built for TBB it needs that library, built for SYCL a
# runtime of Intel's.
_RUNTIMES = ("OMP", "THREADPOOL", "SEQ")


class Unavailable(Exception):
    """Why there are no native kernels."""


class OneDNN(NamedTuple):
    """An installed oneDNN: its version, the folder of its headers, and the library to link with."""

    version: str
    include: Path
    library: Path


def find() -> OneDNN:
    """The first one of: the folder that ``JAXCLS_ONEDNN`` names, the packages of this Python, the system's own.

    Raises:
      InputError: the folder that ``JAXCLS_ONEDNN`` names holds none.
      Unavailable: there is none, or none that can be used.
    """
    given = os.environ.get("JAXCLS_ONEDNN")
    if given:
        try:
            return _within(Path(given))
        except Unavailable as reason:
            raise InputError(
                f"JAXCLS_ONEDNN={given}: {reason}; give the folder that holds include/oneapi/dnnl and lib/libdnnl.so."
            ) from reason
    reasons = []
    for prefix in _prefixes():
        try:
            return _within(prefix)
        except Unavailable as reason:
            reasons.append(str(reason))
    # One that is there but is of no use says more than those that are not there.
    raise Unavailable(next((reason for reason in reasons if "no oneDNN" not in reason), "no oneDNN is installed"))


def _prefixes() -> list[Path]:
    # The wheels onednn-cpu-gomp and onednn-devel-cpu-gomp put their files where conda does: beside Python's own.
    return [Path(prefix) for prefix in dict.fromkeys([sys.prefix, site.getuserbase(), "/usr/local", "/usr"])]


def _within(prefix: Path) -> OneDNN:
    headers = prefix / "include" / "oneapi" / "dnnl"
    try:
        version_header = (headers / "dnnl_version.h").read_text(encoding="utf-8")
        config_header = (headers / "dnnl_config.h").read_text(encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"no oneDNN in {prefix}") from error
    version = tuple(int(_defined(f"DNNL_VERSION_{part}", version_header)) for part in ("MAJOR", "MINOR", "PATCH"))
    name = f"oneDNN {'.'.join(map(str, version))} in {prefix}"
    if version < _OLDEST:
        raise Unavailable(f"{name} is older than {'.'.join(map(str, _OLDEST))}")
    runtime = _defined("DNNL_CPU_THREADING_RUNTIME", config_header).removeprefix("DNNL_RUNTIME_")
    if runtime not in _RUNTIMES:
        raise Unavailable(f"{name} is built for {runtime}, not for OpenMP or a pool of threads")
    folders = [prefix / "lib", prefix / "lib64", prefix / "lib" / (sysconfig.get_config_var("MULTIARCH") or "")]
    for folder in folders:
        # With the version of its interface: the plain name is missing where only the runtime's package is installed.
        library = folder / f"libdnnl.so.{version[0]}"
        if library.exists():
            return OneDNN(".".join(map(str, version)), prefix / "include", library)
    raise Unavailable(f"{name} has headers, but no libdnnl.so.{version[0]}")


def _defined(name: str, header: str) -> str:
    """The value of a macro; "" if it is not there."""
    found = re.search(rf"^#define {name} +(\S+)", header, re.MULTILINE)
    return found[1] if found else ""
