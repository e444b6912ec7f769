"""Operations on tensors of a card that is not there: torch follows shapes and devices without data, and refuses two devices in one.

The card is torch's "meta" device: one for CUDA cannot be imitated by a torch that was built without it.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from engine.order import morton_order_of
from engine.scene import PinholeView
from engine.train.adc import reset_opacity
from engine.train.antialias import hold_above_floor
from engine.train.background import over
from engine.train.density import choose_parents, fade
from engine.train.exposure import Exposure
from engine.train.recipe import BUDGET
from engine.train.split import split, split_at_random
from engine.train.step import Buffers, TrainState

CARD = torch.device("meta")
N = 12


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with warnings.catch_warnings(), FakeTensorMode():
        yield


def state() -> TrainState:
    return TrainState.fresh(torch.empty((N, 64), device=CARD), torch.Generator().manual_seed(0))


def devices_of(held: TrainState) -> set[torch.device]:
    optimizer = held.optimizer
    return {each.device for each in (held.rows, optimizer.moment1, optimizer.moment2, optimizer.last_step, held.scores, held.density)}


def test_two_devices_in_one_operation_are_refused() -> None:
    with pytest.raises(RuntimeError, match="at least two devices, meta and cpu"):
        torch.empty(3, device=CARD) + torch.zeros(3)


def test_rows_stay_on_the_card_when_their_number_changes() -> None:
    held = state()
    held.resize_rows(torch.arange(N - 2, device=CARD), held.rows[:5])
    assert devices_of(held) == {CARD}
    assert len(held.rows) == N + 3


def test_gaussians_are_split_and_drawn_on_the_card() -> None:
    held = state()
    halves = split(held.rows, BUDGET)
    drawn = split_at_random(held.rows, 1.6, held.generator)
    chosen = choose_parents(held.scores, 4, held.generator)
    assert {each.device for each in (*halves, drawn, chosen)} == {CARD}


def test_opacities_sizes_and_order_are_changed_on_the_card() -> None:
    held = state()
    fade(held, 0.01)
    reset_opacity(held)
    view = PinholeView(np.eye(3, 4), 10.0, 10.0, 2.0, 2.0, 4, 4)
    hold_above_floor(held.rows, [view, view], 0.3)
    assert morton_order_of(held.rows[:, :3]).device == CARD
    assert devices_of(held) == {CARD}


def test_exposure_is_corrected_on_the_card_and_only_its_visits_are_the_hosts() -> None:
    exposure, buffers = Exposure.starting_at(torch.zeros((5, 3))).to(CARD), Buffers.of(8, 6, CARD)
    exposure.correct(2, buffers.image)
    assert {each.device for each in (exposure.values, exposure.moment1, exposure.moment2)} == {CARD}
    with pytest.raises(DataDependentOutputException) as caught:  # the one number that the host reads: how often the photo was visited
        exposure.learn(2, buffers.image, buffers.grad_image, 1e-2)
    assert [each.name for each in caught.traceback if each.path.name == "exposure.py"] == ["learn", "_step"]
    assert exposure.visits.device.type == "cpu"


def test_cut_outs_are_put_over_a_colour_on_the_card() -> None:
    pixels, alpha = (torch.empty(size, dtype=torch.uint8, device=CARD) for size in ((8, 6, 3), (8, 6)))
    assert over((0.2, 0.4, 0.6), pixels, alpha).device == CARD
