"""Rows to answers."""

from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from api import schemas
from api.models import ApiKey, Asset, Capture, Job, JobEvent, JobStage, Photo, Share, Upload, WebhookDelivery, WebhookEndpoint
from api.services import captures, eta, keys, standing, videos, webhooks
from api.services.photos import Added


def photo(row: Photo) -> schemas.PhotoOut:
    """Return a photo's answer."""
    return schemas.PhotoOut.model_validate(_photo_values(row))


def _photo_values(row: Photo) -> dict[str, object]:
    names = ("id", "name", "state", "size_bytes", "sha256", "format", "width", "height", "error", "created_at")
    return {
        "kind": videos.kind_of(row),
        "reject_reason": row.error["detail"] if row.error else None,
        **{name: getattr(row, name) for name in names},
    }


def uploaded(capture_id: str, added: list[Added]) -> schemas.Uploaded:
    """Return what became of the files of one upload."""
    photos = [schemas.UploadedPhoto.model_validate({**_photo_values(each.photo), "is_duplicate": each.is_duplicate}) for each in added]
    fresh = [each.photo.state for each in added if not each.is_duplicate]
    return schemas.Uploaded(
        capture_id=capture_id,
        accepted=fresh.count("accepted"),
        rejected=fresh.count("rejected"),
        duplicates=len(added) - len(fresh),
        photos=photos,
    )


def upload(session: Session, row: Upload) -> schemas.UploadOut:
    """Return an upload's answer, with the photo it became."""
    own = ("id", "capture_id", "name", "state", "offset", "is_duplicate", "error", "created_at", "expires_at", "finished_at")
    became = session.get(Photo, row.photo_id) if row.photo_id else None
    values = {
        "size_bytes": row.length,
        "photo": photo(became) if became else None,
        "parts": None,
        "links": {"self": f"/v1/uploads/{row.id}", "capture": f"/v1/captures/{row.capture_id}"},
    }
    return schemas.UploadOut.model_validate({**values, **{name: getattr(row, name) for name in own}})


def captures_out(session: Session, rows: list[Capture]) -> list[schemas.CaptureOut]:
    """Return captures in short, with counts of their photos."""
    counts = captures.counts(session, [row.id for row in rows])
    return [
        schemas.CaptureOut(id=row.id, name=row.name, created_at=row.created_at, links=capture_links(row.id), **counts[row.id])
        for row in rows
    ]


def capture_detail(session: Session, row: Capture) -> schemas.CaptureDetail:
    """Return a capture with its photos."""
    (short,) = captures_out(session, [row])
    return schemas.CaptureDetail(**short.model_dump(), photos=[photo(each) for each in captures.photos_of(session, row.id)])


def capture_links(capture_id: str) -> dict[str, str]:
    """Return where a capture's parts are."""
    base = f"/v1/captures/{capture_id}"
    return {"self": base, "photos": f"{base}/photos"}


def job_links(job_id: str) -> dict[str, str]:
    """Return where a job's parts are."""
    base = f"/v1/jobs/{job_id}"
    parts = {part: f"{base}/{part}" for part in ("events", "logs", "assets", "preview", "cancel", "retry")}
    return {"self": base, "view": f"/jobs/{job_id}/view", **parts}


def stage(row: JobStage) -> schemas.StageOut:
    """Return a stage's answer."""
    return schemas.StageOut.model_validate({name: getattr(row, name) for name in schemas.StageOut.model_fields})


def jobs_out(session: Session, rows: list[Job]) -> list[schemas.JobOut]:
    """Return jobs with their stages."""
    stages = standing.stages_of(session, [row.id for row in rows])
    own = set(schemas.JobOut.model_fields) - {"stages", "progress", "queue_position", "eta", "links"}
    forecast = eta.Forecast(session)
    return [
        schemas.JobOut.model_validate(
            {
                **{name: getattr(row, name) for name in own},
                "stages": [stage(each).model_dump() for each in stages[row.id]],
                "progress": standing.progress_of(stages[row.id]),
                "queue_position": standing.queue_position(session, row),
                "eta": eta_out(forecast.of(row, stages[row.id])),
                "links": job_links(row.id),
            }
        )
        for row in rows
    ]


def eta_out(found: eta.Eta | None) -> dict[str, object] | None:
    """Return a forecast's answer."""
    return asdict(found) if found is not None else None


def job(session: Session, row: Job) -> schemas.JobOut:
    """Return a job with its stages."""
    return jobs_out(session, [row])[0]


def started_job(session: Session, row: Job) -> schemas.StartedJob:
    """Return a job as the request that made it is answered: with its webhook's secret, asked again under the same key too."""
    endpoint = next(iter(webhooks.page(session, 1, None, row.id)), None)
    return schemas.StartedJob(**job(session, row).model_dump(), webhook=endpoint and endpoint_with_secret(endpoint))


def event(row: JobEvent) -> schemas.EventOut:
    """Return an event's answer."""
    return schemas.EventOut(seq=row.seq, at=row.at, type=row.type, data=row.data)


def asset(row: Asset) -> schemas.AssetOut:
    """Return an asset's answer."""
    values = {name: getattr(row, name) for name in ("name", "size_bytes", "sha256", "media_type", "created_at")}
    return schemas.AssetOut.model_validate({**values, "url": f"/v1/jobs/{row.job_id}/assets/{row.name}"})


def endpoint(row: WebhookEndpoint) -> schemas.EndpointOut:
    """Return a webhook endpoint's answer, without its secret."""
    own = set(schemas.EndpointOut.model_fields) - {"enabled", "previous_secret_until"}
    values = {name: getattr(row, name) for name in own}
    until = row.previous_until if row.previous_secret else None
    return schemas.EndpointOut.model_validate({**values, "enabled": row.disabled_at is None, "previous_secret_until": until})


def endpoint_with_secret(row: WebhookEndpoint) -> schemas.EndpointWithSecret:
    """Return a webhook endpoint's answer with its secret, for the one time that it is shown."""
    return schemas.EndpointWithSecret(**endpoint(row).model_dump(), secret=row.secret)


def delivery(row: WebhookDelivery) -> schemas.DeliveryOut:
    """Return a message's answer."""
    return schemas.DeliveryOut.model_validate({name: getattr(row, name) for name in schemas.DeliveryOut.model_fields})


def share(row: Share) -> schemas.ShareOut:
    """Return a link's answer, without the link itself."""
    return schemas.ShareOut.model_validate({name: getattr(row, name) for name in schemas.ShareOut.model_fields})


def key(row: ApiKey) -> schemas.KeyOut:
    """Return a key's answer."""
    names = ("id", "name", "prefix", "scopes", "created_at", "expires_at", "revoked_at", "used_at")
    quotas, active = asdict(keys.quotas_of(row)), keys.holds(row, datetime.now(UTC))
    return schemas.KeyOut.model_validate({**{name: getattr(row, name) for name in names}, "quotas": quotas, "is_active": active})
