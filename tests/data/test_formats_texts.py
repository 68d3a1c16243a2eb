"""Folders of text files, on disk and in a gzipped tar archive: read the same way; errors name the file."""

import gzip
import io
import tarfile

import pytest

from jaxcls._utils.errors import InputError
from jaxcls.data.formats.texts import read_archive, read_folders, read_lines

FILES = {"train/pos/0_9.txt": "Très bien.", "train/pos/10_7.txt": "Good", "train/neg/0_1.txt": "Bad <br />"}
FOLDERS = ["train/neg", "train/pos"]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "reviews"
    for name, text in {**FILES, "train/pos/urls.lst": "no text"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path):
    # Not sorted by name.
    members = {name: FILES[name].encode() for name in reversed(FILES)}
    return write_archive(tmp_path / "reviews.tar.gz", {**members, "README": b"\xff", "train/unsup/0_0.txt": b"\xff"})


def test_folders_and_archive_give_the_same_texts_in_the_same_order(folder, archive):
    read = {name: texts.tolist() for name, texts in read_folders(folder, FOLDERS).items()}
    assert read == {"train/neg": ["Bad <br />"], "train/pos": ["Très bien.", "Good"]}
    assert {name: texts.tolist() for name, texts in read_archive(archive, FOLDERS).items()} == read


def test_a_wrong_encoding_names_the_file(folder, tmp_path):
    (folder / "train/pos/10_7.txt").write_bytes("naïve".encode("cp1252"))
    with pytest.raises(InputError, match=r"10_7\.txt: line 1 is not UTF-8 \(byte 0xef\)"):
        read_folders(folder, FOLDERS)
    path = write_archive(tmp_path / "bad.tar.gz", {"train/neg/3_1.txt": b"ab\xe9"})
    with pytest.raises(InputError, match=r"bad\.tar\.gz: train/neg/3_1\.txt: line 1 is not UTF-8"):
        read_archive(path, FOLDERS[:1])


@pytest.mark.parametrize("length", [0, 5, 0.5, -1])
def test_a_truncated_archive_is_refused(archive, length):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(length * len(content)) if isinstance(length, float) else length])
    with pytest.raises(InputError, match=r"reviews\.tar\.gz: truncated"):
        read_archive(archive, FOLDERS)


def test_other_files_than_gzipped_archives_are_refused(tmp_path):
    path = tmp_path / "page.tar.gz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="not a gzipped tar archive"):
        read_archive(path, FOLDERS)
    path.write_bytes(gzip.compress(b"<html>not found</html>" * 100))
    with pytest.raises(InputError, match="not a gzipped tar archive"):
        read_archive(path, FOLDERS)
    with pytest.raises(InputError, match="cannot be read"):
        read_archive(tmp_path / "absent.tar.gz", FOLDERS)


@pytest.mark.parametrize("name", ["../train/pos/0_9.txt", "/train/pos/0_9.txt", "train/pos/../../x.txt"])
def test_a_member_that_leads_out_of_the_archive_is_refused(tmp_path, name):
    path = write_archive(tmp_path / "evil.tar.gz", {name: b"text"})
    with pytest.raises(InputError, match="leads out of the archive"):
        read_archive(path, FOLDERS)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("train/pos/0_9.txt")
        member.type, member.linkname = kind, "secret"
        archive.addfile(member)
    with pytest.raises(InputError, match="is a link, a device"):
        read_archive(path, FOLDERS)


def test_a_text_that_is_too_long_is_refused(tmp_path):
    path = write_archive(tmp_path / "bomb.tar.gz", {"train/pos/0_9.txt": bytes((1 << 24) + 1)})
    with pytest.raises(InputError, match="one entry would take 16,777,217 bytes"):
        read_archive(path, FOLDERS)


def test_other_files_of_an_archive_may_be_longer(tmp_path):
    """aclImdb's train/labeledBow.feat takes 21 MB."""
    path = write_archive(
        tmp_path / "large.tar.gz", {"train/labeledBow.feat": bytes(21 << 20), "train/pos/0_9.txt": b"Good"}
    )
    assert read_archive(path, FOLDERS[1:])["train/pos"].tolist() == ["Good"]


def test_a_folder_that_is_missing_or_empty_is_named(folder, archive):
    with pytest.raises(InputError, match=r"test/pos is not a folder"):
        read_folders(folder, [*FOLDERS, "test/pos"])
    (folder / "test/pos").mkdir(parents=True)
    with pytest.raises(InputError, match=r"test/pos holds no text"):
        read_folders(folder, [*FOLDERS, "test/pos"])
    with pytest.raises(InputError, match=r"test/pos holds no text"):
        read_archive(archive, [*FOLDERS, "test/pos"])


def test_lines_may_end_in_any_newline_style(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\r\n\r\nthree\u2028still three\n".encode())
    assert read_lines(path).tolist() == ["one", "", "three\u2028still three"]
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        read_lines(path)
    path.write_bytes(b"\xff\xfeo\0")
    with pytest.raises(InputError, match="not UTF-8"):
        read_lines(path)
