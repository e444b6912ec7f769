"""The last look at the geometry before files are written: a job with a broken scene must fail, not succeed."""

import numpy as np

from engine.compress.views import Views
from engine.errors import CaptureError
from engine.formats.quantize import sigmoid
from engine.gaussians import Gaussians

MIN_GAUSSIANS = 16
MAX_BROKEN = 0.01  # share of gaussians with values that are no numbers
WITHIN = 0.999  # share of the opacity that must lie within
REACH = 100.0  # times the extent of the scene

HINT = "Take more photos with more overlap, from different places, of something that does not move."


def check_finite_share(n_broken: int, n_all: int) -> None:
    """Raise ``CaptureError`` when more than ``MAX_BROKEN`` of the gaussians trained hold values that are no numbers."""
    if n_broken > MAX_BROKEN * n_all:
        data = {"gaussians": n_all, "not_finite": n_broken}
        raise CaptureError(
            "capture.degenerate_geometry", "Training diverged", f"{n_broken} of {n_all} gaussians are not finite", HINT, data
        )


def check_geometry(gaussians: Gaussians, views: Views) -> dict[str, float]:
    """Return the scene's reach and extent (world units), or raise ``CaptureError`` when it is no scene.

    No scene: fewer than ``MIN_GAUSSIANS`` that any photo sees, or less than ``WITHIN`` of the opacity within ``REACH`` extents.
    """
    if len(gaussians) < MIN_GAUSSIANS:
        detail = f"only {len(gaussians)} gaussians are seen by the photos; at least {MIN_GAUSSIANS} are needed"
        raise CaptureError("capture.degenerate_geometry", "Nothing was reconstructed", detail, HINT, {"gaussians": len(gaussians)})
    distance = np.linalg.norm(gaussians.means - views.centre, axis=1)
    opacity = sigmoid(gaussians.opacity_logits)
    order = np.argsort(distance, kind="stable")
    weight = np.cumsum(opacity[order])
    reach = float(distance[order[np.searchsorted(weight, WITHIN * weight[-1])]])
    data = {"reach": round(reach, 6), "extent": round(views.extent, 6), "limit": REACH * views.extent}
    if not reach <= REACH * views.extent:
        times = f"{reach / views.extent:.0f} times the extent of the photographed place; {REACH:.0f} are allowed"
        detail = f"{WITHIN:.1%} of the opacity lies within {reach:.4g} units, {times}"
        raise CaptureError("capture.degenerate_geometry", "The scene fell apart", detail, HINT, data)
    return {"reach": data["reach"], "extent": data["extent"]}
