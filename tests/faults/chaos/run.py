"""One run: build, upload, break, let end, check."""

import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from api.db import Database, open_database
from api.models import Asset, Capture, Job
from api.services.jobs import TERMINAL
from api.storage import open_storage
from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.faults.chaos.checks import KEYS, Findings, check, listed
from tests.faults.chaos.clients import Crowd, draw, small_photos
from tests.faults.chaos.havoc import Havoc
from tests.faults.chaos.ledger import Ledger
from tests.faults.chaos.plant import Plant, built, measured_slowness

SHOWN = 40
REAL_PLAN = Walk(n_photos=12, width=480, height=360, turn_every=9, step_deg=7.0)
REAL_OPTIONS = {"train": {"steps": 150, "max_gaussians": 10_000, "max_side": 320}}


@dataclass(frozen=True)
class Plan:
    """How much of what. ``minutes``: faults end after so long; None: when almost everything has ended."""

    n_jobs: int
    seed: int
    stack: str = "embedded"
    minutes: float | None = None
    gap_s: float = 1.5
    every_s: float = 0.6
    is_real: bool = False


def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the counts of violations under ``KEYS``, the faults done, and enough to look further."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    photos = real_photos(folder) if plan.is_real else small_photos(plan.seed)
    slowness = measured_slowness()
    minutes = plan.minutes * slowness if plan.minutes else None
    plan = replace(plan, gap_s=plan.gap_s * slowness, every_s=plan.every_s * slowness, minutes=minutes)
    with built(plan.stack, folder, plan.seed, slowness, is_real=plan.is_real) as plant:
        plant.start_all()
        db, ledger = open_database(plant.installation.settings), Ledger()
        crowd = Crowd(plant.url, ledger, plan.seed, photos, REAL_OPTIONS if plan.is_real else {})
        havoc = Havoc(plant, db, plan.seed, plan.gap_s)
        try:
            crowd.make_captures(1 if plan.is_real else 6)
            broke_from = time.monotonic()
            rage(plan, crowd, havoc, db)
            faults_s = time.monotonic() - broke_from
            plant.start_all()
            drained_s = drain(plan, crowd, db)
            wait_for_sweep(plant, db)
            with httpx.Client(base_url=plant.url, timeout=60, trust_env=False) as client:
                found, scene = check(db, open_storage(plant.installation.settings), ledger, client)
        finally:
            crowd.stop()
            db.close()
    errors = [repr(error) for error in (*crowd.errors, *havoc.errors)]
    seconds = {"total": round(time.monotonic() - began, 1), "with_faults": round(faults_s, 1), "to_drain": round(drained_s, 1)}
    states = dict(Counter(job.state for job in scene.jobs.values()))
    return report(plan, found, ledger, havoc) | {
        "jobs": {"accepted": len(ledger.jobs), "in_table": len(scene.jobs), "deleted": len(ledger.deleted), **states},
        "attempts": attempts(list(scene.jobs.values())),
        "seconds": seconds,
        "slowness": slowness,
        "harness_errors": errors,
        "is_clean": not any(found.by_key.values()) and not errors and not ledger.broken,
    }


def rage(plan: Plan, crowd: Crowd, havoc: Havoc, db: Database) -> None:
    """Let clients and faults loose until nearly everything has ended, or time is up."""
    for order in draw(plan.seed, plan.n_jobs, plan.every_s, len(crowd.captures), "draft" if plan.is_real else None):
        crowd.place(order)
    limit_s = 60 * plan.minutes if plan.minutes else 120 + 6 * plan.every_s * plan.n_jobs + (300 * plan.n_jobs if plan.is_real else 0)
    began = time.monotonic()
    crowd.start()
    havoc.start()
    try:
        while time.monotonic() - began < limit_s and not havoc.errors:
            time.sleep(0.5)
            placed = time.monotonic() - began > plan.n_jobs * plan.every_s + 1
            if placed and n_active(db) <= max(1, plan.n_jobs // 50) and crowd.is_idle():
                return
    finally:
        havoc.stop()


def drain(plan: Plan, crowd: Crowd, db: Database) -> float:
    """Wait until nothing is waiting or running any more, or too long; return the seconds."""
    began = time.monotonic()
    limit_s = 120 + 10 * n_active(db) + (400 * plan.n_jobs if plan.is_real else 0)
    while time.monotonic() - began < limit_s and (n_active(db) or not crowd.is_idle()):
        time.sleep(0.3)
    return time.monotonic() - began


def n_active(db: Database) -> int:
    """Count the jobs that have not ended."""
    with db.reading() as session:
        return session.execute(select(func.count()).select_from(Job).where(Job.state.not_in(TERMINAL))).scalar_one()


def wait_for_sweep(plant: Plant, db: Database) -> None:
    """Wait until the garbage of this run has been collected, or for so long that it should have been."""
    deadline = time.monotonic() + 20 + 4 * plant.installation.settings.orphans_s
    storage = open_storage(plant.installation.settings)
    while time.monotonic() < deadline and not is_swept(db, listed(storage, "jobs")):
        time.sleep(0.5)


def is_swept(db: Database, keys: list[str]) -> bool:
    """Tell whether deleted things are gone and no result is kept that nobody sees."""
    with db.reading() as session:
        wanted = set(session.scalars(select(Asset.storage_key)))
        waiting = session.scalars(select(Job.id).where(Job.deleted_at.is_not(None), Job.swept_at.is_(None)).limit(1)).first()
        waiting = waiting or session.scalars(select(Capture.id).where(Capture.deleted_at.is_not(None), Capture.swept_at.is_(None))).first()
    return waiting is None and all(key in wanted for key in keys if "/assets/" in key)


def report(plan: Plan, found: Findings, ledger: Ledger, havoc: Havoc) -> dict[str, Any]:
    """Return the violations, counted and told."""
    return {
        **{key: len(found.by_key[key]) for key in KEYS},
        "plan": asdict(plan),
        "faults": dict(sorted(havoc.done.items())),
        "n_faults": sum(havoc.done.values()),
        "answers": dict(sorted(ledger.answers.items())),
        "server_errors": ledger.broken[:SHOWN],
        "violations": {key: told[:SHOWN] for key, told in found.by_key.items() if told},
    }


def attempts(jobs: list[Job]) -> dict[str, int]:
    """Return how often work was lost, broke, or changed hands."""
    codes = Counter((job.error or {}).get("code") for job in jobs if job.state == "failed")
    return {
        "lost_leases": sum(job.lost_leases for job in jobs),
        "errors": sum(job.error_attempts for job in jobs),
        "claims": sum(job.fence for job in jobs),
        **{f"failed {code}": times for code, times in sorted(codes.items(), key=str)},
    }


def real_photos(folder: Path) -> Any:
    """Return a maker that always gives the same small made capture."""
    print("making photos", file=sys.stderr, flush=True)
    make_capture(folder / "photos", REAL_PLAN)
    files = [(path.name, path.read_bytes()) for path in sorted((folder / "photos").glob("*.jpg"))]
    return lambda _number: files
