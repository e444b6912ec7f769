"""The figures of a whole run, from the stamps of its stages."""

from typing import Any

from engine.options import STAGES
from engine.workspace import Stamp, Workspace, read_json, read_stamp


def collect(workspace: Workspace) -> dict[str, Any]:
    """Return the report: what went in, what came out, how good it is, how long it took.

    ``rotation_error_deg`` is known only where true poses are (the demo fills it in). ``seconds`` and ``peak_memory_bytes`` are per
    stage, ``files`` is name to bytes, ``left_out`` names the photos that could not be used and why.
    """
    stamps = {stage: stamp for stage in STAGES if (stamp := read_stamp(workspace, stage))}
    poses, train, compress = (_stats(stamps, stage) for stage in ("poses", "train", "compress"))
    return {
        "registered": poses.get("n_registered"),
        "photos": _stats(stamps, "ingest").get("n_photos"),
        "psnr_db": train.get("psnr_db"),
        "ssim": train.get("ssim"),
        "rotation_error_deg": None,
        "gaussians": compress.get("n_gaussians", train.get("n_gaussians")),
        "seconds": {stage: stamp.seconds for stage, stamp in stamps.items()},
        "peak_memory_bytes": {stage: stamp.peak_memory_bytes for stage, stamp in stamps.items()},
        "left_out": left_out(workspace, poses),
        "files": {path.name: path.stat().st_size for path in sorted(workspace.assets.glob("*"))} if workspace.assets.is_dir() else {},
        "stages": {stage: stamp.stats for stage, stamp in stamps.items()},
    }


def left_out(workspace: Workspace, poses: dict[str, Any]) -> list[dict[str, str]]:
    """Return the photos that the stages could not use, under the names they were given with; ``poses`` are that stage's figures."""
    records = read_json(workspace.images_index) if workspace.images_index.exists() else []
    found = [
        {"name": record["source_name"], "stage": "ingest", "code": record["reason"] or "", "detail": record["detail"] or ""}
        for record in records
        if not record["accepted"]
    ]
    given = {record["name"]: record["source_name"] for record in records}
    for name in (given.get(each, each) for each in poses.get("unregistered") or {}):
        detail = f"{name}: the place it was taken from could not be found"
        found.append({"name": name, "stage": "poses", "code": "photo.not_registered", "detail": detail})
    return found


def _stats(stamps: dict[str, Stamp], stage: str) -> dict[str, Any]:
    return stamps[stage].stats if stage in stamps else {}
