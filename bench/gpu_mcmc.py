"""A compact trainer on gsplat with its own MCMCStrategy, its default rates and our loss kernel: what our training is held against.

Rates, regularisers and counts are the defaults of gsplat's own trainer for this strategy; what is counted in steps of a run of 30,000 is
scaled to the length of the run, as that trainer's steps_scaler does.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.gpu_opponent import RATES, OurLoss, View, optimizers_of, rasterize
from engine.options import TrainOptions
from engine.render import camera_params
from engine.train.evaluate import psnr_db
from engine.train.init import SH_C0, camera_extent
from engine.train.views import TrainingPhoto, ViewSampler, load_pixels, load_split
from kernels.step import Device

FULL_STEPS = 30_000
OPACITY_REG = SCALE_REG = 0.01
INIT_OPACITY, INIT_SCALE = 0.5, 0.1
LAST_RATE = 0.01  # of the positions' first


@dataclass(frozen=True)
class McmcRun:
    """What a run is made of."""

    gsplat: Any
    device: Device  # for the loss
    undistorted: Path
    options: TrainOptions


@dataclass
class McmcState:
    """Where a run stands."""

    parameters: dict[str, torch.nn.Parameter]
    optimizers: dict[str, Any]
    step: int = 0

    @property
    def count(self) -> int:
        """Gaussians now."""
        return len(self.parameters["means"])


Observe = Callable[[McmcState], None]


def first_parameters(run: McmcRun) -> dict[str, torch.nn.Parameter]:
    """Return a gaussian at each sparse point as gsplat's MCMC preset starts: a tenth of the gap wide, half opaque."""
    _, scene = load_split(run.undistorted, run.options.max_side, run.options.holdout_every)
    where = run.device.tensors
    points = torch.from_numpy(scene.points.xyz).float()[: run.options.max_gaussians].to(where).contiguous()
    n = len(points)
    gaps = run.device.knn(points, 3).clamp(min=1e-14).sqrt()
    colours = torch.from_numpy(scene.points.rgb).float()[:n].to(where) / 255.0
    values = {
        "means": points,
        "scales": torch.log(gaps * INIT_SCALE)[:, None].repeat(1, 3),
        "quats": torch.rand((n, 4), generator=torch.Generator().manual_seed(0)).to(where),
        "opacities": torch.logit(torch.full((n,), INIT_OPACITY, device=where)),
        "sh0": ((colours - 0.5) / SH_C0)[:, None, :],
        "shN": torch.zeros((n, 15, 3), device=where),
    }
    return {name: torch.nn.Parameter(value.contiguous()) for name, value in values.items()}


def strategy_of(run: McmcRun) -> Any:
    """Return gsplat's strategy with our cap and its own counts scaled to the run."""
    factor = run.options.steps / FULL_STEPS
    return run.gsplat.MCMCStrategy(
        cap_max=run.options.max_gaussians,
        refine_start_iter=int(500 * factor),
        refine_stop_iter=int(25_000 * factor),
        refine_every=max(1, int(100 * factor)),
    )


def train_mcmc(run: McmcRun, observe: Observe) -> McmcState:
    """Train; ``observe`` is shown the state after every step."""
    split, scene = load_split(run.undistorted, run.options.max_side, run.options.holdout_every)
    where, options = run.device.tensors, run.options
    extent = camera_extent(torch.stack([torch.from_numpy(image.centre_in_world) for image in scene.images]).numpy())
    parameters = first_parameters(run)
    rates = RATES | {"means": RATES["means"] * extent}
    state = McmcState(parameters, optimizers_of(parameters, functools.partial(torch.optim.Adam, fused=True), rates))
    strategy = strategy_of(run)
    strategy.check_sanity(state.parameters, state.optimizers)
    strategy_state = strategy.initialize_state()
    views = [View.of(camera_params(photo.view), where) for photo in split.train]
    pixels = [load_pixels(photo).to(where) for photo in split.train]
    sampler = ViewSampler(len(views), torch.Generator().manual_seed(0))
    degree_every = max(1, int(1000 * options.steps / FULL_STEPS))
    for step in range(options.steps):
        rate = rates["means"] * LAST_RATE ** (step / options.steps)
        state.optimizers["means"].param_groups[0]["lr"] = rate
        index = sampler.next()
        picture = rasterize(run.gsplat, state.parameters, views[index], min(step // degree_every, options.sh_degree))
        loss = OurLoss.apply(picture.image, run.device, pixels[index], 1 + index)  # type: ignore[no-untyped-call]
        loss = loss + OPACITY_REG * torch.sigmoid(state.parameters["opacities"]).mean()
        loss = loss + SCALE_REG * torch.exp(state.parameters["scales"]).mean()
        loss.backward()
        for optimizer in state.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        strategy.step_post_backward(state.parameters, state.optimizers, strategy_state, step, picture.info, lr=rate)
        state.step = step + 1
        observe(state)
    return state


@torch.no_grad()
def mean_psnr(run: McmcRun, state: McmcState, photos: list[TrainingPhoto]) -> float:
    """Return the mean PSNR over photos, of pictures clamped to 0..1."""
    total = 0.0
    for photo in photos:
        view = View.of(camera_params(photo.view), run.device.tensors)
        image = rasterize(run.gsplat, state.parameters, view, run.options.sh_degree).image.clamp(0.0, 1.0)
        shown = load_pixels(photo).to(run.device.tensors).float() / 255.0
        total += psnr_db(float((image - shown).square().mean()))
    return total / len(photos)
