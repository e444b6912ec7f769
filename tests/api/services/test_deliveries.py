"""The outbox: written with what it tells of or not at all, taken by one at a time, kept for a while."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from api.db import now
from api.models import WebhookDelivery, WebhookEndpoint
from api.services import deliveries, jobs, webhooks
from api.services.deliveries import Outcome
from api.settings import Settings
from tests.photos import upload


class BrokenOffError(Exception):
    """What breaks off a transaction in these tests."""


@pytest.fixture
def endpoint(db, installation) -> str:
    with db.writing() as session:
        return webhooks.create(session, installation.settings, webhooks.NewEndpoint("http://receiver.example/")).id


def states(db) -> list[str]:
    with db.reading() as session:
        return list(session.scalars(select(WebhookDelivery.state).order_by(WebhookDelivery.id)))


def written(db, endpoint: str) -> str:
    with db.writing() as session:
        return deliveries.test(session, endpoint).id


def cancel_and_break_off(db, job_id: str) -> None:
    with db.writing() as session:
        assert jobs.move(session, job_id, "cancelled", said={})
        assert session.scalars(select(WebhookDelivery.state)).all() == ["pending"]
        raise BrokenOffError


@pytest.mark.usefixtures("endpoint")
def test_a_message_is_written_with_the_state_that_it_tells_of_or_not_at_all(client, db, capture):
    upload(client, capture, 3)
    job_id = client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]
    with pytest.raises(BrokenOffError):
        cancel_and_break_off(db, job_id)
    assert states(db) == []
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert states(db) == ["pending"]
    with db.reading() as session:
        payload = session.scalars(select(WebhookDelivery.payload)).one()
    assert (payload["type"], payload["data"]["job_id"], payload["data"]["state"]) == ("job.cancelled", job_id, "cancelled")


def test_a_message_belongs_to_one_sender_until_its_lease_ends_and_then_its_word_no_longer_counts(db, installation, endpoint):
    settings, message = installation.settings, written(db, endpoint)
    with db.writing() as session:
        assert deliveries.due(session, set(), 10) == [message]
        assert deliveries.due(session, {endpoint}, 10) == []
        (first,) = deliveries.take(session, settings, [message])
        assert deliveries.due(session, set(), 10) == []
        assert deliveries.take(session, settings, [message]) == []
    with db.writing() as session:
        session.execute(update(WebhookDelivery).values(next_at=now(session) - timedelta(seconds=1)))
        (second,) = deliveries.take(session, settings, [message])
        assert (first.delivery_id, first.attempt, second.delivery_id, second.attempt) == (message, 1, message, 2)
    with db.writing() as session:
        assert not deliveries.record(session, settings, first, Outcome("status", 0.1, 500, "answered 500"))
        assert deliveries.record(session, settings, second, Outcome("delivered", 0.1, 200))
        assert not deliveries.record(session, settings, second, Outcome("delivered", 0.1, 200))
    assert states(db) == ["delivered"]


def test_old_messages_are_forgotten_but_not_those_still_to_be_sent(db, installation, endpoint):
    kept = installation.settings.webhook_kept_s
    old_over, old_waiting, young = (written(db, endpoint) for _ in range(3))
    with db.writing() as session:
        long_ago = now(session) - timedelta(seconds=kept + 60)
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id.in_((old_over, old_waiting))).values(created_at=long_ago))
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id.in_((old_over, young))).values(state="failed"))
        deliveries.forget_old(session, installation.settings)
        assert set(session.scalars(select(WebhookDelivery.id))) == {old_waiting, young}
        webhooks.delete(session, endpoint)
        session.execute(update(WebhookEndpoint).values(deleted_at=long_ago))
        deliveries.forget_old(session, installation.settings)
        assert set(session.scalars(select(WebhookDelivery.id))) == {young}
        assert session.get(WebhookEndpoint, endpoint) is not None  # it still has a message to be looked at


def test_a_receiver_may_be_away_for_three_days_and_messages_do_not_come_back_in_step():
    settings = Settings()
    assert 3 * 86_400 <= sum(settings.webhook_waits_s) <= 3.5 * 86_400
    for attempt, wait in enumerate(settings.webhook_waits_s, 1):
        drawn = {deliveries.wait_s(settings, attempt) for _ in range(50)}
        assert len(drawn) > 40
        assert all(0.9 * wait <= each <= 1.1 * wait for each in drawn)
