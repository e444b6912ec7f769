"""Keys of kept results, and which entries may go."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from api.db import now
from api.models import Capture, Job, Photo, StageCache
from api.services import cache, captures
from api.services.cache import Packed
from engine.options import STAGES, preset
from engine.stages import stage_key
from engine.workspace import Stamp, Workspace, hash_file, write_json

GIVEN = ("b.jpg", "a.jpg", "ü ß.jpg", "masks/a.jpg.png", "masks.png", "transforms.json", "sparse/cameras.bin")


def test_the_keys_are_those_that_the_engine_stamps_its_results_with(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / "work")
    for name in GIVEN:
        path = workspace.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"bytes of {name}")
    photos = [Photo(name=name, sha256=hash_file(workspace.photos / name)) for name in GIVEN]
    for chosen in (preset("draft"), preset("high")):
        keys = cache.keys(photos, chosen)
        for stage in STAGES:
            key = stage_key(workspace, stage, chosen)
            assert keys[stage] == key, stage
            write_json(workspace.stamp(stage), Stamp(key, {}, {}, 0.1).__dict__)


@pytest.fixture
def entry(db):
    """Make entries: (key, bytes, days since it was used)."""
    with db.writing() as session:
        capture = captures.create(session, "x")

    def make(key: str, size_bytes: int = 10, days: float = 0.0, job: Job | None = None) -> None:
        with db.writing() as session:
            asking = job or Job(capture_id=capture.id)
            assert cache.record(session, asking, "ingest", key, Packed(cache.new_place(key), "0" * 64, size_bytes)) is None
            session.execute(update(StageCache).where(StageCache.key == key).values(used_at=now(session) - timedelta(days=days)))

    make.capture_id = capture.id
    return make


def unwanted(db, installation, **changes) -> list[str]:
    with db.reading() as session:
        return sorted(each.key for each in cache.unwanted(session, installation.settings.model_copy(update=changes)))


def test_entries_go_when_unused_for_long_or_over_the_size_longest_unused_first(db, installation, entry):
    entry("fresh", 10, 0)
    entry("week", 20, 7)
    entry("month", 30, 40)
    assert unwanted(db, installation) == ["month"]
    assert unwanted(db, installation, cache_bytes=30) == ["month"]
    assert unwanted(db, installation, cache_bytes=29) == ["month", "week"]
    assert unwanted(db, installation, cache_days=90, cache_bytes=35) == ["month"]
    assert unwanted(db, installation, cache_bytes=0) == ["fresh", "month", "week"]


def test_entries_of_a_deleted_capture_go(db, installation, entry):
    entry("its")
    with db.writing() as session:
        session.execute(update(Capture).where(Capture.id == entry.capture_id).values(deleted_at=now(session)))
    assert unwanted(db, installation) == ["its"]


def test_a_forced_stage_takes_only_what_was_made_since_it_was_asked_for(db, entry):
    entry("k")
    with db.reading() as session:
        made_at = cache.find(session, Job(from_stage=None), "poses", "k").created_at
        for from_stage, delay_s, is_found in (("train", 5, True), ("poses", 5, False), ("ingest", 5, False), ("poses", -5, True)):
            job = Job(from_stage=from_stage, created_at=made_at + timedelta(seconds=delay_s))
            assert (cache.find(session, job, "poses", "k") is not None) == is_found, (from_stage, delay_s)


def test_a_replaced_entry_gives_back_its_place_and_a_stale_one_cannot_be_forgotten(db, entry):
    entry("k")
    with db.writing() as session:
        old = cache.find(session, Job(from_stage=None), "ingest", "k")
        session.expunge(old)
        replaced = cache.record(session, Job(capture_id=entry.capture_id), "ingest", "k", Packed(cache.new_place("k"), "1" * 64, 5))
        assert replaced == old.storage_key
        assert not cache.forget(session, old)
        assert cache.forget(session, cache.find(session, Job(from_stage=None), "ingest", "k"))
