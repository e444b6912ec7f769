import io
import struct
import zipfile

import pytest

from engine.errors import InputError
from engine.formats.archive import MAX_MEMBERS, read_zip, write_stored_zip

MEMBERS = {"b.txt": b"second letter, first member", "a.bin": bytes(range(256)), "empty": b""}


def refuse(tmp_path, data: bytes, limit: int = 10_000) -> str:
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_zip("sog", tmp_path / "bad.zip", limit)
    assert caught.value.code == "input.bad_sog"
    return caught.value.detail


def zipped(names: list[str], data: bytes = b"x" * 40, kind: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), data, kind)
    return out.getvalue()


def test_members_come_back_in_order_and_bytes_are_the_same_every_time(tmp_path):
    write_stored_zip(tmp_path / "a.zip", MEMBERS)
    write_stored_zip(tmp_path / "b.zip", MEMBERS)
    assert list(read_zip("sog", tmp_path / "a.zip", 10_000).items()) == list(MEMBERS.items())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_deflated_members_of_other_writers_are_read(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped(["a", "b"], kind=zipfile.ZIP_DEFLATED))
    assert read_zip("sog", tmp_path / "x.zip", 80) == {"a": b"x" * 40, "b": b"x" * 40}


def test_every_truncation_is_refused_and_bytes_around_the_archive_too(tmp_path):
    write_stored_zip(tmp_path / "a.zip", MEMBERS)
    data = (tmp_path / "a.zip").read_bytes()
    for end in range(len(data)):
        refuse(tmp_path, data[:end])
    refuse(tmp_path, data + b"\0")
    refuse(tmp_path, b"\0" + data)
    refuse(tmp_path, data + data)
    refuse(tmp_path, b"PK\x03\x04" + data)


def test_every_flipped_byte_of_a_members_data_is_noticed(tmp_path):
    data = zipped(["a"], b"0123456789")
    start = data.index(b"0123456789")
    for offset in range(10):
        refuse(tmp_path, data[: start + offset] + b"X" + data[start + offset + 1 :])


@pytest.mark.parametrize("name", ["../up", "/root", "folder/file", "c:file", "back\\slash", ".."])
def test_names_that_are_no_plain_file_names_are_refused(tmp_path, name):
    assert "file name" in refuse(tmp_path, zipped(["x" * len(name)], b"data").replace(b"x" * len(name), name.encode()))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path):
    assert "two of one name" in refuse(tmp_path, zipped(["a", "a"]))


def test_too_many_members_are_refused(tmp_path):
    assert str(MAX_MEMBERS + 1) in refuse(tmp_path, zipped([f"f{i}" for i in range(MAX_MEMBERS + 1)], b""))


def test_a_bomb_is_refused_by_the_size_it_claims(tmp_path):
    assert "unpack to 5000000 bytes" in refuse(tmp_path, zipped(["a"], bytes(5_000_000), zipfile.ZIP_DEFLATED))


def test_a_bomb_that_claims_to_be_small_is_refused(tmp_path):
    data = zipped(["a"], bytes(5_000_000), zipfile.ZIP_DEFLATED).replace(struct.pack("<I", 5_000_000), struct.pack("<I", 100))
    refuse(tmp_path, data)


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path):
    data = bytearray(zipped(["a"]))
    central = data.index(b"PK\x01\x02")
    for start, flag in ((6, 1), (central + 8, 1)):
        data[start] |= flag
    refuse(tmp_path, bytes(data))
    assert "compressed in a way" in refuse(tmp_path, zipped(["a"], kind=zipfile.ZIP_BZIP2))
