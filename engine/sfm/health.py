"""Is the reconstruction one, and what should the user hear? Checks and words of research/sfm.md B6."""

from dataclasses import dataclass

import numpy as np

from engine.errors import CaptureError
from engine.events import OnEvent, Warned
from engine.geometry import Array
from engine.options import PosesOptions
from engine.sfm.context import Photo
from engine.sfm.matching import ViewGraph
from engine.sfm.models import MIN_MODEL_SIZE, Model

STAGE = "poses"
FEW_KEYPOINTS = 200
_WATERMARK_SHARE = 0.2
_ONE_PLANE = ("PLANAR", "PANORAMIC", "PLANAR_OR_PANORAMIC")
_ROTATION_SHARE = 0.95
# Turning on the spot gave 0.03 on photos and 0.09 on made-up ones (a free focal length bends it into a shallow scene); drones over flat
# land, the honest captures with as many flat pairs, give 0.6.
_LEAST_SPREAD = 0.15
_NAMED_AT_MOST = 12

_ADVICE = (
    "Take 20 to 200 photos while walking around the scene, each sharing at least 60 % of its view with the next; "
    "avoid blur, plain walls, mirrors and things that move."
)


@dataclass(frozen=True)
class Findings:
    """What the checks look at; ``keypoints`` counts features by photo name."""

    photos: list[Photo]
    keypoints: dict[str, int]
    graph: ViewGraph
    model: Model

    def left_out(self) -> list[Photo]:
        """Return the photos that are not part of the model."""
        kept = set(self.model.names)
        return [photo for photo in self.photos if photo.name not in kept]


def warn_of_features(photos: list[Photo], keypoints: dict[str, int], on_event: OnEvent) -> None:
    """Name the photos in which next to nothing was found."""
    for photo in photos:
        count = keypoints.get(photo.name, 0)
        if count < FEW_KEYPOINTS:
            detail = f"{photo.source_name} has only {count} features: too dark, blurred or plain; retake or remove it"
            on_event(Warned(STAGE, "photo.few_features", detail, {"photo": photo.source_name, "features": count}))


def warn_of_watermark(graph: ViewGraph, on_event: OnEvent) -> None:
    """Say that a burnt-in caption holds the matches when it does."""
    share = graph.share("WATERMARK")
    if share > _WATERMARK_SHARE:
        detail = f"{share:.0%} of the matching pairs match only at the border: a caption, date or watermark; give photos without it"
        on_event(Warned(STAGE, "capture.watermark", detail, {"share": round(share, 3)}))


def camera_spread(poses: Array, points: Array) -> float:
    """Return the cameras' deviation from their middle over the median depth of the points: 0 when the camera only turned."""
    centres = -np.einsum("mji,mj->mi", poses[:, :, :3], poses[:, :, 3])
    deviation = float(np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean()))
    distances = np.linalg.norm(points[:: max(1, len(points) // 2000)] - centres.mean(axis=0), axis=1)
    return deviation / max(float(np.median(distances)), 1e-12) if len(points) else 0.0


def require_sound(findings: Findings, spread: float, options: PosesOptions) -> None:
    """Raise ``CaptureError`` when there is no model, too small a one, or one made of turning on the spot."""
    model, graph, n_photos = findings.model, findings.graph, len(findings.photos)
    is_one_plane = graph.n_verified > 0 and graph.share(*_ONE_PLANE) >= _ROTATION_SHARE
    if is_one_plane and (len(model) < MIN_MODEL_SIZE or spread < _LEAST_SPREAD):
        raise CaptureError(
            "capture.pure_rotation",
            "The camera only turned",
            f"{graph.share(*_ONE_PLANE):.0%} of the matching pairs differ by a rotation only: the photos were taken from one place",
            "Step sideways between photos, don't only turn: depth is seen by moving.",
            {"n_photos": n_photos, "camera_spread": round(spread, 4)},
        )
    if len(model) < MIN_MODEL_SIZE:
        raise CaptureError(
            "capture.no_overlap",
            "The photos do not overlap enough",
            f"no three of the {n_photos} photos could be placed together; {graph.n_verified} of {graph.n_pairs} pairs match. "
            f"{_features(findings)}",
            _ADVICE,
            {"n_photos": n_photos, "n_pairs": graph.n_pairs, "n_verified": graph.n_verified},
        )
    if len(model) < options.min_registered * n_photos:
        raise CaptureError(
            "capture.too_few_registered",
            "Too few photos could be placed",
            f"only {len(model)} of {n_photos} photos could be placed together, at least {options.min_registered:.0%} are needed; "
            f"left out: {listed([photo.source_name for photo in findings.left_out()])}.{_groups(findings)}",
            f"{_ADVICE} If the photos show several scenes, give each its own job.",
            {
                "registered": [photo.source_name for photo in findings.photos if photo.name in set(model.names)],
                "left_out": [photo.source_name for photo in findings.left_out()],
                "groups": [len(group) for group in model.others],
            },
        )


def warn_of_left_out(findings: Findings, on_event: OnEvent) -> None:
    """Name each photo that is not part of the model, and the groups they form among themselves."""
    sources = {photo.name: photo.source_name for photo in findings.photos}
    for photo in findings.left_out():
        count = findings.keypoints.get(photo.name, 0)
        detail = f"{photo.source_name} could not be placed ({count} features) and is not used; it shares too little with the others"
        on_event(Warned(STAGE, "photo.not_registered", detail, {"photo": photo.source_name, "features": count}))
    for group in _separate_groups(findings):
        names = [sources[name] for name in group]
        detail = f"{len(names)} photos show another scene or an unconnected part: {listed(names)}; give them their own job"
        on_event(Warned(STAGE, "capture.several_scenes", detail, {"photos": names}))


def listed(names: list[str]) -> str:
    """Return names joined for a sentence, the long tail counted."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more


def _separate_groups(findings: Findings) -> list[list[str]]:
    """Return groups of at least three left-out photos that the model or the matches hold together."""
    kept = set(findings.model.names)
    groups = [group for group in (*findings.model.others, *findings.graph.groups) if len(group) >= MIN_MODEL_SIZE]
    separate: list[list[str]] = []
    for group in groups:
        taken = kept.union(*separate)
        if not taken & set(group):
            separate.append(group)
    return separate


def _groups(findings: Findings) -> str:
    groups = _separate_groups(findings)
    sources = {photo.name: photo.source_name for photo in findings.photos}
    return "".join(f" {len(group)} of them form a group of their own: {listed([sources[name] for name in group])}." for group in groups[:3])


def _features(findings: Findings) -> str:
    poor = [photo.source_name for photo in findings.photos if findings.keypoints.get(photo.name, 0) < FEW_KEYPOINTS]
    return f"Too dark, blurred or plain: {listed(poor)}." if poor else "They have detail enough, but show different things."
