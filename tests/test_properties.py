"""What must hold whatever comes: made-up inputs by hypothesis, the same ones in every run."""

import io
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from kdmedlearn.data.files import open_image, read_all, to_pixels
from kdmedlearn.data.splits import cut, split_off, split_test
from kdmedlearn.models.weights import about_model, write_safetensors
from kdmedlearn.tuning.runs import Runs
from test_loss_properties import LOSSES

often = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


def made(shape, seed, scale):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=seeds, scale=st.sampled_from([1e-6, 0.1, 1.0, 10.0, 80.0]), n=st.integers(2, 7))
def test_losses_are_finite_and_so_are_their_gradients(name, seed, scale, n):
    loss = LOSSES[name]
    shape = (n, *loss.shape[1:])
    s, t = made(shape, seed, scale).requires_grad_(), made(shape, seed + 1, scale)
    y = torch.arange(n) % shape[1]
    value = loss.of(s, t, y)
    assert value.shape == () and value.isfinite()
    (gradient,) = torch.autograd.grad(value, s)
    assert gradient.isfinite().all()
    if loss.equal == "zero":
        assert value >= 0
    # DIST compares columns of a batch by their correlation, which no constant column has
    if loss.equal == "zero" and scale >= 0.1:
        assert float(loss.of(t, t, y).abs()) <= 1e-4 * max(1.0, scale**2)


# ---- splits: no group on both sides, whatever the sizes

tables = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=4, max_size=60)


def table(rows):
    t = pd.DataFrame(rows, columns=["label", "group"])
    return t.assign(label=t.label.map("abcd".__getitem__), split="all", file=range(len(t)))


def sides(t):
    by = t.groupby("group").split.nunique()
    return by.max() if len(by) else 1


@often
@given(rows=tables, share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_a_cut_takes_whole_groups_and_leaves_every_class(rows, share, seed):
    t = table(rows)
    took = cut(t.label, t.group, share, seed)
    assert t.assign(took=took).groupby("group").took.nunique().max() == 1
    assert set(t.label[~took]) == set(t.label)
    assert (took == cut(t.label, t.group, share, seed)).all()


@often
@given(rows=tables, valid=st.floats(0.05, 0.9), part=st.floats(0.05, 1.0), seed=st.integers(0, 99))
def test_no_group_stands_on_both_sides(rows, valid, part, seed):
    t = table(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            t = split_test(t, valid, True)
            t = split_off(t, valid, part, seed, True)
        except ValueError as e:  # too few groups, and that is said
            assert "collect more groups" in str(e) or "at least two" in str(e)
            return
    assert sides(t) == 1 and set(t.split) >= {"train", "valid"}


# ---- readers: whatever is done to a file, it is read, or refused by an error that says so


def encoded(kind):
    x = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(x).convert("P" if kind == "GIF" else "RGB").save(out, kind)
    return out.getvalue()


FILES = {k: encoded(k) for k in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")}
changes = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12
)


@pytest.mark.parametrize("kind", FILES)
@often
@given(changed=changes, keep=st.floats(0, 1))
def test_changed_files_are_read_or_refused(kind, changed, keep):
    b = bytearray(FILES[kind])
    for place, value in changed:
        b[int(place * len(b))] = value
    if keep < 0.3:
        b = b[: int(keep / 0.3 * len(b))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            x = to_pixels(open_image(bytes(b)), 16, 3)
        except (ValueError, OSError):
            return
    assert x.shape == (3, 16, 16) and x.dtype == torch.uint8


def test_of_a_set_of_changed_files_the_bad_ones_are_named(tmp_path):
    rng, files = np.random.default_rng(0), []
    for i in range(40):
        b = bytearray(FILES["PNG"])
        b[rng.integers(len(b))] ^= 255
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(b)
    with pytest.warns(UserWarning, match="of 40 files cannot be read as images"):
        got, prints = read_all(files, lambda b: to_pixels(open_image(b), 8, 3), bad="skip")
    assert len(got) == 40 and all((g is None) == (p is None) for g, p in zip(got, prints))


# ---- files of weights and records of runs under changed bytes


@often
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_file_of_weights_is_read_or_refused(tmp_path_factory, place, value):
    file = tmp_path_factory.mktemp("w") / "w.safetensors"
    write_safetensors({"a": torch.arange(6.0)}, file, {"arch": "x"})
    b = bytearray(file.read_bytes())
    b[int(place * len(b))] = value
    file.write_bytes(b)
    try:
        assert isinstance(about_model(file), dict)
    except ValueError as e:
        assert str(e)


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["run", "status", "history", "params", "host", "process", "x"]), inner
        )
    ),
    max_leaves=12,
)


@often
@given(record=json_like)
def test_a_folder_of_runs_lists_whatever_lies_in_it(tmp_path_factory, record):
    runs = Runs(tmp_path_factory.mktemp("r"))
    runs.path(3).write_text(json.dumps(record))
    (runs.folder / "run-x.json").write_text("no number")
    (listed,) = runs.all()
    assert listed["run"] == 3 and isinstance(listed["history"], dict)
    runs.drop(3, force=True)
    assert runs.all() == [] and runs.last() == 3
