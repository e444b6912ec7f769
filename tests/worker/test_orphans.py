"""Results that no job shows are found and removed; those that are shown, or may yet be, stay."""

import pytest

from api.db import now, open_database
from api.models import Asset, Capture, Job
from api.storage import open_storage
from tests.services import installed
from worker.orphans import sweep_results

STATES = {"running": 3, "succeeded": 2, "queued": 2, "failed": 1}


@pytest.fixture
def ground(stack, tmp_path):
    with installed(stack, tmp_path / "data") as installation:
        db = open_database(installation.settings)
        yield db, open_storage(installation.settings), tmp_path
        db.close()


def make_job(session, capture_id: str, state: str, fence: int, **more) -> str:
    words = {"preset": "draft", "options": {}, "n_photos": 3, "photos_until": 3, "stage": "compress", "queue": "cpu"}
    job = Job(capture_id=capture_id, state=state, fence=fence, created_at=now(session), **words, **more)
    session.add(job)
    session.flush()
    return job.id


def test_results_of_attempts_that_nobody_can_show_any_more_are_removed_and_no_others(ground):
    db, storage, folder = ground
    (folder / "file").write_bytes(b"bytes")
    with db.writing() as session:
        capture = Capture(name="", created_at=now(session))
        session.add(capture)
        session.flush()
        ids = {state: make_job(session, capture.id, state, fence) for state, fence in STATES.items()}
        ids["swept"] = make_job(session, capture.id, "failed", 1, deleted_at=now(session), swept_at=now(session))
        shown = {"sha256": "", "size_bytes": 5, "media_type": "", "created_at": now(session)}
        session.add(Asset(job_id=ids["succeeded"], name="a.ply", storage_key=f"jobs/{ids['succeeded']}/assets/2/a.ply", **shown))
    kept = [f"jobs/{ids['running']}/assets/3/a.ply", f"jobs/{ids['succeeded']}/assets/2/a.ply", f"jobs/{ids['failed']}/log.txt"]
    lost = [f"jobs/{ids['running']}/assets/{fence}/a.ply" for fence in (1, 2, 30)]
    lost += [f"jobs/{ids['succeeded']}/assets/1/a.ply", f"jobs/{ids['failed']}/assets/1/a.ply", f"jobs/{ids['swept']}/log.txt"]
    lost += [f"jobs/{ids['queued']}/assets/1/a.ply", "jobs/unknown/log.txt"]
    for key in (*kept, *lost):
        storage.put(key, folder / "file")
    assert sweep_results(db, storage) == sorted({key.rpartition("/")[0] for key in lost})
    assert sorted(key for key, _at in storage.written("jobs")) == sorted(kept)
    assert sweep_results(db, storage) == []
