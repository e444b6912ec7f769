"""Webhooks over HTTP: endpoints, their secrets, what was sent to them. Messages follow Standard Webhooks 1.0."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from sqlalchemy.orm import Session

from api import schemas, views
from api.deps import UUID, App, Cursor, Limit, Reading, Who, Writing, needs
from api.errors import NotFound
from api.models import Job
from api.problems import RESPONSES
from api.services import deliveries, targets, webhooks
from api.settings import Settings

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"], responses=RESPONSES, dependencies=[needs("webhooks:write")])


def endpoint_id(given: Annotated[str, Path(alias="endpoint_id", description="id of a webhook endpoint")]) -> str:
    """Return the endpoint's id from the path; what cannot be one does not exist."""
    if not UUID.fullmatch(given):
        raise NotFound.named("webhook_endpoint", given)
    return given


def delivery_id(given: Annotated[str, Path(alias="delivery_id", description="id of a delivery: its webhook-id")]) -> str:
    """Return the delivery's id from the path; what cannot be one does not exist."""
    if not UUID.fullmatch(given):
        raise NotFound.named("delivery", given)
    return given


EndpointId = Annotated[str, Depends(endpoint_id)]
DeliveryId = Annotated[str, Depends(delivery_id)]


def checked_url(settings: Settings, url: str) -> str:
    """Return an address that webhooks may go to. Asks the name server: call it outside of any transaction."""
    target = targets.parse(url)
    targets.resolve(target, settings.webhook_allow)
    return target.url


def checked(settings: Settings, wanted: schemas.JobWebhook | None) -> webhooks.NewEndpoint | None:
    """Return the endpoint that a request asks for. Asks the name server: call it outside of any transaction."""
    if wanted is None:
        return None
    secret = webhooks.checked_secret(wanted.secret) if wanted.secret is not None else None
    return webhooks.NewEndpoint(checked_url(settings, wanted.url), tuple(wanted.types), secret)


def attach(session: Session, settings: Settings, job: Job, webhook: webhooks.NewEndpoint | None) -> None:
    """Have an endpoint hear of a job that is being made, from its beginning."""
    if webhook is not None:
        webhooks.create(session, settings, replace(webhook, job_id=job.id, key_id=job.key_id))


@router.post("", status_code=201, operation_id="create_webhook_endpoint")
def create_endpoint(app: App, who: Who, body: schemas.NewEndpoint) -> schemas.EndpointWithSecret:
    """Make an endpoint that hears of all jobs. The answer holds its secret, which is not shown again."""
    wanted = checked(app.settings, body)
    assert wanted is not None
    with app.db.writing() as session:
        return views.endpoint_with_secret(webhooks.create(session, app.settings, replace(wanted, key_id=who.key_id)))


@router.get("", operation_id="list_webhook_endpoints")
def list_endpoints(session: Reading, limit: Limit = 50, cursor: Cursor = None, job_id: schemas.Id | None = None) -> schemas.EndpointPage:
    """List endpoints, newest first; with ``job_id`` those of one job."""
    rows = webhooks.page(session, limit + 1, cursor, job_id)
    following = rows[limit - 1].id if len(rows) > limit else None
    return schemas.EndpointPage(items=[views.endpoint(row) for row in rows[:limit]], next_cursor=following)


@router.get("/{endpoint_id}", operation_id="get_webhook_endpoint")
def get_endpoint(session: Reading, endpoint: EndpointId) -> schemas.EndpointOut:
    """Return an endpoint, and why it is disabled if it is."""
    return views.endpoint(webhooks.get(session, endpoint))


@router.patch("/{endpoint_id}", operation_id="change_webhook_endpoint")
def change_endpoint(app: App, endpoint: EndpointId, body: schemas.EndpointChanges) -> schemas.EndpointOut:
    """Change an endpoint's address or types, turn it off, or enable it again after it was disabled."""
    url = checked_url(app.settings, body.url) if body.url is not None else None
    changes = webhooks.Changes(url, None if body.types is None else tuple(body.types), body.enabled)
    with app.db.writing() as session:
        return views.endpoint(webhooks.change(session, endpoint, changes))


@router.delete("/{endpoint_id}", status_code=204, operation_id="delete_webhook_endpoint")
def delete_endpoint(session: Writing, endpoint: EndpointId) -> None:
    """Delete an endpoint; what waits to be sent there is not sent."""
    webhooks.delete(session, endpoint)


@router.post("/{endpoint_id}/rotate-secret", operation_id="rotate_webhook_secret")
def rotate_secret(session: Writing, endpoint: EndpointId) -> schemas.EndpointWithSecret:
    """Make a new secret, shown once. For a day messages carry two signatures, of the new secret and of the old one."""
    return views.endpoint_with_secret(webhooks.rotate(session, endpoint))


@router.post("/{endpoint_id}/test", status_code=202, operation_id="test_webhook_endpoint")
def test_endpoint(session: Writing, endpoint: EndpointId) -> schemas.DeliveryOut:
    """Send a message of type webhook.test; the delivery says whether it arrived."""
    return views.delivery(deliveries.test(session, endpoint))


@router.get("/{endpoint_id}/deliveries", operation_id="list_webhook_deliveries")
def list_deliveries(
    session: Reading, endpoint: EndpointId, limit: Limit = 50, cursor: Cursor = None, state: schemas.DeliveryState | None = None
) -> schemas.DeliveryPage:
    """List what was or is to be sent to an endpoint, newest first."""
    rows = deliveries.page(session, endpoint, limit + 1, cursor, state)
    following = rows[limit - 1].id if len(rows) > limit else None
    return schemas.DeliveryPage(items=[views.delivery(row) for row in rows[:limit]], next_cursor=following)


@router.get("/{endpoint_id}/deliveries/{delivery_id}", operation_id="get_webhook_delivery")
def get_delivery(session: Reading, endpoint: EndpointId, delivery: DeliveryId) -> schemas.DeliveryOut:
    """Return a message and how its latest attempt went."""
    return views.delivery(deliveries.get(session, endpoint, delivery))


@router.post("/{endpoint_id}/deliveries/{delivery_id}/redeliver", status_code=202, operation_id="redeliver_webhook")
def redeliver(session: Writing, endpoint: EndpointId, delivery: DeliveryId) -> schemas.DeliveryOut:
    """Send a message again now, with the same webhook-id, whether it arrived, failed, or waits for its next attempt."""
    return views.delivery(deliveries.redeliver(session, endpoint, delivery))
