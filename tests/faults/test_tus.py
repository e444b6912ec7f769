"""Resumable uploads while connections break, processes die, disks fill and clients race: what was acknowledged is never lost."""

import base64
import hashlib
import os
import subprocess
import time

import httpx
import pytest

from api.db import open_database
from api.errors import StorageAway
from api.services import spool
from api.storage import Storage, open_storage
from tests.api.tus_client import VERSION, begun, offset, patch
from tests.faults.raw_tus import HalfSent
from tests.faults.tus_link import Figures, run, start_api
from tests.photos import encoded
from tests.services import Installation, installed, until
from worker import leftovers

DATA = encoded(1) + bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def installation(stack, tmp_path):
    with installed(stack, tmp_path / "data") as found:
        yield found


@pytest.fixture
def client(installation):
    with installation.api() as found:
        yield found


@pytest.fixture
def capture(client) -> str:
    return client.post("/v1/captures").json()["id"]


def written(installation: Installation, url: str, n_bytes: int) -> None:
    """Wait until so much lies on the disk, without asking the service: that would end the request."""
    path = spool.spool_path(installation.settings.incoming, url.rpartition("/")[2])
    until(lambda: path.exists() and path.stat().st_size >= n_bytes)


def is_whole(client, capture: str) -> bool:
    """Tell whether the one photo of the capture is the file."""
    (photo,) = client.get(f"/v1/captures/{capture}").json()["photos"]
    return photo["sha256"] == SHA256 and photo["state"] == "accepted"


@pytest.mark.parametrize("way", ["close", "reset"])
def test_after_a_cut_head_tells_every_byte_that_came(installation, client, capture, way):
    url = begun(client, capture, DATA)
    sending = HalfSent(client, url, 0, len(DATA))
    sending.send(DATA[:100_000])
    written(installation, url, 100_000)
    sending.cut(way)
    assert until(lambda: client.get(url).json()["offset"]) == 100_000
    assert offset(client, url) == 100_000
    assert patch(client, url, 100_000, DATA[100_000:]).headers["upload-state"] == "done"
    assert is_whole(client, capture)


def test_a_client_that_falls_silent_is_not_waited_for_and_keeps_what_it_sent(stack, tmp_path):
    with installed(stack, tmp_path / "data", upload_idle_s=1.0) as made, made.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        url = begun(client, capture, DATA)
        sending = HalfSent(client, url, 0, len(DATA))
        sending.send(DATA[:100_000])
        assert sending.status() == 408
        assert offset(client, url) == 100_000
        assert patch(client, url, 100_000, DATA[100_000:]).headers["upload-state"] == "done"
        assert is_whole(client, capture)


def test_a_head_takes_the_upload_from_a_request_that_hangs(installation, client, capture):
    url = begun(client, capture, DATA)
    hanging = HalfSent(client, url, 0, len(DATA))
    hanging.send(DATA[:50_000])
    written(installation, url, 50_000)
    assert offset(client, url) == 50_000
    assert hanging.status() == 423
    assert patch(client, url, 50_000, DATA[50_000:]).status_code == 204
    assert is_whole(client, capture)


def test_of_two_patches_at_once_the_newer_goes_on_where_the_older_stopped(installation, client, capture):
    url = begun(client, capture, DATA)
    older = HalfSent(client, url, 0, len(DATA))
    older.send(DATA[:50_000])
    written(installation, url, 50_000)
    with installation.api() as other:  # another process sees the same table, and the same lock
        assert patch(other, url, 0, DATA).status_code == 409
        assert older.status() == 423
        newer = HalfSent(other, url, 50_000, len(DATA) - 50_000)
        newer.send(DATA[50_000:60_000])
        written(installation, url, 60_000)
        assert patch(client, url, 60_000, DATA[60_000:]).status_code == 204
        assert newer.status() == 423
    assert is_whole(client, capture)


def test_kill_9_in_the_middle_of_a_patch_loses_nothing_that_was_written(installation):
    port = start_api(installation)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        capture = client.post("/v1/captures").json()["id"]
        plain, proven = begun(client, capture, DATA), begun(client, capture, DATA, "b.jpg")
        assert patch(client, proven, 0, DATA[:1000]).status_code == 204
        checksum = {"Upload-Checksum": f"sha1 {base64.b64encode(hashlib.sha1(DATA[1000:]).digest()).decode()}"}
        sent = [HalfSent(client, plain, 0, len(DATA)), HalfSent(client, proven, 1000, len(DATA) - 1000, **checksum)]
        for sending, start in zip(sent, (0, 1000), strict=True):
            sending.send(DATA[start : start + 200_000])
        for url in (plain, proven):
            written(installation, url, 200_000)
        installation.kill("api")
        assert [sending.status() for sending in sent] == [0, 0]
    with httpx.Client(base_url=f"http://127.0.0.1:{start_api(installation)}", trust_env=False) as client:
        reached = offset(client, plain)
        assert reached == spool.spool_path(installation.settings.incoming, plain.rpartition("/")[2]).stat().st_size >= 200_000
        assert offset(client, proven) == 1000  # whose checksum was never proven
        assert patch(client, plain, reached, DATA[reached:]).headers["upload-state"] == "done"
        assert patch(client, proven, 1000, DATA[1000:], **checksum).headers["upload-state"] == "done"
        assert is_whole(client, capture)
    assert list(installation.settings.incoming.iterdir()) == []


def test_a_file_that_lost_bytes_is_never_said_to_have_them(installation, client, capture):
    url = begun(client, capture, DATA)
    patch(client, url, 0, DATA[:1000])
    os.truncate(spool.spool_path(installation.settings.incoming, url.rpartition("/")[2]), 400)
    assert offset(client, url) == 400
    assert patch(client, url, 400, DATA[400:]).headers["upload-state"] == "done"
    assert is_whole(client, capture)


def test_a_storage_that_fails_at_the_last_byte_costs_nothing_sent(client, capture, monkeypatch):
    url = begun(client, capture, DATA)
    with monkeypatch.context() as patched:
        patched.setattr(Storage, "put", storage_is_away)
        assert patch(client, url, 0, DATA).status_code == 503
        assert client.head(url, headers=VERSION).status_code == 503
        assert client.get(url).json()["state"] == "open"
    assert offset(client, url) == len(DATA)
    assert client.get(url).json()["state"] == "done"
    assert is_whole(client, capture)


def storage_is_away(*_arguments, **_more) -> None:
    raise StorageAway("capacity.storage", "Storage away", "it does not answer")


def mounted(folder, size: str) -> None:
    """Put a small file system on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here (root may): {found.stderr.strip()}")


def test_a_full_disk_is_507_and_keeps_what_arrived(stack, tmp_path):
    incoming = tmp_path / "data" / "incoming"
    mounted(incoming, "2m")
    try:
        with installed(stack, tmp_path / "data") as made, made.api() as client:
            capture = client.post("/v1/captures").json()["id"]
            url = begun(client, capture, DATA)
            (incoming / "other").write_bytes(bytes((2 << 20) - 300_000))
            assert patch(client, url, 0, DATA).status_code == 507
            reached = offset(client, url)
            assert 0 < reached <= 300_000
            assert client.get("/healthz").status_code == 200
            refused = client.post(f"/v1/captures/{capture}/photos", files={"files": ("b.jpg", DATA)})
            assert (refused.status_code, refused.json()["code"]) == (507, "capacity.disk")
            (incoming / "other").unlink()
            assert patch(client, url, reached, DATA[reached:]).headers["upload-state"] == "done"
            assert is_whole(client, capture)
            assert list(incoming.iterdir()) == []
    finally:
        subprocess.run(["umount", str(incoming)], check=True)


def test_a_spool_on_a_full_disk_holds_what_fitted(tmp_path):
    mounted(tmp_path / "small", "64k")
    try:
        held = spool.try_open(tmp_path / "small" / "a.upload")
        assert held is not None
        with pytest.raises(OSError, match="No space"):
            held.append(DATA[:100_000])
        assert 0 < held.size_bytes <= 65_536
        assert held.path.read_bytes() == DATA[: held.size_bytes]
        held.close()
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_late_uploads_expire_and_their_bytes_go_but_not_under_a_writer(stack, tmp_path):
    with installed(stack, tmp_path / "data", upload_ttl_s=1.0) as made, made.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        late, busy, done = (begun(client, capture, DATA, f"{n}.jpg") for n in range(3))
        patch(client, late, 0, DATA[:1000])
        patch(client, done, 0, DATA)
        writing = HalfSent(client, busy, 0, len(DATA))
        writing.send(DATA[:1000])
        written(made, busy, 1000)
        time.sleep(1.2)
        db, storage = open_database(made.settings), open_storage(made.settings)
        leftovers.sweep(made.settings, db, storage)
        assert client.head(late, headers=VERSION).status_code == 410
        assert client.get(late).json()["code"] == "gone.upload"
        assert [path.name for path in made.settings.incoming.iterdir()] == [f"{busy.rpartition('/')[2]}.upload"]
        writing.send(DATA[1000:])
        assert writing.status() == 204
        assert client.get(done).json()["state"] == client.get(busy).json()["state"] == "done"
        db.close()


def test_bytes_without_a_row_are_swept_after_a_day_and_never_others(installation, client, capture):
    url = begun(client, capture, DATA)
    patch(client, url, 0, DATA)
    storage, db = open_storage(installation.settings), open_database(installation.settings)
    kept = installation.stored()
    orphans = [f"captures/{capture}/photos/orphan", "captures/unknown/photos/orphan", f"captures/{capture}/parts/unknown/1"]
    source = installation.settings.data_dir / "x"
    for key in orphans:
        source.write_bytes(b"x")
        storage.put(key, source)
    assert leftovers.clear_orphans(db, storage) == 0
    assert leftovers.clear_orphans(db, storage, age_s=-60) == 3
    assert installation.stored() == kept
    db.close()


def test_a_large_file_over_a_breaking_link_arrives_whole(stack, tmp_path):
    with installed(stack, tmp_path / "data", max_file_bytes=1 << 30) as made:
        figures = run(Figures(megabytes=20, cuts=5, seed=3, piece_bytes=4_000_000), made, tmp_path)
    assert figures.cuts == 5
    assert figures.is_good, figures
