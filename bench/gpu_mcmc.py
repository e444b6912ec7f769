"""A compact trainer on gsplat with its own MCMCStrategy, its default rates and our loss kernel: what our training is held against.

Rates, regularisers and counts are the defaults of gsplat's own trainer for this strategy; what is counted in steps of a run of 30,000 is
scaled to the length of the run, as that trainer's steps_scaler does. Its rates, noise and penalty on sizes are lengths in a world that
is about 1 wide, so it gets the cameras and points in such a world, as that trainer does by default.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu_opponent import RATES, OurLoss, View, optimizers_of, rasterize
from engine.options import TrainOptions
from engine.render import camera_params
from engine.scene import Array, PinholeView, Reconstruction
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


@dataclass(frozen=True)
class World:
    """Where the opponent's world has its origin, and how much longer its unit is than the scene's."""

    centre: Array  # [3]
    unit: float

    @classmethod
    def of(cls, scene: Reconstruction) -> "World":
        """Return the world about what the cameras look at, in which half of them are nearer to it than 1: gsplat's normalisation.

        What they look at is the median of each viewing ray's point nearest to the origin. That trainer turns the world as well,
        which changes nothing here.
        """
        centres = np.stack([image.centre_in_world for image in scene.images])
        ahead = np.stack([image.cam_from_world[2, :3] for image in scene.images])
        nearest = centres - (centres * ahead).sum(axis=1, keepdims=True) * ahead
        middle = np.median(nearest, axis=0)
        return cls(middle, float(np.median(np.linalg.norm(centres - middle, axis=1))) or 1.0)

    def points(self, points: Array) -> Array:
        """Return points [N, 3] of the scene in this world."""
        moved: Array = (points - self.centre) / self.unit
        return moved

    def view(self, view: PinholeView) -> PinholeView:
        """Return a view of the scene as one of this world, with the same picture."""
        rotation, shift = view.cam_from_world[:, :3], view.cam_from_world[:, 3:]
        moved = (shift + rotation @ self.centre[:, None]) / self.unit
        return replace(view, cam_from_world=np.hstack([rotation, moved]))


@dataclass
class McmcState:
    """Where a run stands."""

    parameters: dict[str, torch.nn.Parameter]
    optimizers: dict[str, Any]
    world: World
    reading_s: float  # decoding the photos, once and for all
    step: int = 0

    @property
    def count(self) -> int:
        """Gaussians now."""
        return len(self.parameters["means"])


Observe = Callable[[McmcState], None]


def first_parameters(run: McmcRun, world: World) -> dict[str, torch.nn.Parameter]:
    """Return a gaussian at each sparse point as gsplat's MCMC preset starts: a tenth of the gap wide, half opaque."""
    _, scene = load_split(run.undistorted, run.options.max_side, run.options.holdout_every)
    where, generator = run.device.tensors, torch.Generator().manual_seed(0)
    kept = torch.randperm(len(scene.points.xyz), generator=generator)[: run.options.max_gaussians].sort().values.numpy()
    points = torch.from_numpy(world.points(scene.points.xyz[kept])).float().to(where).contiguous()
    n = len(points)
    gaps = run.device.knn(points, 3).clamp(min=1e-14).sqrt()
    colours = torch.from_numpy(scene.points.rgb[kept]).float().to(where) / 255.0
    values = {
        "means": points,
        "scales": torch.log(gaps * INIT_SCALE)[:, None].repeat(1, 3),
        "quats": torch.rand((n, 4), generator=generator).to(where),
        "opacities": torch.logit(torch.full((n,), INIT_OPACITY, device=where)),
        "sh0": ((colours - 0.5) / SH_C0)[:, None, :],
        "shN": torch.zeros((n, (run.options.sh_degree + 1) ** 2 - 1, 3), device=where),
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
    world = World.of(scene)
    extent = camera_extent(world.points(np.stack([image.centre_in_world for image in scene.images])))
    parameters = first_parameters(run, world)
    rates = RATES | {"means": RATES["means"] * extent}
    views = [View.of(camera_params(world.view(photo.view)), where) for photo in split.train]
    began = time.perf_counter()
    pixels = [load_pixels(photo).to(where) for photo in split.train]
    reading_s = time.perf_counter() - began
    optimizers = optimizers_of(parameters, functools.partial(torch.optim.Adam, fused=True), rates)
    state = McmcState(parameters, optimizers, world, reading_s)
    strategy = strategy_of(run)
    strategy.check_sanity(state.parameters, state.optimizers)
    strategy_state = strategy.initialize_state()
    sampler = ViewSampler(len(views), torch.Generator().manual_seed(0))
    degree_every = max(1, int(1000 * options.steps / FULL_STEPS))
    for step in range(options.steps):
        rate, next_rate = (rates["means"] * LAST_RATE ** (each / options.steps) for each in (step, step + 1))
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
        strategy.step_post_backward(state.parameters, state.optimizers, strategy_state, step, picture.info, lr=next_rate)
        state.step = step + 1
        observe(state)
    return state


@torch.no_grad()
def mean_psnr(run: McmcRun, state: McmcState, photos: list[TrainingPhoto]) -> float:
    """Return the mean PSNR over photos of the scene, of pictures clamped to 0..1."""
    total = 0.0
    for photo in photos:
        view = View.of(camera_params(state.world.view(photo.view)), run.device.tensors)
        image = rasterize(run.gsplat, state.parameters, view, run.options.sh_degree).image.clamp(0.0, 1.0)
        shown = load_pixels(photo).to(run.device.tensors).float() / 255.0
        total += psnr_db(float((image - shown).square().mean()))
    return total / len(photos)
