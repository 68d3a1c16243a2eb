"""The kernels of this room as a library: compiled once into the user's cache, loaded, and known to XLA.

A library is compiled where it is needed: it has to fit the installed jaxlib, whose headers say how XLA calls it, and
the installed oneDNN. It takes a few seconds, once.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from jaxcls._utils import environment
from jaxcls.kernels.native import onednn
from jaxcls.kernels.native.onednn import OneDNN, Unavailable

_SOURCES = Path(__file__).parent / "kernels"
# What XLA calls, by the names that it knows them under.
TARGETS = (
    "jaxcls_convolution",
    "jaxcls_convolution_input_gradient",
    "jaxcls_convolution_kernel_gradient",
    "jaxcls_channel_sums",
    "jaxcls_product",
)

_once = threading.Lock()
_loaded: "Library | Unavailable | None" = None


class Library(NamedTuple):
    """The kernels in this process.

    Attributes:
      onednn: the version.
      threads: that a call runs on.
      bfloat16: whether it computes in bfloat16 on this processor.
      bfloat16_products: whether the processor has instructions for products in bfloat16.
      functions: the library itself.
    """

    onednn: str
    threads: int
    bfloat16: bool
    bfloat16_products: bool
    functions: ctypes.CDLL


def load() -> Library:
    """Compiles the kernels if no process of the user has yet; loads and registers them if this process has not.

    Raises:
      Unavailable: they cannot be had here. The next call says so again, and tries nothing.
      InputError: see :func:`jaxcls.kernels.native.onednn.find`.
    """
    global _loaded
    with _once:
        if _loaded is None:
            try:
                _loaded = _load()
            except Unavailable as reason:
                _loaded = reason
    if isinstance(_loaded, Unavailable):
        raise _loaded
    return _loaded


def _load() -> Library:
    if sys.platform != "linux":
        raise Unavailable(f"they are made for Linux, not for {platform.system()}")
    found = onednn.find()
    try:
        path = compiled(found, environment.cache_directory() / "native")
        with _threads_that_sleep():
            functions = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(str(error)) from error
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(functions, target)), platform="cpu")
    for name in ("jaxcls_primitives", "jaxcls_workspace_bytes"):
        getattr(functions, name).restype = ctypes.c_size_t
    return Library(
        found.version, functions.jaxcls_threads(),
        bool(functions.jaxcls_bfloat16()), bool(functions.jaxcls_bfloat16_products()), functions,
    )  # fmt: skip


@contextlib.contextmanager
def _threads_that_sleep() -> Iterator[None]:
    """OpenMP, if it is loaded inside, lets its threads sleep between calls, unless the user says otherwise.

    By default they spin for a while, on cores that XLA's own threads would compute on: a step of a small CNN takes
    1.1 to 1.3 times as long. OpenMP reads the variable when it is loaded, and only then.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def compiled(found: OneDNN, folder: Path) -> Path:
    """The library in ``folder``, compiled if it is not there or not as it was written.

    Raises:
      Unavailable: there is no compiler, or it fails.
      OSError: the folder cannot be written to.
    """
    # Not on Windows.
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    key = _key(found)
    if (library := _intact(folder, key)) is not None:
        return library
    # Of several processes that start together one compiles, and the others wait for it.
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (library := _intact(folder, key)) is not None:
            return library
        for damaged in folder.glob(f"{key}-*.so"):
            damaged.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fresh = Path(temporary, "library.so")
            _compile(found, fresh)
            return fresh.rename(folder / f"{key}-{_digest(fresh.read_bytes())}.so")


def _intact(folder: Path, key: str) -> Path | None:
    """The library of that key, if its content is what its name says: one that is cut off would crash the process."""
    for path in folder.glob(f"{key}-*.so"):
        try:
            if path.name == f"{key}-{_digest(path.read_bytes())}.so":
                return path
        except FileNotFoundError:  # another process found it damaged, and removed it
            continue
    return None


def _key(found: OneDNN) -> str:
    """Sixteen digits for all that a library depends on."""
    parts = [importlib.metadata.version("jaxlib"), found.version, str(found.library), platform.machine()]
    parts += [path.name + path.read_text(encoding="utf-8") for path in sorted(_SOURCES.iterdir())]
    return _digest("\0".join(parts).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compile(found: OneDNN, output: Path) -> None:
    command = [
        *_compiler(), "-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility-inlines-hidden",
        f"-I{jax.ffi.include_dir()}", f"-I{found.include}", *map(str, sorted(_SOURCES.glob("*.cc"))),
        str(found.library), f"-Wl,-rpath,{found.library.parent}", "-o", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise Unavailable(f"{command[0]} does not compile them: {said.strip()}")


def _compiler() -> list[str]:
    given = shlex.split(os.environ.get("CXX", ""))
    for command in [given] if given else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    raise Unavailable(f"there is no compiler {given[0]}" if given else "there is no C++ compiler")
