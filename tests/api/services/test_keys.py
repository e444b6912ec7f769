"""Keys as rows: what is compared, and what never reaches the database."""

import base64

import pytest
from sqlalchemy import event

from api.db import open_database
from api.errors import NotFound, Unauthorized
from api.services import keys
from api.services.keys import NewKey, Principal, Quotas
from engine.errors import InputError
from tests.services import install


@pytest.fixture
def session(db):
    with db.writing() as found:
        yield found


def test_a_key_is_never_looked_up_by_what_is_secret(db):
    """The database sees the public prefix only; the hash is compared here, in constant time, so no index tells how near a guess was."""
    with db.writing() as session:
        _, key = keys.create(session, NewKey("me"))
    seen: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *said: seen.append(f"{said[2]} {said[3]}"))
    with db.reading() as session:
        assert keys.authenticate(session, key).name == "me"
    asked = "\n".join(seen)
    assert key[3:11] in asked
    assert key[12:] not in asked
    assert keys.digest(key) not in asked


def test_keys_that_share_a_prefix_are_told_apart(session):
    one, key = keys.create(session, NewKey("one"))
    two, _ = keys.create(session, NewKey("two"))
    two.prefix = one.prefix
    session.flush()
    assert keys.authenticate(session, key).key_id == one.id
    assert keys.matching([two, one], keys.digest(key)) is one
    assert keys.matching([two], keys.digest(key)) is None
    assert keys.matching([], keys.digest(key)) is None


def test_a_key_carries_32_random_bytes(session):
    made = [keys.create(session, NewKey("me"))[1] for _ in range(50)]
    assert all(keys.KEY.fullmatch(key) for key in made)
    assert len({key[12:] for key in made}) == 50
    assert all(len(base64.urlsafe_b64decode(key[12:] + "=")) == 32 for key in made)


def test_admin_holds_every_scope_and_others_only_their_own():
    assert all(Principal(None, frozenset({"admin"})).may(scope) for scope in keys.SCOPES)
    reader = Principal(None, frozenset({"jobs:read"}))
    assert [scope for scope in keys.SCOPES if reader.may(scope)] == ["jobs:read"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": ""},
        {"name": " "},
        {"name": "x" * 201},
        {"name": "a\x00"},
        {"name": "x", "scopes": ()},
        {"name": "x", "scopes": ("jobs",)},
        {"name": "x", "lasts_s": 0.0},
        {"name": "x", "lasts_s": float("nan")},
        {"name": "x", "lasts_s": float("inf")},
    ],
)
def test_a_key_that_cannot_be_is_not_made(wanted):
    with pytest.raises(InputError):
        NewKey(**wanted)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", 1 << 62])
def test_a_quota_is_a_whole_number(value):
    with pytest.raises(InputError, match="jobs_per_day"):
        Quotas(jobs_per_day=value)


def test_a_key_is_found_by_id_and_by_prefix_as_people_copy_it(session):
    row, _ = keys.create(session, NewKey("me"))
    for word in (row.id, row.prefix, f"sk_{row.prefix}", f"sk_{row.prefix}…"):
        assert keys.named(session, word) is row
    with pytest.raises(NotFound):
        keys.named(session, "sk_zzzzzzzz")


def test_revoking_twice_keeps_the_first_moment(session):
    row, key = keys.create(session, NewKey("me"))
    first = keys.revoke(session, row.id).revoked_at
    assert keys.revoke(session, row.id).revoked_at == first
    assert not keys.any_holds(session)
    with pytest.raises(Unauthorized):
        keys.authenticate(session, key)


def test_keys_hold_on_another_process_of_the_same_database(stack, tmp_path):
    installation = install(stack, tmp_path / "data")
    here, there = open_database(installation.settings), open_database(installation.settings)
    with here.writing() as session:
        row, key = keys.create(session, NewKey("me"))
    with there.reading() as session:
        assert keys.authenticate(session, key).key_id == row.id
    with there.writing() as session:
        keys.revoke(session, row.id)
    with here.reading() as session, pytest.raises(Unauthorized):
        keys.authenticate(session, key)
    here.close()
    there.close()
    stack.give_back(installation.settings.database_url)
