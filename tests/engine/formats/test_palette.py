import numpy as np

from engine.formats.palette import build_palette, nearest


def clustered(n: int, materials: int, noise: float, seed: int = 0):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((materials, 45)).astype(np.float32)
    return (centres[random.integers(0, materials, n)] + noise * random.standard_normal((n, 45))).astype(np.float32)


def squared_error(rows, palette, weights=None):
    return float(np.average(np.sum((rows - palette.entries[palette.labels]) ** 2, axis=1), weights=weights))


def test_as_many_entries_as_rows_keep_every_row():
    rows = clustered(50, 5, 0.1)
    palette = build_palette(rows, np.ones(50, np.float32), 50)
    assert np.array_equal(palette.entries[palette.labels], rows)


def test_a_palette_is_never_larger_than_asked_and_labels_fit():
    rows = clustered(5000, 40, 0.1)
    for size in (1, 2, 7, 64, 1024, 4999):
        palette = build_palette(rows, np.ones(5000, np.float32), size)
        assert 1 <= len(palette.entries) <= size
        assert 0 <= palette.labels.min() <= palette.labels.max() < len(palette.entries)


def test_clusters_that_are_there_are_found():
    rows = clustered(20_000, 60, 0.01)
    palette = build_palette(rows, np.ones(20_000, np.float32), 1024)
    assert squared_error(rows, palette) < 1.5 * 45 * 0.01**2


def test_more_entries_err_less():
    rows = clustered(8000, 500, 0.3)
    errors = [squared_error(rows, build_palette(rows, np.ones(8000, np.float32), size)) for size in (16, 256, 4096)]
    assert errors[0] > errors[1] > errors[2]


def test_what_weighs_more_errs_less():
    rows = clustered(8000, 400, 0.3)
    weights = np.where(np.arange(8000) % 4 == 0, 10.0, 0.1).astype(np.float32)
    plain = build_palette(rows, np.ones(8000, np.float32), 512)
    weighted = build_palette(rows, weights, 512)
    assert squared_error(rows, weighted, weights) < 0.9 * squared_error(rows, plain, weights)


def test_weights_of_zero_are_allowed():
    palette = build_palette(clustered(2000, 40, 0.1), np.zeros(2000, np.float32), 64)
    assert np.isfinite(palette.entries).all()


def test_equal_rows_need_one_entry():
    rows = np.ones((3000, 9), np.float32)
    palette = build_palette(rows, np.ones(3000, np.float32), 256)
    assert np.array_equal(palette.entries[palette.labels], rows)


def test_the_same_seed_gives_the_same_palette():
    rows = clustered(6000, 100, 0.2)
    first, second = (build_palette(rows, np.ones(6000, np.float32), 256, seed=3) for _ in range(2))
    assert first.entries.tobytes() == second.entries.tobytes()
    assert np.array_equal(first.labels, second.labels)


def test_nearest_agrees_with_all_distances():
    rows, entries = clustered(300, 10, 0.5), clustered(40, 10, 0.5, seed=1)
    distance = np.sum((rows[:, None].astype(np.float64) - entries[None]) ** 2, axis=2)
    assert np.array_equal(nearest(rows, entries), np.argmin(distance, axis=1))
