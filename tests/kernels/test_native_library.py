"""Compiling and loading the native kernels, and the fallback to pure JAX, with the reason in the record."""

import concurrent.futures
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax

from jaxcls import kernels
from jaxcls._utils.errors import InputError
from jaxcls.kernels import native
from jaxcls.kernels.native import library
from jaxcls.kernels.native.library import OneDNN, Unavailable

GEOMETRY = native.ConvGeometry((1, 1), ((1, 1), (1, 1)))
# A compiler that notes in the file COMPILED that it was called, and takes its time.
COMPILER = """
import os, sys, time
with open(os.environ["COMPILED"], "a") as log:
    log.write("once\\n")
time.sleep(0.3)
with open(sys.argv[sys.argv.index("-o") + 1], "wb") as output:
    output.write(b"a library" * 1000)
"""


@pytest.fixture
def fake_onednn(tmp_path, monkeypatch):
    """A oneDNN that the compiler above accepts."""
    (tmp_path / "compiler.py").write_text(COMPILER)
    monkeypatch.setenv("CXX", shlex.join([sys.executable, str(tmp_path / "compiler.py")]))
    monkeypatch.setenv("COMPILED", str(tmp_path / "compiled"))
    return OneDNN("3.2.0", tmp_path, tmp_path / "libdnnl.so.3")


def times_compiled():
    return len(Path(os.environ["COMPILED"]).read_text().splitlines())


def installed(prefix, version=(3, 2, 0), runtime="OMP", library="lib/libdnnl.so.3"):
    """Writes the minimum of headers and a library that `find` detects."""
    headers = prefix / "include" / "oneapi" / "dnnl"
    headers.mkdir(parents=True)
    numbers = zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)
    (headers / "dnnl_version.h").write_text("".join(f"#define DNNL_VERSION_{part} {n}\n" for part, n in numbers))
    (headers / "dnnl_config.h").write_text(f"#define DNNL_CPU_THREADING_RUNTIME DNNL_RUNTIME_{runtime}\n")
    (prefix / library).parent.mkdir(exist_ok=True)
    (prefix / library).touch()
    return prefix


def search_only(monkeypatch, *prefixes):
    """Makes these the only prefixes that are searched."""
    monkeypatch.delenv("JAXCLS_ONEDNN", raising=False)
    monkeypatch.setattr(library, "_prefixes", lambda: list(prefixes))


def test_library_is_compiled_once(fake_onednn, tmp_path):
    first = library.compiled(fake_onednn, tmp_path / "cache")
    assert library.compiled(fake_onednn, tmp_path / "cache") == first
    assert times_compiled() == 1
    # Another oneDNN, another library.
    assert library.compiled(fake_onednn._replace(version="3.3.0"), tmp_path / "cache") != first
    assert times_compiled() == 2


@pytest.mark.parametrize("damage", [b"", b"a library"])
def test_a_damaged_library_is_compiled_again(fake_onednn, tmp_path, damage):
    path = library.compiled(fake_onednn, tmp_path / "cache")
    content = path.read_bytes()
    path.write_bytes(damage)
    assert library.compiled(fake_onednn, tmp_path / "cache").read_bytes() == content
    assert times_compiled() == 2
    assert len([*(tmp_path / "cache").glob("*.so")]) == 1


def test_concurrent_threads_compile_once(fake_onednn, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = [*pool.map(lambda _: library.compiled(fake_onednn, tmp_path / "cache"), range(4))]
    assert len(set(paths)) == 1
    assert times_compiled() == 1


def test_concurrent_processes_compile_once(fake_onednn, tmp_path):
    code = f"""
import pathlib
from jaxcls.kernels.native import library
fake_onednn = library.OneDNN("3.2.0", pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(fake_onednn.library)!r}))
print(library.compiled(fake_onednn, pathlib.Path({str(tmp_path / "cache")!r})))
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert paths == {str(library.compiled(fake_onednn, tmp_path / "cache"))}
    assert times_compiled() == 1


def test_failing_or_missing_compiler_is_reported(fake_onednn, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", shlex.join([sys.executable, "-c", "raise SystemExit('fatal error: no such header')"]))
    with pytest.raises(Unavailable, match=r"does not compile them: fatal error: no such header"):
        library.compiled(fake_onednn, tmp_path / "cache")
    assert [*(tmp_path / "cache").glob("*.so")] == []
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match="there is no compiler no-such-compiler"):
        library.compiled(fake_onednn, tmp_path / "cache")
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"there is no C\+\+ compiler"):
        library.compiled(fake_onednn, tmp_path / "cache")


def test_onednn_is_found_in_the_first_prefix_that_has_it(tmp_path, monkeypatch):
    second = installed(tmp_path / "second", library="lib64/libdnnl.so.3")
    search_only(monkeypatch, tmp_path / "first", second, installed(tmp_path / "third", (3, 9, 1)))
    assert library.find_onednn() == OneDNN("3.2.0", second / "include", second / "lib64" / "libdnnl.so.3")
    monkeypatch.setenv("JAXCLS_ONEDNN", str(tmp_path / "third"))
    assert library.find_onednn().version == "3.9.1"


@pytest.mark.parametrize("runtime", ["OMP", "THREADPOOL", "SEQ"])
def test_supported_threading_runtimes(tmp_path, monkeypatch, runtime):
    monkeypatch.setenv("JAXCLS_ONEDNN", str(installed(tmp_path / "user", runtime=runtime)))
    assert library.find_onednn().version == "3.2.0"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version": (2, 6, 3)}, r"oneDNN 2\.6\.3 in .* is older than 3\.0"),
        ({"runtime": "TBB"}, r"oneDNN 3\.2\.0 in .* is built for TBB, not for OpenMP or a thread pool"),
        ({"library": "lib/libdnnl.so.2"}, r"oneDNN 3\.2\.0 in .* has headers, but no libdnnl\.so\.3"),
    ],
)
def test_unusable_onednn_is_reported(tmp_path, monkeypatch, options, reason):
    prefix = installed(tmp_path / "installed", **options)
    search_only(monkeypatch, tmp_path / "empty", prefix)
    with pytest.raises(Unavailable, match=reason):
        library.find_onednn()
    monkeypatch.setenv("JAXCLS_ONEDNN", str(prefix))
    with pytest.raises(InputError, match=f"JAXCLS_ONEDNN={prefix}: {reason}; set it to the folder"):
        library.find_onednn()


def test_missing_onednn_is_reported(tmp_path, monkeypatch):
    search_only(monkeypatch, tmp_path)
    with pytest.raises(Unavailable, match=r"^no oneDNN is installed$"):
        library.find_onednn()


@pytest.fixture
def absent(monkeypatch, tmp_path):
    """A process that has tried nothing yet, on a machine without oneDNN."""
    monkeypatch.setattr(library, "_loaded", None)
    monkeypatch.setattr(native, "_backends", {})
    search_only(monkeypatch, tmp_path)
    monkeypatch.delenv("JAXCLS_NATIVE", raising=False)
    monkeypatch.setattr(library.sys, "platform", "linux")


def convolved():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))

    def apply(conv):
        return conv(x, kernel, (1, 1), GEOMETRY.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    np.testing.assert_allclose(apply(kernels.conv), apply(lax.conv_general_dilated), rtol=1e-5, atol=1e-5)
    return native.supports_convolution(x, kernel, GEOMETRY)


@pytest.mark.usefixtures("absent")
def test_fallback_to_pure_jax_is_recorded_with_the_reason():
    assert native.record() == {}
    assert not convolved()
    assert native.record() == {"convolutions": "XLA (no oneDNN is installed)"}


@pytest.mark.usefixtures("absent")
def test_other_systems_than_linux_are_not_tried(monkeypatch):
    monkeypatch.setattr(library.sys, "platform", "darwin")
    assert not convolved()
    assert "support Linux" in native.record()["convolutions"]


@pytest.mark.usefixtures("absent")
def test_unwritable_cache_folder_is_recorded(monkeypatch, tmp_path, fake_onednn):
    monkeypatch.setattr(library, "find_onednn", lambda: fake_onednn)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not convolved()
    assert "Not a directory" in native.record()["convolutions"]


@pytest.mark.usefixtures("absent")
def test_library_that_does_not_load_is_recorded(monkeypatch, tmp_path, fake_onednn):
    monkeypatch.setattr(library, "find_onednn", lambda: fake_onednn)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert not convolved()
    assert "invalid ELF header" in native.record()["convolutions"]


@pytest.mark.usefixtures("absent")
def test_required_but_missing_kernels_are_an_error(monkeypatch):
    monkeypatch.setenv("JAXCLS_NATIVE", "1")
    with pytest.raises(InputError, match=r"JAXCLS_NATIVE=1, but .* no oneDNN is installed\. .* 'jaxcls\[cpu\]'"):
        convolved()


def test_disabled_kernels_are_not_loaded(monkeypatch):
    monkeypatch.setenv("JAXCLS_NATIVE", "0")
    monkeypatch.setattr(native, "_backends", {})
    monkeypatch.setattr(library, "load", lambda: pytest.fail("tried"))
    assert not convolved()
    assert native.record() == {"convolutions": "XLA (JAXCLS_NATIVE=0)"}


def test_other_values_of_jaxcls_native_are_refused(monkeypatch):
    monkeypatch.setenv("JAXCLS_NATIVE", "yes")
    with pytest.raises(InputError, match="JAXCLS_NATIVE=yes: it must be 0"):
        convolved()


def output_of(code, cache):
    """Runs code in a new process with native kernels, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "JAXCLS_NATIVE": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_nothing_is_compiled_or_loaded_at_import(tmp_path):
    code = "from jaxcls.kernels import native; from jaxcls.models import vision; print(native.record())"
    assert output_of(code, tmp_path) == "{}"
    assert not (tmp_path / "jaxcls" / "native").exists()


@pytest.mark.slow
def test_a_truncated_library_is_rebuilt_by_the_real_compiler(tmp_path):
    try:
        library.load()
        path = library.compiled(library.find_onednn(), library.environment.cache_directory() / "native")
    except Unavailable as reason:
        pytest.skip(f"no native kernels here: {reason}")
    code = """
import jax.numpy as jnp
from jaxcls.kernels import native
x, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((1, 1, 2, 2))
geometry = native.ConvGeometry((1, 1), ((0, 0), (0, 0)))
assert native.supports_convolution(x, kernel, geometry)
print(float(native.convolve(x, kernel, geometry).sum()))
"""

    folder, content = tmp_path / "jaxcls" / "native", path.read_bytes()
    folder.mkdir(parents=True)
    (folder / path.name).write_bytes(content[: len(content) // 2])
    assert output_of(code, tmp_path) == "36.0"
    assert [one.read_bytes() for one in folder.glob("*.so")] == [content]
