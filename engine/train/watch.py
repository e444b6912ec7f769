"""What a run holds fixed, and what it tells and saves by the clock while it goes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image as PillowImage

from engine.device import CPU, to_measure
from engine.events import Checkpointed, OnEvent, Progress
from engine.options import TrainOptions
from engine.render import render_rows, to_bytes
from engine.train import checkpoint as checkpoints
from engine.train.checkpoint import Checkpoint
from engine.train.evaluate import psnr_db
from engine.train.recipe import Recipe
from engine.train.step import TrainState
from engine.train.views import PhotoCache, Split, ViewSampler
from engine.workspace import replacing
from kernels.step import Device, LossValues

Observe = Callable[[TrainState], None]

REPORT_S = 0.5  # seconds between progress events
PREVIEW_SIDE = 480  # pixels
LAST_S = 10.0  # seconds of steps that are worth a checkpoint before measuring
# Seconds to an attempt's first checkpoint; from one to the next twice as long, up to ``checkpoint_s``. So an attempt that lives for some
# seconds has kept something: a machine that dies every quarter of a minute still finishes a training.
FIRST_S = 4.0


@dataclass(frozen=True)
class Setup:
    """What stays the same during a run."""

    device: Device
    split: Split
    photos: PhotoCache
    extent: float
    recipe: Recipe
    options: TrainOptions
    key: str
    folder: Path
    on_event: OnEvent
    observe: Observe | None = None
    device_name: str = CPU  # as engine.device names it


class Course(Protocol):
    """What a run is expected to take, step by step."""

    def share(self, step: int, steps: int) -> float:
        """Return how much of the run's time is behind at a step, 0..1."""
        ...

    def remaining_s(self, step: int, taken_s: float) -> float:
        """Return the seconds to come when reaching the step took ``taken_s``."""
        ...


def pauses(checkpoint_s: float) -> Iterator[float]:
    """Yield the seconds from the start of an attempt to its first checkpoint, from that to the next, and so on without end."""
    pause_s = min(FIRST_S, checkpoint_s)
    while True:
        yield pause_s
        pause_s = min(2.0 * pause_s, checkpoint_s)


class Watch:
    """Reports, previews and checkpoints by the clock; none of it changes what is computed."""

    def __init__(self, setup: Setup, saved: Checkpoint, course: Course) -> None:
        self._setup, self._course, self._begun = setup, course, saved
        self._start, self._cpu_start = time.monotonic(), time.process_time()
        self._reported = self._previewed = self._saved = self._start
        self._pauses = pauses(setup.options.checkpoint_s)
        self._pause_s = next(self._pauses)
        self._mse: list[float] = []

    def after_step(self, state: TrainState, sampler: ViewSampler, loss: LossValues) -> None:
        """Do what is due after a step. The event listener may raise ``Cancelled``; the state is whole then."""
        now, options = time.monotonic(), self._setup.options
        self._mse.append(loss.mse)
        if options.checkpoint_s and now - self._saved >= self._pause_s:
            self.save(state, sampler)
            self._pause_s = next(self._pauses)
        data: dict[str, Any] = {}
        if options.preview_s and now - self._previewed >= options.preview_s:
            data["preview"] = write_preview(self._setup, state)
            self._previewed = time.monotonic()
        if data or now - self._reported >= REPORT_S or state.step == options.steps:
            self._report(state, data)

    def _report(self, state: TrainState, data: dict[str, Any]) -> None:
        steps = self._setup.options.steps
        psnr = psnr_db(sum(self._mse) / len(self._mse))
        rate = len(self._mse) / max(1e-9, time.monotonic() - self._reported)
        figures = {
            "step": state.step,
            "steps": steps,
            "psnr_db": round(psnr, 2),
            "gaussians": len(state.rows),
            "steps_per_s": round(rate, 1),
            "eta_s": round(self._course.remaining_s(state.step, time.monotonic() - self._start), 1),
        }
        message = f"step {state.step}/{steps}, {len(state.rows)} gaussians, {psnr:.1f} dB, {rate:.0f} steps/s"
        self._mse, self._reported = [], time.monotonic()
        self._setup.on_event(Progress("train", 0.95 * self._course.share(state.step, steps), message, {**figures, **data}))

    def save(self, state: TrainState, sampler: ViewSampler) -> None:
        """Write a checkpoint."""
        setup = self._setup
        seconds = self._begun.seconds + time.monotonic() - self._start
        checkpoints.save(setup.folder, replace(self._begun, state=state, queue=sampler.queue, seconds=seconds))
        self._saved = time.monotonic()
        setup.on_event(Checkpointed("train", state.step))

    def after_last_step(self, state: TrainState, sampler: ViewSampler) -> None:
        """Save what is to be measured, unless hardly a step would be lost: who is killed while measuring goes on with measuring."""
        checkpoint_s = self._setup.options.checkpoint_s
        if checkpoint_s and time.monotonic() - self._saved >= min(checkpoint_s, LAST_S):
            self.save(state, sampler)

    def spent(self) -> dict[str, float]:
        """Return wall seconds (of all attempts up to their last checkpoints) and CPU seconds (of this process)."""
        wall = self._begun.seconds + time.monotonic() - self._start
        return {"optimise_seconds": round(wall, 3), "cpu_seconds": round(time.process_time() - self._cpu_start, 3)}


def write_preview(setup: Setup, state: TrainState) -> str:
    """Write train/preview.webp, the first photo's view as it looks now, and return its path in the workspace."""
    view = setup.split.train[0].view
    scale = min(1.0, PREVIEW_SIDE / max(view.width, view.height))
    small = view.resized(max(1, round(view.width * scale)), max(1, round(view.height * scale)))
    image = render_rows(to_measure(setup.device, setup.device_name), state.rows, small, setup.options.sh_degree)
    with replacing(setup.folder / "preview.webp") as aside:
        PillowImage.fromarray(to_bytes(image.permute(1, 2, 0).cpu().numpy())).save(aside, format="WEBP", quality=80)
    return f"{setup.folder.name}/preview.webp"
