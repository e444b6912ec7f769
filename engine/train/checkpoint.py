"""A training run on disk: all that ``TrainState`` and the sampler hold, so that a resumed run continues as if nothing had happened."""

import pickle
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch

from engine.train.exposure import Exposure
from engine.train.finite import all_finite
from engine.train.step import TrainState
from engine.workspace import replacing
from kernels.step import OptimizerState

KEPT = 2  # the newest, and one before it should the newest be damaged


@dataclass(frozen=True)
class Checkpoint:
    """A saved run. ``key`` names the options and inputs it belongs to; ``queue`` is what the view sampler had left."""

    key: str
    state: TrainState
    queue: list[int]
    n_start: int
    seconds: float
    steps: int  # of the whole run
    max_gaussians: int  # as it was fitted to the machine when the run began


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint aside, rename it into place, and drop all but the newest ``KEPT``."""
    state = checkpoint.state
    values = {
        "key": checkpoint.key,
        "step": state.step,
        "rows": state.rows,
        "moment1": state.optimizer.moment1,
        "moment2": state.optimizer.moment2,
        "last_step": state.optimizer.last_step,
        "scores": state.scores,
        "density": state.density,
        "generator": state.generator.get_state(),
        "queue": checkpoint.queue,
        "n_start": checkpoint.n_start,
        "seconds": checkpoint.seconds,
        "steps": checkpoint.steps,
        "max_gaussians": checkpoint.max_gaussians,
    }
    if state.exposure is not None:
        values["exposure"] = asdict(state.exposure)
    with replacing(folder / f"checkpoint-{state.step:07d}.pt") as aside:
        torch.save(values, aside)
    for old in _saved(folder)[:-KEPT]:
        old.unlink()


def load_latest(folder: Path, key: str) -> Checkpoint | None:
    """Return the newest readable checkpoint of this key; None when there is none."""
    for path in reversed(_saved(folder)):
        values = _read(path)
        # With NaN or Inf in it a run could only end again where it ended before.
        if values is not None and values["key"] == key and all_finite(each for each in values.values() if isinstance(each, torch.Tensor)):
            return _restore(values)
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints: the run has finished, or they belong to other options."""
    for path in _saved(folder):
        path.unlink()


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d{7,}\.pt", path.name))


def _read(path: Path) -> dict[str, object] | None:
    try:
        values: dict[str, object] = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        # Damaged, for instance by a power cut: the one before it will do.
        return None
    return values


def _restore(values: dict[str, object]) -> Checkpoint:
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    generator = torch.Generator()
    generator.set_state(tensors["generator"])
    optimizer = OptimizerState(tensors["moment1"], tensors["moment2"], tensors["last_step"])
    state = TrainState(tensors["rows"], optimizer, tensors["scores"], generator, tensors["density"], int(str(values["step"])))
    if "exposure" in values:
        state.exposure = Exposure(**cast(dict[str, torch.Tensor], values["exposure"]))
    queue = values["queue"]
    assert isinstance(queue, list)
    n_start, steps, most = (int(str(values[name])) for name in ("n_start", "steps", "max_gaussians"))
    return Checkpoint(str(values["key"]), state, queue, n_start, float(str(values["seconds"])), steps, most)
