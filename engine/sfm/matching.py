"""Compare chosen pairs of photos, verify them geometrically, and say what kind of pairs came out."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pycolmap

from engine.sfm.context import Context, Report
from engine.sfm.pairs import Pairs
from engine.sfm.sound import connected_groups

# Each batch reads its features anew: large enough to make that cheap, small enough for progress, stop requests and the deadline.
_PAIRS_AS_BATCH = 100
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
    """Match and verify ``pairs`` (indices of ``context.photos``); ``max_ratio`` is Lowe's ratio test."""
    matching, verification = _matching(context, max_ratio), _verification(context)
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = context.folder / "pairs.txt"
    for start in range(0, len(pairs), _PAIRS_AS_BATCH):
        context.deadline.check("comparing photos")
        batch = pairs[start : start + _PAIRS_AS_BATCH]
        lines = (f"{context.photos[i].name} {context.photos[j].name}\n" for i, j in batch)
        (context.folder / "pairs.txt").write_text("".join(lines))
        pycolmap.match_image_pairs(database, matching, pairing, verification)
        done = start + len(batch)
        report(done / len(pairs), f"{done} of {len(pairs)} pairs of photos compared")


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


def _matching(context: Context, max_ratio: float) -> pycolmap.FeatureMatchingOptions:
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = context.n_threads
    options.use_gpu = False
    options.sift.max_ratio = max_ratio
    return options


def _verification(context: Context) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = context.seed
    return options
