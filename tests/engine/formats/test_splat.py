import base64
import zlib

import numpy as np
import pytest
from hypothesis import given, settings

from engine.compress.verify import check_decoded
from engine.errors import InputError
from engine.formats.ply import read_ply
from engine.formats.splat import error_bounds, read_splat, write_splat
from tests.engine.formats import foreign
from tests.engine.formats.scenes import random_scene, scenes, tiny_scene

# mean, scale = exp(-4, -3, -5); colour 0.5 + 0.2821 sh = 0.5, 0.782, 0.218; opacity 0.5; rotation 1 0 0 0.
GOLDEN_FIRST = "0000003f0000a0bf00000040ae0a963c86ed4b3dffc9dc3b80c73880ff808080"


def test_the_bytes_are_those_of_the_format(tmp_path):
    write_splat(tmp_path / "scene.splat", tiny_scene())
    data = (tmp_path / "scene.splat").read_bytes()
    assert len(data) == 64
    assert data[:32].hex() == GOLDEN_FIRST


@settings(max_examples=60)
@given(gaussians=scenes())
def test_every_scene_comes_back_within_the_stated_errors(tmp_path_factory, gaussians):
    path = tmp_path_factory.getbasetemp() / "any.splat"
    write_splat(path, gaussians)
    check_decoded("any.splat", gaussians, read_splat(path), error_bounds(gaussians))


def test_a_large_scene_comes_back_within_the_stated_errors(tmp_path):
    scene = random_scene(20_000, 3)
    write_splat(tmp_path / "scene.splat", scene)
    check_decoded("scene.splat", scene, read_splat(tmp_path / "scene.splat"), error_bounds(scene))


def test_another_programs_file_is_read_as_it_reads_it(tmp_path):
    (tmp_path / "theirs.splat").write_bytes(base64.b64decode(foreign.SPLAT))
    (tmp_path / "theirs.ply").write_bytes(zlib.decompress(base64.b64decode(foreign.SPLAT_DECODED)))
    ours, theirs = read_splat(tmp_path / "theirs.splat"), read_ply(tmp_path / "theirs.ply")
    assert np.array_equal(ours.means, theirs.means)
    assert np.allclose(ours.log_scales, theirs.log_scales, atol=1e-6)
    assert np.allclose(ours.opacity_logits, theirs.opacity_logits, atol=1e-5)
    assert np.allclose(ours.sh, theirs.sh, atol=1e-6)
    # It takes a byte b of a rotation for b / 127.5 - 1, the format's author for (b - 128) / 128, as here.
    assert np.abs(np.sum(ours.quats * theirs.quats, axis=1) / np.linalg.norm(theirs.quats, axis=1)).min() > 1 - 1e-4


def test_every_cut_inside_a_gaussian_is_refused(tmp_path):
    write_splat(tmp_path / "scene.splat", tiny_scene())
    data = (tmp_path / "scene.splat").read_bytes()
    for bad in [*(data[:end] for end in range(len(data)) if end != 32), data + b"\0"]:
        (tmp_path / "bad.splat").write_bytes(bad)
        with pytest.raises(InputError) as caught:
            read_splat(tmp_path / "bad.splat")
        assert caught.value.code == "input.bad_splat"


@pytest.mark.parametrize(("offset", "value"), [(0, np.nan), (4, np.inf), (12, -1.0), (16, np.nan), (20, np.inf)])
def test_values_no_gaussian_has_are_refused(tmp_path, offset, value):
    write_splat(tmp_path / "bad.splat", tiny_scene())
    data = bytearray((tmp_path / "bad.splat").read_bytes())
    data[offset : offset + 4] = np.float32(value).tobytes()
    (tmp_path / "bad.splat").write_bytes(data)
    with pytest.raises(InputError, match="finite"):
        read_splat(tmp_path / "bad.splat")
