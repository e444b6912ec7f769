"""Before the first step: device, photos, budget, and the state to go on from."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from engine.device import open_device
from engine.errors import InputError
from engine.events import OnEvent, Progress, Warned
from engine.options import RunOptions
from engine.scene import Reconstruction
from engine.train import checkpoint as checkpoints
from engine.train.budget import bytes_per_gaussian, degree_for, fit, free_on
from engine.train.checkpoint import Checkpoint
from engine.train.exposure import first_exposure
from engine.train.init import camera_extent
from engine.train.ladder import Rung
from engine.train.recipe import Recipe
from engine.train.start import first_rows
from engine.train.step import TrainState
from engine.train.views import PhotoCache, cache_bytes, load_split
from engine.train.watch import Observe, Setup
from engine.workspace import Workspace, hash_json, read_stamp


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    workspace: Workspace
    options: RunOptions
    recipe: Recipe
    on_event: OnEvent
    observe: Observe | None
    device_name: str  # as engine.device names it


def prepare(job: Job, rung: Rung) -> tuple[Setup, Checkpoint]:
    """Return what a run holds fixed, and the state that it goes on from: the last checkpoint's, or the first."""
    workspace, options = job.workspace, job.options
    device = open_device(job.device_name, options.threads, waits=False)
    key = run_key(workspace, options, job.recipe)
    saved = load_checkpoint(workspace, key, rung, device.tensors)
    max_side = (saved.max_side if saved else rung.max_side) or options.train.max_side
    split, scene = load_split(workspace.undistorted, max_side, options.train.holdout_every)
    if not split.train:
        raise InputError("input.too_few_photos", "Too few photos", "no photo is left to train on", "Add photos, or hold none out.")
    photos = PhotoCache(split.train, cache_bytes(device.tensors), device.tensors)
    extent = camera_extent(np.stack([image.centre_in_world for image in scene.images]))
    shown = (workspace.train, job.on_event, job.observe, job.device_name)
    setup = Setup(device, split, photos, extent, job.recipe, options.train, key, *shown)
    if saved is None:
        saved = first_checkpoint(job, fitted(setup, rung), scene, rung)
    if rung.number:
        checkpoints.save(setup.folder, saved)  # a run that is killed now stays on its rung
    degree = degree_for(options.train, len(split.train))
    chosen = replace(options.train, steps=saved.steps, max_gaussians=saved.max_gaussians, sh_degree=degree)
    return replace(setup, options=chosen), saved


def first_checkpoint(job: Job, setup: Setup, scene: Reconstruction, rung: Rung) -> Checkpoint:
    """Return the state before the first step."""
    generator = torch.Generator().manual_seed(job.options.seed)
    rows = first_rows(setup, scene, generator)
    exposure = first_exposure(job.workspace.undistorted, scene, setup.split.train, setup.photos, setup.options.exposure)
    state = TrainState.fresh(rows, generator, exposure.to(rows.device) if exposure else None)
    steps, most = setup.options.steps, setup.options.max_gaussians
    return Checkpoint(setup.key, state, [], len(rows), 0.0, steps, most, rung.max_side, rung.number)


def fitted(setup: Setup, rung: Rung) -> Setup:
    """Return the setup with gaussians and steps fitted to rung, machine and photos; say what was changed and why."""
    where = setup.device.tensors
    cap = min(setup.options.max_gaussians, rung.max_gaussians or setup.options.max_gaussians)
    budget = fit(replace(setup.options, max_gaussians=cap), setup.split.train, free_on(where), bytes_per_gaussian(where))
    for change in budget.changes:
        setup.on_event(Progress("train", 0.0, change, {"steps": budget.options.steps, "max_gaussians": budget.options.max_gaussians}))
    if budget.warning:
        setup.on_event(Warned("train", "capacity.little_memory", budget.warning, {"max_gaussians": budget.options.max_gaussians}))
    return replace(setup, options=budget.options)


def load_checkpoint(workspace: Workspace, key: str, rung: Rung, where: torch.device) -> Checkpoint | None:
    """Return the last checkpoint that fits, on its rung or the one asked for, whichever is lower; remove those that do not fit."""
    saved = checkpoints.load_latest(workspace.train, key, where)
    if saved is not None and rung.number > saved.rung:
        fits = len(saved.state.rows) <= rung.max_gaussians
        saved = replace(saved, max_gaussians=rung.max_gaussians, max_side=rung.max_side, rung=rung.number) if fits else None
    if saved is None:
        checkpoints.clear(workspace.train)
    return saved


def run_key(workspace: Workspace, options: RunOptions, recipe: Recipe) -> str:
    """Return a key that is equal when a checkpoint fits: same photos and poses, same options, same seed, same recipe."""
    poses = read_stamp(workspace, "poses")
    return hash_json({"poses": poses.key if poses else "", "train": asdict(options.train), "seed": options.seed, "recipe": asdict(recipe)})
