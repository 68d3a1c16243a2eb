"""IDX files: arrays are read back as written, and anything else is an error that names the file."""

import contextlib
import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from idx_files import write_idx

from jaxcls._utils.errors import InputError
from jaxcls.data.formats import idx

DTYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]
LABELS = bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 9, 0, 4])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


def read_bytes(folder, content):
    path = folder / "some-idx1-ubyte"
    path.write_bytes(content)
    return idx.read_idx(path)


@settings(deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    ),
    suffix=st.sampled_from(["", ".gz"]),
)
def test_arrays_are_read_back_bit_for_bit(folder, array, suffix):
    path = folder / f"round-trip{suffix}"
    write_idx(path, array)
    back = idx.read_idx(path)
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.tobytes() == array.tobytes()
    content = gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()
    assert idx.idx_sha256(array) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("code", "layout", "values"),
    [
        (0x08, ">3B", [1, 2, 255]),
        (0x09, ">3b", [1, 2, -128]),
        (0x0B, ">3h", [1, 2, -300]),
        (0x0C, ">3i", [1, 2, -70_000]),
        (0x0D, ">3f", [1, 2, -0.5]),
        (0x0E, ">3d", [1, 2, -0.1]),
    ],
)
def test_every_type_code_is_read_as_specified(folder, code, layout, values):
    content = bytes([0, 0, code, 1, 0, 0, 0, 3]) + struct.pack(layout, *values)
    np.testing.assert_array_equal(read_bytes(folder, content), values)


def test_gzip_with_several_members_is_read_completely(folder):
    content = gzip.compress(LABELS[:6], mtime=0) + gzip.compress(LABELS[6:], mtime=0)
    np.testing.assert_array_equal(read_bytes(folder, content), [9, 0, 4])


def test_the_same_array_gives_the_same_gzip_bytes(folder):
    array = np.arange(100, dtype=np.int32)
    write_idx(folder / "one.gz", array)
    write_idx(folder / "two.gz", array)
    assert (folder / "one.gz").read_bytes() == (folder / "two.gz").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an IDX file: it begins with nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x89PNG\r\n", "not an IDX file: it begins with 89 50 4e 47"),
        (b"\0\0\x0a\x01" + LABELS[4:], "not an IDX file.*0x08 uint8"),
        (LABELS[:6], "ends inside the header, which declares 1 dimensions"),
        (LABELS[:-1], r"truncated.*uint8 of shape \(3,\), 3 bytes.*holds only 2"),
        (LABELS + b"\0", "too long.*holds more"),
        (b"\0\0\x0e\x02" + b"\xff" * 8, "truncated.*holds only 0"),
        (b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"\7", "NumPy cannot hold"),
        (b"\0\0\x08\x04" + b"\xff" * 12 + b"\0" * 4, "NumPy cannot hold"),
        (gzip.compress(LABELS + b"\0", mtime=0), "too long"),
        (gzip.compress(LABELS, mtime=0)[:-9], "corrupt gzip data"),
        (gzip.compress(LABELS, mtime=0)[:-8] + b"\0" * 8, "corrupt gzip data.*CRC"),
        (gzip.compress(LABELS, mtime=0) + b"junk", "corrupt gzip data"),
    ],
)
def test_files_other_than_one_idx_array_are_refused_by_name(folder, content, says):
    with pytest.raises(InputError, match=rf"(?s)some-idx1-ubyte: .*{says}"):
        read_bytes(folder, content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_memory_follows_neither_a_lying_header_nor_a_bomb(folder, pack):
    many = 50_000_000
    lying = pack(LABELS[:4] + struct.pack(">I", many))
    bomb = pack(LABELS + bytes(many))
    tracemalloc.start()
    try:
        for content in (lying, bomb):
            with pytest.raises(InputError):
                read_bytes(folder, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < many / 10


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_damaged_files_raise_nothing_but_input_errors(folder, data):
    whole = data.draw(st.sampled_from([LABELS, gzip.compress(LABELS, mtime=0), b"\0\0\x0d\x02" + b"\0\0\0\2" * 6]))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=8))
    with contextlib.suppress(InputError):
        array = read_bytes(folder, bytes(content))
        # What is read was there: deflate packs at most 1032 to 1.
        assert array.nbytes <= 1032 * len(content)


@settings(deadline=None)
@given(content=st.binary(max_size=64))
def test_random_bytes_raise_nothing_but_input_errors(folder, content):
    with pytest.raises(InputError):
        read_bytes(folder, b"\x1f\x8b" + content)
    with pytest.raises(InputError):
        read_bytes(folder, b"\1" + content)


def test_a_missing_file_and_a_folder_are_refused_by_name(folder):
    with pytest.raises(InputError, match=r"absent: cannot be read \(No such file"):
        idx.read_idx(folder / "absent")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        idx.read_idx(folder)


def test_a_type_without_an_idx_code_is_refused(folder):
    with pytest.raises(InputError, match=r"no code for int64: .* uint8, int8"):
        write_idx(folder / "wide", np.zeros(3, np.int64))
