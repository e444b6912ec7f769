"""A palette of vectors by weighted two-level k-means: for 64 thousand entries, 256 clusters of about 256 each.

One level costs rows × entries; two cost rows × 2 sqrt(entries), all in matrix products. Everything follows from the seed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

TABLE = 1 << 18  # distances computed at a time: a megabyte, so that they stay in the cache
COARSE_SAMPLE = 1 << 16
ROUNDS = 8


@dataclass(frozen=True)
class Palette:
    """``entries[labels[i]]`` stands for row i."""

    entries: Floats  # [K, D]
    labels: Labels  # [N]


def build_palette(rows: Floats, weights: Floats, size: int, seed: int = 0) -> Palette:
    """Return a palette of at most ``size`` entries for ``rows`` [N, D]; a row's error counts ``weights[i]`` >= 0 times.

    As many entries as rows, or more, keep every row exactly.
    """
    if size >= len(rows):
        return Palette(rows.copy(), np.arange(len(rows)))
    random = np.random.default_rng(seed)
    mass = weights.astype(np.float32) + np.float32(1e-3 * max(float(weights.mean()), 1e-12))  # what no photo saw still counts a little
    n_coarse = max(1, int(np.sqrt(size)))
    coarse = _cluster(rows, mass, n_coarse, random)
    shares = _share_out(rows, mass, coarse, size)
    entries: list[Floats] = []
    labels = np.empty(len(rows), np.int64)
    order = np.argsort(coarse.labels, kind="stable")
    starts = np.searchsorted(coarse.labels[order], np.arange(len(coarse.entries) + 1))
    for cluster, n_fine in enumerate(shares):
        members = order[starts[cluster] : starts[cluster + 1]]
        if len(members):
            fine = _cluster(rows[members], mass[members], int(n_fine), random)
            labels[members] = fine.labels + sum(map(len, entries))
            entries.append(fine.entries)
    return Palette(np.concatenate(entries), labels)


def _share_out(rows: Floats, mass: Floats, coarse: Palette, size: int) -> Labels:
    """Share ``size`` entries out over the clusters: by the square root of each one's weighted error times its weight."""
    n = len(coarse.entries)
    counts = np.bincount(coarse.labels, minlength=n)
    errors = np.einsum("nd,nd->n", rows - coarse.entries[coarse.labels], rows - coarse.entries[coarse.labels])
    spread = np.bincount(coarse.labels, weights=errors * mass, minlength=n)
    need = np.sqrt(spread * np.bincount(coarse.labels, weights=mass, minlength=n)) + 1e-30
    shares = np.minimum(counts, 1)
    for _ in range(8):  # what full clusters cannot take goes to the others
        left = size - int(shares.sum())
        open_need = np.where(shares < counts, need, 0.0)
        if left <= 0 or not open_need.any():
            break
        shares = np.minimum(counts, shares + np.floor(left * open_need / open_need.sum()).astype(np.int64))
    return shares.astype(np.int64)


def _cluster(rows: Floats, mass: Floats, size: int, random: np.random.Generator) -> Palette:
    """Lloyd's k-means from rows drawn by weight; trained on a sample when there are many rows. Empty clusters are left out."""
    if size >= len(rows):
        return Palette(rows.copy(), np.arange(len(rows)))
    sample = np.arange(len(rows))
    if len(rows) > max(COARSE_SAMPLE, 64 * size):
        sample = np.sort(random.choice(len(rows), max(COARSE_SAMPLE, 64 * size), replace=False))
    train, train_mass = rows[sample], mass[sample]
    chance = np.sqrt(train_mass.astype(np.float64))
    entries = train[np.sort(random.choice(len(train), size, replace=False, p=chance / chance.sum()))].copy()
    columns = np.ascontiguousarray(train.T)
    for _ in range(ROUNDS):
        entries = _centres(columns, train_mass, nearest(train, entries), entries)
    labels = nearest(rows, entries)
    entries = _centres(np.ascontiguousarray(rows.T), mass, labels, entries)
    used, labels = np.unique(labels, return_inverse=True)
    return Palette(entries[used], labels)


def nearest(rows: Floats, entries: Floats) -> Labels:
    """Return for each row the index of the nearest entry (Euclid; the first of equals)."""
    labels = np.empty(len(rows), np.int64)
    half = 0.5 * np.einsum("kd,kd->k", entries, entries)
    chunk = max(64, TABLE // len(entries))
    for start in range(0, len(rows), chunk):
        scores = rows[start : start + chunk] @ entries.T
        labels[start : start + chunk] = np.argmin(np.subtract(half, scores, out=scores), axis=1)
    return labels


def _centres(columns: Floats, mass: Floats, labels: Labels, entries: Floats) -> Floats:
    """Return the weighted means of the clusters of ``columns`` [D, N]; an empty one stays where it was."""
    held = np.bincount(labels, weights=mass, minlength=len(entries))
    used = held > 0
    centres = entries.copy()
    for column, values in enumerate(columns):
        sums = np.bincount(labels, weights=values * mass, minlength=len(entries))
        centres[used, column] = sums[used] / held[used]
    return centres
