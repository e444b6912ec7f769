"""Compare chosen pairs of photos, verify them geometrically, and say what kind of pairs came out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from engine.sfm.context import Context, Report
from engine.sfm.pairs import Pairs
from engine.sfm.sound import connected_groups
from engine.sfm.unfinished import read_compared, write_compared
from kernels.match import Bytes, Matcher, Nearest

# Each batch reads its features anew: large enough to make that cheap, small enough for progress, stop requests and the deadline.
_PAIRS_AS_BATCH = 100
# Photos are compared by their strongest features first; pairs that find fewer matches there have none worth verifying: of the pairs with
# 30 matches none was lost on banana and lund, of all pairs half were spared on banana.
PREVIEW_FEATURES = 1024
PREVIEW_MATCHES = 4
# Angle between descriptors that are still alike, radians, and their length (COLMAP's own).
_MAX_ANGLE = 0.7
_LENGTH = 512.0
# A pair with fewer inliers does not count as verified (COLMAP's own limit).
MIN_INLIERS = 15


@dataclass(frozen=True)
class ViewGraph:
    """The verified pairs: how many of each kind, and the groups of photo names they join, largest first."""

    n_pairs: int
    n_verified: int
    kinds: dict[str, int]
    groups: list[list[str]] = field(default_factory=list)

    def share(self, *kinds: str) -> float:
        """Return the share of verified pairs that are of one of these kinds."""
        return sum(self.kinds.get(kind, 0) for kind in kinds) / self.n_verified if self.n_verified else 0.0


def match(context: Context, database: Path, pairs: Pairs, max_ratio: float, report: Report) -> None:
    """Match and verify ``pairs`` (indices of ``context.photos``); ``max_ratio`` is Lowe's ratio test. Goes on where another left off."""
    matcher, listed = Matcher(context.n_threads), context.folder / "pairs.txt"
    for start in range(read_compared(database, len(pairs)), len(pairs), _PAIRS_AS_BATCH):
        context.deadline.check("comparing photos")
        batch = pairs[start : start + _PAIRS_AS_BATCH]
        matched = _match_batch(context, database, batch, lambda a, b: matches(matcher, a, b, max_ratio))
        listed.write_text("".join(f"{context.photos[i].name} {context.photos[j].name}\n" for i, j in matched))
        if matched:
            pycolmap.verify_matches(database, listed, _verification(context))
        done = start + len(batch)
        write_compared(database, done, len(pairs))
        report(done / len(pairs), f"{done} of {len(pairs)} pairs of photos compared")


def matches(matcher: Matcher, a: Bytes, b: Bytes, max_ratio: float) -> npt.NDArray[np.uint32]:
    """Return rows (of a, of b) that are each other's nearest, alike, and clearly nearer than the second, [K, 2]; preview first."""
    if max(len(a), len(b)) > PREVIEW_FEATURES:
        preview = _mutual(*matcher.nearest(a[:PREVIEW_FEATURES], b[:PREVIEW_FEATURES]), max_ratio)
        if len(preview) < PREVIEW_MATCHES:
            return preview[:0]
    return _mutual(*matcher.nearest(a, b), max_ratio)


def _mutual(of_a: Nearest, of_b: Nearest, max_ratio: float) -> npt.NDArray[np.uint32]:
    rows = np.flatnonzero(_is_clear(of_a, max_ratio))
    partners = of_a[rows, 0]
    keep = _is_clear(of_b, max_ratio)[partners] & (of_b[partners, 0] == rows)
    return np.stack([rows[keep], partners[keep]], axis=1).astype(np.uint32)


def _is_clear(nearest: Nearest, max_ratio: float) -> npt.NDArray[np.bool_]:
    angle, second = (np.arccos(np.clip(nearest[:, column] / _LENGTH**2, 0.0, 1.0)) for column in (1, 2))
    clear: npt.NDArray[np.bool_] = (nearest[:, 0] >= 0) & (angle <= _MAX_ANGLE) & (angle < max_ratio * second)
    return clear


def _match_batch(context: Context, database: Path, batch: Pairs, compare: Callable[[Bytes, Bytes], npt.NDArray[np.uint32]]) -> Pairs:
    """Write the matches of a batch; return the pairs that have enough to verify."""
    matched = []
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        image_ids = {index: ids[context.photos[index].name] for pair in batch for index in pair}
        descriptors = {index: np.asarray(opened.read_descriptors(image_id).data, np.uint8) for index, image_id in image_ids.items()}
        for i, j in batch:
            ids_of_pair = image_ids[i], image_ids[j]
            if not opened.exists_matches(*ids_of_pair):
                found = compare(descriptors[i], descriptors[j])
                if len(found) < MIN_INLIERS:
                    continue
                opened.write_matches(*ids_of_pair, found)
            # Matches without a verdict were left by an attempt that was killed before it came.
            if not opened.exists_two_view_geometry(*ids_of_pair):
                matched.append((i, j))
    return matched


def forget_matches(database: Path) -> None:
    """Remove all matches and verified pairs, so that they can be made anew; features stay."""
    with pycolmap.Database.open(database) as opened:
        opened.clear_matches()
        opened.clear_two_view_geometries()


def read_view_graph(database: Path, n_pairs: int) -> ViewGraph:
    """Return what matching found."""
    with pycolmap.Database.open(database) as opened:
        names = {image.image_id: image.name for image in opened.read_all_images()}
        pair_ids, geometries = opened.read_two_view_geometries()
    kinds: Counter[str] = Counter()
    edges = []
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        if len(geometry.inlier_matches) < MIN_INLIERS:
            continue
        kind = pycolmap.TwoViewGeometryConfiguration(geometry.config).name
        if kind in ("UNDEFINED", "DEGENERATE"):
            continue
        kinds[kind] += 1
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        if kind != "WATERMARK":
            edges.append((names[first], names[second]))
    groups = connected_groups(sorted(names.values()), edges)
    return ViewGraph(n_pairs, sum(kinds.values()), dict(sorted(kinds.items())), groups)


def _verification(context: Context) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = context.seed
    return options
