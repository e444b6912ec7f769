"""Which photos are compared: all pairs of small sets, else neighbours by appearance, by name and by GPS."""

import numpy as np
import numpy.typing as npt

from engine.sfm.context import Photo

FloatArray = npt.NDArray[np.float32]
Pairs = list[tuple[int, int]]

NAME_NEIGHBOURS = 5
GPS_NEIGHBOURS = 8
_N_WORDS = 64
_SAMPLE_PER_PHOTO = 400
_KMEANS_ROUNDS = 12
_EARTH_RADIUS_M = 6_371_000.0


def all_pairs(n_photos: int) -> Pairs:
    """Return every pair (i, j), i < j."""
    return [(i, j) for i in range(n_photos) for j in range(i + 1, n_photos)]


def neighbour_pairs(photos: list[Photo], descriptors: list[npt.NDArray[np.uint8]], n_neighbours: int, seed: int) -> Pairs:
    """Return the pairs (i, j), i < j, sorted: ``n_neighbours`` by appearance, 5 by order of names, 8 by GPS where there is any.

    ``descriptors`` holds one [F, 128] array a photo, F may be 0.
    """
    chosen = nearest_by_appearance(vlad_vectors(descriptors, seed), n_neighbours)
    chosen |= {(i, j) for i in range(len(photos)) for j in range(i + 1, min(i + 1 + NAME_NEIGHBOURS, len(photos)))}
    return sorted(chosen | nearest_by_gps(photos))


def vlad_vectors(descriptors: list[npt.NDArray[np.uint8]], seed: int) -> FloatArray:
    """Return one unit vector a photo, [M, 64 · 128]; zero for photos without features.

    Residuals to the nearest of 64 words, signed square root, length 1. Source: Jégou et al., CVPR 2010; research/sfm.md B5.
    """
    random = np.random.default_rng(seed)
    sample = np.concatenate([_sample(each, random) for each in descriptors])
    vectors = np.zeros((len(descriptors), _N_WORDS * 128), np.float32)
    if len(sample) < _N_WORDS:
        return vectors
    words = _kmeans(sample, random)
    for row, each in enumerate(descriptors):
        vectors[row] = _vlad(each.astype(np.float32), words)
    return vectors


def nearest_by_appearance(
    vectors: FloatArray,  # [M, D] float32
    n_neighbours: int,
) -> set[tuple[int, int]]:
    """Return each photo's pairs (i, j), i < j, with the ``n_neighbours`` most alike by cosine."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, : min(n_neighbours, len(vectors) - 1)]
    return {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row}


def nearest_by_gps(photos: list[Photo]) -> set[tuple[int, int]]:
    """Return each located photo's pairs (i, j), i < j, with the 8 nearest located ones."""
    located = [(index, photo.gps) for index, photo in enumerate(photos) if photo.gps is not None]
    if len(located) < 2:
        return set()
    positions = np.array([gps for _, gps in located])
    metres = local_metres(positions, positions[0])
    distance = np.linalg.norm(metres[:, None] - metres[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(GPS_NEIGHBOURS, len(located) - 1)]
    indices = [index for index, _ in located]
    ends = ((indices[i], indices[int(j)]) for i, row in enumerate(nearest) for j in row)
    return {(min(i, j), max(i, j)) for i, j in ends}


def local_metres(
    gps: npt.NDArray[np.float64],  # [M, 3] float64: latitude °, longitude °, altitude m
    origin: npt.NDArray[np.float64],  # [3] float64, as ``gps``
) -> npt.NDArray[np.float64]:
    """Return east, north, up from ``origin``, [M, 3] metres.

    Flat earth: good for the few kilometres of a capture.
    """
    radians = np.radians(gps[:, :2] - origin[:2])
    # Across the date line the short way round is meant.
    radians[:, 1] = (radians[:, 1] + np.pi) % (2 * np.pi) - np.pi
    east = radians[:, 1] * np.cos(np.radians(origin[0])) * _EARTH_RADIUS_M
    return np.stack([east, radians[:, 0] * _EARTH_RADIUS_M, gps[:, 2] - origin[2]], axis=1)


def _sample(descriptors: npt.NDArray[np.uint8], random: np.random.Generator) -> FloatArray:
    count = min(_SAMPLE_PER_PHOTO, len(descriptors))
    rows = np.sort(random.choice(len(descriptors), count, replace=False)) if count else np.zeros(0, np.int64)
    return descriptors[rows].reshape(-1, 128).astype(np.float32)


def _kmeans(sample: FloatArray, random: np.random.Generator) -> FloatArray:
    words = sample[np.sort(random.choice(len(sample), _N_WORDS, replace=False))].copy()
    for _ in range(_KMEANS_ROUNDS):
        nearest = _nearest_word(sample, words)
        for word in range(_N_WORDS):
            members = sample[nearest == word]
            if len(members):
                words[word] = members.mean(axis=0)
    return words


def _nearest_word(descriptors: FloatArray, words: FloatArray) -> npt.NDArray[np.int64]:
    # |d - w|² without |d|², which is the same for all words.
    nearest: npt.NDArray[np.int64] = np.argmin((words**2).sum(axis=1) - 2.0 * descriptors @ words.T, axis=1)
    return nearest


def _vlad(descriptors: FloatArray, words: FloatArray) -> FloatArray:
    residuals = np.zeros_like(words)
    if len(descriptors):
        nearest = _nearest_word(descriptors, words)
        for word in np.unique(nearest):
            residuals[word] = (descriptors[nearest == word] - words[word]).sum(axis=0)
    rooted = np.sign(residuals) * np.sqrt(np.abs(residuals))
    flat: FloatArray = rooted.reshape(-1)
    norm = float(np.linalg.norm(flat))
    return flat / norm if norm > 0 else flat
