"""Shares of a key: jobs a day, jobs under way, bytes kept."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import update

from api.db import now
from api.errors import TooLarge, TooManyRequests
from api.models import Asset, Job, Photo, Upload, new_id
from api.services import captures, keys, limits
from api.services.keys import NewKey, Quotas


def make_key(db, **quotas) -> str:
    with db.writing() as session:
        return keys.create(session, NewKey("me", quotas=Quotas(**quotas)))[0].id


def make_capture(session, key_id: str) -> str:
    return captures.create(session, "x", key_id=key_id).id


def make_job(session, key_id: str, state: str = "queued", age: timedelta = timedelta()) -> Job:
    job = Job(id=new_id(), capture_id=make_capture(session, key_id), preset="draft", options={}, n_photos=3, photos_until=3, state=state)
    job.stage, job.queue, job.key_id, job.created_at = "ingest", "cpu", key_id, now(session) - age
    session.add(job)
    session.flush()
    return job


def test_a_key_may_have_so_many_jobs_under_way(db):
    key_id, other = make_key(db, active_jobs=2), make_key(db, active_jobs=2)
    with db.writing() as session:
        make_job(session, key_id)
        limits.check_jobs(session, key_id)
        job = make_job(session, key_id, "running")
        with pytest.raises(TooManyRequests) as refused:
            limits.check_jobs(session, key_id)
        assert refused.value.code == "quota.active_jobs"
        assert refused.value.data["retry_after_s"] > 0
        limits.check_jobs(session, other)
        job.state = "succeeded"
        session.flush()
        limits.check_jobs(session, key_id)


def test_a_key_may_start_so_many_jobs_a_day_and_is_told_when_the_next(db):
    key_id = make_key(db, jobs_per_day=2)
    with db.writing() as session:
        make_job(session, key_id, "succeeded", timedelta(hours=25))
        make_job(session, key_id, "succeeded", timedelta(hours=20))
        limits.check_jobs(session, key_id)
        last = make_job(session, key_id, "failed", timedelta(hours=1))
        last.deleted_at = now(session)  # gives nothing back
        session.flush()
        with pytest.raises(TooManyRequests) as refused:
            limits.check_jobs(session, key_id)
        assert refused.value.code == "quota.jobs_per_day"
        assert refused.value.data["retry_after_s"] == pytest.approx(4 * 3600, abs=60)


def test_a_key_with_no_jobs_a_day_starts_none(db):
    key_id = make_key(db, jobs_per_day=0)
    with db.writing() as session, pytest.raises(TooManyRequests):
        limits.check_jobs(session, key_id)


def test_nobody_and_a_key_without_quotas_are_without_limit(db):
    key_id = make_key(db)
    with db.writing() as session:
        for _ in range(5):
            make_job(session, key_id)
        for asker in (None, key_id):
            limits.check_jobs(session, asker)
            limits.check_storage(session, asker, 1 << 60)


def test_photos_open_uploads_and_assets_count_until_they_are_gone(db):
    key_id = make_key(db, storage_bytes=1000)
    with db.writing() as session:
        job = make_job(session, key_id, "succeeded")
        moment, capture = now(session), job.capture_id
        kept = {"capture_id": capture, "created_at": moment}
        session.add(Photo(**kept, seq=1, name="a", state="accepted", size_bytes=100, sha256="a"))
        session.add(Photo(**kept, seq=2, name="b", state="companion", size_bytes=20, sha256="b"))
        session.add(Photo(**kept, seq=3, name="c", state="rejected", size_bytes=5000, sha256="c"))
        upload = {**kept, "given": "", "expires_at": moment}
        session.add(Upload(**upload, name="d", state="open", length=300, offset=10))
        session.add(Upload(**upload, name="e", state="done", length=5000, offset=5000))
        session.add(Asset(job_id=job.id, name="s.ply", storage_key="k", sha256="x", size_bytes=400, media_type="x", created_at=moment))
        session.flush()
        assert limits.used_bytes(session, key_id) == 820
        limits.check_storage(session, key_id, 180)
        with pytest.raises(TooLarge) as refused:
            limits.check_storage(session, key_id, 181)
        assert refused.value.code == "quota.storage_bytes"
        assert not refused.value.retryable
        job.deleted_at = moment
        session.flush()
        limits.check_storage(session, key_id, 580)


def test_two_requests_cannot_both_take_the_last_place(db):
    key_id = make_key(db, active_jobs=1)
    barrier, outcomes = threading.Barrier(2), []

    def take() -> None:
        barrier.wait()
        try:
            with db.writing() as session:
                limits.check_jobs(session, key_id)
                make_job(session, key_id)
            outcomes.append("taken")
        except TooManyRequests:
            outcomes.append("refused")

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "taken"]


def test_quotas_that_a_newer_version_wrote_are_no_obstacle(db):
    key_id = make_key(db, active_jobs=1)
    with db.writing() as session:
        session.execute(update(keys.ApiKey).where(keys.ApiKey.id == key_id).values(quotas={"active_jobs": 1, "cake": 3}))
    with db.writing() as session:
        limits.check_jobs(session, key_id)
