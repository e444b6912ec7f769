"""Stage: gaussians from posed photos, by gradient descent on the pictures they make."""

import gc
from dataclasses import asdict, replace
from typing import Any

import torch

from engine.device import CPU, device_name, to_measure
from engine.errors import Cancelled, CaptureError
from engine.events import OnEvent, Progress, Warned
from engine.formats.ply import write_ply
from engine.gaussians import from_rows
from engine.options import RunOptions
from engine.train.antialias import hold_above_floor
from engine.train.background import in_front_of_some_colour
from engine.train.budget import free_on
from engine.train.checkpoint import Checkpoint, hash_rows
from engine.train.density import densify
from engine.train.eta import Forecast, foresee
from engine.train.evaluate import Kept, evaluate, mean_of, measured_how
from engine.train.finite import finite_in
from engine.train.ladder import Rung, Shortage, asked_bytes, is_shortage, lowered, warning
from engine.train.prepare import Job, prepare
from engine.train.recipe import Recipe, recipe_of
from engine.train.schedule import Scale, StepPlan, plan
from engine.train.step import Buffers, Example, TrainState, train_step
from engine.train.trial import clocks
from engine.train.views import TrainingPhoto, ViewSampler, at_level
from engine.train.watch import Observe, Setup, Watch, write_preview
from engine.unfinished import Headway, Pieces, unfinished
from engine.workspace import Workspace, replacing, write_json
from kernels.step import LossValues

THIN_PSNR_DB = 17.0  # below, a result is worth a word of warning


def run(
    workspace: Workspace, options: RunOptions, on_event: OnEvent, recipe: Recipe | None = None, observe: Observe | None = None
) -> dict[str, Any]:
    """Train, measure on held-out photos, and write train/gaussians.ply, metrics.json and preview.webp.

    ``recipe`` replaces that of the options, for experiments; ``observe`` is shown the state after each step and must leave it alone.
    A run that was interrupted goes on from its last checkpoint; one that runs out of memory goes on with less (engine.train.ladder).
    Raises ``CaptureError`` when the held-out PSNR is below the floor, ``CapacityError`` when the least does not fit.
    """
    torch.set_num_threads(1)  # the kernels have their own pool; torch's would only fight it
    job = Job(workspace, options, recipe or recipe_of(options.train), on_event, observe, device_name())
    workspace.train.mkdir(exist_ok=True)
    rung = Rung()
    while True:
        outcome = attempt(job, rung)
        if not isinstance(outcome, Shortage):
            return outcome
        outcome = replace(outcome, free_bytes=free_on(given_back(job.device_name)))
        rung = lowered(outcome)
        on_event(warning(outcome, rung))


def attempt(job: Job, rung: Rung) -> dict[str, Any] | Shortage:
    """Return the figures of a finished run, or why it did not fit; nothing of it is held any longer then."""
    asked = job.options.train
    try:
        setup, saved = prepare(job, rung)
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        cap, side = rung.max_gaussians or asked.max_gaussians, rung.max_side or asked.max_side
        return Shortage(rung, cap, side, asked_bytes(str(error)), 0, str(error))
    try:
        return carry_out(setup, saved)
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        reached = Rung(saved.rung, saved.max_gaussians, saved.max_side)
        return Shortage(reached, saved.max_gaussians, longest_side(setup), asked_bytes(str(error)), 0, str(error))


def given_back(name: str) -> torch.device:
    """Give what is no longer held back to the card; return where the run's tensors lie."""
    gc.collect()
    if name == CPU or not torch.cuda.is_available():
        return torch.device(CPU)
    torch.cuda.empty_cache()
    return torch.device(name)


def carry_out(setup: Setup, saved: Checkpoint) -> dict[str, Any]:
    """Take the steps that are left and return the figures."""
    resumed_from = saved.state.step
    buffers: dict[tuple[int, int], Buffers] = {}
    forecast = foresee(setup, saved, lambda state, index, planned: one_step(setup, state, index, planned, buffers))
    setup.on_event(Progress("train", 0.0, forecast.estimate.words(), {"estimate": asdict(forecast.estimate), "steps": saved.steps}))
    began = clocks()
    spent = optimise(setup, saved, forecast)
    stats = {**finish(setup, saved.state), **spent, **forecast.estimate.beside(clocks() - began)}
    lowered_to = {"memory_rung": saved.rung, "max_gaussians": saved.max_gaussians, "max_side": longest_side(setup)}
    return {**stats, "n_start": saved.n_start, "resumed_from_step": resumed_from, "device": setup.device_name, **lowered_to}


def longest_side(setup: Setup) -> int:
    """Return the longer side of the largest photo trained on, pixels."""
    return max(max(photo.view.width, photo.view.height) for photo in setup.split.train)


def optimise(setup: Setup, saved: Checkpoint, forecast: Forecast) -> dict[str, float]:
    """Take the remaining steps; return the wall and CPU seconds they took, checkpoints and previews included."""
    state = saved.state
    sampler = ViewSampler(len(setup.split.train), state.generator)
    sampler.queue = list(saved.queue)
    watch = Watch(setup, saved, forecast)
    buffers: dict[tuple[int, int], Buffers] = {}
    try:
        for step in range(state.step + 1, setup.options.steps + 1):
            planned = plan(step, setup.options, setup.recipe, Scale(setup.extent, saved.n_start, len(state.rows)))
            loss = one_step(setup, state, sampler.next(), planned, buffers)
            watch.after_step(state, sampler, loss)
            if setup.observe is not None:
                setup.observe(state)
        watch.after_last_step(state, sampler)
    except Cancelled:
        watch.save(state, sampler)
        raise
    return watch.spent()


def one_step(setup: Setup, state: TrainState, index: int, planned: StepPlan, buffers: dict[tuple[int, int], Buffers]) -> LossValues:
    """Take one step on one photo, then change the gaussians' number and places where the plan says so."""
    view = at_level(setup.split.train[index].view, planned.level)
    pixels = setup.photos.pixels(index, planned.level)
    size = (view.height, view.width)
    if size not in buffers:
        buffers[size] = Buffers.of(*size, setup.device.tensors)
    mask, alpha = setup.photos.mask(index, planned.level), setup.photos.alpha(index, planned.level)
    example = Example(view, pixels, index, 1 + index * 8 + planned.level, mask, alpha)
    example = in_front_of_some_colour(example, setup.options.background, state.generator)
    with finite_in(f"step {planned.adam.step} on {setup.split.train[index].name}"):
        loss = train_step(setup.device, state, example, planned, setup.recipe.ssim_weight, buffers[size])
    densify(state, planned, setup.recipe, setup.extent)
    if planned.hold_sizes:
        hold_above_floor(state.rows, [photo.view for photo in setup.split.train], setup.recipe.floor_px)
    return loss


def measure(setup: Setup, state: TrainState, photos: list[TrainingPhoto]) -> list[dict[str, Any]]:
    """Return the figures of each photo (see ``evaluate``); those of the same gaussians that an attempt left are not measured again."""
    device, renders = to_measure(setup.device, setup.device_name), setup.folder / "renders"

    def tell(n_done: int) -> None:
        words, data = f"measuring ({n_done}/{len(photos)} photos)", {"step": state.step, "steps": setup.options.steps}
        setup.on_event(Progress("train", 0.96 + 0.03 * n_done / len(photos), words, data))

    made_from = {"run": setup.key, "rows": hash_rows(state.rows), "photos": [photo.name for photo in photos]}
    with unfinished(setup.folder.parent, "train", made_from) as folder, finite_in(f"after step {state.step}, the last"):
        pieces = Pieces(folder, Headway("train", setup.on_event, state.step))
        tell(0)
        return evaluate(device, state.rows, photos, setup.options, renders, Kept(pieces, tell))


def finish(setup: Setup, state: TrainState) -> dict[str, Any]:
    """Measure, refuse what is too bad, write the gaussians; return the figures."""
    held_out = bool(setup.split.test)
    photos = setup.split.test or setup.split.train
    figures = measure(setup, state, photos)
    write_json(setup.folder / "metrics.json", {"held_out": held_out, "measured": measured_how(setup.options, photos), "photos": figures})
    plain, fitted, ssim = (mean_of(figures, name) for name in ("psnr_db", "psnr_fitted_db", "ssim"))
    # Where exposures differ, a held-out photo's own is not the gaussians' fault.
    psnr = plain if state.exposure is None else fitted
    if psnr < setup.options.min_psnr_db:
        worst = ", ".join(
            f"{each['name']} {each['psnr_db']:.1f} dB" for each in sorted(figures, key=lambda each: float(each["psnr_db"]))[:3]
        )
        raise CaptureError(
            "capture.low_quality",
            "The result does not look like the photos",
            f"PSNR is {psnr:.1f} dB, below the floor of {setup.options.min_psnr_db:.1f} dB; worst: {worst}",
            "The camera positions are probably wrong. Take sharper photos with more overlap and nothing that moves.",
        )
    if psnr < THIN_PSNR_DB:
        detail = f"photos that were kept out are matched with only {psnr:.1f} dB; views between your photos will look blurred"
        setup.on_event(Warned("train", "photo.sparse", f"{detail}. More photos, closer together, would help.", {"psnr_db": round(psnr, 2)}))
    with replacing(setup.folder / "gaussians.ply") as aside:
        write_ply(aside, from_rows(state.rows.cpu().numpy(), setup.options.sh_degree))
    write_preview(setup, state)
    return {
        "n_gaussians": len(state.rows),
        "n_train": len(setup.split.train),
        "n_test": len(setup.split.test),
        "held_out": held_out,
        "psnr_db": round(plain, 3),
        "psnr_fitted_db": round(fitted, 3),
        "exposure_corrected": state.exposure is not None,
        "ssim": round(ssim, 4),
        "steps": state.step,
        "kernel": setup.device.info().name,
    }
