"""Photos as a plain form while things break between their bytes and their rows; and the memory that a large one takes."""

import os
import socket
import time

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from api.db import open_database
from api.errors import StorageAway, TooLarge
from api.services import captures, keeping, photos
from api.services.inspect import PhotoLimits
from api.storage import open_storage
from engine.workspace import hash_file
from tests.faults.form_memory import HEAD, Figures, run
from tests.faults.tus_link import start_api
from tests.photos import encoded
from tests.services import installed, until
from worker import leftovers, sweep

LIMITS = PhotoLimits(1, 100, 1 << 28)
DAY_AGO_S = 90_000


@pytest.fixture
def installation(stack, tmp_path):
    with installed(stack, tmp_path / "data") as found:
        yield found


@pytest.fixture
def ground(installation):
    """Database, storage, a capture and two files that have arrived."""
    db, storage = open_database(installation.settings), open_storage(installation.settings)
    installation.settings.incoming.mkdir(parents=True)
    with db.writing() as session:
        capture = captures.create(session, "x").id
    received = []
    for n in range(2):
        path = installation.settings.incoming / f"{n}.part"
        path.write_bytes(encoded(n))
        received.append(photos.Received(f"{n}.jpg", path, path.stat().st_size, hash_file(path)))
    yield db, storage, capture, photos.examine(received, LIMITS)
    db.close()


def add(installation, db, capture, kept) -> None:
    with db.writing() as session:
        added = photos.add(session, installation.settings, captures.get(session, capture, lock=True), kept.examined)
    kept.settle(added)


def test_a_refusal_takes_its_bytes_back_at_once(installation, ground):
    db, storage, capture, examined = ground
    small = installation.settings.model_copy(update={"max_photos": 1})
    with pytest.raises(TooLarge), keeping.kept(storage, capture, examined) as kept, db.writing() as session:
        photos.add(session, small, captures.get(session, capture, lock=True), kept.examined)
    assert installation.stored("captures") == set()
    assert all(each.received.path.exists() for each in examined)


def test_what_was_there_already_is_not_kept_twice(installation, ground):
    db, storage, capture, examined = ground
    for _ in range(2):
        with keeping.kept(storage, capture, examined) as kept:
            add(installation, db, capture, kept)
    with db.reading() as session:
        rows = photos.accepted(session, capture)
    assert installation.stored("captures") == {row.storage_key for row in rows}
    assert len(rows) == 2


@pytest.mark.parametrize("happened", [True, False])
def test_when_nobody_knows_whether_the_commit_happened_the_bytes_stay(installation, ground, happened):
    db, storage, capture, examined = ground
    lost = OperationalError("COMMIT", {}, Exception("the connection was lost"))

    def write_rows() -> None:
        with keeping.kept(storage, capture, examined) as kept:
            with db.writing() as session:
                photos.add(session, installation.settings, captures.get(session, capture, lock=True), kept.examined)
                if not happened:
                    raise lost
            raise lost

    with pytest.raises(OperationalError):
        write_rows()
    assert len(installation.stored("captures")) == 2
    assert leftovers.clear_orphans(db, storage) == 0  # they might still get their rows
    assert leftovers.clear_orphans(db, storage, age_s=-60) == (0 if happened else 2)
    with db.reading() as session:
        assert {row.storage_key for row in photos.accepted(session, capture)} == installation.stored("captures")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_storage_that_fails_at_the_nth_file_leaves_none(installation, ground, monkeypatch, failing):
    db, storage, capture, examined = ground
    n_puts, put = 0, type(storage).put

    def fails_once(self, *arguments, **more) -> None:
        nonlocal n_puts
        n_puts += 1
        if n_puts == failing:
            raise StorageAway("capacity.storage", "Storage away", "it does not answer")
        put(self, *arguments, **more)

    monkeypatch.setattr(type(storage), "put", fails_once)
    with pytest.raises(StorageAway), keeping.kept(storage, capture, examined):
        pass
    assert installation.stored("captures") == set()
    with keeping.kept(storage, capture, examined) as kept:
        add(installation, db, capture, kept)
    with db.reading() as session:
        assert {row.storage_key for row in photos.accepted(session, capture)} == installation.stored("captures")


def test_a_photo_whose_last_byte_came_long_ago_is_new_in_storage(installation, ground):
    db, storage, capture, examined = ground
    old = time.time() - DAY_AGO_S
    for each in examined:
        os.utime(each.received.path, (old, old))
    with keeping.kept(storage, capture, examined) as kept:
        assert leftovers.clear_orphans(db, storage) == 0
        add(installation, db, capture, kept)
    assert len(installation.stored("captures")) == 2


def test_kill_9_in_a_form_leaves_no_photo_and_nothing_after_a_day(installation):
    port = start_api(installation)
    capture = httpx.post(f"http://127.0.0.1:{port}/v1/captures", trust_env=False, timeout=30).json()["id"]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sending:
        head = f"POST /v1/captures/{capture}/photos HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
        sending.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + HEAD + encoded(1) + bytes(3 << 20))
        until(lambda: any(path.stat().st_size > 1 << 20 for path in installation.settings.incoming.glob("*.part")))
        installation.kill("api")
    db, storage = open_database(installation.settings), open_storage(installation.settings)
    with db.reading() as session:
        assert captures.photos_of(session, capture) == []
    assert installation.stored("captures") == set()
    old = time.time() - DAY_AGO_S
    for path in installation.settings.incoming.iterdir():
        os.utime(path, (old, old))
    sweep.sweep_folders(sweep.Ground(installation.settings, db, storage))
    assert list(installation.settings.incoming.iterdir()) == []
    db.close()


# A folder: on its way to an object store a file is held in five parts of 8 MiB at most, whatever its size.
@pytest.mark.parametrize("stack", ["embedded"], indirect=True)
def test_a_large_form_is_never_held_in_memory(stack, tmp_path):
    with installed(stack, tmp_path / "data", max_file_bytes=1 << 30) as made:
        figures = run(Figures(megabytes=40), made, tmp_path)
    assert figures.sha256_equal
    assert figures.growth_mib < 20, figures
