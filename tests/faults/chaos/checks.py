"""What must be true once the dust has settled: promises kept, one end each, whole results, events in order. Reads tables and bytes."""

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx
import obstore
from sqlalchemy import select

from api.db import Database
from api.models import Asset, Capture, Idempotency, Job, JobEvent, Photo
from api.services.jobs import TERMINAL, TRANSITIONS
from api.storage import Storage
from tests.faults.chaos.ledger import Ledger

KEYS = ("lost", "stuck", "doubled", "half_published", "out_of_order")
REQUIRED = {"scene.ply", "scene.sog", "report.json", "log.txt"}


@dataclass
class Findings:
    """Violations by key, each a sentence."""

    by_key: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in KEYS})

    def say(self, key: str, sentence: str) -> None:
        """Note a violation."""
        self.by_key[key].append(sentence)


@dataclass
class Scene:
    """All rows as they are at the end."""

    jobs: dict[str, Job]
    events: dict[str, list[JobEvent]]
    assets: dict[str, list[Asset]]
    captures: dict[str, Capture]
    photos: list[Photo]
    keys: dict[str, str]


def look(db: Database) -> Scene:
    """Read all rows."""
    events, assets = defaultdict(list), defaultdict(list)
    with db.reading() as session:
        for event in session.scalars(select(JobEvent).order_by(JobEvent.job_id, JobEvent.seq)):
            events[event.job_id].append(event)
        for asset in session.scalars(select(Asset)):
            assets[asset.job_id].append(asset)
        return Scene(
            {job.id: job for job in session.scalars(select(Job))},
            events,
            assets,
            {capture.id: capture for capture in session.scalars(select(Capture))},
            list(session.scalars(select(Photo))),
            {row.key: row.resource_id for row in session.scalars(select(Idempotency))},
        )


def check(db: Database, storage: Storage, ledger: Ledger, client: httpx.Client) -> tuple[Findings, Scene]:
    """Return every violation."""
    found, scene = Findings(), look(db)
    check_lost(found, scene, ledger, storage)
    check_doubled(found, scene, ledger)
    check_assets(found, scene, storage)
    for job in scene.jobs.values():
        if job.state not in TERMINAL:
            found.say("stuck", f"{job.id} is {job.state} in {job.stage}, fence {job.fence}, rung at {job.dispatched_at}")
        if job.swept_at is None:
            check_events(found, job, scene.events[job.id])
            check_replay(found, job, scene.events[job.id], client)
    return found, scene


def check_lost(found: Findings, scene: Scene, ledger: Ledger, storage: Storage) -> None:
    """What was accepted is there: every job has its row, every photo its row and its bytes."""
    for job_id, what in ledger.jobs.items():
        if job_id not in scene.jobs:
            found.say("lost", f"job {job_id} ({what}) was accepted and is not in the table")
    for job_id in scene.jobs.keys() & ledger.jobs.keys():
        job = scene.jobs[job_id]
        if job.state == "cancelled" and not ledger.cancelled & {job_id} and not ledger.deleted & {job_id}:
            found.say("lost", f"job {job_id} was cancelled and nobody asked for that")
        if job.deleted_at is not None and job_id not in ledger.deleted:
            found.say("lost", f"job {job_id} was deleted and nobody asked for that")
    rows = {photo.id: photo for photo in scene.photos}
    for capture_id, photos in ledger.photos.items():
        for photo_id, sha256 in photos.items():
            if photo_id not in rows or rows[photo_id].sha256 != sha256:
                found.say("lost", f"photo {photo_id} of capture {capture_id} was accepted and is not in the table")
    for photo in scene.photos:
        is_here = photo.state == "accepted" and scene.captures[photo.capture_id].deleted_at is None
        if is_here and digest(storage, photo.storage_key or "") != photo.sha256:
            found.say("lost", f"the bytes of photo {photo.id} of capture {photo.capture_id} are not what was accepted")


def check_doubled(found: Findings, scene: Scene, ledger: Ledger) -> None:
    """Every job ends once, publishes each stage once, and was made once for its key."""
    for key, made in ledger.keys.items():
        if len(made) > 1:
            found.say("doubled", f"the key {key} made {len(made)} jobs: {', '.join(sorted(made))}")
        if key in scene.keys and made and scene.keys[key] not in made:
            found.say("doubled", f"the key {key} names job {scene.keys[key]}, clients were told {', '.join(sorted(made))}")
    for job_id, events in scene.events.items():
        ends = [event.data["state"] for event in events if event.type == "state" and event.data["state"] in TERMINAL]
        if len(ends) > 1:
            found.say("doubled", f"{job_id} ended {len(ends)} times: {', '.join(ends)}")
        done = Counter(event.data["stage"] for event in events if event.type == "stage" and event.data["state"] in ("done", "skipped"))
        for stage, times in done.items():
            if times > 1:
                found.say("doubled", f"{job_id} finished {stage} {times} times")
    for job_id, assets in scene.assets.items():
        places = {asset.storage_key.rpartition("/")[0] for asset in assets}
        if len(places) > 1:
            found.say("doubled", f"{job_id} shows results of several attempts: {', '.join(sorted(places))}")


def check_assets(found: Findings, scene: Scene, storage: Storage) -> None:
    """Results are shown all or none, their bytes are there and right, and nothing else is kept."""
    for job in scene.jobs.values():
        names = {asset.name for asset in scene.assets[job.id]}
        if job.state == "succeeded" and job.swept_at is None and not names >= REQUIRED:
            found.say("half_published", f"{job.id} succeeded and lacks {', '.join(sorted(REQUIRED - names))}")
        if job.state != "succeeded" and names:
            found.say("half_published", f"{job.id} is {job.state} and shows {', '.join(sorted(names))}")
    wanted = {}
    for asset in (asset for assets in scene.assets.values() for asset in assets):
        wanted[asset.storage_key] = asset
        if digest(storage, asset.storage_key) != asset.sha256:
            found.say("half_published", f"{asset.storage_key} is not there or not what its row says")
    for key in listed(storage, "jobs"):
        job = scene.jobs.get(key.split("/")[1])
        is_kept = key in wanted or (job is not None and job.swept_at is None and key == f"jobs/{job.id}/log.txt")
        if not is_kept and not (job is not None and job.swept_at is None and key.split("/")[2] not in ("assets", "log.txt")):
            found.say("half_published", f"{key} is kept and nobody can see it (job {job and job.state})")
    for key in listed(storage, "captures"):
        capture = scene.captures.get(key.split("/")[1])
        if capture is None or capture.swept_at is not None:
            found.say("half_published", f"{key} is kept and its capture is not there")


def check_events(found: Findings, job: Job, events: list[JobEvent]) -> None:
    """Events are numbered from 1 without gaps, their times do not go back, and the states in them follow the table of moves."""
    if [event.seq for event in events] != list(range(1, job.event_seq + 1)):
        found.say("out_of_order", f"{job.id} has events {[event.seq for event in events]}, counter {job.event_seq}")
    if any(later.at < earlier.at for earlier, later in itertools.pairwise(events)):
        found.say("out_of_order", f"{job.id}: the times of its events go back")
    states = [event.data["state"] for event in events if event.type == "state"]
    wrong = [pair for pair in itertools.pairwise(states) if pair[1] not in TRANSITIONS[pair[0]]]
    if not states or states[0] != "queued" or states[-1] != job.state or wrong:
        found.say("out_of_order", f"{job.id} is {job.state} and went {' '.join(states)}")


def check_replay(found: Findings, job: Job, events: list[JobEvent], client: httpx.Client) -> None:
    """The stream, read again from the start and from the middle, says what the list says."""
    if job.deleted_at is not None or job.state not in TERMINAL:
        return
    for since in {0, len(events) // 2}:
        with client.stream("GET", f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": str(since)}) as answer:
            told = [parsed(block) for block in answer.read().decode().split("\n\n") if "data:" in block]
        if [(seq, kind) for seq, kind, _data in told] != [(event.seq, event.type) for event in events[since:]]:
            found.say("out_of_order", f"{job.id}: the stream from {since} tells {[seq for seq, _k, _d in told]}")
        elif any(
            {**event.data, "seq": event.seq} != {k: v for k, v in data.items() if k != "at"}
            for event, (_s, _k, data) in zip(events[since:], told, strict=True)
        ):
            found.say("out_of_order", f"{job.id}: the stream from {since} tells other things than the table")


def parsed(block: str) -> tuple[int, str, dict]:
    """Return number, type and data of a message of a stream."""
    fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
    return int(fields["id"]), fields["event"], json.loads(fields["data"])


def digest(storage: Storage, key: str) -> str | None:
    """Return the SHA-256 of an object, None when there is none."""
    sha256 = hashlib.sha256()
    try:
        for chunk in storage.read(key):
            sha256.update(chunk)
    except FileNotFoundError:
        return None
    return sha256.hexdigest()


def listed(storage: Storage, prefix: str) -> list[str]:
    """Return every key below a prefix."""
    return [entry["path"] for page in obstore.list(storage.store, prefix=prefix) for entry in page]
