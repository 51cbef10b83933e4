"One image file: what is refused by name, and what must stay readable beside it."

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kdmedlearn.data.files import open_image, to_grey
from kdmedlearn.data.images import image_dls
from kdmedlearn.data.masks import mask_dls, partner

DEEP = "16 bits in each of several channels; save it with 8 bits"
KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type


def png_of(x, *more):
    "The bytes of a PNG of uint8 or uint16 `x`, (H, W, channels), with more chunks (name, data)."

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    h, w, channels = x.shape
    head = struct.pack(">IIBBBBB", w, h, 8 * x.dtype.itemsize, KINDS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(x.dtype.newbyteorder(">")).tobytes() for row in x)
    parts = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*p) for p in parts)


def twelve_bits(channels, seed=0):
    return np.random.default_rng(seed).integers(0, 4096, (16, 16, channels), dtype=np.uint16)


def flag(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
@pytest.mark.parametrize("window", [None, (0, 4095), "range"])
def test_colours_of_16_bits_in_a_png_are_refused(tmp_path, channels, window):
    data = png_of(twelve_bits(channels))
    (tmp_path / "a.png").write_bytes(data)
    for o in (data, tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        with pytest.raises(ValueError, match=DEEP):
            open_image(o, window)


def test_they_are_refused_where_a_flag_or_a_text_stands_before_the_pixels():
    turned = flag(6).tobytes().removeprefix(b"Exif\0\0")
    for more in ((b"eXIf", turned), (b"tEXt", b"Comment\0from a microscope")):
        with pytest.raises(ValueError, match=DEEP):
            open_image(png_of(twelve_bits(3), more))


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
def test_a_set_names_the_files_of_16_bits_in_each_channel(tmp_path, channels):
    for i in range(20):
        f = tmp_path / "ab"[i % 2] / f"{i}.png"
        f.parent.mkdir(exist_ok=True)
        f.write_bytes(png_of(twelve_bits(channels, i)))
    with pytest.raises(ValueError, match=f"20 of 20 files cannot be read.*{DEEP}"):
        image_dls(tmp_path, size=16, bs=4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["L", "LA", "RGB", "RGBA"])
def test_a_png_of_8_bits_is_read_as_before(channels):
    x = np.random.default_rng(1).integers(0, 256, (16, 16, channels), dtype=np.uint8)
    got = np.asarray(open_image(png_of(x)))
    if channels in (1, 3):
        assert np.array_equal(got, x.squeeze())
    assert got.shape[:2] == (16, 16) and got.max() > 100


def test_grey_of_16_bits_needs_its_window_and_no_more(tmp_path):
    x = twelve_bits(1)
    Image.fromarray(x[..., 0]).save(tmp_path / "a.tif")
    for o in (png_of(x), tmp_path / "a.tif"):
        with pytest.raises(ValueError, match="more than 8 bits, values"):
            open_image(o)
        assert np.array_equal(open_image(o, (0, 4095)), to_grey(x[..., 0], (0, 4095)))


def test_other_formats_are_read_as_before(tmp_path):
    x = np.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(x).save(tmp_path / "a.tif")
    Image.fromarray(x).save(tmp_path / "a.png", exif=flag(6))
    Image.fromarray(x).save(tmp_path / "a.jpg", exif=flag(6), quality=95)
    Image.fromarray(x).quantize(200).save(tmp_path / "p.png")
    assert np.array_equal(open_image(tmp_path / "a.tif"), x)
    assert np.array_equal(open_image(tmp_path / "a.png"), np.rot90(x, -1))
    assert open_image(tmp_path / "a.jpg").size == (16, 24)
    assert open_image(tmp_path / "p.png").mode == "RGB"


def images_beside(folder, name):
    "Four images in images/, called `name` and a number; masks/ is there, and empty."
    (folder / "images").mkdir(), (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        x = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(x).save(folder / f"images/{name}{i}.png")


def test_masks_of_16_bits_in_each_channel_are_refused(tmp_path):
    "They were read as black: a label of 1 is nothing in the upper eight bits."
    images_beside(tmp_path, "")
    rng = np.random.default_rng(0)
    for i in range(4):
        m = (rng.random((32, 32, 1)) > 0.5).astype(np.uint16).repeat(3, 2)
        (tmp_path / f"masks/{i}.png").write_bytes(png_of(m))
    with pytest.raises(ValueError, match=DEEP):
        mask_dls(tmp_path, size=32, bs=2, valid=0.5, device="cpu", leaks=False)


def test_image_and_mask_whose_names_spell_an_accent_otherwise(tmp_path):
    "An archive made on macOS has the letter and its accent apart."
    images_beside(tmp_path, "m\u00fcller")
    for i in range(4):
        m = ((np.arange(1024).reshape(32, 32) // 256 == i) * 255).astype(np.uint8)
        Image.fromarray(m).save(tmp_path / f"masks/mu\u0308ller{i}.png")
    dls = mask_dls(tmp_path, size=32, bs=2, valid=0.5, device="cpu", leaks=False)
    assert len(dls.train_ds) == len(dls.valid_ds) == 2
    assert partner(tmp_path / "images/m\u00fcller1.png")[0].name == "mu\u0308ller1.png"
