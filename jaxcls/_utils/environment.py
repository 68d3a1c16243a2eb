"""The process that a run happens in: what is set before jax is imported, and what is recorded of it."""

import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import logging
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import jaxcls

logger = logging.getLogger(__name__)

# An operation whose additions are made in no fixed order is replaced by one whose are, or refused, and no kernel is
# chosen by how fast it just was.
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# XLA's experimental fusions make plain convolutions on a CPU up to twice as fast. An XLA that does not know a
# flag aborts the process: these are the versions of jaxlib that it was tried with.
_FLAGS_OF_JAXLIB = {"0.10": "--xla_cpu_experimental_ynn_fusion_type=individual_dot"}

# New containers until CPython looks for cycles among them, and so many such looks until one among the older ones.
# Importing and tracing make hundreds of thousands that stay: at CPython's own threshold of 700, which 3.13 made 2,000,
# looking through them again and again takes 0.2 s of a start of 3.7.
_COLLECTION = (50_000, 10, 10)

# A save opens dozens of files at a time, and a cache or a reader some more.
OPEN_FILES = 1024


def configure(*, deterministic: bool = False) -> None:
    """Sets what must be set before jax is imported. What the user set stands.

    In a process that has imported jax already, such as a notebook, it leaves everything as it is.

    Args:
      deterministic: whether a GPU is to give the same bits each time. A CPU does so anyway.
    """
    _allow_open_files()
    if "jax" in sys.modules:
        return
    gc.set_threshold(*_COLLECTION)
    version = importlib.metadata.version("jaxlib")
    for flag in (_FLAGS_OF_JAXLIB.get(version.rpartition(".")[0]), _DETERMINISTIC if deterministic else None):
        given = os.environ.get("XLA_FLAGS", "")
        if flag and flag.partition("=")[0] not in given:
            os.environ["XLA_FLAGS"] = f"{given} {flag}".strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_directory() / f"compiled-{_processor()}"))
    # By default only what took over a second to compile is kept; a run compiles dozens of smaller programs.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _allow_open_files() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def record() -> dict[str, Any]:
    """The versions and devices that a result depends on, as plain JSON values."""
    import jax

    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "tensorflow-datasets",
    )
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
    """Returns the folder for files that can be made again: $XDG_CACHE_HOME/jaxcls or ~/.cache/jaxcls.

    Without a home directory that can be written to, as in some containers, it is a folder in the temporary directory.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    return Path(given) / "jaxcls" if given else _cache_directory_in_home(os.environ.get("HOME"))


@functools.cache
def _cache_directory_in_home(home: str | None) -> Path:
    try:
        folder = Path.home() / ".cache" / "jaxcls"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = f"{folder} cannot be written to"
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    except RuntimeError:
        reason = "there is no home directory"
    folder = Path(tempfile.gettempdir()) / f"jaxcls-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    # Compiled programs are loaded from there: nobody else may have put them there.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="jaxcls-"))
    logger.warning("%s: the cache is %s; set XDG_CACHE_HOME to choose another folder", reason, folder)
    return folder


def _processor() -> str:
    """Eight digits for this kind of processor: what was compiled for one can crash on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(features.encode()).hexdigest()[:8]
