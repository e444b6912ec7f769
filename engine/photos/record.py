"""What is known of each photo given, used or not: the entries of images.json, and what is said of all of them."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.options import IngestOptions

_NAMED_AT_MOST = 10


@dataclass(frozen=True)
class PhotoRecord:
    """One entry of images.json. Sizes are upright pixels; ``reason`` and ``detail`` say why a photo was left out.

    ``sha256`` is of the file as given; a frame names the ``video`` that it was taken from.
    """

    name: str
    source_name: str
    accepted: bool = False
    reason: str | None = None
    detail: str | None = None
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    focal_px: float | None = None
    camera_group: int = 0
    make: str = ""
    model: str = ""
    taken_at: str = ""
    gps: tuple[float, float, float] | None = None
    has_alpha: bool = False
    has_mask: bool = False
    sha256: str = ""
    sharpness: float = 0.0
    video: str = ""


def refused(record: PhotoRecord, code: str, detail: str) -> PhotoRecord:
    """Return the record of a photo that is left out; ``detail`` goes on after its name."""
    return replace(record, accepted=False, reason=code, detail=f"{record.source_name} {detail}")


def assign_groups(records: list[PhotoRecord]) -> list[PhotoRecord]:
    """Give each camera a number: equal size, maker, model and focal length (to 1 %) means the same (research/sfm.md B6, mixed sizes).

    Frames of one video share a camera that no other file has: stabilisers crop each video in a way of their own.
    """
    groups: dict[tuple[Any, ...], int] = {}
    numbered = []
    for record in records:
        if record.accepted:
            focal = None if record.focal_px is None else round(record.focal_px / max(record.width, record.height), 2)
            key = (record.width, record.height, record.make, record.model, focal, record.video)
            record = replace(record, camera_group=groups.setdefault(key, len(groups) + 1))  # noqa: PLW2901
        numbered.append(record)
    return numbered


def require_enough(records: list[PhotoRecord], options: IngestOptions) -> None:
    """Raise ``InputError`` input.too_few_photos, naming what was refused, when fewer photos are left than a scene needs."""
    usable = sum(record.accepted for record in records)
    if usable >= options.min_photos:
        return
    refused = [record for record in records if not record.accepted]
    reasons = "; ".join(record.detail or "" for record in refused[:_NAMED_AT_MOST])
    more = f"; and {len(refused) - _NAMED_AT_MOST} more" if len(refused) > _NAMED_AT_MOST else ""
    has_frames = any(record.video for record in records)
    counted = "photos and frames" if has_frames else "files"
    detail = f"{usable} of {len(records)} {counted} can be used, at least {options.min_photos} photos are needed"
    advice = "Take 20 to 200 sharp photos of one scene from different places, each sharing most of its view with the next."
    if has_frames:
        advice = "Film one scene for half a minute or longer while walking slowly around it; standing still gives no second view."
    raise InputError(
        "input.too_few_photos",
        "Too few usable photos",
        f"{detail}: {reasons}{more}" if refused else detail,
        advice,
        {"given": len(records), "usable": usable, "refused": {record.source_name: record.reason for record in refused[:100]}},
    )


def summary(records: list[PhotoRecord]) -> dict[str, Any]:
    """Return the figures of the stage."""
    usable = [record for record in records if record.accepted]
    return {
        "n_files": len({record.video or record.source_name for record in records}),
        "n_photos": len(usable),
        "n_videos": len({record.video for record in usable if record.video}),
        "n_cameras": len({record.camera_group for record in usable}),
        "n_focal_priors": sum(record.focal_px is not None for record in usable),
        "n_with_alpha": sum(record.has_alpha for record in usable),
        "n_with_mask": sum(record.has_mask for record in usable),
        "n_with_gps": sum(record.gps is not None for record in usable),
        "rejected": dict(sorted(Counter(record.reason or "" for record in records if not record.accepted).items())),
        "median_sharpness": round(float(np.median([record.sharpness for record in usable])), 3),
        "megapixels": round(sum(record.width * record.height for record in usable) / 1e6, 3),
    }
