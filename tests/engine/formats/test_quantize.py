import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.formats import quantize
from tests.engine.formats.scenes import floats


def test_round_half_up_rounds_to_the_nearest_and_halves_up():
    assert quantize.round_half_up([-1.5, -0.51, -0.5, 0.49, 0.5, 2.5]).tolist() == [-1, -1, 0, 0, 1, 3]


@given(st.lists(floats(-50, 50), min_size=1, max_size=40), st.sampled_from([2, 256, 65536]))
def test_uniform_codes_err_by_half_a_step_at_most(values, levels):
    low, high = min(values), max(values)
    codes = quantize.encode_uniform(values, low, high, levels)
    decoded = quantize.decode_uniform(codes, low, high, levels)
    assert np.max(np.abs(decoded - values)) <= (high - low) / (levels - 1) / 2 * (1 + 1e-9) + 1e-12


def test_uniform_codes_of_equal_values_decode_to_that_value():
    assert quantize.decode_uniform(quantize.encode_uniform([3.5, 3.5], 3.5, 3.5, 256), 3.5, 3.5, 256).tolist() == [3.5, 3.5]


@given(st.lists(floats(-60, 60), min_size=1, max_size=40))
def test_opacity_bytes_err_by_a_five_hundred_and_tenth_at_most(logits):
    decoded = quantize.decode_opacity(quantize.encode_opacity(logits))
    assert np.isfinite(decoded).all()
    assert np.max(np.abs(quantize.sigmoid(decoded) - quantize.sigmoid(logits))) <= quantize.OPACITY_BOUND.error + 1e-7


@given(st.lists(floats(-1e6, 1e6), min_size=1, max_size=40))
def test_exp_map_undoes_log_map(values):
    assert np.allclose(quantize.exp_map(quantize.log_map(values)), values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("step", [quantize.SQRT1_2 / 511, 2**0.5 / 255, 0.05])
def test_three_smallest_components_turn_by_no_more_than_the_stated_angle(step):
    quats = np.random.default_rng(1).standard_normal((200_000, 4))
    # The hardest places: two to four components of equal size, where small errors change which is the largest.
    quats[:50_000] = np.sign(quats[:50_000]) + 1e-3 * quats[50_000:100_000]
    quats[50_000:80_000, 2:] *= 0.01
    largest, others = quantize.drop_largest(quats)
    decoded = quantize.restore_largest(largest, quantize.round_half_up(others / step) * step)
    unit = quantize.normalized(quats)
    chord = np.minimum(np.linalg.norm(unit - decoded, axis=1), np.linalg.norm(unit + decoded, axis=1))
    angle = float(np.max(4 * np.arcsin(chord / 2)))
    bound = quantize.smallest_three_angle(step)
    assert 0.6 * bound < angle <= bound


def test_a_quaternion_of_length_zero_becomes_the_identity():
    assert quantize.normalized([[0.0, 0.0, 0.0, 0.0]]).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_harmonic_buckets_err_by_the_stated_bound(bits):
    values = np.linspace(-1.3, 1.3, 20_001)
    bound = quantize.sh_bucket_bound(bits)
    decoded = (quantize.encode_sh_buckets(values, bits).astype(float) - 128) / 128
    error = np.abs(decoded - np.clip(values, bound.low, bound.high))
    assert 0.9 * bound.error < error.max() <= bound.error


@given(st.lists(floats(-30, 30), min_size=1, max_size=300))
def test_a_codebook_errs_by_half_its_widest_gap_at_most(values):
    book = quantize.fit_codebook(values, size=16, rounds=5)
    assert len(book) == 16
    assert np.all(np.diff(book) >= 0)
    error = np.abs(book[quantize.assign_codebook(values, book)] - np.array(values))
    assert error.max() <= quantize.codebook_bound(book).error + 1e-5


def test_a_codebook_beats_an_even_grid_on_uneven_values():
    values = np.random.default_rng(2).standard_normal(20_000) ** 3
    book = quantize.fit_codebook(values)
    grid = np.linspace(values.min(), values.max(), 256).astype(np.float32)

    def squares(codebook):
        return np.mean((codebook[quantize.assign_codebook(values, codebook)] - values) ** 2)

    assert squares(book) < 0.15 * squares(grid)


def test_a_codebook_follows_the_weights():
    values = np.linspace(0, 1, 5001)
    weights = np.where(values > 0.9, 100.0, 1.0)
    book = quantize.fit_codebook(values, weights)
    assert np.mean(book > 0.9) > 0.25


def test_codebooks_are_the_same_every_time():
    values = np.random.default_rng(3).standard_normal(5000)
    assert quantize.fit_codebook(values).tobytes() == quantize.fit_codebook(values).tobytes()
