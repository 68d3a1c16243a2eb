"""The settings that are made before jax is imported, the cache directory, and the record of versions."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

import jaxcls
from jaxcls._utils import environment

FLAG = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
NAMES = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def configured(jaxlib="0.10.2", first="", arguments="", **variables):
    """Returns the variables after `configure` in a process with these variables and that version of jaxlib."""
    code = f"""
import importlib.metadata, json, os
{first}
importlib.metadata.version = {{"jaxlib": {jaxlib!r}}}.__getitem__
from jaxcls._utils import environment
environment.configure({arguments})
print(json.dumps({{name: os.environ[name] for name in {NAMES} if name in os.environ}}))
"""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | variables, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_flag_and_cache_have_defaults():
    variables = configured()
    assert variables["XLA_FLAGS"] == FLAG
    assert Path(variables["JAX_COMPILATION_CACHE_DIR"]).name.startswith("compiled-")
    assert variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


@pytest.mark.parametrize("jaxlib", ["0.7.2", "0.11.0", "0.12.0.1", "0.100.2", "1.0.10"])
def test_the_flag_is_set_only_for_tested_versions_of_jaxlib(jaxlib):
    variables = configured(jaxlib)
    assert "XLA_FLAGS" not in variables
    assert "JAX_COMPILATION_CACHE_DIR" in variables


@pytest.mark.parametrize("jaxlib", ["0.7.2", "0.10.2", "0.12.0.1"])
def test_a_measured_jaxlib_needs_no_note(jaxlib, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"jaxlib": jaxlib}.__getitem__)
    assert environment.unmeasured() is None


def test_a_line_says_that_a_jaxlib_was_not_measured(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"jaxlib": "0.13.1"}.__getitem__)
    line = environment.unmeasured()
    assert "jaxlib 0.13.1" in line
    assert "0.7, 0.10, 0.12" in line


def test_variables_of_the_user_are_not_changed():
    variables = dict(zip(NAMES, ("--xla_cpu_experimental_ynn_fusion_type=invalid", "mine", "3"), strict=True))
    assert configured(**variables) == variables


def test_the_flag_is_added_to_flags_of_the_user():
    assert configured(XLA_FLAGS="--xla_dump_to=x")["XLA_FLAGS"] == f"--xla_dump_to=x {FLAG}"


@pytest.mark.parametrize("flags", ["", "--xla_gpu_deterministic_ops=false"])
def test_deterministic_sets_the_flag_unless_the_user_set_it(flags):
    expected = [flags or "--xla_gpu_deterministic_ops=true"]
    variables = {"XLA_FLAGS": flags} if flags else {}
    assert configured("0.11.0", arguments="deterministic=True", **variables)["XLA_FLAGS"].split() == expected


def test_garbage_collection_is_less_frequent():
    code = "import gc; from jaxcls._utils import environment; environment.configure(); print(*gc.get_threshold())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["50000", "10", "10"]


def test_nothing_is_set_if_jax_is_imported():
    assert configured(first="import jax") == {}


def test_the_cache_is_in_xdg_cache_home_or_the_home_directory(tmp_path):
    folders = [
        Path(configured(HOME=str(tmp_path / "home"), XDG_CACHE_HOME=base)["JAX_COMPILATION_CACHE_DIR"]).parent
        for base in (str(tmp_path / "xdg"), "")
    ]
    assert folders == [tmp_path / "xdg" / "jaxcls", tmp_path / "home" / ".cache" / "jaxcls"]


def unknown_home():
    """As `Path.home` for a user ID that has no passwd entry."""
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", ["missing", "read-only"])
def test_cache_is_in_the_temporary_directory_without_a_writable_home(home, tmp_path, monkeypatch, caplog):
    (tmp_path / "home").write_text("a file, in which not even root can make a folder")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if home == "missing":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(Path, "home", unknown_home)
    else:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = environment.cache_directory()
    assert folder.is_dir()
    assert folder == environment.cache_directory() == tmp_path / f"jaxcls-{os.getuid()}"
    [message] = caplog.messages
    assert str(folder) in message
    assert "XDG_CACHE_HOME" in message


def test_a_temporary_cache_that_others_can_write_to_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"jaxcls-{os.getuid()}").mkdir()
    (tmp_path / f"jaxcls-{os.getuid()}").chmod(0o777)
    folder = environment.cache_directory()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0


def test_the_record_is_json_with_versions_and_devices():
    record = environment.record()
    assert json.loads(json.dumps(record)) == record
    assert {"jax": jax.__version__, "jaxcls": jaxcls.__version__}.items() <= record["packages"].items()
    assert record["platform"] == jax.default_backend()
    assert len(record["devices"]) == jax.device_count()
    assert record["cpus"] >= 1


def test_a_checkout_that_is_not_installed_is_recorded(monkeypatch):
    version = importlib.metadata.version

    def installed(name):
        if name == "jaxcls":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    assert environment.record()["packages"]["jaxcls"] == jaxcls.__version__


@pytest.mark.parametrize("platform", ["cuda", "tpu", "no_such_platform"])
@pytest.mark.parametrize(
    "command", ["train --task csv", "find-lr --task csv", "predict --run-dir a --input b --output c"]
)
def test_a_platform_that_is_not_available_is_an_error_of_one_line(platform, command):
    process = subprocess.run(
        [sys.executable, "-m", "jaxcls", *command.split()],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": platform},
    )
    if "not available" not in process.stderr and platform != "no_such_platform":
        pytest.skip(f"this machine has a device of {platform}")
    assert process.returncode == 2
    [line] = process.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={platform} asks for devices that are not available here: ")
    assert line.endswith("or set JAX_PLATFORMS=cpu.")
