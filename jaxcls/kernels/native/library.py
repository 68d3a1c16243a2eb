"""The native library: compiled once into the user's cache folder, loaded, and registered with XLA.

It is compiled on the user's machine, since it depends on the installed jaxlib, whose headers define the interface, and
on the installed oneDNN. That takes a few seconds, once.
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
# The functions that XLA calls, which are also the names of its FFI targets.
_TARGETS = (
    "jaxcls_convolution",
    "jaxcls_convolution_input_gradient",
    "jaxcls_convolution_kernel_gradient",
    "jaxcls_channel_sums",
    "jaxcls_product",
)

_lock = threading.Lock()
_loaded: "Library | Unavailable | None" = None


class Library(NamedTuple):
    """The loaded library.

    Attributes:
      onednn: version of oneDNN.
      threads: number of threads of a call.
      bfloat16: whether convolutions in bfloat16 are supported on this processor.
      bfloat16_products: whether the processor has instructions for products in bfloat16.
      functions: the library itself.
    """

    onednn: str
    threads: int
    bfloat16: bool
    bfloat16_products: bool
    functions: ctypes.CDLL


def load() -> Library:
    """Compiles the library unless it is in the cache, and loads and registers it on the first call.

    Raises:
      Unavailable: there is none on this machine. Later calls raise the same error without another attempt.
      InputError: see :func:`jaxcls.kernels.native.onednn.find`.
    """
    global _loaded
    with _lock:
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
        raise Unavailable(f"they support Linux, not {platform.system()}")
    dependency = onednn.find()
    try:
        path = compiled(dependency, environment.cache_directory() / "native")
        with _passive_openmp():
            functions = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(str(error)) from error
    for target in _TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(functions, target)), platform="cpu")
    for name in ("jaxcls_primitives", "jaxcls_workspace_bytes"):
        getattr(functions, name).restype = ctypes.c_size_t
    return Library(
        dependency.version, functions.jaxcls_threads(),
        bool(functions.jaxcls_bfloat16()), bool(functions.jaxcls_bfloat16_products()), functions,
    )  # fmt: skip


@contextlib.contextmanager
def _passive_openmp() -> Iterator[None]:
    """Makes OpenMP, if it is loaded inside this context, put its threads to sleep between calls.

    By default they spin for a while, on cores that XLA's threads need: a step of a small CNN takes 1.1 to 1.3 times as
    long. OpenMP reads the variable once, when it is loaded. A value set by the user is left unchanged.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def compiled(dependency: OneDNN, folder: Path) -> Path:
    """Returns the path of the library in ``folder``, after compiling it if it is missing or damaged.

    Raises:
      Unavailable: there is no compiler, or it fails.
      OSError: the folder cannot be written to.
    """
    # Not available on Windows.
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    key = _key(dependency)
    if (library := _intact(folder, key)) is not None:
        return library
    # Of several processes that start at the same time, one compiles and the others wait for it.
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (library := _intact(folder, key)) is not None:
            return library
        for damaged in folder.glob(f"{key}-*.so"):
            damaged.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fresh = Path(temporary, "library.so")
            _compile(dependency, fresh)
            return fresh.rename(folder / f"{key}-{_digest(fresh.read_bytes())}.so")


def _intact(folder: Path, key: str) -> Path | None:
    """Returns the library of a key if its content has the digest in its name; a truncated one would crash."""
    for path in folder.glob(f"{key}-*.so"):
        try:
            if path.name == f"{key}-{_digest(path.read_bytes())}.so":
                return path
        except FileNotFoundError:  # another process has removed a damaged one
            continue
    return None


def _key(dependency: OneDNN) -> str:
    """Returns a digest of everything that the library depends on, except the compiler."""
    inputs = [importlib.metadata.version("jaxlib"), dependency.version, str(dependency.library), platform.machine()]
    inputs += [path.name + path.read_text(encoding="utf-8") for path in sorted(_SOURCES.iterdir())]
    return _digest("\0".join(inputs).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compile(dependency: OneDNN, output: Path) -> None:
    command = [
        *_compiler(), "-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility-inlines-hidden",
        f"-I{jax.ffi.include_dir()}", f"-I{dependency.include}", *map(str, sorted(_SOURCES.glob("*.cc"))),
        str(dependency.library), f"-Wl,-rpath,{dependency.library.parent}", "-o", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        error = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise Unavailable(f"{command[0]} does not compile them: {error.strip()}")


def _compiler() -> list[str]:
    user_command = shlex.split(os.environ.get("CXX", ""))
    for command in [user_command] if user_command else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    raise Unavailable(f"there is no compiler {user_command[0]}" if user_command else "there is no C++ compiler")
