import base64
import contextlib
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.compress.verify import check_decoded
from engine.errors import InputError
from engine.formats.archive import write_stored_zip
from engine.formats.ply import read_ply
from engine.formats.sog import SogOptions, error_bounds, read_sog, write_sog
from engine.gaussians import Gaussians
from tests.engine.formats import foreign
from tests.engine.formats.scenes import random_scene, scenes, tiny_scene


def members_of(tmp_path, gaussians: Gaussians, options: SogOptions | None = None) -> dict[str, bytes]:
    write_sog(tmp_path / "scene.sog", gaussians, options)
    with zipfile.ZipFile(tmp_path / "scene.sog") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def texels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGBA")).reshape(-1, 4)


def refuse(path) -> str:
    with pytest.raises(InputError) as caught:
        read_sog(path)
    assert caught.value.code == "input.bad_sog"
    return caught.value.detail


def refuse_changed(tmp_path, members: dict[str, bytes], **changes) -> str:
    """Refuse the bundle with parts of its meta.json changed; a path is written section__key."""
    meta = json.loads(members["meta.json"])
    for place, value in changes.items():
        section, _, key = place.partition("__")
        if key:
            meta[section][key] = value
        else:
            meta[section] = value
    write_stored_zip(tmp_path / "bad.sog", {**members, "meta.json": json.dumps(meta).encode()})
    return refuse(tmp_path / "bad.sog")


def test_the_texels_are_those_of_the_specification(tmp_path):
    members = members_of(tmp_path, tiny_scene())
    meta = json.loads(members["meta.json"])
    assert (meta["version"], meta["count"]) == (2, 2)
    # sign(x) log(1 + |x|): x runs from -3 to 0.5, z from 0.75 to 2
    assert meta["means"]["mins"] == pytest.approx([-np.log(4), -np.log(2.25), np.log(1.75)])
    assert meta["means"]["maxs"] == pytest.approx([np.log(1.5), np.log(1.125), np.log(3)])
    low, high = texels(members["means_l.webp"]), texels(members["means_u.webp"])
    assert low[:2].tolist() == high[:2].tolist() == [[255, 0, 255, 255], [0, 255, 0, 255]]
    # w missing, three zeros; then -x largest: y z w = -0.5 each, in 0..255 of +-sqrt(1/2)
    quats = texels(members["quats.webp"])[:2].tolist()
    assert quats == [[128, 128, 128, 252], [37, 218, 218, 252]]
    colour = texels(members["sh0.webp"])
    assert colour[:2, 3].tolist() == [128, 243]
    book = np.array(meta["sh0"]["codebook"])
    assert book[colour[0, :3]] == pytest.approx([0.0, 1.0, -1.0], abs=1e-6)
    assert np.array(meta["scales"]["codebook"])[texels(members["scales.webp"])[1, :3]] == pytest.approx([-1.5, -2.25, -6.0], abs=0.02)
    assert meta["shN"]["bands"] == 1
    labels = texels(members["shN_labels.webp"])[:2]
    centroids = texels(members["shN_centroids.webp"])
    entry = int(labels[0, 0]) + 256 * int(labels[0, 1])
    assert np.array(meta["shN"]["codebook"])[centroids[3 * entry, :3]] == pytest.approx([0.5, -0.5, 0.25], abs=1e-6)


def test_the_file_is_the_same_every_time(tmp_path):
    for name in ("a.sog", "b.sog"):
        write_sog(tmp_path / name, random_scene(3000, 3), SogOptions(palette=256))
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def test_all_members_are_stored_and_lossless(tmp_path):
    write_sog(tmp_path / "scene.sog", random_scene(300, 2))
    with zipfile.ZipFile(tmp_path / "scene.sog") as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert all(archive.read(name)[12:16] == b"VP8L" for name in archive.namelist() if name.endswith(".webp"))


@settings(max_examples=40)
@given(gaussians=scenes())
def test_every_scene_comes_back_within_the_stated_errors(tmp_path_factory, gaussians):
    path = tmp_path_factory.getbasetemp() / "any.sog"
    write_sog(path, gaussians)
    decoded = read_sog(path)
    check_decoded("any.sog", gaussians, decoded, error_bounds(gaussians))
    assert decoded.sh.shape == gaussians.sh.shape


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 1000])
def test_every_size_of_picture_holds_every_gaussian(tmp_path, n):
    scene = random_scene(n, 1, seed=n)
    write_sog(tmp_path / "scene.sog", scene)
    check_decoded("scene.sog", scene, read_sog(tmp_path / "scene.sog"), error_bounds(scene))


def test_a_larger_palette_keeps_more_colour(tmp_path):
    scene = random_scene(5000, 3)
    errors = []
    for palette in (64, 1024, 5000):
        write_sog(tmp_path / "scene.sog", scene, SogOptions(palette))
        errors.append(float(np.mean((read_sog(tmp_path / "scene.sog").sh - scene.sh) ** 2)))
    assert errors[0] > errors[1] > 100 * errors[2]


def test_another_programs_file_is_read_as_it_reads_it(tmp_path):
    (tmp_path / "theirs.sog").write_bytes(zlib.decompress(base64.b64decode(foreign.SOG)))
    (tmp_path / "theirs.ply").write_bytes(zlib.decompress(base64.b64decode(foreign.SOG_DECODED)))
    ours, theirs = read_sog(tmp_path / "theirs.sog"), read_ply(tmp_path / "theirs.ply")
    for name in ("means", "log_scales", "opacity_logits", "sh"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6), name
    assert np.abs(np.sum(ours.quats * theirs.quats, axis=1)).min() > 1 - 1e-6


def test_every_truncation_and_an_extra_byte_are_refused(tmp_path):
    write_sog(tmp_path / "scene.sog", tiny_scene())
    data = (tmp_path / "scene.sog").read_bytes()
    for end in [*range(0, len(data), 31), len(data) - 1]:
        (tmp_path / "bad.sog").write_bytes(data[:end])
        refuse(tmp_path / "bad.sog")
    (tmp_path / "bad.sog").write_bytes(data + b"\0")
    refuse(tmp_path / "bad.sog")


def test_every_truncation_of_a_picture_is_refused(tmp_path):
    members = members_of(tmp_path, random_scene(40, 1))
    for name in ("means_u.webp", "shN_centroids.webp"):
        for end in range(0, len(members[name]) - 8, 3):
            write_stored_zip(tmp_path / "bad.sog", {**members, name: members[name][:end]})
            refuse(tmp_path / "bad.sog")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 1}, "version 2"),
        ({"version": 3}, "version 2"),
        ({"version": True}, "version 2"),
        ({"count": 0}, "no gaussians"),
        ({"count": -5}, "no gaussians"),
        ({"count": 2.0}, "whole number"),
        ({"count": "2"}, "whole number"),
        ({"count": 50}, "16 texels for 50"),
        ({"count": 10**9}, "claims 1000000000"),
        ({"means": None}, "no means"),
        ({"means__mins": [0, 0]}, "mins"),
        ({"means__maxs": [0, 0, float("nan")]}, "maxs"),
        ({"means__maxs": [90.0, 90.0, 90.0]}, "range"),
        ({"means__mins": [9.0, 9.0, 9.0]}, "range"),
        ({"means__files": ["means_l.webp"]}, "picture 1 of means"),
        ({"means__files": ["means_l.webp", "../../etc/passwd"]}, "picture 1 of means"),
        ({"scales__codebook": [0.0] * 255}, "codebook"),
        ({"scales__codebook": [None] * 256}, "codebook"),
        ({"sh0__codebook": [float("inf")] * 256}, "codebook"),
        ({"quats__files": "quats.webp"}, "missing"),
        ({"quats__files": ["meta.json"]}, "picture"),
        ({"quats__files": ["sh0.webp"]}, "rotation"),
        ({"shN__bands": 4}, "bands"),
        ({"shN__bands": True}, "bands"),
        ({"shN__bands": 3}, "too small"),
        ({"shN__count": 70_000}, "count"),
        ({"shN__count": 0}, "count"),
        ({"shN__count": 1}, "beyond"),
        ({"shN__count": 60_000}, "too small"),
        ({"shN__files": ["shN_centroids.webp"]}, "picture 1 of shN"),
        ({"shN": [1, 2]}, "no shN"),
    ],
)
def test_meta_data_that_does_not_fit_is_refused_with_the_reason(tmp_path, changes, said):
    assert said in refuse_changed(tmp_path, members_of(tmp_path, tiny_scene()), **changes)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version": 2, "count": ' + b"9" * 6000 + b"}"])
def test_a_meta_file_that_is_no_object_is_refused(tmp_path, text):
    write_stored_zip(tmp_path / "bad.sog", {**members_of(tmp_path, tiny_scene()), "meta.json": text})
    refuse(tmp_path / "bad.sog")


def test_a_picture_far_larger_than_its_gaussians_is_refused_undecoded(tmp_path):
    out = io.BytesIO()
    Image.new("RGBA", (3000, 3000)).save(out, "WEBP", lossless=True)
    assert len(out.getvalue()) < 100_000
    members = {**members_of(tmp_path, tiny_scene()), "quats.webp": out.getvalue()}
    write_stored_zip(tmp_path / "bad.sog", members)
    assert "3000×3000" in refuse(tmp_path / "bad.sog")


def test_a_picture_of_another_kind_is_refused(tmp_path):
    members = members_of(tmp_path, tiny_scene())
    for data in (b"GIF89a" + bytes(40), b"", struct.pack("<4sI4s", b"RIFF", 4, b"WEBP")):
        write_stored_zip(tmp_path / "bad.sog", {**members, "scales.webp": data})
        assert "scales.webp" in refuse(tmp_path / "bad.sog")


@settings(max_examples=150)
@given(data=st.data())
def test_noise_in_a_picture_ends_in_a_scene_or_a_named_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    members = members_of(folder, random_scene(60, 1))
    name = data.draw(st.sampled_from(sorted(members)))
    where = data.draw(st.integers(0, len(members[name]) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=12))
    members[name] = members[name][:where] + noise + members[name][where + len(noise) :]
    write_stored_zip(folder / "noise.sog", members)
    with contextlib.suppress(InputError):  # anything else would fail the test
        decoded = read_sog(folder / "noise.sog")
        assert len(decoded) >= 1
        assert np.isfinite(decoded.means).all()


def test_values_that_the_format_cannot_hold_are_a_programmers_error(tmp_path):
    broken = random_scene(3, 0)
    broken.opacity_logits[1] = np.inf
    for scene in (broken, random_scene(0, 0)):
        with pytest.raises(ValueError, match="SOG holds"):
            write_sog(tmp_path / "x.sog", scene)
