"""``splatworks build``: photos to a splat file through a running service. Run again after any break, it goes on where it was."""

import contextlib
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.prompt import Confirm

from cli import show
from cli.client import Client, OnBytes, batches
from cli.follow import watch
from cli.uploads import Begun, File, send_all, speaks_tus
from engine.errors import Cancelled, CaptureError, InputError, SplatError
from engine.options import FORMATS
from engine.workspace import hash_file, hash_json, write_json

OUTPUT_SUFFIXES = (*(f".{name}" for name in FORMATS), ".glb")


@dataclass(frozen=True)
class Request:
    """What is asked for: photos, where the splat goes, preset and options on top of it; masks and poses by the names they are sent as."""

    photos: list[Path]
    output: Path
    preset: str = "draft"
    options: dict[str, Any] | None = None
    companions: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted:
    """An earlier try at the same thing, noted beside the output: the capture that holds its photos."""

    server: str
    fingerprint: str
    capture_id: str


def build(client: Client, request: Request) -> Path:
    """Upload what the server lacks, run the job, download the splat; return where it lies. Raises the ``SplatError`` that ended it."""
    asset_name = asset_of(request.output)
    hashes = {file: hash_file(file) for file in (*request.photos, *request.companions)}
    names = sorted(request.companions.values())
    fingerprint = hash_json([sorted(hashes.values()), request.preset, request.options, *([names] if names else [])])
    note = request.output.with_name(f"{request.output.name}.build.json")
    capture_id = _capture(client, note, fingerprint)
    _upload(client, capture_id, hashes, Parcel(request.companions, Begun.read(note.with_suffix(".uploads.json"))))
    job = _until_ended(client, _start(client, capture_id, request))
    _check(job)
    _download(client, job["id"], asset_name, request.output)
    for path in (note, note.with_suffix(".uploads.json")):
        path.unlink(missing_ok=True)
    show.figures(client.get(f"/v1/jobs/{job['id']}/assets/report.json"))
    return request.output


def asset_of(output: Path) -> str:
    """Return the asset that fits the output's extension. Raises ``InputError`` for an extension that no splat has."""
    if output.suffix.lower() not in OUTPUT_SUFFIXES:
        detail = f"{output.name} ends in {output.suffix or 'nothing'!r}"
        raise InputError("input.unknown_format", "Unknown format", detail, f"Choose one of {' '.join(OUTPUT_SUFFIXES)}.")
    if not output.resolve().parent.is_dir():
        raise InputError("input.no_such_file", "No such folder", f"{output.resolve().parent} does not exist")
    return f"scene{output.suffix.lower()}"


def _capture(client: Client, note: Path, fingerprint: str) -> str:
    """Return the capture that an earlier try began, if the server still has it, else a new one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        begun = Noted(**json.loads(note.read_text()))
        if (begun.server, begun.fingerprint) == (client.url, fingerprint) and _exists(client, begun.capture_id):
            return begun.capture_id
    capture_id = str(client.post("/v1/captures", {})["id"])
    write_json(note, asdict(Noted(client.url, fingerprint, capture_id)))
    return capture_id


def _exists(client: Client, capture_id: str) -> bool:
    try:
        client.get(f"/v1/captures/{capture_id}")
    except SplatError as error:
        if error.retryable:
            raise
        return False
    return True


@dataclass(frozen=True)
class Parcel:
    """How files are sent: other names than their own, and what an earlier try has begun to send."""

    companions: dict[Path, str]
    begun: Begun

    def name(self, file: Path) -> str:
        """Return the name that a file is sent under."""
        return self.companions.get(file, file.name)


def _upload(client: Client, capture_id: str, hashes: dict[Path, str], parcel: Parcel) -> None:
    """Send what the server has not seen yet, and list what it refused."""
    known = client.get(f"/v1/captures/{capture_id}")["photos"]
    seen = {photo["sha256"] for photo in known} | {(photo["name"], photo["sha256"]) for photo in known}
    # Masks may be equal: each is known by its name too.
    missing = [
        file for file, sha256 in hashes.items() if ((parcel.name(file), sha256) if file in parcel.companions else sha256) not in seen
    ]
    with show.transfer_bars() as bars:
        bar = bars.add_task(f"Upload {len(missing)} files", total=sum(photo.stat().st_size for photo in missing))
        if speaks_tus(client):
            files = [File(path, parcel.name(path), hashes[path]) for path in missing]
            refused = send_all(client, capture_id, files, parcel.begun, lambda count: bars.advance(bar, count))
        else:
            refused = _send_forms(client, capture_id, missing, parcel, lambda count: bars.advance(bar, count))
    photos = client.get(f"/v1/captures/{capture_id}")["photos"]
    listed = [(photo["name"], photo["error"]["detail"]) for photo in photos if photo.get("error")]
    show.rejected(listed + [each for each in refused if each not in listed])


def _send_forms(client: Client, capture_id: str, missing: list[Path], parcel: Parcel, on_bytes: OnBytes) -> list[tuple[str, str]]:
    """Send files as forms, to a server that speaks no tus; returns (name, why) of those that were refused."""
    refused: list[tuple[str, str]] = []
    for batch in batches(missing):
        try:
            client.send_photos(capture_id, batch, parcel.companions)
        except SplatError as error:
            if error.code != "input.no_usable_photos":
                raise
            refused += [(str(each["name"]), str(each["detail"])) for each in error.data.get("errors", [])]
        on_bytes(sum(photo.stat().st_size for photo in batch))
    return refused


def _start(client: Client, capture_id: str, request: Request) -> str:
    """Start the job, or find the one that an earlier try started; return its id."""
    body = {"capture_id": capture_id, "preset": request.preset, "options": request.options or {}}
    # A job that failed or was cancelled is not what a second try wants back, so ended ones are counted into the key.
    jobs = client.get("/v1/jobs", capture_id=capture_id, limit=200)["items"]
    ended = [job for job in jobs if job["state"] in ("failed", "cancelled")]
    key = hashlib.sha256(f"{hash_json(body)}:{len(ended)}".encode()).hexdigest()
    return str(client.post("/v1/jobs", body, idempotency_key=key)["id"])


def _until_ended(client: Client, job_id: str) -> dict[str, Any]:
    """Show the job until it ends and return it. Ctrl-C asks whether to cancel it."""
    show.err.print(f"Job {job_id} at {client.url}/jobs/{job_id}/view", markup=False)
    while True:
        try:
            with show.StageBars() as bars:
                for job in watch(client, job_id, bars.warn):
                    bars.update(job)
            return job
        except KeyboardInterrupt:
            if sys.stdin.isatty() and not Confirm.ask("Cancel the job?", console=show.err, default=True):
                detail = f"job {job_id} goes on at {client.url}"
                raise Cancelled("cancelled.left", "No longer watching", detail, f"See it with `splatworks status {job_id}`.") from None
            _cancel(client, job_id)


def _cancel(client: Client, job_id: str) -> None:
    """Ask for an end; a job that has ended meanwhile is watched to its end all the same."""
    try:
        client.post(f"/v1/jobs/{job_id}/cancel", {})
    except SplatError as error:
        if not error.code.startswith("conflict."):
            raise


def _check(job: dict[str, Any]) -> None:
    """Raise what ended a job that did not succeed."""
    if job["state"] == "succeeded":
        return
    if job["state"] == "cancelled":
        raise Cancelled.by_request()
    failure = job["error"]
    raise CaptureError(failure["code"], failure["title"], failure["detail"], failure.get("hint") or "")


def _download(client: Client, job_id: str, name: str, output: Path) -> None:
    listed = {asset["name"]: asset for asset in client.get(f"/v1/jobs/{job_id}/assets")["items"]}
    if name not in listed:
        known = " ".join(sorted(each for each in listed if each.startswith("scene.")))
        raise InputError("input.no_such_asset", "No such file", f"the job wrote no {name}", f"It wrote: {known}.")
    with show.transfer_bars() as bars:
        bar = bars.add_task(f"Download {name}", total=listed[name]["size_bytes"])
        client.download(job_id, listed[name], output, lambda count: bars.advance(bar, count))
