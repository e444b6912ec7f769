import torch

from engine.train.density import DEAD_OPACITY, add_noise, choose_parents, put_in_order, refine
from engine.train.recipe import Recipe
from engine.train.split import rotations, split
from engine.train.step import TrainState


def random_rows(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn((n, 64), generator=generator)
    rows[:, 3:6] = rows[:, 3:6] * 0.3 - 3.0
    rows[:, 10] = 1.0
    return rows


def state_of(rows: torch.Tensor) -> TrainState:
    state = TrainState.fresh(rows.clone(), torch.Generator().manual_seed(1))
    state.optimizer.moment1.copy_(rows)
    state.scores = torch.arange(1.0, len(rows) + 1)
    return state


def test_the_halves_lie_on_the_longest_axis_about_the_parent() -> None:
    rows = random_rows(200)
    first, second = split(rows, Recipe())
    assert torch.allclose((first[:, :3] + second[:, :3]) / 2, rows[:, :3], atol=1e-6)
    longest = rows[:, 3:6].argmax(dim=1)
    axis = rotations(rows[:, 6:10])[torch.arange(200), :, longest]
    apart = first[:, :3] - second[:, :3]
    assert torch.allclose(torch.linalg.cross(apart, axis), torch.zeros(200, 3), atol=1e-6)
    assert torch.equal(first[:, 11:], rows[:, 11:])


def test_rotations_are_orthonormal_and_follow_the_quaternion() -> None:
    turns = rotations(torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]))
    assert torch.allclose(turns[0], torch.eye(3))
    # A quarter turn about z takes x to y.
    assert torch.allclose(turns[1] @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_parents_are_different_and_follow_the_error() -> None:
    scores = torch.zeros(1000)
    scores[:100] = 1.0
    chosen = choose_parents(scores, 100, torch.Generator().manual_seed(0))
    assert chosen.tolist() == list(range(100))


def test_growth_reaches_the_target_and_moments_follow_their_rows() -> None:
    rows = random_rows(100)
    state = state_of(rows)
    refine(state, 130, Recipe())
    assert len(state.rows) == 130
    assert state.optimizer.moment1.shape == (130, 64)
    assert state.optimizer.last_step.shape == state.scores.shape == (130,)
    untouched = (state.rows[:100] == rows).all(dim=1)
    assert int(untouched.sum()) == 70
    assert torch.equal(state.optimizer.moment1[:100][untouched], rows[untouched])
    assert not state.optimizer.moment1[:100][~untouched].any()


def test_the_dead_are_replaced_within_the_budget() -> None:
    rows = random_rows(100)
    rows[:30, 10] = torch.logit(torch.tensor(DEAD_OPACITY / 2))
    state = state_of(rows)
    refine(state, 100, Recipe())
    assert len(state.rows) == 100
    assert bool((torch.sigmoid(state.rows[:, 10]) > DEAD_OPACITY).all())


def test_all_dead_leaves_an_empty_scene_and_no_crash() -> None:
    rows = random_rows(10)
    rows[:, 10] = -20.0
    state = state_of(rows)
    refine(state, 10, Recipe())
    assert state.rows.shape == (0, 64)


def test_noise_moves_only_the_faint() -> None:
    rows = random_rows(100)
    rows[:50, 10] = torch.logit(torch.tensor(0.004))
    state = state_of(rows)
    add_noise(state, 10.0)
    moved = (state.rows[:, :3] != rows[:, :3]).any(dim=1)
    assert bool(moved[:50].all())
    assert not bool(moved[50:].any())
    assert torch.equal(state.rows[:, 3:], rows[:, 3:])


def test_order_moves_rows_and_moments_together_and_loses_none() -> None:
    rows = random_rows(300)
    state = state_of(rows)
    put_in_order(state)
    assert torch.equal(state.rows, state.optimizer.moment1)
    assert torch.equal(state.rows[:, 0].sort().values, rows[:, 0].sort().values)
    apart = (state.rows[1:, :3] - state.rows[:-1, :3]).norm(dim=1).mean()
    assert apart < 0.7 * (rows[1:, :3] - rows[:-1, :3]).norm(dim=1).mean()
