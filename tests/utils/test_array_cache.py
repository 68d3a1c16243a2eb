"""The cache of arrays: what is in it is not computed again, unless it is damaged; it need not be writable."""

import numpy as np
import pytest

from jaxcls._utils.array_cache import cached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxcls" / "numbers"


def test_arrays_are_computed_once_and_again_if_the_file_is_damaged(folder):
    calls = []

    def numbers(key):
        first, second = cached("numbers", key, lambda: calls.append(key) or [np.arange(3), np.full(2, key)])
        return first.tolist(), second.tolist()

    assert numbers(7) == numbers(7) == ([0, 1, 2], [7, 7])
    assert numbers(8) == ([0, 1, 2], [8, 8])
    assert calls == [7, 8]
    for path in folder.iterdir():
        content = bytearray(path.read_bytes())
        content[-30] ^= 1
        path.write_bytes(content)
    assert numbers(7) == ([0, 1, 2], [7, 7])
    assert calls == [7, 8, 7]
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert numbers(8) == ([0, 1, 2], [8, 8])


def test_a_cache_that_cannot_be_written_is_no_error(folder):
    folder.parent.mkdir()
    folder.write_text("a file where a folder should be")
    assert cached("numbers", 1, lambda: [np.arange(2)])[0].tolist() == [0, 1]
