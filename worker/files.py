"""Files in and out: photos from storage into the workspace, results from the workspace into storage."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from api.models import Job
from api.services import cache, photos
from api.services.assets import Stored
from api.services.leases import Claim
from api.settings import Settings
from api.storage import Storage
from engine.errors import InternalError
from engine.options import STAGES, from_dict
from engine.workspace import Workspace, hash_file, read_json, write_json
from worker.runtime import Runtime

NAMED_AT_MOST = 500
SUMMARY = ("registered", "photos", "psnr_db", "ssim", "gaussians", "seconds", "files")


def folder_of(settings: Settings, job_id: str) -> Path:
    """Return the folder that a job works in on this machine; the same for every attempt, so that stamps and checkpoints serve again."""
    return settings.work / job_id


def prepare(runtime: Runtime, job: Job) -> tuple[Workspace, dict[str, str]]:
    """Return the workspace of a job and the key of each stage's result: photos and options in place, what an ended parent had made too."""
    root = folder_of(runtime.settings, job.id)
    if not root.exists() and job.parent_id is not None:
        adopt(runtime.settings, job)
    workspace = Workspace.at(root)
    with runtime.db.reading() as session:
        given = photos.given(session, job.capture_id, job.photos_until)
    fetch(runtime.storage, workspace, [(photo.name, photo.storage_key or "", photo.size_bytes) for photo in given])
    write_json(options_file(workspace), job.options)
    return workspace, cache.keys(given, from_dict(job.options))


def options_file(workspace: Workspace) -> Path:
    """Return where the job's options lie."""
    return workspace.root / "options.json"


def adopt(settings: Settings, job: Job) -> None:
    """Take the workspace of the job that this one repeats, less the stages that are to run again."""
    root = folder_of(settings, job.id)
    with contextlib.suppress(FileNotFoundError):  # another machine ran it, or it succeeded: then everything runs again
        folder_of(settings, job.parent_id or "").rename(root)
        for stage in STAGES[STAGES.index(job.from_stage) :] if job.from_stage else ():
            Workspace.at(root).stamp(stage).unlink(missing_ok=True)


def fetch(storage: Storage, workspace: Workspace, wanted: list[tuple[str, str, int]]) -> None:
    """Make ``photos/`` hold exactly the wanted (name, key, size); files are brought aside first, so each is whole or not there."""
    workspace.photos.mkdir(parents=True, exist_ok=True)
    aside = workspace.root / "fetching"
    aside.mkdir(exist_ok=True)
    names = {name for name, _key, _size in wanted}
    for path in [path for path in workspace.photos.rglob("*") if path.is_file()]:
        if path.relative_to(workspace.photos).as_posix() not in names:
            path.unlink()
    for name, key, size in wanted:
        target = workspace.photos / name
        target.parent.mkdir(exist_ok=True)
        if target.exists() and target.stat().st_size == size:
            continue
        try:
            storage.fetch(key, aside / "photo")
        except FileNotFoundError as error:
            raise InternalError("internal.missing_photo", "Photo lost", f"the bytes of {name} are not in storage") from error
        (aside / "photo").replace(target)
    shutil.rmtree(aside)


def discard(settings: Settings, job_id: str) -> None:
    """Remove a job's workspace."""
    shutil.rmtree(folder_of(settings, job_id), ignore_errors=True)


def publish(storage: Storage, claim: Claim, workspace: Workspace, log: Path) -> list[Stored]:
    """Store every result under this claim's fence and check its size; the rows that show them are written afterwards, all at once."""
    files = {path.name: path for path in sorted(workspace.assets.iterdir()) if path.is_file() and not path.name.startswith(".")}
    if not files:
        raise InternalError("internal.no_assets", "No result", "the last stage ended well and left no files")
    stored = []
    for name, path in {**files, "report.json": workspace.report, "log.txt": log}.items():
        file = Stored(name, f"{asset_prefix(claim)}/{name}", hash_file(path), path.stat().st_size)
        storage.put(file.storage_key, path)
        if storage.size(file.storage_key) != file.size_bytes:
            raise InternalError("internal.damaged_asset", "Damaged result", f"{name} was stored with another size than it has")
        stored.append(file)
    return stored


def withdraw(storage: Storage, claim: Claim) -> None:
    """Remove what ``publish`` stored and nobody will see."""
    storage.delete_prefix(asset_prefix(claim))


def asset_prefix(claim: Claim) -> str:
    """Return where the results of one attempt are kept: attempts never write over each other."""
    return f"jobs/{claim.job_id}/assets/{claim.fence}"


def summary(runtime: Runtime, job: Job, workspace: Workspace) -> dict[str, Any]:
    """Return the figures of the report that the job's row shows, and the photos that the splat was made without, by name."""
    report = read_json(workspace.report)
    kernels = {stage: stats["kernel"] for stage, stats in report.get("stages", {}).items() if "kernel" in stats}
    figures = {**{name: report[name] for name in SUMMARY if name in report}, **({"devices": kernels} if kernels else {})}
    return figures | {"left_out": [*refused(runtime, job), *report.get("left_out", [])][:NAMED_AT_MOST]}


def refused(runtime: Runtime, job: Job) -> list[dict[str, str]]:
    """Return the files that the upload did not take, each with the reason."""
    with runtime.db.reading() as session:
        rows = photos.rejected(session, job.capture_id, job.photos_until)
    return [{"name": row.name, "stage": "upload", **said_of(row.error or {})} for row in rows]


def said_of(error: dict[str, Any]) -> dict[str, str]:
    """Return of an error what a list needs."""
    return {"code": str(error.get("code", "")), "detail": str(error.get("detail", ""))}


def is_short_of_disk(settings: Settings) -> bool:
    """Tell whether this machine has too little free disk to begin a stage."""
    return shutil.disk_usage(settings.data_dir).free < settings.min_free_bytes


def held_bytes(workspace: Workspace) -> int:
    """Return the bytes of a workspace, the photos as given not counted."""
    files = (path for path in workspace.root.rglob("*") if path.is_file() and not path.is_relative_to(workspace.photos))
    return sum(path.stat().st_size for path in files)
