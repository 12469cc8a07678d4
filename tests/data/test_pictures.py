"""Decoding of pictures of any format and mode, damaged or not."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pudistill.data.pictures import decode_pictures, encode_picture, resize_pictures
from pudistill.exceptions import InputError
from tests.helpers.pictures import saved

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 4), dtype=np.uint8)


def decode(*contents, **options):
    ids = [f"p{number}" for number in range(len(contents))]
    return decode_pictures(Path("table.parquet"), ids, contents, **options)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_colours_survive_lossless_formats(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode(saved(COLOUR, kind, **options)).X[0], COLOUR)


def test_grey_stays_grey_and_becomes_rgb_beside_colours():
    assert decode(saved(GREY), saved(GREY)).X.shape == (2, 6, 4)
    for order in (1, -1):
        mixed = decode(*[saved(GREY), saved(COLOUR)][::order]).X[::order]
        np.testing.assert_array_equal(mixed, [np.stack([GREY] * 3, axis=-1), COLOUR])


def test_sixteen_bits_are_scaled_to_eight():
    deep = np.array([[0, 257, 65_535], [128, 129, 32_768]], dtype=np.uint16)
    np.testing.assert_array_equal(decode(saved(deep)).X[0], [[0, 1, 255], [0, 1, 128]])
    np.testing.assert_array_equal(decode(saved(deep, "TIFF")).X[0], [[0, 1, 255], [0, 1, 128]])


def test_transparent_pixels_become_white():
    see_through = np.dstack([COLOUR, np.full((6, 4), 255, np.uint8)])
    see_through[0, 0, 3] = 0
    X = decode(saved(see_through)).X[0]
    np.testing.assert_array_equal(X[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(X[1:], COLOUR[1:])
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (4, 6), 255)])
    np.testing.assert_array_equal(decode(saved(grey)).X[0], GREY)


def test_palettes_bilevel_and_cmyk_are_converted():
    palette = Image.fromarray(COLOUR).quantize(8)
    np.testing.assert_array_equal(decode(saved(palette)).X[0], np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(decode(saved(GREY, "GIF")).X[0], GREY)
    bilevel = Image.fromarray(GREY).convert("1")
    assert set(np.unique(decode(saved(bilevel)).X)) == {0, 255}
    assert decode(saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG")).X.shape == (1, 6, 4, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animation = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(animation).X[0, 0, 0], [255, 0, 0])


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = decode(saved(COLOUR, "PNG", exif=exif)).X[0]
    np.testing.assert_array_equal(turned, np.rot90(COLOUR, k=-1))


def bomb():
    """A PNG header that promises 20,000 x 20,000 pixels."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


BROKEN = {
    "no picture": (b"hello", "no known picture format"),
    "truncated JPEG": (saved(np.tile(COLOUR, (20, 20, 1)), "JPEG")[:-900], "truncated"),
    "truncated PNG": (saved(np.tile(COLOUR, (20, 20, 1)))[:-200], "truncated|broken"),
    "empty": (b"", "no known picture format"),
    "missing": (None, "missing"),
    "bomb": (bomb(), "decompression bombs"),
    "floats": (saved(np.ones((4, 4), np.float32), "TIFF"), "floating-point"),
    "absent file": (Path("nowhere.png"), "no such file"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "no known"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN)
def test_unreadable_pictures_are_named_or_skipped(content, reason):
    where = "nowhere.png" if isinstance(content, Path) else "table.parquet, id 'p1'"
    with pytest.raises(InputError, match=rf"{where}: .*({reason}).*--skip-bad"):
        decode(saved(COLOUR), content)
    decoded = decode(content, saved(COLOUR), content, saved(COLOUR), skip_bad=True)
    assert list(decoded.rows) == [1, 3]
    assert [sample for sample, _ in decoded.skipped] == ["p0", "p2"]
    np.testing.assert_array_equal(decoded.X, [COLOUR, COLOUR])


def test_sizes_must_agree():
    message = r"table.parquet, id 'p0' 4 x 6 and table.parquet, id 'p1' 6 x 4: .*--image-size"
    with pytest.raises(InputError, match=message):
        decode(saved(COLOUR), saved(COLOUR.transpose(1, 0, 2).copy()))


def test_image_size_scales_the_shorter_side_and_crops_the_middle():
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    assert (decode(saved(wide), image_size=4).X > 180).all()
    decoded = decode(saved(wide), saved(wide.T.copy()), saved(COLOUR), image_size=8)
    assert decoded.X.shape == (3, 8, 8, 3)
    assert (decoded.X[:2] == 200).all()
    np.testing.assert_array_equal(
        resize_pictures(wide[None], 8), decode(saved(wide), image_size=8).X
    )


def test_encoding_loses_nothing():
    for picture in (GREY, COLOUR):
        np.testing.assert_array_equal(decode(encode_picture(picture)).X[0], picture)


@pytest.mark.workers
@pytest.mark.parametrize("n_processes", [1, 2])
def test_pictures_are_the_same_bits_whatever_decodes_them(monkeypatch, n_processes):
    monkeypatch.setattr("pudistill.data.pictures.PATIENCE", 0)
    monkeypatch.setattr("pudistill.data.pictures.usable_processes", lambda: n_processes)
    monkeypatch.setattr("pudistill.data.pictures._SECONDS_OF_A_TASK", 1e-3)
    pictures = RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    contents = [saved(picture, "JPEG") for picture in pictures]
    contents[20:20] = [b"no picture", None]
    found = decode(*contents, skip_bad=True)
    good = [content for content in contents if content]
    good.remove(b"no picture")
    expected = [np.asarray(Image.open(io.BytesIO(content))) for content in good]
    np.testing.assert_array_equal(found.X, expected)
    assert [sample for sample, _ in found.skipped] == ["p20", "p21"]
    with pytest.raises(InputError, match=r"id 'p20': this picture.*no known picture format"):
        decode(*contents)
