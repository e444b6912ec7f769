import base64
import contextlib
import gzip
import struct
import zlib

import gsply
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compress.verify import check_decoded
from engine.errors import InputError
from engine.formats.ply import read_ply
from engine.formats.quantize import sigmoid
from engine.formats.spz import ShBits, choose_fraction_bits, error_bounds, read_spz, write_spz
from engine.gaussians import Gaussians
from tests.engine.formats import foreign
from tests.engine.formats.scenes import random_scene, same, scenes, tiny_scene

GOLDEN = bytes.fromhex(
    "4e475350" "03000000" "02000000" "01" "0c" "00" "00"  # NGSP, version 3, 2 gaussians, degree 1, 12 fractional bits
    "000800" "00ecff" "002000" "00d0ff" "000200" "000c00"  # means: 0.5 = 0x0800 / 4096, -1.25 = -0x1400 / 4096, ...
    "80" "f3"  # opacity 0.5, 0.953
    "80a659" "808080"  # colour 127.5 + 38.25 sh
    "607050" "887c40"  # 16 (log scale + 10)
    "000000c0" "69a79d36"  # largest w (3) and three zeros; the second: x (0), then three times -361 / 511 of sqrt(1/2)
    "c040a0" "80ff00" "908080" "808080" "808080" "808080"  # 128 + 128 sh, to eighths of 64
)  # fmt: skip


def write_bytes(tmp_path, gaussians: Gaussians) -> bytes:
    write_spz(tmp_path / "scene.spz", gaussians)
    return (tmp_path / "scene.spz").read_bytes()


def read_packed(tmp_path, payload: bytes) -> Gaussians:
    (tmp_path / "x.spz").write_bytes(gzip.compress(payload, mtime=0))
    return read_spz(tmp_path / "x.spz")


def refuse(tmp_path, data: bytes) -> InputError:
    (tmp_path / "bad.spz").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_spz(tmp_path / "bad.spz")
    assert caught.value.code == "input.bad_spz"
    return caught.value


def test_the_unpacked_bytes_are_those_of_the_specification(tmp_path):
    assert gzip.decompress(write_bytes(tmp_path, tiny_scene())).hex() == GOLDEN.hex()


def test_the_file_is_the_same_every_time(tmp_path):
    first = write_bytes(tmp_path, random_scene(500, 3))
    assert first == write_bytes(tmp_path, random_scene(500, 3))
    assert first[4:8] == b"\0\0\0\0"  # no time of writing in the gzip header


@settings(max_examples=60)
@given(gaussians=scenes())
def test_every_scene_comes_back_within_the_stated_errors(tmp_path_factory, gaussians):
    path = tmp_path_factory.getbasetemp() / "any.spz"
    write_spz(path, gaussians)
    check_decoded("any.spz", gaussians, read_spz(path), error_bounds(gaussians))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_writing_what_was_read_changes_nothing_more(tmp_path, degree):
    write_spz(tmp_path / "a.spz", random_scene(3000, degree))
    once = read_spz(tmp_path / "a.spz")
    write_spz(tmp_path / "b.spz", once)
    twice = read_spz(tmp_path / "b.spz")
    assert np.array_equal(once.means, twice.means)
    assert np.array_equal(once.sh, twice.sh)
    assert np.array_equal(once.log_scales, twice.log_scales)


@pytest.mark.parametrize("bits", [ShBits(5, 4), ShBits(6, 5), ShBits(8, 8), ShBits(3, 7)])
def test_more_bits_of_harmonics_err_less_as_stated(tmp_path, bits):
    scene = random_scene(2000, 3)
    write_spz(tmp_path / "scene.spz", scene, bits)
    decoded = read_spz(tmp_path / "scene.spz")
    check_decoded("scene.spz", scene, decoded, error_bounds(scene, bits))
    worst = np.abs(decoded.sh[:, 4:] - np.clip(scene.sh[:, 4:], -1, 127 / 128)).max()
    assert worst > 0.8 * (2 ** (8 - bits.rest) // 2 + 0.5) / 128


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_an_independent_decoder_sees_the_same(tmp_path, degree):
    scene = random_scene(400, degree, seed=degree)
    write_spz(tmp_path / "ours.spz", scene)
    ours, theirs = read_spz(tmp_path / "ours.spz"), gsply.read_spz(str(tmp_path / "ours.spz"))
    assert np.array_equal(ours.means, theirs.means)
    assert np.array_equal(ours.log_scales, theirs.scales)
    assert np.allclose(ours.sh[:, 0], theirs.sh0, atol=1e-6)
    if degree:
        assert np.array_equal(ours.sh[:, 1:], theirs.shN)
    assert np.abs(np.sum(ours.quats * theirs.quats, axis=1)).min() > 1 - 1e-6
    assert np.abs(sigmoid(ours.opacity_logits) - sigmoid(theirs.opacities)).max() <= 1 / 1020 + 1e-6


def test_another_programs_file_is_read_as_it_reads_it(tmp_path):
    (tmp_path / "theirs.spz").write_bytes(base64.b64decode(foreign.SPZ))
    (tmp_path / "theirs.ply").write_bytes(zlib.decompress(base64.b64decode(foreign.SPZ_DECODED)))
    ours, theirs = read_spz(tmp_path / "theirs.spz"), read_ply(tmp_path / "theirs.ply")
    for name in ("means", "log_scales", "opacity_logits", "sh"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5), name
    assert np.abs(np.sum(ours.quats * theirs.quats, axis=1)).min() > 1 - 1e-6


def test_version_1_has_half_precision_means_and_version_2_three_rotation_bytes(tmp_path):
    rest = bytes([128]) + bytes([128, 166, 90]) + bytes([96, 112, 80]) + bytes([128, 128, 255])
    first = read_packed(tmp_path, struct.pack("<IIIBBBB", 0x5053474E, 1, 1, 0, 12, 0, 0) + np.array([0.5, -2, 7], "<f2").tobytes() + rest)
    second = read_packed(tmp_path, struct.pack("<IIIBBBB", 0x5053474E, 2, 1, 0, 12, 0, 0) + bytes.fromhex("00080000e0ff007000") + rest)
    assert first.means.tolist() == second.means.tolist() == [[0.5, -2.0, 7.0]]
    assert first.log_scales.tolist() == [[-4.0, -3.0, -5.0]]
    assert np.allclose(second.quats, [[0, 0.00392, 0.00392, 1]], atol=1e-4)
    assert same(first, second)


def test_every_truncation_and_an_extra_byte_are_refused(tmp_path):
    data = write_bytes(tmp_path, tiny_scene())
    for end in range(len(data)):
        refuse(tmp_path, data[:end])
    refuse(tmp_path, data + b"\0")
    payload = gzip.decompress(data)
    for end in range(len(payload)):
        refuse(tmp_path, gzip.compress(payload[:end]))
    refuse(tmp_path, gzip.compress(payload + b"\0"))


@pytest.mark.parametrize(
    ("offset", "value"), [(0, b"XGSP"), (4, b"\0\0\0\0"), (4, b"\4\0\0\0"), (8, b"\xff\xff\xff\xff"), (12, b"\4"), (13, b"\x19")]
)
def test_a_header_out_of_range_is_refused(tmp_path, offset, value):
    payload = bytearray(gzip.decompress(write_bytes(tmp_path, tiny_scene())))
    payload[offset : offset + len(value)] = value
    refuse(tmp_path, gzip.compress(bytes(payload)))


def test_version_4_is_refused_by_name(tmp_path):
    assert "version 4" in refuse(tmp_path, b"NGSP" + struct.pack("<I", 4) + bytes(64)).hint


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    count = 40_000_000
    data = gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, count, 3, 12, 0, 0) + bytes(20_000_000))
    assert len(data) < 100_000
    assert str(count) in refuse(tmp_path, data).detail


@settings(max_examples=150)
@given(noise=st.binary(max_size=200), where=st.integers(0, 120))
def test_noise_ends_in_a_scene_or_a_named_error(tmp_path_factory, noise, where):
    payload = GOLDEN[:where] + noise + GOLDEN[where + len(noise) :]
    path = tmp_path_factory.getbasetemp() / "noise.spz"
    path.write_bytes(gzip.compress(payload))
    with contextlib.suppress(InputError):  # anything else would fail the test
        assert len(read_spz(path)) >= 1


@pytest.mark.parametrize(
    ("spread", "log_scale", "bits"), [(10.0, -3.0, 12), (2000.0, -3.0, 12), (5000.0, -3.0, 10), (0.01, -12.0, 21), (1e6, -3.0, 3)]
)
def test_the_fraction_follows_the_extent_and_the_finest_gaussians(spread, log_scale, bits):
    scene = random_scene(50, 0)
    scene.means[:] = np.clip(scene.means, -1, 1) * spread
    scene.log_scales[:] = log_scale
    assert choose_fraction_bits(scene) == bits


def test_values_that_the_format_cannot_hold_are_a_programmers_error(tmp_path):
    broken = random_scene(3, 0)
    broken.means[0, 0] = np.nan
    far = random_scene(3, 0)
    far.means[0, 0] = 1e8
    for scene in (broken, far, random_scene(0, 0)):
        with pytest.raises(ValueError, match="SPZ holds"):
            write_spz(tmp_path / "x.spz", scene)
