"""Memory is bounded by the size of a file, not by what its header declares; decompression bombs are refused."""

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pyarrow
import pytest
from damage import bounded
from pyarrow import feather, parquet

from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError, did_you_mean
from jaxcls.data.datasets import radiographs
from jaxcls.data.formats import idx, tables, texts
from jaxcls.training import settings

MEGABYTE = 1 << 20
# A gzip stream may expand to this size before it is refused.
SMALL = 64 * MEGABYTE


@pytest.fixture
def peak():
    """A function that returns the peak memory since the test began, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def zeros(megabytes):
    """A gzip stream of zeros, a thousandth of its content."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(MEGABYTE)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


def idx_header(*shape, code=0x08):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(4_000_000_000,), (60_000, 1 << 16, 1 << 16), (1 << 31,) * 8])
def test_an_idx_header_that_declares_too_much(tmp_path, peak, packed, shape):
    content = idx_header(*shape) + bytes(100)
    (tmp_path / "x").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match="its header declares"):
        idx.read_idx(tmp_path / "x")
    assert peak() < 2 * MEGABYTE


def test_a_compression_bomb_with_a_matching_idx_header(tmp_path, peak):
    count = 256 * MEGABYTE
    (tmp_path / "x").write_bytes(gzip.compress(idx_header(count)) + zeros(256))
    with pytest.raises(InputError, match="of its size may hold"):
        idx.read_idx(tmp_path / "x")
    assert peak() < 4 * MEGABYTE


def test_a_compression_bomb_as_a_table(tmp_path, peak):
    (tmp_path / "x.csv").write_bytes(zeros(512))
    with pytest.raises(InputError, match="unpacks to more than"):
        tables.read_csv(tmp_path / "x.csv")
    assert peak() < SMALL + 8 * MEGABYTE


@pytest.mark.parametrize("write", [parquet.write_table, feather.write_feather], ids=["parquet", "feather"])
def test_a_compression_bomb_in_columns(tmp_path, write):
    zeros = pyarrow.array(np.zeros(MEGABYTE, np.int8))
    write(pyarrow.table({f"c{index}": zeros for index in range(70)}), tmp_path / "x", compression="zstd")
    assert (tmp_path / "x").stat().st_size < MEGABYTE // 2
    with pytest.raises(InputError, match="unpacks to more than"):
        tables.read(tmp_path / "x")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE, tarfile.REGTYPE])
@pytest.mark.parametrize("size", [1 << 32, -512])
def test_a_tar_header_that_declares_too_much(tmp_path, peak, kind, size):
    member = tarfile.TarInfo("a/pos/1.txt")
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(bytes(block) * 3))
    with pytest.raises(InputError):
        texts.read_archive(tmp_path / "x.tar.gz", ["a/pos"])
    assert peak() < 8 * MEGABYTE


def test_nested_tar_headers(tmp_path):
    """tarfile recurses for each."""
    member = tarfile.TarInfo("a/pos/1.txt")
    member.type = tarfile.XHDTYPE
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT)[:512] * 5_000))
    with pytest.raises(InputError):
        texts.read_archive(tmp_path / "x.tar.gz", ["a/pos"])


def test_a_compression_bomb_as_an_archive(tmp_path, peak):
    (tmp_path / "x.tar.gz").write_bytes(zeros(256))
    with pytest.raises(InputError):
        texts.read_archive(tmp_path / "x.tar.gz", ["a/pos"])
    assert peak() < 32 * MEGABYTE


def npz_of(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(header, content=b""):
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + content


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 28, 28), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 150 + ")" * 150 + ", }",
        "-" * 9000 + "1",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "__import__('os').system('touch executed')",
    ],
)
def test_npy_headers_that_numpy_does_not_write(tmp_path, peak, monkeypatch, header):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz_of(train_images=npy(header, b"0")))
    with pytest.raises(InputError, match="train_images"):
        radiographs.read_medmnist(path, name="toy", class_names=("no", "yes"), size=28)
    assert peak() < 2 * MEGABYTE
    assert not (tmp_path / "executed").exists()


def test_a_compression_bomb_as_arrays(tmp_path, peak):
    path = tmp_path / "pneumoniamnist.npz"
    bomb = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (67108864, 1, 1), }", bytes(64 * MEGABYTE))
    path.write_bytes(npz_of(train_images=bomb))
    del bomb
    tracemalloc.reset_peak()
    with pytest.raises(InputError, match="unpack to"):
        radiographs.read_medmnist(path, name="toy", class_names=("no", "yes"), size=28)
    assert peak() < 2 * MEGABYTE


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "", "nul", b"\xff", b"\xff\xfe\0\0"], ids=range(7)
)
def test_invalid_json(text):
    with pytest.raises(InputError, match=r"record\.json is damaged"):
        schemas.parse(text, {}, "record.json")


BRACKETS, DIGITS, DOTS = "a = " + "[" * 50_000, "epochs = " + "9" * 10_000, "a." * 5_000 + "b = 1"


@pytest.mark.parametrize("text", [BRACKETS, DIGITS, DOTS, "= 1", "\0"], ids=range(5))
def test_invalid_toml(tmp_path, text):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(InputError, match=r"x\.toml"):
        settings.from_toml(tmp_path / "x.toml")


def test_reading_time_is_linear_in_the_number_of_columns(tmp_path):
    def seconds(columns):
        names = [f"c{index}" for index in range(columns)]
        (tmp_path / "x.csv").write_text(",".join(names) + "\n" + ",".join(["1"] * columns) + "\n")
        begun = time.process_time()  # other processes may keep the machine busy
        assert len(tables.read_csv(tmp_path / "x.csv")) == columns
        return time.process_time() - begun

    seconds(1_000)  # imports
    # Eight times the columns: 8 if linear, 64 if quadratic.
    assert seconds(16_000) < 24 * seconds(2_000)


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


IMAGES = {
    "png": png(9_000, 9_000),
    "huge png": png(1_000_000, 1_000_000),
    "ppm": b"P6 9000 9000 255\n" + bytes(100),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 9_000, 9_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "tiff": b"II*\0"
    + struct.pack("<I", 8)
    + struct.pack("<H", 1)
    + struct.pack("<HHII", 0x111, 4, 0xFFFFFFF0, 8)
    + bytes(4),
}


@pytest.mark.slow
def test_image_headers_that_declare_too_much_take_no_memory(tmp_path):
    """In a process that has little more memory than its imports need; tracemalloc does not see the decoders."""
    for name, content in IMAGES.items():
        (tmp_path / f"{name}.img").write_bytes(content)
    code = """
import resource, sys
from pathlib import Path
from PIL import Image
from jaxcls.data.formats import images
from jaxcls._utils.errors import InputError
Image.init()
pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (96 << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        images.decode_path(path, size=8, channels=3)
    except InputError as error:
        print(path.name, isinstance(error.__cause__, MemoryError))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{name}.img False" for name in sorted(IMAGES)]


def test_a_record_above_the_size_limit(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps("x" * 100))
    with pytest.raises(InputError, match="is larger than 50 bytes"):
        files.content(tmp_path / "x.json", folder=tmp_path, most=50)


def test_long_names_get_no_suggestion_and_take_no_time():
    with bounded(10):
        assert did_you_mean("ab" * 100_000, ["ba" * 100_000]) == did_you_mean("adam", ["ba" * 100_000]) == ""


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], {"a": {"\ud800": 1}}], ids=range(3))
def test_unpaired_surrogates_are_refused_anywhere(value):
    with pytest.raises(InputError, match="is damaged: it contains an unpaired surrogate"):
        schemas.parse(json.dumps({"a": value}), {}, "record.json")
