"""Kinds of mask files and folders: each read as it was meant, or refused with its cure."""

import io
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import TensorMask
from PIL import Image
from torch import nn

from kdmedlearn.data.masks import (
    describe_masks,
    IGNORE,
    Layout,
    list_pairs,
    load_pairs,
    mask_dls,
    mask_pixels,
    mask_trouble,
    MaskBCE,
    MaskReading,
    read_pairs,
    ReadMask,
)
from kdmedlearn.data.reading import ReadImage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
H, W = 24, 36


def blob(k, value=255, h=H, w=W):
    "A mask with a rectangle that lies off the middle, so that turning it is seen."
    m = np.zeros((h, w), np.uint8)
    m[2 + k % 3 : 9 + k % 4, 3 + k % 5 : 14 + k % 3] = value
    return m


def photo(m, k=0):
    "An image, white where the mask is."
    rng = np.random.default_rng(k)
    x = rng.integers(0, 90, (*m.shape[:2], 3), dtype=np.uint8)
    x[(m if m.ndim == 2 else m.max(-1)) > 0] = 255
    return x


def save(x, file, **kw):
    file.parent.mkdir(parents=True, exist_ok=True)
    (x if isinstance(x, Image.Image) else Image.fromarray(x)).save(file, **kw)


def write(root, masks, ext="png", **kw):
    "images/ and masks/ of a set; `masks`: arrays or PIL images."
    for k, m in enumerate(masks):
        save(photo(blob(k), k), root / "images" / f"{k}.png")
        save(m, root / "masks" / f"{k}.{ext}", **kw)
    return root


def read(root, size=12, **kw):
    return mask_dls(root, size=size, **{**dict(bs=2, valid=0.3, augment=False, device="cpu"), **kw})


def full(dls, name):
    "The mask of an image as it was read, in its own size."
    row = dls.table[dls.table.rel == name].iloc[0]
    return dls.train.dataset.tls[1].tfms.fs[0].full(row.file)


def palette(m, colours):
    im = Image.fromarray(m).convert("P")
    im.putpalette([v for c in colours for v in c])
    return im


EXIF = {o: Image.Exif() for o in (1, 3, 6, 8)}
for o, e in EXIF.items():
    e[0x0112] = o
UNDO = {3: 2, 6: 1, 8: 3}  # quarter turns that the flag takes back
WHITE = np.full((H, W), 255, np.uint8)
stack = lambda *c: np.dstack(c).astype(np.uint8)


# ---- files of two classes that are read as they are shown


def alpha(k):
    return stack(WHITE, WHITE, WHITE, blob(k))


KINDS = {
    "grey": lambda k: blob(k),
    "0 and 1": lambda k: blob(k, 1),
    "0 and 128": lambda k: blob(k, 128),
    "true and false": lambda k: Image.fromarray(blob(k) > 0),
    "rgb": lambda k: stack(blob(k), blob(k), blob(k)),
    "red on black": lambda k: stack(blob(k), 0 * blob(k), 0 * blob(k)),
    "palette, grey": lambda k: palette(blob(k, 1), [(0, 0, 0), (255, 255, 255)]),
    "palette, swapped": lambda k: palette(1 - blob(k, 1), [(255, 255, 255), (0, 0, 0)]),
    "palette, red": lambda k: palette(blob(k, 1), [(0, 0, 0), (128, 0, 0)]),
    "alpha of a white image": alpha,
    "alpha of a grey image": lambda k: Image.fromarray(stack(WHITE, blob(k)), "LA"),
    "alpha of a black image": lambda k: stack(0 * WHITE, 0 * WHITE, 0 * WHITE, blob(k)),
    "opaque": lambda k: stack(blob(k), blob(k), blob(k), WHITE),
    "everywhere half transparent": lambda k: stack(blob(k), blob(k), blob(k), WHITE // 2),
    "hidden pixels are black": lambda k: stack(blob(k), blob(k), blob(k), blob(k)),
    "16 bits, 255": lambda k: blob(k).astype(np.uint16),
    "16 bits, 1": lambda k: blob(k, 1).astype(np.uint16),
    "16 bits, 65535": lambda k: blob(k).astype(np.uint16) * 257,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_read_as_it_is_shown(tmp_path, kind):
    masks = [KINDS[kind](k) for k in range(7)] + [KINDS[kind](0)]
    dls = read(write(tmp_path, masks))
    for k in range(7):
        assert np.array_equal(full(dls, f"{k}.png"), blob(k) > 0)
    share = dls.table.set_index("rel").share
    assert share["3.png"] == pytest.approx((blob(3) > 0).mean())


@pytest.mark.parametrize("kind", ["float", "32 bits"])
def test_tiff_masks(tmp_path, kind):
    as_file = {"float": lambda m: m.astype(np.float32), "32 bits": lambda m: m.astype(np.int32)}
    dls = read(write(tmp_path, [as_file[kind](blob(k, 1)) for k in range(6)], "tif"))
    assert np.array_equal(full(dls, "2.png"), blob(2) > 0)


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_masks_are_two_clouds(tmp_path, quality):
    big = [np.repeat(np.repeat(blob(k), 8, 0), 8, 1) for k in range(6)]
    write(tmp_path, big, "jpg", quality=quality)
    for k, m in enumerate(big):
        save(photo(m, k), tmp_path / "images" / f"{k}.png")
    dls = read(tmp_path)
    assert np.array_equal(full(dls, "2.png"), big[2] > 0)
    assert dls.train.dataset.tls[1].tfms.fs[0].threshold == 127


def ellipse(k, n):
    y, x = np.mgrid[:n, :n] / n
    return (((y - 0.5) / 0.3) ** 2 + ((x - 0.4 - 0.02 * k) / 0.2) ** 2 < 1).astype(np.uint8) * 255


def test_jpeg_noise_that_was_saved_as_png_again(tmp_path):
    masks = []
    for k in range(6):
        b = io.BytesIO()
        m = Image.fromarray(ellipse(k, 300)).resize((270, 190), Image.Resampling.BILINEAR)
        m.save(b, "jpeg")
        masks.append(np.asarray(Image.open(b)))
        save(photo(masks[k] * (masks[k] > 127), k), tmp_path / "images" / f"{k}.png")
        save(masks[k], tmp_path / "masks" / f"{k}.png")
    assert len(np.unique(masks)) > 50
    assert np.array_equal(full(read(tmp_path), "2.png"), masks[2] > 127)


def test_numbers_of_objects_and_soft_masks_are_refused_by_their_values(tmp_path):
    for name, m in (
        ("objects", lambda k: np.repeat(np.arange(H, dtype=np.uint8)[:, None], W, 1)),
        ("soft", lambda k: np.repeat(np.linspace(0, 255, W).astype(np.uint8)[None], H, 0)),
    ):
        with pytest.raises(ValueError, match="hold .. values, .*not on two sides"):
            read(write(tmp_path / name, [m(k) for k in range(6)]))


def test_an_empty_mask_in_the_alpha_channel_is_empty(tmp_path):
    masks = [alpha(k) for k in range(6)] + [stack(WHITE, WHITE, WHITE, 0 * WHITE)]
    dls = read(write(tmp_path, masks))
    assert dls.table.set_index("rel").share["6.png"] == 0


# ---- which way is up


def overlap(x, y):
    return (x & y).sum() / (x | y).sum()


@pytest.mark.parametrize("flag", [3, 6, 8])
@pytest.mark.parametrize("whose", ["image", "mask", "both"])
def test_image_and_mask_are_upright_each_by_its_own_flag(tmp_path, flag, whose):
    turned = lambda x, mine: np.rot90(x, UNDO[flag]) if mine else x
    exif = lambda mine: dict(exif=EXIF[flag]) if mine else {}
    for k in range(6):
        a, b = whose in ("image", "both"), whose in ("mask", "both")
        save(turned(photo(blob(k), k), a).copy(), tmp_path / "images" / f"{k}.png", **exif(a))
        save(turned(blob(k), b).copy(), tmp_path / "masks" / f"{k}.png", **exif(b))
    dls = read(tmp_path, norm=(0, 1), size=48)
    for x, y in dls.train:
        assert overlap((x > 0.6).all(1).numpy(), y.numpy() == 1) > 0.8
    assert np.array_equal(full(dls, "2.png"), blob(2) > 0)


def test_a_quarter_turn_is_named(tmp_path):
    write(tmp_path, [blob(k) for k in range(6)])
    save(np.rot90(photo(blob(1))).copy(), tmp_path / "images" / "1.png", exif=EXIF[6])
    save(np.rot90(blob(1)).copy(), tmp_path / "masks" / "1.png")
    with pytest.raises(ValueError, match=r"stored lying \(EXIF 6\) and the mask was drawn on the"):
        read(tmp_path)
    save(photo(blob(1)), tmp_path / "images" / "1.png")
    with pytest.raises(ValueError, match="one of them lies on its side"):
        read(tmp_path)
    save(blob(1), tmp_path / "masks" / "1.png", exif=EXIF[6])
    with pytest.raises(ValueError, match=r"the mask is stored lying \(EXIF 6\) and the image is"):
        read(tmp_path)


# ---- values with two readings


def ring(k, *values):
    m = blob(k, values[0])
    m[15:17] = values[1]
    return m


@pytest.mark.parametrize(
    "values, cure",
    [
        ((1, 255), 'classes={"background": 0, "polyp": 1}, ignore=255'),
        ((255, 50), 'classes={"background": 0, "polyp": 50, "class 2": 255}'),
        ((4, 1), 'classes={"background": 0, "polyp": 1, "class 2": 4}'),
        ((255, 128), 'classes={"background": 0, "polyp": 255}, ignore=128'),
        ((255, 1), "0 ("),
    ],
)
def test_three_values_are_refused_with_their_shares_and_the_cure(tmp_path, values, cure):
    write(tmp_path, [ring(k, *values) for k in range(6)])
    with pytest.raises(ValueError) as e:
        read(tmp_path)
    said = str(e.value)
    assert cure in said and all(f"{v} (" in said for v in (0, *values)) and "%" in said


def test_some_masks_in_0_and_1_and_some_in_0_and_255(tmp_path):
    write(tmp_path, [blob(k, 1 if k % 2 else 255) for k in range(6)])
    with pytest.raises(ValueError) as e:
        read(tmp_path)
    assert 'classes={"background": 0, "polyp": [1, 255]}' in str(e.value)
    dls = read(tmp_path, classes={"background": 0, "polyp": [1, 255]})
    for k in (2, 3):
        assert np.array_equal(full(dls, f"{k}.png"), blob(k) > 0)


def test_0_and_1_in_jpeg_and_colours_in_jpeg_are_lost(tmp_path):
    write(tmp_path / "a", [blob(k, 1) for k in range(6)], "jpg", quality=95)
    with pytest.raises(ValueError, match="JPEG changes values: save the masks as PNG"):
        read(tmp_path / "a")
    red = [stack(blob(k), 0 * blob(k), 0 * blob(k)) for k in range(6)]
    with pytest.raises(ValueError, match="a colour mask of .* or a mask saved as JPEG"):
        read(write(tmp_path / "b", red, "jpg"))


def test_one_mask_of_many_with_another_value_is_named(tmp_path):
    write(tmp_path, [blob(k) for k in range(9)])
    m = blob(4)
    m[20, 3:6] = 7
    save(m, tmp_path / "masks" / "4.png")
    with pytest.raises(ValueError, match=r"7 \(.*first in 4.png\)"):
        read(tmp_path)


def test_no_threshold_advises_another_one_that_fails():
    m = np.uint8([[0, 1, 4]] * 30)
    for threshold in (0, 127):
        assert "classes=" in mask_trouble(m, threshold)
        assert "pass threshold" not in mask_trouble(m, threshold)
    for x in ([0, 1], [0, 127], [0, 9, 240], [3, 200]):
        m = np.repeat(np.uint8([x]), 30, 0)
        for threshold in (0, 100, 254):
            if said := mask_trouble(m, threshold):
                advised = int(said.split("pass threshold=")[1].split()[0])
                assert mask_trouble(m, advised) is None


@pytest.mark.parametrize("value, what", [(0, "empty"), (255, "full"), (1, "full")])
def test_masks_that_are_all_the_same_are_refused(tmp_path, value, what):
    write(tmp_path, [np.full((H, W), value, np.uint8) for _ in range(6)])
    with pytest.raises(ValueError, match=f"all 6 masks are {what}: nothing can be learned"):
        read(tmp_path)


def test_two_values_without_zero_ask_which_is_the_background(tmp_path):
    write(tmp_path, [blob(k, 1) + 1 for k in range(6)])
    with pytest.raises(ValueError, match='classes={"background": 1, "polyp": 2}'):
        read(tmp_path)
    dls = read(tmp_path, classes={"background": 1, "polyp": 2})
    assert np.array_equal(full(dls, "2.png"), blob(2) > 0)


def soft(k):
    return blob(k).astype(np.float32) / 300


@pytest.mark.parametrize(
    "mask, says",
    [
        (lambda k: photo(blob(k), k), "a colour mask"),
        (soft, "probabilities"),
        (lambda k: blob(k).astype(np.uint16) * 3, "values from 0 to 765; .*Numbers of objects"),
        (lambda k: -blob(k).astype(np.int32), "values from -255 to 0"),
        (
            lambda k: stack(255 - blob(k), 255 - blob(k), 255 - blob(k), blob(k + 1)),
            "colour and transparency",
        ),
    ],
    ids=["photograph", "probabilities", "objects", "negative", "two masks in one"],
)
def test_what_is_no_mask_is_refused(tmp_path, mask, says):
    with pytest.raises(ValueError, match=says):
        read(write(tmp_path, [mask(k) for k in range(6)], "tif"))


def test_pages(tmp_path):
    write(tmp_path, [blob(k) for k in range(6)])
    for k in range(6):
        (tmp_path / "masks" / f"{k}.png").unlink()
        pages = [Image.fromarray(x) for x in (0 * blob(k), blob(k))]
        pages[0].save(tmp_path / "masks" / f"{k}.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="2 pages; say which is meant: page=0"):
        read(tmp_path)
    for k in range(6):
        (tmp_path / "images" / f"{k}.png").unlink()
        pages = [Image.fromarray(x) for x in (photo(0 * blob(k)), photo(blob(k), k))]
        pages[0].save(tmp_path / "images" / f"{k}.tif", save_all=True, append_images=pages[1:])
    for cache in (True, False):
        assert np.array_equal(full(read(tmp_path, page=1, cache=cache), "2.tif"), blob(2) > 0)


def test_a_dicom_mask_is_refused_by_name(tmp_path):
    write(tmp_path, [blob(k) for k in range(6)])
    (tmp_path / "masks" / "1.png").unlink()
    (tmp_path / "masks" / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    with pytest.raises(ValueError, match="a DICOM file; save masks as PNG"):
        read(tmp_path)


# ---- several classes and ignored pixels


def classes3(k):
    m = blob(k, 1)
    m[15:18, 4:20] = 2 if k % 2 else 0
    m[11:13] = 255
    return m


THREE = dict(classes=["wall", "polyp", "tool"], ignore=255)


@pytest.mark.parametrize(
    "mask, kw",
    [
        (classes3, THREE),
        (classes3, dict(classes={"wall": 0, "polyp": 1, "tool": 2}, ignore=[255])),
        (
            lambda k: palette(
                classes3(k), [(0, 0, 0), (128, 0, 0), (0, 128, 0)] + [(9, 9, 99)] * 253
            ),
            THREE,
        ),
        (
            lambda k: palette(
                classes3(k), [(0, 0, 0), (128, 0, 0), (0, 128, 0)] + [(9, 9, 99)] * 253
            ),
            dict(classes={"wall": 0, "polyp": (128, 0, 0), "tool": (0, 128, 0)}, ignore=(9, 9, 99)),
        ),
        (
            lambda k: np.uint8([(0, 0, 0), (0, 0, 1), (0, 0, 2)] + [(255, 255, 255)] * 253)[
                classes3(k)
            ],
            dict(classes={"wall": 0, "polyp": (0, 0, 1), "tool": (0, 0, 2)}, ignore=255),
        ),
        (lambda k: classes3(k).astype(np.uint16), THREE),
    ],
    ids=["list", "dict", "palette by index", "palette by colour", "blue of 1 and 2", "16 bits"],
)
@pytest.mark.parametrize("cache", [True, False])
def test_several_classes(tmp_path, mask, kw, cache):
    dls = read(write(tmp_path, [mask(k) for k in range(8)]), size=24, cache=cache, **kw)
    assert dls.vocab == ["wall", "polyp", "tool"] and dls.c == 3
    want = np.where(classes3(3) == 255, IGNORE, classes3(3))
    assert np.array_equal(full(dls, "3.png"), want)
    x, y = dls.one_batch()
    assert y.shape == (2, 24, 24) and y.dtype == torch.int64
    assert set(torch.cat([y for _, y in dls.train]).unique().tolist()) == {0, 1, 2, IGNORE}
    t = dls.table.set_index("rel")
    valid = want != IGNORE
    assert t["share tool"]["3.png"] == pytest.approx((want == 2).sum() / valid.sum())
    assert t.ignored["3.png"] == pytest.approx(1 - valid.mean())
    assert t.label["3.png"] == "with tool" and t.label["2.png"] == "with polyp"
    d = describe_masks(dls)
    assert d["with tool"].sum() == 4 and d.images.sum() == 8
    loss = dls.train.dataset.tls[1].tfms.fs[0].loss_func
    assert loss.func.ignore_index == IGNORE


def test_the_loss_of_index_targets_leaves_ignored_pixels_out(tmp_path):
    dls = read(write(tmp_path, [classes3(k) for k in range(8)]), **THREE)
    loss, (x, y) = dls.train.dataset.tls[1].tfms.fs[0].loss_func, dls.one_batch()
    z = torch.randn(2, 3, 12, 12)
    changed = torch.where((y == IGNORE)[:, None].as_subclass(torch.Tensor), z + 9, z)
    assert torch.allclose(loss(z, y), loss(changed, y))


def test_a_channel_with_ignored_pixels_trains_with_methods_that_leave_them_out(tmp_path):
    from kdmedlearn.core.step import valid_pixels
    from kdmedlearn.methods.kdas import StructureLoss

    write(tmp_path, [np.where(classes3(k) == 2, 0, classes3(k)) for k in range(8)])
    dls = read(tmp_path, ignore=255, target="channel")
    x, y = dls.one_batch()
    assert y.shape == (2, 1, 12, 12) and y.dtype == torch.float32
    assert set(y.unique().tolist()) == {0, 1, IGNORE}
    z, lost = torch.randn(2, 1, 12, 12), (y == IGNORE).as_subclass(torch.Tensor)
    ours = dls.train.dataset.tls[1].tfms.fs[0].loss_func
    assert isinstance(ours, MaskBCE)
    for loss in (ours, StructureLoss(window=5, ignore_index=IGNORE)):
        assert torch.allclose(loss(z, y), loss(torch.where(lost, z + 9, z), y))
        assert torch.equal(valid_pixels(y, loss, "binary masks"), ~lost[:, 0])
    with pytest.raises(ValueError, match="nearest pixel"):
        ours(z, y / 2)


@pytest.mark.parametrize("modality", ["endoscopy", "mri", None])
@pytest.mark.parametrize("target", ["index", "channel"])
def test_no_augmentation_mixes_values(tmp_path, modality, target):
    from kdmedlearn.train.callbacks import rescaled

    write(tmp_path, [np.where(classes3(k) == 2, 0, classes3(k)) for k in range(8)])
    dls = read(tmp_path, size=40, ignore=255, target=target, augment=True, modality=modality)
    for _ in range(6):
        for x, y in dls.train:
            assert set(y.unique().tolist()) <= {0, 1, IGNORE}
            assert set(rescaled(y, 0.75).unique().tolist()) <= {0, 1, IGNORE}
    assert isinstance(y, TensorMask)


def test_ignored_value_with_two_classes_by_threshold(tmp_path):
    masks = [ring(k, 1, 255) for k in range(6)]
    write(tmp_path, masks)
    for kw in ({}, dict(threshold=0)):
        got = full(read(tmp_path, ignore=255, **kw), "2.png")
        assert np.array_equal(got, np.where(masks[2] == 255, IGNORE, masks[2]))


def test_values_that_no_class_has_are_named(tmp_path):
    write(tmp_path, [classes3(k) for k in range(6)])
    with pytest.raises(ValueError, match=r"no class has: 2 \(.*first in 1.png\), 255 \("):
        read(tmp_path, classes=["wall", "polyp"])
    write(tmp_path / "j", [classes3(k) * 100 for k in range(6)], "jpg")
    with pytest.raises(ValueError, match="save the masks as PNG: JPEG changes values"):
        read(tmp_path / "j", classes={"wall": 0, "polyp": 100, "tool": 200})


def test_a_grey_palette_is_never_read_by_index(tmp_path):
    write(tmp_path, [palette(1 - blob(k, 1), [(255, 255, 255), (0, 0, 0)]) for k in range(6)])
    with pytest.raises(ValueError, match="no class has: 255"):
        read(tmp_path, classes=["wall", "polyp"])


def test_a_class_that_is_nowhere_is_warned_of_and_one_alone_refused(tmp_path):
    write(tmp_path, [classes3(k) for k in range(6)])
    with pytest.warns(UserWarning, match="no training mask holds scope"):
        read(tmp_path, classes=["wall", "polyp", "tool", "scope"], ignore=255)
    with pytest.raises(ValueError, match="are tool alone"):
        read(write(tmp_path / "b", [WHITE // 255 * 2] * 6), classes=["wall", "polyp", "tool"])
    with pytest.raises(ValueError, match="every pixel of the mask is ignored"):
        read(write(tmp_path / "c", [blob(0, 1), WHITE] * 3), ignore=255)


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(classes=["a"]), "at least two names"),
        (dict(classes=["a", "a"]), "stands twice"),
        (dict(classes="ab"), "expected a list"),
        (dict(classes={"a": 0, "b": 256}), "classes, 'b'=256"),
        (dict(classes={"a": 0, "b": (1, 2)}), "a colour"),
        (dict(classes={"a": 0, "b": True}), "True"),
        (dict(classes={"a": 0, "b": [1, 0]}), "value 0 means 'a' and 'b'"),
        (dict(classes=["a", "b"], ignore=1), "means 'b' and 'ignore'"),
        (dict(classes=["a", "b"], threshold=0), "pass one"),
        (dict(classes=["a", "b", "c"], target="channel"), "target='index'"),
        (dict(ignore=-1), "ignore=-1"),
        (dict(missing="none"), "missing='none'"),
        (dict(threshold=0.5), "threshold=0.5"),
        (dict(sep="|"), "sep= is for images with labels"),
    ],
)
def test_options_are_checked_before_a_file_is_opened(kw, says):
    with pytest.raises(ValueError, match=says.replace("|", r"\|")):
        MaskReading(**kw)


# ---- which mask belongs to which image


def put(root, *files):
    for k, f in enumerate(files):
        save(photo(blob(k), k) if "mask" not in f and "seg" not in f else blob(k), root / f)
    return root


def names(t):
    one = lambda m: m.name if hasattr(m, "name") else m and [f.name for f in m]
    return {r.rel: one(r["mask"]) for _, r in t.iterrows()}


def test_a_word_behind_the_name(tmp_path):
    put(tmp_path, "images/I_1.png", "images/I_2.png")
    put(tmp_path, "masks/I_1_segmentation.png", "masks/I_2_segmentation.png")
    with pytest.raises(ValueError, match="pass suffix='_segmentation'"):
        list_pairs(tmp_path)
    t = list_pairs(tmp_path, Layout(suffix="_segmentation"))
    assert names(t) == {f"I_{k}.png": f"I_{k}_segmentation.png" for k in (1, 2)}


def test_two_extensions(tmp_path):
    put(tmp_path, "images/1.jpg", "masks/1.jpg.png")
    assert names(list_pairs(tmp_path, Layout(suffix=".jpg"))) == {"1.jpg": "1.jpg.png"}


def test_upper_and_lower_case(tmp_path):
    put(tmp_path, "images/A.png", "masks/a.png")
    with pytest.raises(ValueError, match="upper and lower case differ"):
        list_pairs(tmp_path)


def test_folders_of_other_names(tmp_path):
    put(tmp_path, "Original/1.png")
    save(blob(0), tmp_path / "Ground Truth" / "1.png")
    with pytest.raises(ValueError, match="images= and masks= take other names"):
        list_pairs(tmp_path)
    assert len(list_pairs(tmp_path, Layout("original", "Ground Truth"))) == 1
    with pytest.raises(ValueError, match="no gt folder"):
        list_pairs(tmp_path, Layout("Original", "gt", "_x"))


@pytest.mark.parametrize("folder", ["", "benign/"])
def test_images_and_masks_in_one_folder_and_several_masks_of_one(tmp_path, folder):
    x = [f"{folder}b ({k}).png" for k in range(4)]
    for k, f in enumerate(x):
        save(photo(blob(k), k), tmp_path / f)
        save(blob(k), tmp_path / f"{f[:-4]}_mask.png")
    extra = np.zeros((H, W), np.uint8)
    extra[20:, 20:] = 255
    save(extra, tmp_path / f"{folder}b (2)_mask_1.png")
    layout = Layout(suffix="_mask")
    assert names(list_pairs(tmp_path, layout))[x[2]] == ["b (2)_mask.png", "b (2)_mask_1.png"]
    for cache in (True, False):
        dls = read(tmp_path, suffix="_mask", cache=cache)
        want = (blob(2) > 0) | (extra > 0)
        assert np.array_equal(full(dls, x[2]), want)
        assert dls.table.set_index("rel").share[x[2]] == pytest.approx(want.mean())
        reader = dls.train.dataset.tls[1].tfms.fs[0]
        again = pickle.loads(pickle.dumps(reader))  # as a worker or a loaded student has it
        assert np.array_equal(again.full(tmp_path / x[2]), want) and not again.files


def test_a_folder_of_masks_for_each_image(tmp_path):
    for k in range(4):
        save(photo(blob(k), k), tmp_path / "images" / f"{k}.png")
        for j, part in enumerate((slice(0, 6), slice(6, H))):
            m = blob(k)
            m[part] = 0
            save(m, tmp_path / "masks" / str(k) / f"{j}.png")
    dls = read(tmp_path)
    assert np.array_equal(full(dls, "2.png"), blob(2) > 0)
    save(blob(0)[:-1], tmp_path / "masks" / "1" / "2.png")
    with pytest.raises(ValueError, match="image 1.png is 36 x 24, mask 2.png is 36 x 23"):
        read(tmp_path)


def test_a_folder_for_each_image(tmp_path):
    "As in sets of cell nuclei: 17/images/17.png and 17/masks/*.png."
    for k in range(4):
        save(photo(blob(k), k), tmp_path / f"n{k}" / "images" / f"n{k}.png")
        for name in "ab":
            save(blob(k), tmp_path / f"n{k}" / "masks" / f"{name}{k}.png")
    assert names(list_pairs(tmp_path))["n2/n2.png"] == ["a2.png", "b2.png"]
    assert np.array_equal(full(read(tmp_path), "n2/n2.png"), blob(2) > 0)


def test_patients_in_folders(tmp_path):
    for p in range(6):
        for k in range(3):
            save(photo(blob(k), k + 9 * p), tmp_path / "images" / f"p{p}" / f"{k}.png")
            save(blob(k), tmp_path / "masks" / f"p{p}" / f"{k}.png")
    with pytest.warns(UserWarning, match="6 folders .*group='folder' keeps it on one side"):
        read(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dls = read(tmp_path, group="folder")
    t = dls.table
    assert not set(t[t.split == "train"].group) & set(t[t.split == "valid"].group)
    assert np.array_equal(full(dls, "p3/1.png"), blob(1) > 0)
    with pytest.raises(ValueError, match="the images lie in no folders"):
        read(write(tmp_path / "flat", [blob(k) for k in range(6)]), group="folder")


def test_the_same_patient_in_two_splits_is_warned_of(tmp_path):
    for s in ("train", "test"):
        for p in range(4):
            save(photo(blob(p), p + 9 * (s == "test")), tmp_path / s / "images" / f"p{p}" / "1.png")
            save(blob(p), tmp_path / s / "masks" / f"p{p}" / "1.png")
    with pytest.warns(UserWarning, match="4 folders are in more than one split"):
        read(tmp_path, group="folder")


def test_splits_inside_of_images_and_masks(tmp_path):
    put(
        tmp_path,
        *[
            f"{d}/{s}/{k}.png"
            for s in ("train", "val", "test")
            for k in range(3)
            for d in ("images", "masks")
        ],
    )
    t = list_pairs(tmp_path)
    assert t.split.value_counts().to_dict() == {"train": 3, "valid": 3, "test": 3}
    put(tmp_path, "images/7.png", "masks/7.png")
    with pytest.raises(ValueError, match="outside of them, 7.png"):
        list_pairs(tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_images_without_a_mask_are_your_choice(tmp_path, cache):
    write(tmp_path, [blob(k) for k in range(6)])
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(ValueError, match="1 images without a mask.*missing='empty'"):
        read(tmp_path)
    dls = read(tmp_path, missing="empty", cache=cache)
    assert len(dls.table) == 6 and not full(dls, "3.png").any()
    assert dls.table.set_index("rel").label["3.png"] == "empty"
    assert (
        sum(
            int(y.sum() == 0)
            for dl in (dls.train.new(drop_last=False), dls.valid)
            for _, ys in dl
            for y in ys
        )
        == 1
    )
    with pytest.warns(UserWarning, match="left out, because missing='skip': 3.png"):
        assert len(read(tmp_path, missing="skip").table) == 5
    for f in (tmp_path / "masks").iterdir():
        f.rename(f.with_stem("x" + f.stem))
    with pytest.raises(ValueError, match="6 images without a mask"):
        read(tmp_path, missing="empty")


def test_a_text_file_among_the_images_is_named(tmp_path):
    write(tmp_path, [blob(k) for k in range(6)])
    (tmp_path / "images" / "LICENSE.txt").write_text("free")
    with pytest.raises(ValueError, match="1 images without a mask in .*: LICENSE.txt"):
        read(tmp_path)


def test_two_files_that_disagree(tmp_path):
    write(tmp_path, [blob(k, 1) for k in range(6)])
    for k in range(6):
        (tmp_path / "masks" / f"{k}.png").rename(tmp_path / "masks" / f"{k}_mask.png")
    save(blob(1, 2), tmp_path / "masks" / "1_mask_2.png")
    with pytest.raises(ValueError, match="give a pixel different classes"):
        read(tmp_path, suffix="_mask", classes=["wall", "polyp", "tool"])


# ---- one pass


def test_each_file_is_opened_once_and_what_is_seen_is_kept(tmp_path, monkeypatch):
    from kdmedlearn.data import files, masks

    write(tmp_path, [blob(k) for k in range(6)])
    opened = []
    for module in (files, masks):
        was = module.as_pil
        monkeypatch.setattr(module, "as_pil", lambda o, was=was: (opened.append(1), was(o))[1])
    t = list_pairs(tmp_path)
    t = read_pairs(t, ReadImage(12, 3), ReadMask(12), see=lambda im: im.size)
    assert len(opened) == 12 and list(t.seen) == [(W, H)] * 6


def test_a_table_of_pairs_is_served_as_folders_are(tmp_path):
    write(tmp_path, [blob(k) for k in range(6)])
    t = list_pairs(tmp_path).drop(columns="folder")
    t["split"] = ["train"] * 4 + ["valid"] * 2
    t.at[1, "mask"] = (t["mask"][1],)
    dls = load_pairs(pd.concat([t[:3], t[3:]]), MaskReading(tmp_path, size=12, bs=2, device="cpu"))
    assert (dls.train.n, dls.valid.n) == (4, 2)


def test_a_test_set_can_be_cut(tmp_path):
    write(tmp_path, [blob(k) for k in range(20)])
    dls = read(tmp_path, test=0.2)
    assert dls.test.n == 4 and not set(dls.test.items) & set(dls.train.items)


def test_unreadable_pairs_are_left_out_whole(tmp_path):
    write(tmp_path, [blob(k) for k in range(8)])
    (tmp_path / "masks" / "1.png").write_text("no")
    (tmp_path / "images" / "2.png").write_text("no")
    with pytest.raises(ValueError, match="cannot be read as images: .*images/2.png"):
        read(tmp_path)
    dls = read(tmp_path, bad="skip")
    assert sorted(dls.table.rel) == [f"{k}.png" for k in (0, 3, 4, 5, 6, 7)]


def test_an_exported_student_carries_no_names(tmp_path):
    from fastai.learner import Learner

    dls = read(
        write(tmp_path / "secret", [classes3(k) for k in range(8)]), save_to=tmp_path, **THREE
    )
    learn = Learner(dls, nn.Conv2d(3, 3, 1))
    learn.export("s.pkl")
    data = (tmp_path / "s.pkl").read_bytes()
    assert b".png" not in data and b"secret" not in data


def test_memory_and_files_give_the_same_batches(tmp_path):
    write(tmp_path, [classes3(k) for k in range(8)])
    a, b = (read(tmp_path, cache=c, **THREE) for c in (True, False))
    for (x, y), (u, v) in zip(a.valid, b.valid):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_a_webp_and_a_gif(tmp_path):
    for ext in ("webp", "gif"):
        root = write(tmp_path / ext, [blob(k, h=64, w=64) for k in range(6)], ext)
        for k in range(6):
            save(photo(blob(k, h=64, w=64), k), root / "images" / f"{k}.png")
        assert np.array_equal(full(read(root), "2.png"), blob(2, h=64, w=64) > 0)


def test_pixels_of_a_mask_are_never_shared_with_the_file(tmp_path):
    assert mask_pixels(Image.fromarray(blob(0)).convert("1")).max() == 255


# ---- what must not be misread in silence


def told(f, *args, **kw):
    "What a call returns, and what it warned of."
    with warnings.catch_warnings(record=True) as got:
        warnings.simplefilter("always")
        out = f(*args, **kw)
    return out, [str(w.message) for w in got]


def odd_pairs(root, n=8):
    "Images and masks whose names have nothing in common, and their table."
    for k in range(n):
        save(photo(blob(k), k), root / "images" / f"a{k}.png")
        save(blob(k), root / "masks" / f"z{n - k}.png")
    return pd.DataFrame(
        dict(image=[f"images/a{k}.png" for k in range(n)],
             mask=[f"masks/z{n - k}.png" for k in range(n)])
    )  # fmt: skip


def test_images_of_a_table_that_are_left_out_are_counted(tmp_path):
    t = odd_pairs(tmp_path)
    t.loc[[2, 5], "mask"] = ""
    dls, says = told(read, tmp_path, table=t, missing="skip")
    assert len(dls.table) == 6
    assert any("2 of 8 images of the table have no mask and are left out" in s for s in says)
    with pytest.raises(ValueError, match="no image of the table has a mask"):
        read(tmp_path, table=t.assign(mask=""), missing="skip")


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(suffix="_mask"), "suffix='_mask' finds a mask by its name, and table= says"),
        (dict(masks="segmentations"), "masks='segmentations', but there is no such folder"),
        (dict(images="photos"), "images='photos', but there is no such folder"),
        (dict(group="folder"), "name a column of the table"),
        (dict(manifest="m.csv"), "group= names a column of the table"),
        (dict(classes=["wall", "polyp"], codes=["a", "b"]), "leave codes= out"),
    ],
)
def test_options_beside_a_table_of_masks_that_could_not_be_used(tmp_path, kw, says):
    t = odd_pairs(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        read(tmp_path, table=t, **kw)


def test_folders_beside_a_table_of_masks_are_used(tmp_path):
    t = odd_pairs(tmp_path)
    (tmp_path / "images").rename(tmp_path / "photos")
    t = t.assign(image=[f"a{k}" for k in range(8)], mask=t["mask"].str[6:-4])
    dls = read(tmp_path, table=t, images="photos", masks="masks")
    assert np.array_equal(full(dls, "photos/a3.png"), blob(3) > 0)


@pytest.mark.parametrize("missing", ["error", "empty"])
def test_an_exported_learner_of_a_table_does_not_guess_masks(tmp_path, missing):
    from fastai.learner import Learner, load_learner

    t = odd_pairs(tmp_path / "set")
    save(blob(0), tmp_path / "set" / "masks" / "a1.png")  # called as an image of another mask
    dls = read(tmp_path / "set", table=t, missing=missing, save_to=tmp_path)
    learn = Learner(dls, nn.Conv2d(3, 2, 1))
    learn.export("s.pkl")
    again = load_learner(tmp_path / "s.pkl")
    new = tmp_path / "new.png"
    save(photo(blob(5), 99), new)
    with learn.no_bar(), again.no_bar():
        for f in (new, dls.valid.items[0]):
            want, got = learn.predict(f), again.predict(f)
            assert torch.allclose(want[2], got[2]) and torch.equal(want[1], got[1])
    for f in (new, tmp_path / "set" / "images" / "a1.png"):
        with pytest.raises(FileNotFoundError, match="does not name"):
            again.dls.test_dl([f], with_labels=True).one_batch()


def test_copies_with_other_masks_are_found(tmp_path):
    write(tmp_path, [blob(k) for k in range(8)])
    (tmp_path / "images" / "1.png").write_bytes((tmp_path / "images" / "0.png").read_bytes())
    for cache in (True, False):
        dls, says = told(read, tmp_path, cache=cache)
        assert dls.table.label.nunique() == 1
        assert any("an exact copy in another mask (e.g. 0.png = 1.png)" in s for s in says)
    save(blob(0, 1), tmp_path / "masks" / "1.png")  # the same mask, written in another way
    for f in (tmp_path / "masks").iterdir():
        save((np.asarray(Image.open(f)) > 0).astype(np.uint8), f)
    assert not any("another mask" in s for s in told(read, tmp_path)[1])


def test_folders_beside_images_and_masks_are_named(tmp_path):
    write(tmp_path, [blob(k) for k in range(6)])
    _, says = told(read, tmp_path)
    assert not any("not read in" in s for s in says)
    save(blob(0), tmp_path / "new images" / "9.png")
    save(blob(0), tmp_path / "cover.png")
    _, says = told(read, tmp_path)
    assert sum("not read in" in s for s in says) == 1
    assert any("new images/ (1 images), cover.png, since only images, masks are" in s for s in says)


def test_a_patient_without_masks_is_named(tmp_path):
    for p in "ab":
        write(tmp_path / "train" / p, [blob(k) for k in range(3)])
        write(tmp_path / "valid" / p, [blob(k) for k in range(4, 6)])
    save(photo(blob(1)), tmp_path / "train" / "c" / "images" / "0.png")
    t, says = told(list_pairs, tmp_path)
    assert len(t) == 10 and len(says) == 1 and "c/ (1 images), since only a, b are" in says[0]


def test_a_second_set_beside_train_is_refused(tmp_path):
    for s in ("train", "valid", "test_external"):
        write(tmp_path / s, [blob(k) for k in range(3)])
    with pytest.raises(ValueError, match="test_external in .* looks like a split"):
        list_pairs(tmp_path)


def test_masks_of_loaders_without_masks_are_answered():
    from kdmedlearn.data.phantom import phantom_dls

    with pytest.raises(ValueError, match="have no masks of `mask_dls`; describe"):
        describe_masks(phantom_dls(8, 4, size=32))


def test_masks_in_colour_and_late_colour_images(tmp_path):
    n = 120
    for k in range(n):
        save(photo(blob(k), k)[..., 0], tmp_path / "images" / f"{k:03}.png")
        save(blob(k), tmp_path / "masks" / f"{k:03}.png")
    save(photo(blob(7), 7), tmp_path / "images" / "007.png")
    with pytest.raises(ValueError, match="1 of 120 files are in colour, 007.png"):
        read(tmp_path)
    assert read(tmp_path, channels=1).one_batch()[0].shape[1] == 1
