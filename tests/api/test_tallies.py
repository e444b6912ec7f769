"""Counts that all processes share."""

import threading

from sqlalchemy.exc import SQLAlchemyError

from api.services import tallies


def test_counts_add_up_over_transactions_and_only_those_that_were_committed(db):
    for _ in range(3):
        with db.writing() as session:
            tallies.add(session, "a_total", 2.0, kind="x")
            tallies.add(session, "a_total", 0.5, kind="x")
            tallies.add(session, "a_total", kind="y")
    try:
        with db.writing() as session:
            tallies.add(session, "a_total", 100.0, kind="x")
            raise KeyError
    except KeyError:
        pass
    with db.reading() as session:
        assert tallies.read(session) == {"a_total": {'kind="x"': 7.5, 'kind="y"': 3.0}}


def test_a_duration_falls_into_one_class_and_into_sum_and_count(db):
    with db.writing() as session:
        for seconds in (0.5, 1.0, 1.1, 10**6):
            tallies.observe(session, "stage_seconds", seconds, stage="train")
    with db.reading() as session:
        found = tallies.read(session)
    assert found["stage_seconds_bucket"] == {'le="1",stage="train"': 2, 'le="5",stage="train"': 1, 'le="inf",stage="train"': 1}
    assert found["stage_seconds_count"] == {'stage="train"': 4}
    assert found["stage_seconds_sum"] == {'stage="train"': 10**6 + 2.6}


def test_writers_that_add_to_the_same_counts_in_other_orders_do_not_lock_each_other_out(db):
    failures = []

    def write(names: list[str]) -> None:
        try:
            for _ in range(20):
                with db.writing() as session:
                    for name in names:
                        tallies.add(session, name)
                        session.flush()
        except SQLAlchemyError as error:
            failures.append(error)

    names = ["a_total", "b_total", "c_total"]
    threads = [threading.Thread(target=write, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with db.reading() as session:
        assert {name: counts[""] for name, counts in tallies.read(session).items()} == dict.fromkeys(names, 40.0)
