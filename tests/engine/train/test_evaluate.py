from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from engine.gaussians import to_rows
from engine.options import TrainOptions
from engine.scene import PinholeView
from engine.train.evaluate import evaluate, fitted_mse, measured_how
from engine.train.init import round_gaussians
from engine.train.views import TrainingPhoto
from kernels.step import Device

VIEW = PinholeView(np.concatenate([np.eye(3), [[0.0], [0.0], [3.0]]], axis=1), 40.0, 40.0, 20.0, 15.0, 40, 30)


def cut_out(folder: Path, alpha: int) -> TrainingPhoto:
    """Return a black photo whose alpha is the same everywhere."""
    PillowImage.new("RGB", (40, 30)).save(folder / "a.png")
    PillowImage.new("L", (40, 30), alpha).save(folder / "a.png.png")
    return TrainingPhoto("a.png", folder / "a.png", VIEW, alpha=folder / "a.png.png")


def far_gaussian() -> torch.Tensor:
    """Return one gaussian that the view does not see."""
    return torch.from_numpy(to_rows(round_gaussians(np.array([[0.0, 0.0, -9.0]], np.float32), np.ones((1, 3)), np.array([0.1]), 0.5)))


def test_gain_and_offset_explain_another_exposure_and_nothing_else() -> None:
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.1
    gain, offset = torch.tensor([1.2, 0.8, 1.0])[:, None, None], torch.tensor([0.0, 0.1, -0.05])[:, None, None]
    shown = ((gain * image + offset) * 255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    assert fitted_mse(image, shown) < 1e-5
    other = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1))
    assert fitted_mse(other, shown) > 0.5 * float((shown.double() / 255.0).var(dim=(0, 1)).mean())


def test_the_fitted_error_looks_only_where_the_mask_lets_it() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = (image * 255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    shown[:4] = 0
    mask = torch.ones((8, 8), dtype=torch.uint8)
    mask[:4] = 0
    assert fitted_mse(image, shown, mask) < 1e-5 < fitted_mse(image, shown)


@pytest.mark.parametrize(
    ("over", "alpha", "expected"), [("white", 0, 100.0), ("black", 0, 100.0), ("white", 255, 0.0), ("black", 255, 100.0)]
)
def test_cut_outs_are_measured_over_the_background_asked_for(tmp_path: Path, over: str, alpha: int, expected: float) -> None:
    photo = cut_out(tmp_path, alpha)
    options = TrainOptions(sh_degree=0, cut_outs_over=over)
    figures = evaluate(Device(n_threads=1), far_gaussian(), [photo], options, tmp_path / "renders")
    assert figures[0]["psnr_db"] == pytest.approx(expected, abs=1e-3)
    assert measured_how(options, [photo]).endswith(f"cut-outs over {over}")
    with PillowImage.open(tmp_path / "renders" / "a.png.render.png") as render:
        assert render.getpixel((0, 0)) == ((255,) * 3 if over == "white" else (0,) * 3)
