import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.formats.ply import read_ply, write_ply
from engine.gaussians import Gaussians
from tests.engine.formats.scenes import random_scene, same, scenes, tiny_scene

GOLDEN_HEADER = """ply
format binary_little_endian 1.0
element vertex 2
property float x
property float y
property float z
property float nx
property float ny
property float nz
property float f_dc_0
property float f_dc_1
property float f_dc_2
property float f_rest_0
property float f_rest_1
property float f_rest_2
property float f_rest_3
property float f_rest_4
property float f_rest_5
property float f_rest_6
property float f_rest_7
property float f_rest_8
property float opacity
property float scale_0
property float scale_1
property float scale_2
property float rot_0
property float rot_1
property float rot_2
property float rot_3
end_header
"""
# The first gaussian of tiny_scene. f_rest: red of bases 1, 2, 3, then green, then blue.
GOLDEN_ROW = [0.5, -1.25, 2.0, 0, 0, 0, 0, 1, -1, 0.5, 0, 0.125, -0.5, 1, 0, 0.25, -1, 0, 0, -4, -3, -5, 1, 0, 0, 0]


def refuse(tmp_path, data: bytes) -> InputError:
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_ply(path)
    assert caught.value.code == "input.bad_ply"
    assert "bad.ply" in caught.value.detail
    return caught.value


def written(tmp_path, gaussians: Gaussians) -> bytes:
    write_ply(tmp_path / "scene.ply", gaussians)
    return (tmp_path / "scene.ply").read_bytes()


def test_the_bytes_are_those_of_the_reference_layout(tmp_path):
    data = written(tmp_path, tiny_scene())
    assert data.startswith(GOLDEN_HEADER.encode())
    rows = np.frombuffer(data[len(GOLDEN_HEADER) :], "<f4").reshape(2, 26)
    assert rows[0].tolist() == GOLDEN_ROW


@settings(max_examples=60)
@given(gaussians=scenes())
def test_every_scene_comes_back_bit_for_bit(tmp_path_factory, gaussians):
    path = tmp_path_factory.getbasetemp() / "any.ply"
    write_ply(path, gaussians)
    assert same(read_ply(path), gaussians)


def test_values_that_are_no_numbers_come_back_too(tmp_path):
    scene = random_scene(4, 1)
    scene.means[1, 2] = np.nan
    scene.sh[2, 3, 1] = np.inf
    write_ply(tmp_path / "scene.ply", scene)
    assert same(read_ply(tmp_path / "scene.ply"), scene)


def test_every_truncation_is_refused(tmp_path):
    data = written(tmp_path, tiny_scene())
    for end in range(len(data)):
        refuse(tmp_path, data[:end])


def test_an_extra_byte_is_refused(tmp_path):
    data = written(tmp_path, tiny_scene())
    refuse(tmp_path, data + b"\0")
    refuse(tmp_path, b"\0" + data)


def test_other_orders_types_and_properties_are_read(tmp_path):
    scene = random_scene(3, 2)
    order = [f"rot_{i}" for i in range(4)] + ["opacity", "label"] + [f"f_rest_{i}" for i in reversed(range(24))]
    order += [f"scale_{i}" for i in range(3)] + ["z", "y", "x"] + [f"f_dc_{i}" for i in range(3)]
    row = np.dtype([(name, ">i2" if name == "label" else ">f8") for name in order])
    rows = np.zeros(3, row)
    for i, axis in enumerate("xyz"):
        rows[axis] = scene.means[:, i]
    for i in range(3):
        rows[f"scale_{i}"], rows[f"f_dc_{i}"] = scene.log_scales[:, i], scene.sh[:, 0, i]
    for i in range(4):
        rows[f"rot_{i}"] = scene.quats[:, i]
    for i in range(24):
        rows[f"f_rest_{i}"] = scene.sh[:, 1 + i % 8, i // 8]
    rows["opacity"] = scene.opacity_logits
    properties = "".join(f"property {'short' if name == 'label' else 'double'} {name}\r\n" for name in order)
    header = f"ply\r\nformat binary_big_endian 1.0\r\ncomment made elsewhere\r\nelement vertex 3\r\n{properties}end_header\r\n"
    (tmp_path / "other.ply").write_bytes(header.encode() + rows.tobytes())
    assert same(read_ply(tmp_path / "other.ply"), scene)


def header(*lines: str) -> bytes:
    return ("\n".join(["ply", *lines, "end_header"]) + "\n").encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not begin"),
        (b"\x89PNG\r\n", "does not begin"),
        (header("format ascii 1.0", "element vertex 1"), "binary"),
        (header("format binary_little_endian 2.0", "element vertex 1"), "1.0"),
        (header("format binary_little_endian 1.0", "element chunk 1", "property float min_x"), "compressed"),
        (header("format binary_little_endian 1.0", "element vertex -1"), "count"),
        (header("format binary_little_endian 1.0", "element vertex 99999999999"), "99999999999"),
        (header("format binary_little_endian 1.0", "element vertex " + "9" * 5000), "count"),
        (header("format binary_little_endian 1.0", "element vertex 1", "property list uchar int x"), "list"),
        (header("format binary_little_endian 1.0", "element vertex 1", "property float x", "property float x"), "twice"),
        (header("format binary_little_endian 1.0", "element vertex 1", "property float x", "property float y"), "'z' is missing"),
        (header("format binary_little_endian 1.0", "element vertex 1", "property float ü"), "ASCII"),
        (b"ply\n" + b"comment " + b"x" * 70_000 + b"\nend_header\n", "does not begin"),
    ],
)
def test_what_is_no_gaussian_ply_is_refused_with_the_reason(tmp_path, data, said):
    assert said in refuse(tmp_path, data).detail


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    data = written(tmp_path, tiny_scene()).replace(b"vertex 2", b"vertex 3")
    assert "promises" in refuse(tmp_path, data).detail


def test_a_file_without_gaussians_is_refused(tmp_path):
    data = written(tmp_path, tiny_scene().select(np.zeros(0, np.int64)))
    assert "no gaussians" in refuse(tmp_path, data).detail


def test_an_odd_number_of_harmonics_is_refused(tmp_path):
    data = written(tmp_path, tiny_scene())
    assert "f_rest" in refuse(tmp_path, data.replace(b"f_rest_8", b"f_last_8")).detail
    assert "f_rest" in refuse(tmp_path, data.replace(b"f_rest_8", b"f_rest_9")).detail


@settings(max_examples=150)
@given(noise=st.binary(min_size=1, max_size=12), where=st.integers(0, 560))
def test_noise_in_the_header_ends_in_a_scene_or_a_named_error(tmp_path_factory, noise, where):
    data = written(tmp_path_factory.getbasetemp(), tiny_scene())
    path = tmp_path_factory.getbasetemp() / "noise.ply"
    path.write_bytes(data[:where] + noise + data[where + len(noise) :])
    with contextlib.suppress(InputError):  # anything else would fail the test
        assert len(read_ply(path)) >= 1


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"none\.ply"):
        read_ply(tmp_path / "none.ply")
