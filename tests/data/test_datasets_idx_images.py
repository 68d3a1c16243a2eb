"""Sources of IDX data sets: each gives the same arrays, records its provenance, and fails fast with a clear message."""

import contextlib
import dataclasses
import http.server
import json
import shutil
import socket
import threading
import time
from pathlib import Path

import chex
import numpy as np
import pytest
from idx_files import write_idx
from tensorflow_datasets.core.download.checksums import compute_url_info

from jaxcls._utils.errors import InputError
from jaxcls.data import dataset as datasets
from jaxcls.data import sources
from jaxcls.data.datasets import idx_images
from jaxcls.data.datasets.fashion_mnist import IMAGES
from jaxcls.data.formats import idx

NAMES = tuple(IMAGES.sha256)
DEBIAN = Path(IMAGES.debian[1])
needs_debian_package = pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")


def tiny_arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, (rows, 4, 3), np.uint8) if "images" in name else np.arange(rows, dtype=np.uint8)
        for name, rows in zip(NAMES, (6, 6, 4, 4), strict=True)
    }


def write(folder, arrays, naming="{}.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_idx(folder / naming.format(name), array)
    return folder


@pytest.fixture
def tiny(tmp_path):
    """The specification of a tiny official data set, in a folder as a Debian package would install it."""
    arrays = tiny_arrays()
    folder = write(tmp_path / "package", arrays)
    return idx_images.IdxImages(
        name="tiny",
        class_names=tuple("abcdef"),
        sha256={name: idx.idx_sha256(array) for name, array in arrays.items()},
        debian=("dataset-tiny", str(folder)),
        torchvision="Tiny",
    )


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No network (a proxy refuses all connections) and an empty TFDS cache."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        use_proxy(monkeypatch, unused.getsockname()[1])
        yield


def use_proxy(monkeypatch, port):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")


@contextlib.contextmanager
def serving(contents, status=200):
    """A loopback server, also usable as a proxy: it answers by the last part of the address."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(status)
            content = contents[self.path.rpartition("/")[2]]
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            # The question whether the server answers closes the connection without reading on.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def registered_in_tfds(spec, monkeypatch, tmp_path, port):
    """Registers the files of a specification with TFDS, at the loopback server."""
    write(tmp_path / "served", tiny_arrays())
    files = {f"{name}.gz": tmp_path / "served" / f"{name}.gz" for name in spec.sha256}
    infos = {f"http://127.0.0.1:{port}/{name}": compute_url_info(path) for name, path in files.items()}
    monkeypatch.setattr(sources, "registered", lambda name: infos)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    return dataclasses.replace(spec, tfds="fashion_mnist"), {name: path.read_bytes() for name, path in files.items()}


def check_tiny(dataset):
    arrays = tiny_arrays()
    expected = (
        datasets.Split(arrays[NAMES[0]][..., None], arrays[NAMES[1]].astype(np.int32)),
        datasets.Split(arrays[NAMES[2]][..., None], arrays[NAMES[3]].astype(np.int32)),
    )
    chex.assert_trees_all_equal((dataset.train, dataset.test), expected, strict=True)


@pytest.mark.parametrize("naming", ["{}", "{}.gz"])
@pytest.mark.parametrize("subfolder", [".", "raw", "Tiny/raw"])
def test_files_are_found_in_every_layout_in_use(tiny, tmp_path, naming, subfolder):
    write(tmp_path / "own" / subfolder, tiny_arrays(), naming)
    dataset = idx_images.load(tiny, "files", tmp_path / "own")
    check_tiny(dataset)
    assert dataset.class_names == tiny.class_names
    assert dataset.provenance == datasets.Provenance(
        "files", str(tmp_path / "own" / subfolder), tiny.sha256, False, "SHA-256 verified"
    )


def test_files_are_found_under_their_dotted_names(tiny, tmp_path):
    arrays = {name.replace("-idx", ".idx"): array for name, array in tiny_arrays().items()}
    check_tiny(idx_images.load(tiny, "auto", write(tmp_path / "own", arrays, "{}")))


def test_user_data_in_a_data_dir_is_called_user_data(tiny, tmp_path):
    arrays = tiny_arrays() | {NAMES[2]: tiny_arrays(seed=1)[NAMES[2]]}
    dataset = idx_images.load(tiny, "files", write(tmp_path / "own", arrays))
    np.testing.assert_array_equal(dataset.test.inputs[..., 0], arrays[NAMES[2]])
    assert dataset.provenance.note == f"user data: not the official content of {NAMES[2]}"
    assert dataset.provenance.sha256[NAMES[2]] == idx.idx_sha256(arrays[NAMES[2]])


def test_rgb_images_are_accepted(tiny, tmp_path):
    arrays = {name: np.stack([a, a, a], -1) if a.ndim == 3 else a for name, a in tiny_arrays().items()}
    dataset = idx_images.load(tiny, "files", write(tmp_path / "own", arrays))
    assert dataset.train.inputs.shape == (6, 4, 3, 3)


def test_the_debian_package_must_hold_the_official_content(tiny):
    dataset = idx_images.load(tiny)
    check_tiny(dataset)
    assert datasets.describe(dataset) == (
        f"tiny: 6 + 4 examples from {tiny.debian[1]} (Debian package dataset-tiny, SHA-256 verified)"
    )
    write(Path(tiny.debian[1]), {NAMES[1]: np.zeros(6, np.uint8)})
    with pytest.raises(InputError, match=f"{NAMES[1]}: the SHA-256 of the content is not the official one"):
        idx_images.load(tiny)
    (Path(tiny.debian[1]) / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(InputError, match=f"{NAMES[3]}.gz: cannot be read"):
        idx_images.load(tiny)


@needs_debian_package
def test_fashion_mnist_from_debian_is_official_and_decodes_fast():
    start = time.perf_counter()
    dataset = idx_images.load(IMAGES, "files")
    # 0.3 s on an idle machine.
    assert time.perf_counter() - start < 3
    assert dataset.train.inputs.shape == (60_000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [6000] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [1000] * 10)
    assert dataset.provenance.sha256 == IMAGES.sha256
    assert datasets.describe(dataset) == (
        "fashion_mnist: 60,000 + 10,000 examples from /usr/share/datasets/fashion-mnist "
        "(Debian package dataset-fashion-mnist, SHA-256 verified)"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({NAMES[0]: np.zeros((6, 4, 3), np.int32)}, f"{NAMES[0]}.gz: int32 of shape.*must be uint8"),
        ({NAMES[0]: np.zeros((6, 12), np.uint8)}, rf"{NAMES[0]}.gz: uint8 of shape \(6, 12\)"),
        ({NAMES[0]: np.zeros((0, 4, 3), np.uint8)}, "with at least one"),
        ({NAMES[1]: np.zeros((6, 1), np.uint8)}, rf"{NAMES[1]}.gz: uint8 of shape \(6, 1\); labels must be"),
        ({NAMES[1]: np.zeros(6, np.float32)}, f"{NAMES[1]}.gz: float32 .* labels must be integers"),
        ({NAMES[1]: np.zeros(5, np.uint8)}, "5 labels for the 6 images"),
        ({NAMES[3]: np.array([0, 1, 6, 7], np.uint8)}, f"{NAMES[3]}.gz: row 2 has label 6; .* 0 to 5"),
        ({NAMES[3]: np.array([0, 1, 2, -1], np.int8)}, "row 3 has label -1"),
        ({NAMES[2]: np.zeros((4, 5, 3), np.uint8)}, r"images of shape \(5, 3, 1\), but those of .* of \(4, 3, 1\)"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_by_name(tiny, tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        idx_images.load(tiny, "files", write(tmp_path / "own", tiny_arrays() | change))


def test_a_data_dir_is_never_passed_over(tiny, tmp_path):
    with pytest.raises(InputError, match=r"own is not a folder"):
        idx_images.load(tiny, "auto", tmp_path / "own")
    arrays = tiny_arrays()
    del arrays[NAMES[1]]
    with pytest.raises(InputError, match=rf"own lacks {NAMES[1]}\. data_dir must hold"):
        idx_images.load(tiny, "auto", write(tmp_path / "own", arrays))


def test_a_source_that_is_unknown_or_contradicts_data_dir_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match=r"unknown source 'smaple'\. Did you mean 'sample'"):
        idx_images.load(tiny, "smaple")
    with pytest.raises(InputError, match="data_dir goes with source files or auto, not with tfds"):
        idx_images.load(tiny, "tfds", tmp_path)


def test_the_sample_is_real_and_is_called_a_subset():
    dataset = idx_images.load(IMAGES, "sample")
    assert dataset.train.inputs.shape == (10_000, 28, 28, 1)
    assert dataset.test.inputs.shape == (2_000, 28, 28, 1)
    assert np.all(np.bincount(dataset.train.labels, minlength=10) > 900)
    assert not dataset.provenance.synthetic
    assert "a subset of the real data set" in dataset.provenance.note


def test_a_damaged_sample_is_refused(tiny, monkeypatch, tmp_path):
    folder = write(tmp_path / "samples" / "tiny", tiny_arrays())
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in tiny.sha256.items()))
    monkeypatch.setattr(idx_images.resources, "files", lambda package: tmp_path / "samples")
    spec = dataclasses.replace(tiny, sample="tiny")
    check_tiny(idx_images.load(spec, "sample"))
    write(folder, {NAMES[3]: np.zeros(4, np.uint8)})
    with pytest.raises(InputError, match=f"{NAMES[3]}.gz: its SHA-256 is not the one in SHA256SUMS"):
        idx_images.load(spec, "sample")


@needs_debian_package
def test_the_sample_is_the_beginning_of_the_official_files():
    full = idx_images.load(IMAGES, "files")
    sample = idx_images.load(IMAGES, "sample")
    chex.assert_trees_all_equal(
        (sample.train, sample.test),
        (
            full.train.take(np.arange(10_000)),
            full.test.take(np.arange(2_000)),
        ),
    )


def test_tfds_downloads_verifies_and_caches_the_files(tiny, monkeypatch, tmp_path):
    contents = {}
    with serving(contents) as (port, requests):
        spec, files = registered_in_tfds(tiny, monkeypatch, tmp_path, port)
        contents |= files
        dataset = idx_images.load(spec, "tfds")
        assert {path.removeprefix("/") for path in requests} == set(files)
    check_tiny(dataset)
    assert dataset.provenance == datasets.Provenance(
        "tfds",
        str(tmp_path / "tfds" / "downloads" / "fashion_mnist"),
        tiny.sha256,
        False,
        "TFDS fashion_mnist, SHA-256 verified",
    )
    # The server is gone: this is the cache.
    check_tiny(idx_images.load(spec, "tfds"))
    for cached in (tmp_path / "tfds").rglob("*labels*.gz"):
        write_idx(cached, np.zeros(6 if "train" in cached.name else 4, np.uint8))
    with pytest.raises(InputError, match=f"{NAMES[1]}, {NAMES[3]}: the SHA-256 .* Delete this folder"):
        idx_images.load(spec, "tfds")


def test_a_download_with_a_wrong_checksum_is_refused(tiny, monkeypatch, tmp_path):
    contents = {}
    with serving(contents) as (port, _):
        spec, files = registered_in_tfds(tiny, monkeypatch, tmp_path, port)
        contents |= files | {f"{NAMES[0]}.gz": b"<html>Please log in</html>"}
        with pytest.raises(InputError, match=r"the download failed: .*wrong checksum"):
            idx_images.load(spec, "tfds")


@pytest.mark.parametrize(("status", "says"), [(403, "Forbidden"), (503, "Service Unavailable")])
def test_a_server_that_refuses_fails_fast(tiny, monkeypatch, tmp_path, status, says):
    contents = {}
    with serving(contents, status) as (port, _):
        spec, files = registered_in_tfds(tiny, monkeypatch, tmp_path, port)
        contents |= files
        start = time.perf_counter()
        with pytest.raises(InputError, match=rf"127.0.0.1:{port} is out of reach: .*{status}: {says}"):
            idx_images.load(spec, "tfds")
    assert time.perf_counter() - start < 3


def test_a_silent_server_times_out(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spec, _ = registered_in_tfds(tiny, monkeypatch, tmp_path, silent.getsockname()[1])
        start = time.perf_counter()
        with pytest.raises(InputError, match=r"did not answer within 0.2 seconds|timed out"):
            idx_images.load(spec, "tfds")
    assert time.perf_counter() - start < 3


def test_without_network_tfds_fails_fast_with_remedies_and_leaves_no_files(nowhere, tmp_path):
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        idx_images.load(IMAGES, "tfds")
    assert time.perf_counter() - start < 5
    for remedy in ("data_dir", "Debian package dataset-fashion-mnist", "source to sample", "out of reach"):
        assert remedy in str(caught.value)
    assert not (tmp_path / "tfds").exists()


@needs_debian_package
def test_fashion_mnist_from_tfds_equals_that_of_debian(monkeypatch, tmp_path):
    # The official files, by the addresses and checksums that TFDS has registered: Debian's differ from them
    # in the time and the name in the gzip header.
    contents = {}
    for name in NAMES:
        stamp = 1504176606 if "train" in name else 1504176627
        packed = (DEBIAN / f"{name}.gz").read_bytes()
        header = b"\x1f\x8b\x08\x08" + stamp.to_bytes(4, "little") + packed[8:10] + name.encode() + b"\0"
        contents[f"{name}.gz"] = header + packed[10:]
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with serving(contents) as (port, _):
        use_proxy(monkeypatch, port)
        fetched = idx_images.load(IMAGES, "tfds")
    installed = idx_images.load(IMAGES, "files")
    chex.assert_trees_all_equal((fetched.train, fetched.test), (installed.train, installed.test))
    assert fetched.provenance.sha256 == IMAGES.sha256


def test_auto_falls_back_to_the_sample_and_records_why(nowhere, tmp_path):
    spec = dataclasses.replace(IMAGES, debian=("dataset-absent", str(tmp_path / "absent")))
    dataset = idx_images.load(spec, "auto")
    assert dataset.provenance.source == "sample"
    files, download = dataset.provenance.passed_over
    assert files == "files: no data_dir was given and the Debian package dataset-absent is not installed"
    assert download.startswith("tfds: fashion-mnist.s3-website.eu-central-1.amazonaws.com is out of reach")
    assert f"not {files}; not {download}" in datasets.describe(dataset)
    json.dumps(dataclasses.asdict(dataset.provenance))


def test_the_error_without_any_source_names_all_of_them(tiny):
    shutil.rmtree(tiny.debian[1])
    with pytest.raises(InputError, match=r"tiny is not available \(files: .*; tfds: .*; sample: .*\)\. One of"):
        idx_images.load(tiny)
