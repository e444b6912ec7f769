"""Both ways of keeping files: durable moves, ranges, and keys that stay inside."""

import pytest
from obstore.store import MemoryStore

from api.settings import Settings
from api.storage import Storage, open_storage


@pytest.fixture(params=["folder", "object store"])
def storage(request, tmp_path) -> Storage:
    """The local folder, and obstore's own store in memory, which takes the way that S3 takes here."""
    return open_storage(Settings(data_dir=tmp_path)) if request.param == "folder" else Storage(MemoryStore(), None)


def test_what_is_put_is_read_back_whole_and_in_ranges(storage, tmp_path):
    data = bytes(range(256)) * 10_000
    source = tmp_path / "source"
    source.write_bytes(data)
    storage.put("a/b c/ü.ply", source)
    assert source.exists()
    assert b"".join(storage.read("a/b c/ü.ply")) == data
    assert b"".join(storage.read("a/b c/ü.ply", 100, 300)) == data[100:300]
    assert b"".join(storage.read("a/b c/ü.ply", 100, 100)) == b""
    assert b"".join(storage.read("a/b c/ü.ply", len(data) - 5)) == data[-5:]
    assert storage.size("a/b c/ü.ply") == len(data)


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
    for look in (lambda: storage.size("k/2"), lambda: list(storage.read("k/2")), lambda: storage.fetch("k/2", tmp_path / "none")):
        with pytest.raises(FileNotFoundError):
            look()


def test_deleting_a_prefix_leaves_its_neighbours(storage, tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/12/a"):
        storage.put(key, source)
    storage.delete_prefix("jobs/1")
    storage.delete_prefix("jobs/none")
    assert storage.size("jobs/12/a") == 1
    with pytest.raises(FileNotFoundError):
        storage.size("jobs/1/b/c")


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../b", "", "a//b", "a/./b"])
def test_a_key_that_leads_out_is_a_mistake(storage, key, tmp_path):
    with pytest.raises(ValueError, match="no storage key"):
        storage.size(key)
    with pytest.raises(ValueError, match="no storage key"):
        storage.put(key, tmp_path / "x")
