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
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import jax

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError

_SOURCES = Path(__file__).parent / "kernels"

_lock = threading.Lock()
_loaded: "Library | Unavailable | None" = None


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
      InputError: see :func:`find_onednn`.
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
    dependency = find_onednn()
    try:
        path = compiled(dependency, environment.cache_directory() / "native")
        with contextlib.ExitStack() as stack:
            # If this loads OpenMP, its threads sleep between calls. By default they spin for a while, on cores that
            # XLA's threads need: a step of a small CNN takes 1.1 to 1.3 times as long. OpenMP reads the variable once,
            # when it is loaded. A value set by the user is left unchanged.
            if "OMP_WAIT_POLICY" not in os.environ:
                os.environ["OMP_WAIT_POLICY"] = "passive"
                stack.callback(os.environ.pop, "OMP_WAIT_POLICY")
            functions = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(str(error)) from error
    # The functions that XLA calls, which are also the names of its FFI targets.
    for name in ("convolution", "convolution_input_gradient", "convolution_kernel_gradient", "channel_sums", "product"):
        target = f"jaxcls_{name}"
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(functions, target)), platform="cpu")
    for name in ("jaxcls_primitives", "jaxcls_workspace_bytes"):
        getattr(functions, name).restype = ctypes.c_size_t
    return Library(
        dependency.version, functions.jaxcls_threads(),
        bool(functions.jaxcls_bfloat16()), bool(functions.jaxcls_bfloat16_products()), functions,
    )  # fmt: skip


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
    user_command = shlex.split(os.environ.get("CXX", ""))
    candidates = [user_command] if user_command else [["c++"], ["g++"], ["clang++"]]
    compiler = next((command for command in candidates if shutil.which(command[0])), None)
    if compiler is None:
        raise Unavailable(f"there is no compiler {user_command[0]}" if user_command else "there is no C++ compiler")
    command = [
        *compiler, "-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility-inlines-hidden",
        f"-I{jax.ffi.include_dir()}", f"-I{dependency.include}", str(_SOURCES / "library.cc"),
        str(dependency.library), f"-Wl,-rpath,{dependency.library.parent}", "-o", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        error = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        raise Unavailable(f"{command[0]} does not compile them: {error.strip()}")


def find_onednn() -> OneDNN:
    """Finds oneDNN in the folder ``JAXCLS_ONEDNN``; if that is not set, in the environment of this Python or the
    system.

    Raises:
      InputError: the folder ``JAXCLS_ONEDNN`` contains no usable one.
      Unavailable: there is no usable one.
    """
    user_folder = os.environ.get("JAXCLS_ONEDNN")
    reasons = []
    for prefix in [Path(user_folder)] if user_folder else _prefixes():
        try:
            return _installed(prefix)
        except Unavailable as reason:
            reasons.append(str(reason))
    if user_folder:
        raise InputError(
            f"JAXCLS_ONEDNN={user_folder}: {reasons[0]}; set it to the folder of include/oneapi/dnnl and lib/libdnnl.so"
        )
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
    # Version 3.0 changed the C++ interface.
    if version < (3, 0):
        raise Unavailable(f"{name} is older than 3.0")
    runtime = _macro("DNNL_CPU_THREADING_RUNTIME", config_header).removeprefix("DNNL_RUNTIME_")
    # OpenMP's threads, XLA's threads, or a single one. Builds for TBB and SYCL need further libraries.
    if runtime not in ("OMP", "THREADPOOL", "SEQ"):
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
