import numpy as np
import pytest
import torch

from engine.scene import PinholeView
from engine.train.background import BLACK, WHITE, colour_to_measure, in_front_of_some_colour, over, over_by_table
from engine.train.step import Example

VIEW = PinholeView(np.eye(3, 4), 10.0, 10.0, 2.0, 2.0, 4, 4)


def example(alpha: torch.Tensor | None) -> Example:
    return Example(VIEW, torch.full((4, 4, 3), 40, dtype=torch.uint8), 0, 9, alpha=alpha)


def test_over_is_the_photo_where_opaque_and_the_colour_where_empty() -> None:
    alpha = torch.tensor([[255, 0], [128, 51]], dtype=torch.uint8)
    pixels = torch.tensor([[[200, 100, 0], [0, 0, 0]], [[64, 128, 0], [51, 0, 10]]], dtype=torch.uint8)
    shown = over((1.0, 0.5, 0.0), pixels, alpha)
    expected = pixels.double() + (255.0 - alpha.double())[:, :, None] * torch.tensor([1.0, 0.5, 0.0])
    assert float((shown.double() - expected).abs().max()) <= 0.5
    assert shown[0, 0].tolist() == [200, 100, 0]


def test_a_colour_brighter_than_its_alpha_does_not_wrap() -> None:
    pixels, alpha = torch.full((1, 1, 3), 60, dtype=torch.uint8), torch.full((1, 1), 50, dtype=torch.uint8)
    assert over(WHITE, pixels, alpha).tolist() == [[[255, 255, 255]]]
    assert pixels.tolist() == [[[60, 60, 60]]]


def test_cut_outs_get_a_new_colour_at_every_step_and_no_key() -> None:
    generator = torch.Generator().manual_seed(0)
    empty = example(torch.zeros((4, 4), dtype=torch.uint8))
    empty.pixels.zero_()
    steps = [in_front_of_some_colour(empty, "auto", generator) for _ in range(3)]
    assert len({step.background for step in steps}) == 3
    for step in steps:
        assert step.key == 0
        torch.testing.assert_close(step.pixels[2, 1].double() / 255.0, torch.tensor(step.background).double(), atol=0.003, rtol=0.0)


def test_the_colours_follow_from_the_generator() -> None:
    cut_out = example(torch.zeros((4, 4), dtype=torch.uint8))
    first, again = (in_front_of_some_colour(cut_out, "random", torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.background == again.background
    assert torch.equal(first.pixels, again.pixels)


@pytest.mark.parametrize(("choice", "background"), [("auto", BLACK), ("black", BLACK), ("white", WHITE)])
def test_other_photos_keep_their_pixels_and_key(choice: str, background: tuple[float, float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    untouched = generator.get_state()
    plain = in_front_of_some_colour(example(None), choice, generator)
    assert (plain.background, plain.key) == (background, 9)
    assert plain.pixels.unique().tolist() == [40]
    assert torch.equal(generator.get_state(), untouched)


def test_a_fixed_background_keeps_the_key() -> None:
    half = example(torch.full((4, 4), 128, dtype=torch.uint8))
    white = in_front_of_some_colour(half, "white", torch.Generator())
    assert (white.background, white.key) == (WHITE, 9)
    assert white.pixels.unique().tolist() == [40 + 127]


@pytest.mark.parametrize(
    ("choice", "over_what", "is_cut_out", "expected"),
    [
        ("auto", "white", True, WHITE),
        ("random", "black", True, BLACK),
        ("auto", "white", False, BLACK),
        ("white", "black", False, WHITE),
        ("random", "white", False, BLACK),
    ],
)
def test_cut_outs_are_measured_over_what_the_options_say(
    choice: str, over_what: str, is_cut_out: bool, expected: tuple[float, float, float]
) -> None:
    assert colour_to_measure(choice, over_what, is_cut_out=is_cut_out) == expected


def test_a_card_puts_cut_outs_over_a_colour_bit_for_bit_as_the_cpu_does() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 48, 3), generator=generator, dtype=torch.uint8)
    alpha = torch.randint(0, 256, (32, 48), generator=generator, dtype=torch.uint8)
    colour = (0.3, 1.0, 0.71)
    table = torch.arange(255.0, -1.0, -1.0, dtype=torch.float64)[:, None] * torch.tensor(colour, dtype=torch.float64)
    assert torch.equal(over_by_table(table.round().to(torch.uint8), pixels, alpha), over(colour, pixels, alpha))
