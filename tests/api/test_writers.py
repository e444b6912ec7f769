"""Writers of one process at a SQLite file: who comes first is first, and nobody waits longer than said."""

import threading
import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api import writers
from api.db import Database, make_engine
from api.queue import Doorbell
from api.settings import Settings
from api.writers import Turns
from tests.services import until


@pytest.fixture
def opened(tmp_path):
    made = []

    def another() -> Database:
        settings = Settings(data_dir=tmp_path)
        made.append(Database(make_engine(settings), Doorbell(settings)))
        return made[-1]

    yield another
    for each in made:
        each.close()


def write(db: Database, statement: str = "SELECT 1") -> None:
    with db.writing() as session:
        session.execute(text(statement))


def test_turns_are_taken_in_the_order_of_coming_and_who_gives_up_loses_only_his_own():
    turns, order = Turns(), []

    def come(name: int, timeout_s: float) -> None:
        if turns.take(timeout_s):
            order.append(name)
            turns.give()

    assert turns.take(0)
    threads = [threading.Thread(target=come, args=(n, 0.2 if n == 2 else 20)) for n in range(6)]
    for n, thread in enumerate(threads):
        thread.start()
        until(lambda n=n: turns.n_waiting == n + 1, 5)
    until(lambda: turns.n_waiting == 5, 5)
    turns.give()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 3, 4, 5]
    assert turns.take(0)
    assert not turns.take(0)


def test_writers_of_one_process_and_of_another_never_lose_a_count(opened):
    one, other = opened(), opened()
    with one.writing() as session:
        session.execute(text("CREATE TABLE count (n INTEGER)"))
        session.execute(text("INSERT INTO count VALUES (0)"))

    def add(db: Database) -> None:
        for _ in range(10):
            with db.writing() as session:
                n = session.execute(text("SELECT n FROM count")).scalar_one()
                session.execute(text("UPDATE count SET n = :n"), {"n": n + 1})

    threads = [threading.Thread(target=add, args=(one if n % 4 else other,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with one.reading() as session:
        assert session.execute(text("SELECT n FROM count")).scalar_one() == 120


@pytest.mark.parametrize("held_by", ["a thread of this process", "another process"])
def test_who_waits_too_long_is_told_that_the_database_is_locked_after_the_time_said_and_not_twice_it(opened, monkeypatch, held_by):
    monkeypatch.setattr(writers, "BUSY_TIMEOUT_MS", 1000)
    ours = opened()
    holder = ours if held_by == "a thread of this process" else opened()
    waited, errors = [], []

    def try_to_write() -> None:
        began = time.monotonic()
        with pytest.raises(OperationalError, match="database is locked") as refused:
            write(ours)
        errors.append(refused)
        waited.append(time.monotonic() - began)

    with holder.writing() as session:
        session.execute(text("SELECT 1"))
        threads = [threading.Thread(target=try_to_write) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
    assert len(errors) == 4
    assert min(waited) > 0.8
    assert max(waited) < 1.8
    write(ours)


def test_a_transaction_that_breaks_gives_its_turn_back(opened, monkeypatch):
    monkeypatch.setattr(writers, "BUSY_TIMEOUT_MS", 2000)
    db = opened()

    def break_off() -> None:
        with db.writing() as session:
            session.execute(text("SELECT 1"))
            raise KeyError

    for broken in (break_off, lambda: write(db, "no such statement")):
        with pytest.raises((KeyError, OperationalError)):
            broken()
    with db.writing() as session:
        session.execute(text("SELECT 1"))
        session.connection().invalidate()
        session.rollback()
    write(db)


def test_readers_do_not_wait_for_writers(opened):
    db = opened()
    with db.writing() as session:
        session.execute(text("SELECT 1"))
        with db.reading() as other:
            assert other.execute(text("SELECT 1")).scalar_one() == 1


def test_a_connection_that_writes_twice_does_not_wait_for_itself(opened):
    engine, began = opened().engine, time.monotonic()
    with engine.connect() as connection:
        for _ in range(2):
            with connection.begin():
                connection.execute(text("CREATE TABLE IF NOT EXISTS twice (n INTEGER)"))
    assert time.monotonic() - began < writers.BUSY_TIMEOUT_MS / 1000
