from pathlib import Path

import pytest
import torch

from engine.train import checkpoint as checkpoints
from engine.train.checkpoint import Checkpoint
from engine.train.step import TrainState
from engine.train.views import ViewSampler


def some_state(step: int) -> TrainState:
    state = TrainState.fresh(torch.randn(5, 64), torch.Generator().manual_seed(step))
    torch.rand(step, generator=state.generator)
    state.step = step
    state.density += torch.rand(5, 4)
    return state


def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    state = some_state(3)
    checkpoints.save(tmp_path, Checkpoint("key", state, [2, 0], 5, 1.5, 90, 7000))
    loaded = checkpoints.load_latest(tmp_path, "key")
    assert loaded is not None
    assert torch.equal(loaded.state.rows, state.rows)
    assert torch.equal(loaded.state.density, state.density)
    assert (loaded.steps, loaded.max_gaussians) == (90, 7000)
    assert (loaded.state.step, loaded.queue, loaded.n_start, loaded.seconds) == (3, [2, 0], 5, 1.5)
    assert torch.equal(torch.rand(4, generator=loaded.state.generator), torch.rand(4, generator=state.generator))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4000):
        checkpoints.save(tmp_path, Checkpoint("key", some_state(step), [], 5, 0.0, 90, 7000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0000030.pt", "checkpoint-0004000.pt"]


@pytest.mark.parametrize("keep", [0, 1, 100, 2000])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, keep: int) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, Checkpoint("key", some_state(step), [], 5, 0.0, 90, 7000))
    newest = tmp_path / "checkpoint-0000002.pt"
    newest.write_bytes(newest.read_bytes()[:keep])
    loaded = checkpoints.load_latest(tmp_path, "key")
    assert loaded is not None
    assert loaded.state.step == 1


def test_a_checkpoint_of_other_options_is_not_taken(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, Checkpoint("key", some_state(1), [], 5, 0.0, 90, 7000))
    assert checkpoints.load_latest(tmp_path, "other") is None


def test_the_sampler_visits_every_photo_once_a_round() -> None:
    sampler = ViewSampler(7, torch.Generator().manual_seed(0))
    rounds = [[sampler.next() for _ in range(7)] for _ in range(3)]
    assert all(sorted(visited) == list(range(7)) for visited in rounds)
    assert rounds[0] != rounds[1]
