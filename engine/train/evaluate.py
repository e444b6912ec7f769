"""How good the gaussians are: PSNR and SSIM on photos that training never saw."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PillowImage

from engine.options import TrainOptions
from engine.render import render_rows, to_bytes
from engine.train.background import colour_to_measure, over
from engine.train.views import TrainingPhoto, load_alpha, load_mask, load_pixels
from engine.unfinished import Pieces
from kernels.step import Device

SHOWN = 8  # pairs of photo and render kept on disk


@dataclass(frozen=True)
class Kept:
    """What an attempt that was killed has measured, and who hears how many photos are done."""

    pieces: Pieces
    tell: Callable[[int], None]


def evaluate(
    device: Device,
    rows: torch.Tensor,
    photos: list[TrainingPhoto],
    options: TrainOptions,
    renders: Path | None,
    kept: Kept | None = None,
) -> list[dict[str, Any]]:
    """Return name, psnr_db and ssim of each photo; write up to ``SHOWN`` pairs NAME.photo.png / NAME.render.png into ``renders``.

    Both at the training size, on values clamped to 0..1; SSIM over RGB with an 11-tap window and zero padding, as 3DGS measures it.
    What a photo's mask hides is not measured; cut-outs are put over ``options.cut_outs_over``. psnr_fitted_db is that of
    the render after the gain and offset per channel that fit the photo best.
    """
    if renders is not None:
        renders.mkdir(parents=True, exist_ok=True)
    stride = max(1, math.ceil(len(photos) / SHOWN))
    figures = []
    for index, photo in enumerate(photos):
        shown_in = renders if index % stride == 0 else None
        found = kept.pieces.get(f"photo-{index}") if kept else None
        if found is None:
            found = evaluate_one(device, rows, photo, options, shown_in)
            if kept:
                kept.pieces.put(f"photo-{index}", found, pair_of(shown_in, photo) if shown_in else ())
                kept.tell(index + 1)
        figures.append(found)
    return figures


def evaluate_one(
    device: Device, rows: torch.Tensor, photo: TrainingPhoto, options: TrainOptions, renders: Path | None = None
) -> dict[str, Any]:
    """Return the figures of one photo (see ``evaluate``), and write the pair into ``renders``."""
    background = colour_to_measure(options.background, options.cut_outs_over, is_cut_out=photo.alpha is not None)
    pixels = load_pixels(photo)
    if photo.alpha:
        pixels = over(background, pixels, load_alpha(photo))
    pixels = pixels.to(device.tensors)
    image = render_rows(device, rows, photo.view, options.sh_degree, background).clamp_(0.0, 1.0)
    mask = load_mask(photo).to(device.tensors) if photo.mask else None
    loss = device.loss(image, pixels, ssim_weight=0.2, mask=mask)
    fitted = fitted_mse(image, pixels, mask)
    if renders is not None:
        write_pair(pair_of(renders, photo), pixels, image)
    return {
        "name": photo.name,
        "psnr_db": round(psnr_db(loss.mse), 3),
        "ssim": round(loss.ssim, 4),
        "psnr_fitted_db": round(psnr_db(fitted), 3),
    }


def measured_how(options: TrainOptions, photos: list[TrainingPhoto]) -> str:
    """Say what the figures of ``evaluate`` are."""
    ground = f"; cut-outs over {options.cut_outs_over}" if any(photo.alpha for photo in photos) else ""
    return f"psnr_db and ssim: renders as they are; psnr_fitted_db: after the gain and offset per channel that fit the photo best{ground}"


def fitted_mse(image: torch.Tensor, pixels: torch.Tensor, mask: torch.Tensor | None = None) -> float:  # [3, H, W], [H, W, 3], [H, W]
    """Return the mean squared error after the best gain and offset per channel: what is left once the exposure is made the photo's."""
    kept = slice(None) if mask is None else mask.reshape(-1).bool()
    rendered = image.reshape(3, -1)[:, kept].double()
    shown = pixels.reshape(-1, 3)[kept].T.double() / 255.0
    if rendered.shape[1] == 0:
        return 0.0
    from_mean = rendered - rendered.mean(dim=1, keepdim=True)
    gain = (from_mean * shown).sum(dim=1) / from_mean.square().sum(dim=1).clamp_min(1e-12)
    offset = shown.mean(dim=1) - gain * rendered.mean(dim=1)
    corrected = (gain[:, None] * rendered + offset[:, None]).clamp(0.0, 1.0)
    return float((corrected - shown).square().mean())


def psnr_db(mse: float) -> float:
    """Return the peak signal-to-noise ratio for values in 0..1, at most 100 dB."""
    return -10.0 * math.log10(max(mse, 1e-10))


def mean_of(figures: list[dict[str, Any]], name: str) -> float:
    """Return the mean of one figure over the photos."""
    return float(sum(each[name] for each in figures) / len(figures))


def pair_of(folder: Path, photo: TrainingPhoto) -> tuple[Path, Path]:
    """Return where a photo and our render of it go."""
    stem = Path(photo.name).name
    return folder / f"{stem}.photo.png", folder / f"{stem}.render.png"


def write_pair(paths: tuple[Path, Path], pixels: torch.Tensor, image: torch.Tensor) -> None:
    """Write a photo and our render of it as PNG, for people to compare."""
    PillowImage.fromarray(pixels.cpu().numpy()).save(paths[0])
    PillowImage.fromarray(to_bytes(image.permute(1, 2, 0).cpu().numpy())).save(paths[1])
