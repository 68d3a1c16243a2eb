"""The environment of a run: process settings made before jax is imported, and the versions that are recorded."""

import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import logging
import os
import platform
import resource
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import jaxcls
from jaxcls._utils.errors import InputError

logger = logging.getLogger(__name__)

# XLA then uses no GPU operation with a varying order of additions, and chooses no kernel by its measured speed.
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# XLA's experimental fusions make plain convolutions on a CPU up to twice as fast. XLA aborts on an unknown flag, so it
# is set only for the versions of jaxlib with which it was tested. With 0.12, the small CNN was slower with the flag in
# one measurement and faster in another, so it is not set; 0.7, of Colab's TPU image, has no such flag, and trains it in
# 1.1 of the time of 0.10.
_FLAG_BY_JAXLIB = {"0.7": None, "0.10": "--xla_cpu_experimental_ynn_fusion_type=individual_dot", "0.12": None}

# Thresholds of gc.set_threshold. Importing and tracing create hundreds of thousands of objects that stay alive; with
# the default threshold of 700 (2,000 since Python 3.13), scanning them repeatedly takes 0.2 s of a start of 3.7 s.
_GC_THRESHOLDS = (50_000, 10, 10)

# A save opens dozens of files at a time, and a cache or a reader some more.
OPEN_FILES = 1024


def configure(*, deterministic: bool = False) -> None:
    """Raises the limit of open files and, if jax is not imported yet, sets XLA flags, jax's cache and gc thresholds.

    Environment variables and flags that the user set are kept.

    Args:
      deterministic: make results on a GPU reproducible bit for bit. On a CPU they are anyway.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if "jax" in sys.modules:
        return
    gc.set_threshold(*_GC_THRESHOLDS)
    for flag in (_FLAG_BY_JAXLIB.get(_minor_version()), _DETERMINISTIC if deterministic else None):
        flags = os.environ.get("XLA_FLAGS", "")
        if flag and flag.partition("=")[0] not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_directory() / f"compiled-{_processor()}"))
    # By default jax caches only programs that took over a second to compile; a run compiles dozens of smaller ones.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _minor_version() -> str:
    # There may be a fourth number.
    return ".".join(importlib.metadata.version("jaxlib").split(".")[:2])


def unmeasured() -> str | None:
    """Returns a line for the user if no flags are known for the installed jaxlib, so that a CPU may be slow."""
    if _minor_version() in _FLAG_BY_JAXLIB:
        return None
    return (
        f"note: jaxcls was not measured with jaxlib {importlib.metadata.version('jaxlib')}, only with "
        f"{', '.join(_FLAG_BY_JAXLIB)}: training on a CPU may be slower"
    )


def check_platform() -> None:
    """Raises InputError if JAX_PLATFORMS asks for devices that are not available; imports jax only if it is set."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms:
        return
    import jax

    try:
        jax.devices()
    # AssertionError: jax was installed without support for any of them.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".") or "jax was installed without it"
        raise InputError(
            f"JAX_PLATFORMS={platforms} asks for devices that are not available here: {reason}. Unset JAX_PLATFORMS to "
            "use what is available, or set JAX_PLATFORMS=cpu."
        ) from error


def record() -> dict[str, Any]:
    """Returns the versions and devices on which results depend, as JSON values."""
    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
    return {
        "python": platform.python_version(),
        # A checkout on PYTHONPATH has no metadata.
        "packages": {"jaxcls": jaxcls.__version__} | {name: importlib.metadata.version(name) for name in packages},
        "platform": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def cache_directory() -> Path:
    """Returns the folder for files that can be recreated: $XDG_CACHE_HOME/jaxcls or ~/.cache/jaxcls.

    Without a writable home directory, as in some containers, it is a folder in the temporary directory.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "jaxcls" if base else _default_cache_directory(os.environ.get("HOME"))


@functools.cache
def _default_cache_directory(home: str | None) -> Path:
    try:
        folder = Path.home() / ".cache" / "jaxcls"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = f"{folder} cannot be written to"
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        reason = str(error)
    folder = Path(tempfile.gettempdir()) / f"jaxcls-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    # Compiled programs are loaded from it, so no other user may be able to write to it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="jaxcls-"))
    logger.warning("%s: the cache is %s; set XDG_CACHE_HOME to choose another folder", reason, folder)
    return folder


def _processor() -> str:
    """Returns eight hexadecimal digits for the type of processor: a program compiled for one can crash on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(features.encode()).hexdigest()[:8]
