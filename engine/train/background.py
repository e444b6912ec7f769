"""What lies behind the gaussians while training.

Photos of scenes fill their frames, so black, which nothing sees. Cut-outs (photos with alpha) are put over a new colour at every step, and
so are the gaussians: what is not the object can match that colour only by staying empty, and the file shows nothing around the object.
"""

from dataclasses import replace

import numpy as np
import torch

from engine.train.step import Example

Colour = tuple[float, float, float]
BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)


def in_front_of_some_colour(example: Example, choice: str, generator: torch.Generator) -> Example:
    """Return the example with the background of this step, a cut-out put over it.

    ``choice``: "auto" is random for cut-outs and black for other photos. Random colours are drawn from the run's generator.
    """
    kind = kind_of(choice, is_cut_out=example.alpha is not None)
    if kind == "random":
        red, green, blue = torch.rand(3, generator=generator, device="cpu").tolist()
        colour = (red, green, blue)
    else:
        colour = WHITE if kind == "white" else BLACK
    if example.alpha is None:
        return replace(example, background=colour)
    key = 0 if kind == "random" else example.key  # the target is another at every visit
    return replace(example, pixels=over(colour, example.pixels, example.alpha), background=colour, key=key)


def colour_to_measure(choice: str, cut_outs_over: str, *, is_cut_out: bool) -> Colour:
    """Return the background to measure over: of cut-outs that of the option, else the one trained with (black for random)."""
    chosen = cut_outs_over if is_cut_out else kind_of(choice, is_cut_out=False)
    return WHITE if chosen == "white" else BLACK


def kind_of(choice: str, *, is_cut_out: bool) -> str:
    """Return what "auto" stands for."""
    if choice == "auto":
        return "random" if is_cut_out else "black"
    return choice


def over(colour: Colour, pixels: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:  # [H, W, 3] uint8 over black, [H, W] uint8
    """Return a cut-out over a colour, [H, W, 3] uint8."""
    if colour == BLACK:
        return pixels
    remainder = np.arange(255.0, -1.0, -1.0)[:, None]  # of the background, by alpha
    table = np.rint(remainder * np.asarray(colour)).astype(np.uint8)
    if pixels.device.type != "cpu":
        return over_by_table(torch.from_numpy(table).to(pixels.device, non_blocking=True), pixels, alpha)
    shown = pixels.numpy()
    behind = np.take(table, alpha.numpy(), axis=0)
    # JPEG and resampling leave colours a little brighter than their alpha: the sum must not wrap.
    np.minimum(behind, ~shown, out=behind)
    behind += shown
    return torch.from_numpy(behind)


def over_by_table(table: torch.Tensor, pixels: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:  # [256, 3], [H, W, 3], [H, W] uint8
    """Return ``over`` by torch's operations, for a card; ``table`` has the background's share of a pixel by its alpha."""
    return torch.minimum(table[alpha.long()], ~pixels) + pixels
