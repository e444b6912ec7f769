"""The figures of a whole run, from the stamps of its stages."""

from typing import Any

from engine.options import STAGES
from engine.workspace import Stamp, Workspace, read_stamp


def collect(workspace: Workspace) -> dict[str, Any]:
    """Return the report: what went in, what came out, how good it is, how long it took.

    ``rotation_error_deg`` is known only where true poses are (the demo fills it in). ``seconds`` and ``peak_memory_bytes`` are per
    stage, ``files`` is name to bytes, ``warnings`` lists what was left out and why.
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
        "files": {path.name: path.stat().st_size for path in sorted(workspace.assets.glob("*"))} if workspace.assets.is_dir() else {},
        "stages": {stage: stamp.stats for stage, stamp in stamps.items()},
    }


def _stats(stamps: dict[str, Stamp], stage: str) -> dict[str, Any]:
    return stamps[stage].stats if stage in stamps else {}
