"""All ways of keeping files: durable moves, ranges, and keys that stay inside; what a store that is away looks like."""

import time
from collections.abc import Iterator

import pytest
from obstore.store import MemoryStore

from api.errors import StorageAway
from api.settings import Settings
from api.storage import BLOCK_BYTES, Storage, open_storage
from tests.s3 import PAGE_KEYS, Link, S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "memory", "S3"])
def storage(request, tmp_path) -> Storage:
    """The local folder, obstore's own store in memory, and a part of a bucket of an S3 server."""
    if request.param == "memory":
        return Storage(MemoryStore(), None)
    if request.param == "folder":
        return open_storage(Settings(data_dir=tmp_path))
    server = request.getfixturevalue("s3")
    return open_storage(Settings(storage_url=server.url(tmp_path.name), storage_options=server.options()))


@pytest.mark.parametrize("n_bytes", [0, 1, 2_560_000, 3 * BLOCK_BYTES + 5])
def test_what_is_put_is_read_back_whole_and_in_ranges(storage, tmp_path, n_bytes):
    data = bytes(range(251)) * (n_bytes // 251) + bytes(n_bytes % 251)
    source = tmp_path / "source"
    source.write_bytes(data)
    storage.put("a/b c/ü.ply", source)
    assert source.exists()
    assert storage.size("a/b c/ü.ply") == n_bytes
    assert b"".join(storage.read("a/b c/ü.ply")) == data
    for start, stop in [(100, 300), (100, 100), (n_bytes - 5, None), (BLOCK_BYTES - 1, 2 * BLOCK_BYTES + 1)]:
        if 0 <= start <= n_bytes and (stop or 0) <= n_bytes:
            assert b"".join(storage.read("a/b c/ü.ply", start, stop)) == data[start:stop]
    storage.fetch("a/b c/ü.ply", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == data


def test_a_move_takes_the_file_and_replaces_what_was_there(storage, tmp_path):
    for text in ("old", "new"):
        source = tmp_path / "source"
        source.write_text(text)
        storage.put("k", source, move=True)
        assert not source.exists()
    assert b"".join(storage.read("k")) == b"new"


def test_a_fetched_file_is_the_stored_one_and_a_missing_key_says_so(storage, tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    storage.put("k/1", source)
    storage.fetch("k/1", tmp_path / "got")
    storage.fetch("k/1", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "x"
    # Before the first piece: an answer that has begun cannot become another.
    looks = (lambda: storage.size("k/2"), lambda: storage.read("k/2"), lambda: storage.read("k/2", 1, 2), lambda: storage.read("k", 1, 2))
    for look in (*looks, lambda: storage.fetch("k/2", tmp_path / "none")):
        with pytest.raises(FileNotFoundError):
            look()
    assert not list(tmp_path.glob("*none*"))


def test_deleting_a_prefix_leaves_its_neighbours(storage, tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/12/a", "jobs/ 1/ä +&?%41"):
        storage.put(key, source)
    storage.delete_prefix("jobs/1")
    storage.delete_prefix("jobs/none")
    assert storage.size("jobs/12/a") == storage.size("jobs/ 1/ä +&?%41") == 1
    with pytest.raises(FileNotFoundError):
        storage.size("jobs/1/b/c")
    storage.delete_prefix("jobs/ 1")
    with pytest.raises(FileNotFoundError):
        storage.size("jobs/ 1/ä +&?%41")


def test_deleting_a_prefix_deletes_more_than_one_page_of_a_listing(storage, tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    for index in range(2 * PAGE_KEYS + 3):
        storage.put(f"many/{index}", source)
    storage.put("manyfold", source)
    storage.delete_prefix("many")
    assert [entry["path"] for page in storage.store.list() for entry in page] == ["manyfold"]


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../b", "", "a//b", "a/./b"])
def test_a_key_that_leads_out_is_a_mistake(storage, key, tmp_path):
    with pytest.raises(ValueError, match="no storage key"):
        storage.size(key)
    with pytest.raises(ValueError, match="no storage key"):
        storage.put(key, tmp_path / "x")
    with pytest.raises(ValueError, match="no storage key"):
        storage.read(key)


def test_a_store_that_is_away_says_so_within_seconds_and_serves_again_when_it_is_back(s3, tmp_path):
    link = Link(s3.endpoint)
    storage = open_storage(Settings(storage_url=s3.url("away"), storage_options=s3.options(link.endpoint)))
    source = tmp_path / "source"
    source.write_text("x")
    storage.put("k", source)
    link.cut()
    began = time.monotonic()
    for look in (lambda: storage.size("k"), lambda: storage.read("k", 0, 1), lambda: storage.delete_prefix("k"), storage.check):
        with pytest.raises(StorageAway):
            look()
    with pytest.raises(StorageAway):
        storage.put("k", source, move=True)
    assert source.exists(), "a file that could not be stored is not lost"
    assert time.monotonic() - began < 60
    link.mend()
    storage.check()
    assert b"".join(storage.read("k")) == b"x"
    link.cut()


@pytest.mark.parametrize("change", [{"storage_url": "s3://another-bucket"}, {}])
def test_a_store_is_checked_for_its_bucket(s3, change):
    storage = open_storage(Settings(**{"storage_url": s3.url("x"), "storage_options": s3.options(), **change}))
    if change:
        with pytest.raises((StorageAway, OSError)):
            storage.check()
    else:
        storage.check()
