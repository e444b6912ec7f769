"""Every call between a finished stage and shown results fails once: results are shown all or none, and nothing is left over."""

import hashlib
import json
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from api.db import Database, now, open_database
from api.errors import StorageAway
from api.models import Asset, Capture, Job, JobEvent, Photo
from api.services import jobs, leases
from api.services.jobs import TERMINAL
from api.services.leases import Finished, Holder
from api.settings import Settings
from api.storage import Storage, open_storage
from engine.options import STAGES, preset
from engine.workspace import Stamp, hash_file, write_json
from tests.faults.naughty import NaughtyDatabase, NaughtyStorage, Trouble
from tests.services import installed
from worker import files, stage
from worker.orphans import sweep_results
from worker.runtime import Runtime, StopFlag
from worker.sweep import Ground, sweep

pytestmark = pytest.mark.timeout(600)
# The last stage, as short as it can be said: three files, a report, the last word.
ENGINE = """#!/bin/sh
root="$3"
mkdir -p "$root/assets"
for name in scene.ply scene.sog scene.spz; do echo "$name of $root" > "$root/assets/$name"; done
echo '{"registered": 3, "photos": 3, "gaussians": 5, "stages": {}}' > "$root/report.json"
echo '{"type": "stage_done", "stage": "compress", "seconds": 0.1, "skipped": false, "stats": {}}'
"""
RESULTS = {"scene.ply", "scene.sog", "scene.spz", "report.json", "log.txt"}
AT_MOST = 200


@dataclass(frozen=True)
class Bench:
    """A healthy installation on which jobs stand before their last stage."""

    settings: Settings
    db: Database
    storage: Storage
    folder: Path

    def runtime(self) -> Runtime:
        """Return what works."""
        return Runtime(self.settings, self.db, self.storage, StopFlag())

    def new_job(self) -> str:
        """Return a job whose first three stages are done, here."""
        with self.db.writing() as session:
            capture = Capture(name="", created_at=now(session))
            session.add(capture)
            session.flush()
            for seq in (1, 2, 3):
                (self.folder / "photo").write_bytes(f"photo {seq}".encode())
                words = {"name": f"{seq}.jpg", "state": "accepted", "size_bytes": 7, "storage_key": f"captures/{capture.id}/photos/{seq}"}
                self.storage.put(words["storage_key"], self.folder / "photo")
                session.add(
                    Photo(capture_id=capture.id, seq=seq, created_at=now(session), sha256=hash_file(self.folder / "photo"), **words)
                )
            job_id = jobs.create(session, self.settings, capture.id, preset("draft")).id
        with self.db.writing() as session:
            claim = leases.claim(session, self.settings, job_id, "cpu", Holder("elsewhere", 1, "then"))
            for _ in STAGES[:-1]:
                claim = leases.finish_stage(session, self.settings, claim, Finished(1.0, False, {}))
            leases.release(session, claim)
        with self.db.reading() as session:
            workspace, keys = files.prepare(self.runtime(), session.get_one(Job, job_id))
        for name in STAGES[:-1]:
            write_json(workspace.stamp(name), Stamp(keys[name], {}, {}, 1.0).__dict__)
        return job_id

    def recover(self, job_id: str) -> None:
        """Do what healthy dispatchers and workers do: take the job from its dead holder, run it, sweep."""
        for _ in range(4):
            with self.db.writing() as session:
                past = now(session) - timedelta(seconds=1)
                session.execute(update(Job).where(Job.id == job_id, Job.lease_until.is_not(None)).values(lease_until=past))
                session.execute(update(Job).where(Job.id == job_id).values(not_before=None))
            with self.db.writing() as session:
                leases.expire(session, self.settings)
            stage.run(self.runtime(), job_id, "cpu")
        sweep(Ground(self.settings, self.db, self.storage))
        sweep_results(self.db, self.storage)

    def check(self, job_id: str, happened: str) -> None:
        """All results, none else, one end."""
        with self.db.reading() as session:
            job = session.get_one(Job, job_id)
            rows = list(session.scalars(select(Asset).where(Asset.job_id == job_id)))
            events = list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)))
        assert job.state == "succeeded", f"{happened}: {job.state}, {job.error}"
        assert {row.name for row in rows} >= RESULTS, happened
        for row in rows:
            content = b"".join(self.storage.read(row.storage_key))
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (row.sha256, row.size_bytes), f"{happened}: {row.name}"
        stored = {key for key, _at in self.storage.written(f"jobs/{job_id}/assets")}
        assert stored == {row.storage_key for row in rows}, happened
        assert [event.seq for event in events] == list(range(1, job.event_seq + 1)), happened
        states = [event.data["state"] for event in events if event.type == "state"]
        assert [state for state in states if state in TERMINAL] == ["succeeded"], f"{happened}: {states}"
        done = [event.data["stage"] for event in events if event.type == "stage" and event.data["state"] in ("done", "skipped")]
        assert done == list(STAGES), f"{happened}: {done}"
        assert not files.folder_of(self.settings, job_id).exists(), happened


@pytest.fixture
def bench(stack, tmp_path):
    engine = tmp_path / "engine"
    engine.write_text(ENGINE)
    engine.chmod(engine.stat().st_mode | stat.S_IXUSR)
    # No heartbeat in between: calls are counted.
    clocks = {"heartbeat_s": 300.0, "lease_s": 900.0, "retry_backoff_s": 0.0}
    with installed(stack, tmp_path / "data", broker_url="", engine_command=(str(engine),), **clocks) as installation:
        db, storage = open_database(installation.settings), open_storage(installation.settings)
        yield Bench(installation.settings, db, storage, tmp_path)
        db.close()


def naughty(bench: Bench, kind: str, trouble: Trouble) -> Runtime:
    healthy = bench.runtime()
    if kind == "storage":
        return Runtime(healthy.settings, healthy.db, NaughtyStorage(bench.storage.store, bench.storage.root, trouble), healthy.stop)
    return Runtime(healthy.settings, NaughtyDatabase(bench.db.engine, bench.db.doorbell, trouble), healthy.storage, healthy.stop)


@pytest.mark.parametrize("kind", ["storage", "database"])
def test_whatever_call_fails_between_a_finished_stage_and_its_results_they_are_shown_whole_once(bench, stack, kind):
    seen = []
    # Every call on one stack; on the other every third, for the suite's sake.
    for n in range(1, AT_MOST, 1 if stack.name == "embedded" else 3):
        job_id, trouble = bench.new_job(), Trouble(n)
        runtime = naughty(bench, kind, trouble)
        with suppress(OSError, StorageAway, OperationalError):  # as the broker's process would write into its log
            stage.run(runtime, job_id, "cpu")
            sweep(Ground(runtime.settings, runtime.db, runtime.storage))
            sweep_results(runtime.db, runtime.storage)
        bench.recover(job_id)
        bench.check(job_id, f"{kind}, call {n}: {trouble.happened or 'nothing'}")
        seen.append(trouble.happened)
        if not trouble.happened:
            break
    assert seen[-1] == "", f"more than {AT_MOST} calls"
    wanted = {"storage": ("before put", "after put", "size", "written"), "database": ("begin", "commit", "committed", "read")}
    for word in wanted[kind]:
        assert any(word in each for each in seen), f"no {word} among {json.dumps(seen)}"
