"""Any image becomes uint8 of one shape; decoded images are cached, verified, and decoded again if damaged."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils import environment
from jaxcls._utils.errors import InputError
from jaxcls.data.formats import images

RNG = np.random.default_rng(0)
# Smooth, so that lossy formats keep it.
SLOPES = np.add.outer(np.linspace(0, 120, 40), np.linspace(0, 120, 60))
COLORS = np.stack([SLOPES, SLOPES[::-1], np.full_like(SLOPES, 90)], axis=-1).round().astype(np.uint8)
RGB = Image.fromarray(COLORS)
GRAY = RGB.convert("L")


@pytest.fixture(autouse=True)
def isolated_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def decode(path, size=8, channels=1):
    return images.decode_path(path, size=size, channels=channels)[1].images[0]


def decoded(path, size=16, channels=3):
    pixels = decode(path, size=size, channels=channels)
    assert pixels.shape == (size, size, channels)
    assert pixels.dtype == np.uint8
    return pixels


def saved(image, path, **options):
    image.save(path, **options)
    return path


def reference(channels):
    image = GRAY if channels == 1 else RGB
    return np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), float).reshape(16, 16, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [
        ("RGB", "jpg", 6),
        ("RGB", "png", 1),
        ("RGB", "tiff", 1),
        ("RGB", "bmp", 1),
        ("RGB", "ppm", 1),
        ("RGB", "webp", 8),
        ("RGBA", "png", 1),
        ("P", "png", 16),
        ("P", "gif", 16),
        ("CMYK", "jpg", 4),
        ("CMYK", "tiff", 1),
        ("YCbCr", "tiff", 3),
        ("LAB", "tiff", 14),
    ],
)
def test_color_images_of_each_mode_and_format(tmp_path, mode, suffix, tolerance, channels):
    if mode == "LAB":
        from PIL import ImageCms

        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(RGB, *profiles, outputMode="LAB")
    else:
        image = RGB.convert(mode)
    path = saved(image, tmp_path / f"image.{suffix}")
    np.testing.assert_allclose(decoded(path, channels=channels), reference(channels), atol=tolerance)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (np.asarray(GRAY), "jpg"),
        (np.asarray(GRAY), "pgm"),
        (np.asarray(GRAY).astype(np.uint16) * 257, "png"),
        (np.asarray(GRAY).astype(np.uint16) * 257, "tiff"),
        (np.asarray(GRAY).astype(np.int32) * 257, "tiff"),
        (np.asarray(GRAY).astype(np.float32) / 255, "tiff"),
    ],
    ids=["L-jpg", "L-pgm", "I;16-png", "I;16-tiff", "I-tiff", "F-tiff"],
)
def test_gray_values_of_any_depth_are_scaled_and_not_clipped(tmp_path, values, suffix, channels):
    path = saved(Image.fromarray(values), tmp_path / f"image.{suffix}")
    expected = np.repeat(reference(1), channels, axis=2)
    np.testing.assert_allclose(decoded(path, channels=channels), expected, atol=3 if suffix == "jpg" else 1)


@pytest.mark.parametrize("scale", [np.int32(100_000), np.float32(-7.5)])
def test_gray_values_without_a_fixed_range_are_scaled_from_their_minimum_to_their_maximum(tmp_path, scale):
    values = np.array([[0, 1], [2, 4]]) * scale
    path = saved(Image.fromarray(values.astype(scale.dtype)), tmp_path / "image.tiff")
    expected = [[0, 64], [128, 255]] if scale > 0 else [[255, 191], [128, 0]]
    np.testing.assert_allclose(decoded(path, 2, 1)[:, :, 0], expected, atol=1)


def test_one_bit_images_become_black_and_white(tmp_path):
    path = saved(Image.fromarray(np.eye(2, dtype=bool)), tmp_path / "image.png")
    assert decoded(path, 2, 1)[:, :, 0].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_pixels_become_white_whatever_their_color(tmp_path, mode):
    options = {}
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (4, 4), (0,) * len(mode))
    else:
        image, options = Image.new(mode, (4, 4), 0), {"transparency": 0}
    path = saved(image, tmp_path / "image.png", **options)
    assert (decoded(path, 4) == 255).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_rotated_as_their_exif_orientation_says(tmp_path, suffix):
    image = Image.new("L", (40, 40))
    image.paste(255, (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    pixels = decoded(saved(image, tmp_path / f"image.{suffix}", exif=exif), 4, 1)[:, :, 0]
    np.testing.assert_allclose(pixels[:, [0, 3]], np.tile([0, 255], (4, 1)), atol=2)


def test_the_first_frame_is_decoded(tmp_path):
    frames = [Image.new("L", (4, 4), gray) for gray in (10, 200)]
    path = saved(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert (decoded(path, 4, 1) == 10).all()


def test_downscaling_averages_over_all_pixels(tmp_path):
    fine = np.indices((256, 256)).sum(0) % 2 * 255
    path = saved(Image.fromarray(fine.astype(np.uint8)), tmp_path / "image.png")
    np.testing.assert_allclose(decoded(path, 8, 1), 127.5, atol=4)


def test_images_are_squeezed_and_not_cropped(tmp_path):
    image = Image.new("L", (90, 30))
    image.paste(255, (0, 0, 30, 30))
    pixels = decoded(saved(image, tmp_path / "image.png"), 9, 1)[:, :, 0]
    assert (pixels[:, [1, 4, 7]] == [255, 0, 0]).all()


def damaged(folder: Path) -> dict[str, bytes]:
    whole = saved(RGB.resize((300, 300)), folder / "whole.jpg").read_bytes()
    png = saved(Image.fromarray(RNG.integers(0, 256, (50, 50), np.uint8)), folder / "whole.png").read_bytes()
    # A well-formed header that declares 100,000 x 100,000 pixels.
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = png[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    nan = saved(Image.fromarray(np.full((3, 3), np.nan, np.float32)), folder / "nan.tiff").read_bytes()
    return {
        "empty": b"",
        "text": b"not an image at all",
        "cut.jpg": whole[: len(whole) // 2],
        "cut.png": png[: len(png) // 2],
        "flipped.png": png[:60] + bytes([png[60] ^ 255]) + png[61:],
        "bomb.png": bomb,
        "nan.tiff": nan,
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    }


@pytest.mark.parametrize("name", ["empty", "text", "cut.jpg", "cut.png", "flipped.png", "bomb.png", "nan.tiff",
                                  "script.eps", "missing", "."])  # fmt: skip
def test_files_that_cannot_be_decoded_are_named(tmp_path, name):
    if content := damaged(tmp_path).get(name):
        (tmp_path / name).write_bytes(content)
    elif name == "empty":
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="pixels" if name in ("bomb.png", "nan.tiff") else "image|decoded") as caught:
        decode(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_bomb_of_which_pillow_only_warns_is_refused(tmp_path, monkeypatch):
    path = saved(RGB, tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow itself warns from here, and refuses twice as many
    with pytest.raises(InputError, match="2,000 pixels"):
        decode(path)
    with pytest.raises(InputError, match="2,000 pixels"):
        images.decode_all([path], size=8, channels=1, root=tmp_path, what="test")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    (root / "some").mkdir(parents=True)
    for number in range(150):
        saved(Image.fromarray(RNG.integers(0, 256, (9, 7), np.uint8)), root / "some" / f"{number:03}.png")
    return root


def all_of(root, **options):
    paths = sorted(root.rglob("*.png"))
    return images.decode_all(paths, **{"size": 8, "channels": 1, "root": root, "what": "test", **options})


def test_all_images_are_decoded_in_order(folder):
    together = all_of(folder)
    one_by_one = [decoded(path, 8, 1) for path in sorted(folder.rglob("*.png"))]
    np.testing.assert_array_equal(together.images, one_by_one)
    assert together.images[[3, 3, 1]].shape == (3, 8, 8, 1)


def test_cached_images_are_not_decoded_again(folder, monkeypatch):
    first = all_of(folder)
    monkeypatch.setattr(images, "_decode_file", None)
    again = all_of(folder)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.sha256 == again.sha256


def test_the_checksum_depends_on_content_and_names_only(folder):
    first = all_of(folder)
    paths = sorted(folder.rglob("*.png"))
    os.utime(paths[0], (1, 1))
    assert all_of(folder).sha256 == all_of(folder, size=4).sha256 == first.sha256
    saved(Image.fromarray(RNG.integers(0, 256, (9, 7), np.uint8)), paths[0])
    changed = all_of(folder)
    assert changed.sha256 != first.sha256
    np.testing.assert_array_equal(changed.images[0], decoded(paths[0], 8, 1))
    paths[1].rename(paths[1].with_name("999.png"))
    assert all_of(folder).sha256 != changed.sha256


def cached() -> Path:
    (entry,) = (environment.cache_directory() / "images").iterdir()
    return entry


def cut(file):
    with file.open("r+b") as opened:
        opened.truncate(500)


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: cut(entry / "pixels"),
        lambda entry: flip(entry / "pixels"),
        lambda entry: (entry / "pixels").unlink(),
        lambda entry: cut(entry / "records"),
        lambda entry: flip(entry / "records"),
        lambda entry: (entry / "records").write_bytes(bytes(1000)),
    ],
)
def test_damaged_cache_entries_are_decoded_again(folder, harm):
    expected, sha256 = np.asarray(all_of(folder).images), all_of(folder).sha256
    harm(cached())
    again = all_of(folder)
    np.testing.assert_array_equal(again.images, expected)
    assert again.sha256 == sha256


def test_a_corrupt_image_among_many_is_named(folder):
    (folder / "some" / "070.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"070\.png: not an image"):
        all_of(folder)


def test_after_an_interrupt_only_the_rest_is_decoded(folder, monkeypatch):
    decode_file, begun = images._decode_file, []

    def interrupted(path, *arguments):
        begun.append(path)
        if len(begun) == 100:
            raise KeyboardInterrupt
        return decode_file(path, *arguments)

    monkeypatch.setattr(images, "_decode_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        all_of(folder)
    np.testing.assert_array_equal(all_of(folder).images[140], decoded(begun[0].with_name("140.png"), 8, 1))
    assert len(begun) < 200


def test_many_images_are_decoded_when_they_are_first_read(folder, monkeypatch):
    everything = all_of(folder)
    monkeypatch.setattr(images, "SMALL", 1000)
    monkeypatch.setattr(images, "_SAMPLE", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "other"))
    decode_file, begun = images._decode_file, []
    monkeypatch.setattr(images, "_decode_file", lambda path, *rest: begun.append(path.name) or decode_file(path, *rest))
    later = all_of(folder, later=True)
    assert sorted(begun) == ["000.png", "074.png", "149.png"]
    assert "3 of 150 images" in later.notes[0]
    assert np.flatnonzero(later.sizes[:, 0]).tolist() == [0, 74, 149]
    np.testing.assert_array_equal(later.images.select([5, 74]).sample(), everything.images[[74]])
    for _ in range(2):
        np.testing.assert_array_equal(later.images[[5, 149, 6, 5]], everything.images[[5, 149, 6, 5]])
    assert sorted(begun[3:])[:1] + sorted(begun[3:])[-1:] == ["005.png", "006.png"]
    # What is in the cache by now does not change what identifies the data; another size of a file does.
    assert all_of(folder, later=True).sha256 == later.sha256 != everything.sha256
    saved(Image.fromarray(RNG.integers(0, 256, (19, 17), np.uint8)), folder / "some" / "007.png")
    assert all_of(folder, later=True).sha256 != later.sha256


def test_without_space_for_a_cache_many_images_are_decoded_each_time(folder, tmp_path, monkeypatch, caplog):
    expected = np.asarray(all_of(folder).images)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(images, "SMALL", 1000)
    later = all_of(folder, later=True)
    assert "decoded again in every epoch; with XDG_CACHE_HOME on a larger disk, once" in caplog.text
    np.testing.assert_array_equal(later.images, expected)


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_setting(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        all_of(folder)


def test_an_empty_list_and_a_missing_image_are_errors(folder):
    with pytest.raises(InputError, match="no images for test"):
        images.decode_all([], size=8, channels=1, root=folder, what="test")
    with pytest.raises(InputError, match=r"gone\.png"):
        images.decode_all([folder / "gone.png"], size=8, channels=1, root=folder, what="test")


def test_warning_filters_are_restored(folder):
    before = list(warnings.filters)
    all_of(folder)
    decode(folder / "some" / "000.png")
    assert list(warnings.filters) == before


def test_hidden_files_and_those_of_file_managers_are_not_listed(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", "c/d.jpeg", ".c/e.png",
                 "__MACOSX/a.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    image_paths, others = images.list_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in image_paths] == ["a.png", "b.JPG", "c/d.jpeg"]
    assert [path.name for path in others] == ["notes.txt"]


def test_images_to_predict_are_one_file_or_all_in_a_folder(folder, tmp_path):
    every = images.read_unlabeled(folder, 8, 3)
    assert every.ids[:2].tolist() == ["some/000.png", "some/001.png"]
    assert every.inputs.shape == (150, 8, 8, 3)
    one = images.read_unlabeled(folder / "some" / "001.png", 8, 3)
    assert one.ids.tolist() == ["001.png"]
    np.testing.assert_array_equal(one.inputs[0], every.inputs[1])
    (tmp_path / "none").mkdir()
    for path, message in ((tmp_path / "none", "no images"), (tmp_path / "gone.png", "no such file")):
        with pytest.raises(InputError, match=message):
            images.read_unlabeled(path, 8, 3)
