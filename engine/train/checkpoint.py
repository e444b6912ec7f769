"""A training run on disk: all that ``TrainState`` and the sampler hold, so that a resumed run continues as if nothing had happened."""

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from engine.train.exposure import Exposure
from engine.train.finite import all_finite
from engine.train.step import CPU, TrainState
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
    max_gaussians: int  # as it was fitted to the machine when the run began, or lowered since
    max_side: int = 0  # pixels; 0 where photos are as large as the options say
    rung: int = 0  # of the ladder that a run goes down when memory runs out


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint aside, rename it into place, and drop all but the newest ``KEPT``. Tensors are moved to the CPU."""
    state = checkpoint.state
    values: dict[str, Any] = {
        "key": checkpoint.key,
        "step": state.step,
        "rows": state.rows.cpu(),
        "moment1": state.optimizer.moment1.cpu(),
        "moment2": state.optimizer.moment2.cpu(),
        "last_step": state.optimizer.last_step.cpu(),
        "scores": state.scores.cpu(),
        "density": state.density.cpu(),
        "generator": state.generator.get_state(),
        "queue": checkpoint.queue,
        "n_start": checkpoint.n_start,
        "seconds": checkpoint.seconds,
        "steps": checkpoint.steps,
        "max_gaussians": checkpoint.max_gaussians,
        "max_side": checkpoint.max_side,
        "rung": checkpoint.rung,
    }
    if state.exposure is not None:
        values["exposure"] = vars(state.exposure.to(CPU))
    with replacing(folder / f"checkpoint-{state.step:07d}.pt") as aside:
        torch.save(values, aside)
    for old in _saved(folder)[:-KEPT]:
        old.unlink()


def hash_rows(rows: torch.Tensor) -> str:  # [N, 64] float32
    """Return a key of gaussians that is equal for the same bits."""
    return hashlib.sha256(rows.cpu().contiguous().numpy().data).hexdigest()


def load_latest(folder: Path, key: str, where: torch.device = CPU) -> Checkpoint | None:
    """Return the newest readable checkpoint of this key, its tensors on a device; None when there is none."""
    for path in reversed(_saved(folder)):
        values = _read(path)
        # With NaN or Inf in it a run could only end again where it ended before.
        if values is not None and values["key"] == key and all_finite(each for each in values.values() if isinstance(each, torch.Tensor)):
            return _restore(values, where)
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints: they belong to other options (those of a finished run go after its stamp, engine.unfinished)."""
    for path in _saved(folder):
        path.unlink()


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d{7,}\.pt", path.name))


def _read(path: Path) -> dict[str, object] | None:
    try:
        values: dict[str, object] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        # Damaged, for instance by a power cut: the one before it will do.
        return None
    return values


def _restore(values: dict[str, object], where: torch.device) -> Checkpoint:
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    generator = torch.Generator()
    generator.set_state(tensors["generator"])
    moved = {name: tensor.to(where) for name, tensor in tensors.items() if name != "generator"}
    optimizer = OptimizerState(moved["moment1"], moved["moment2"], moved["last_step"])
    state = TrainState(moved["rows"], optimizer, moved["scores"], generator, moved["density"], int(str(values["step"])))
    if "exposure" in values:
        state.exposure = Exposure(**cast(dict[str, torch.Tensor], values["exposure"])).to(where)
    queue = values["queue"]
    assert isinstance(queue, list)
    n_start, steps, most = (int(str(values[name])) for name in ("n_start", "steps", "max_gaussians"))
    side, rung = (int(str(values.get(name, 0))) for name in ("max_side", "rung"))
    return Checkpoint(str(values["key"]), state, queue, n_start, float(str(values["seconds"])), steps, most, side, rung)
