"""All options of all stages, and the presets.

Standard library only: the api process reads this to check requests and to describe the form. A stage gets its own dataclass, frozen
and checked on creation. Every field has a default, a range and a reason, all three kept in the field's metadata.
"""

import math
import sys
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from engine.errors import InputError

STAGES = ("ingest", "poses", "train", "compress")
FORMATS = ("ply", "splat", "spz", "sog")
POSE_SOURCES = ("auto", "estimate", "given")
STRATEGIES = ("budget", "adc")
MAX_SHOWN_CHARS = 60


def option(default: Any, help_text: str, *, low: float | None = None, high: float | None = None, choices: tuple[Any, ...] = ()) -> Any:
    """Declare one option: its default, what it means (with unit and reason) and what it may be."""
    return field(default=default, metadata={"help": help_text, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Checked:
    """Base of option groups: checks every field against its metadata when created."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for spec in fields(self):
            check_value(f"{type(self).__name__}.{spec.name}", getattr(self, spec.name), hints[spec.name], dict(spec.metadata))


def invalid(detail: str) -> InputError:
    """Return the error of a value that an option cannot have."""
    return InputError("input.invalid_option", "Invalid option", detail, "GET /v1/options says what each option may be.")


def check_value(name: str, value: Any, kind: Any, rule: dict[str, Any]) -> None:
    """Raise ``InputError`` when ``value`` is not what the option ``name`` allows."""
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    allowed = tuple(typing.get_origin(each) or each for each in allowed)
    accepts = any(isinstance(value, each) and (each is bool or not isinstance(value, bool)) for each in allowed)
    if not accepts and float in allowed and isinstance(value, int) and not isinstance(value, bool):
        accepts = True
    if not accepts:
        raise invalid(f"{name} is {shortened(value)}, which is not of type {kind}")
    if value is None:
        return
    if rule.get("choices"):
        chosen = value if isinstance(value, tuple) else (value,)
        choices = ", ".join(map(str, rule["choices"]))
        if not chosen:
            raise invalid(f"{name} is empty; choose from: {choices}")
        unknown = [each for each in chosen if each not in rule["choices"]]
        if unknown:
            raise invalid(f"{name} has {shortened(unknown[0])}; allowed: {choices}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        check_range(name, value, rule.get("low"), rule.get("high"))


def shortened(value: Any) -> str:
    """Return how a value is written, of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    """Raise ``InputError`` when a number is NaN, outside its limits, or a whole number too large to reckon with."""
    is_endless = isinstance(value, int) and abs(value) > sys.float_info.max
    if is_endless or math.isnan(value) or (low is not None and value < low) or (high is not None and value > high):
        raise invalid(f"{name} is {shortened(value)}; it must lie between {low} and {high}")


@dataclass(frozen=True)
class IngestOptions(Checked):
    """Photos in, upright photos out."""

    max_side: int = option(
        1600, "longer side of the photos kept, pixels; features gain little above 1600 (research/sfm.md B4)", low=320, high=8192
    )
    min_side: int = option(320, "photos whose longer side is shorter are refused, pixels", low=64, high=4096)
    max_megapixels: float = option(120.0, "photos with more are refused, 10^6 pixels: a decompression bomb guard", low=0.1, high=1000.0)
    frames: int = option(
        120, "frames taken of a video at most, the sharpest of each stretch; a short one gives two for each second", low=2, high=1000
    )
    min_photos: int = option(3, "fewer usable photos are refused", low=2, high=100)
    jpeg_quality: int = option(95, "quality of the photos written, 1..100", low=50, high=100)


@dataclass(frozen=True)
class PosesOptions(Checked):
    """Structure from motion."""

    source: str = option(
        "auto",
        "given: poses that came with the photos, in transforms.json or a COLMAP model in sparse/; estimate: found from the photos; "
        "auto: given where there are any",
        choices=POSE_SOURCES,
    )
    exhaustive_below: int = option(60, "match all pairs up to this many photos, neighbours by appearance and name above", low=2, high=1000)
    neighbours: int = option(10, "pairs per photo by appearance, above exhaustive_below", low=2, high=100)
    min_registered: float = option(0.5, "share of photos that must be registered, or the job fails", low=0.0, high=1.0)
    target_registered: float = option(0.9, "share of photos at which no further fallback is tried", low=0.0, high=1.0)
    max_train_side: int = option(1600, "longer side of the undistorted photos, pixels", low=160, high=8192)
    time_limit_s: float = option(3600.0, "the stage is ended after this long, seconds", low=10.0)


@dataclass(frozen=True)
class TrainOptions(Checked):
    """Gaussians from posed photos, at a budget."""

    steps: int = option(3000, "optimisation steps, one photo each", low=1, high=200_000)
    min_visits: int = option(
        0, "photos that would be visited less often get more steps, up to 3 times as many; 0 takes steps as they are", low=0, high=1000
    )
    max_gaussians: int = option(
        100_000, "the budget: growth stops here, or sooner where free memory or the photos' pixels give out", low=1_000, high=50_000_000
    )
    strategy: str = option(
        "budget", "how gaussians multiply: 'budget' grows to max_gaussians by error, 'adc' is the 3DGS paper's", choices=STRATEGIES
    )
    max_side: int = option(640, "longer side of the photos trained on, pixels", low=64, high=8192)
    sh_degree: int = option(2, "highest degree of the colour's spherical harmonics", low=0, high=3)
    photos_per_degree: int = option(
        0, "with fewer photos for each degree sh_degree is lowered, to 1 at most; 0 takes it as it is", low=0, high=1000
    )
    exposure: str = option(
        "auto",
        "correct each photo's brightness and colour while training; auto: where the photos differ",
        choices=("auto", "on", "off"),
    )
    background: str = option(
        "auto",
        "behind the gaussians while training; random: another colour each step, so that nothing stays around cut-outs; auto: random for "
        "photos with alpha, black for others",
        choices=("auto", "black", "white", "random"),
    )
    cut_outs_over: str = option("white", "what photos with alpha are measured over", choices=("black", "white"))
    holdout_every: int = option(8, "every n-th photo is kept out of training and measured; 0 for none", low=0, high=100)
    min_psnr_db: float = option(11.0, "a held-out PSNR below this fails the job, dB: what wrong camera positions give", low=0.0, high=60.0)
    checkpoint_s: float = option(30.0, "seconds between checkpoints; an attempt's first come sooner", low=0.0, high=3600.0)
    preview_s: float = option(10.0, "seconds between preview pictures; 0 for none", low=0.0, high=3600.0)


@dataclass(frozen=True)
class CompressOptions(Checked):
    """Files out."""

    formats: tuple[str, ...] = option(("ply", "spz", "sog", "splat"), "files to write", choices=FORMATS)
    prune_share: float = option(0.05, "gaussians to drop: those that give least to all photos, share of the count", low=0.0, high=0.9)
    sog_palette: int = option(0, "entries of the SOG colour palette; 0 chooses by measured loss", low=0, high=65536)


@dataclass(frozen=True)
class RunOptions(Checked):
    """Options of a whole run."""

    preset: str = "draft"
    seed: int = option(0, "all random choices follow from it", low=0, high=2**31 - 1)
    threads: int = option(0, "CPU threads; 0 takes what the machine has", low=0, high=1024)
    ingest: IngestOptions = IngestOptions()
    poses: PosesOptions = PosesOptions()
    train: TrainOptions = TrainOptions()
    compress: CompressOptions = CompressOptions()


MIN_VISITS = 40  # of each photo, in every preset (research/trainers.md 3c)
PHOTOS_PER_DEGREE = 15  # fewer views than that from all sides do not show how a colour changes with the direction (docs/benchmarks.md)
RULES = {"steps": "min_visits", "sh_degree": "photos_per_degree"}  # what the number of photos changes, and by which rule; 0: not at all

PRESETS: dict[str, RunOptions] = {
    "draft": RunOptions("draft", train=TrainOptions(min_visits=MIN_VISITS, photos_per_degree=PHOTOS_PER_DEGREE)),
    "standard": RunOptions(
        "standard",
        train=TrainOptions(
            steps=7_000,
            min_visits=MIN_VISITS,
            max_gaussians=200_000,
            max_side=800,
            sh_degree=3,
            photos_per_degree=PHOTOS_PER_DEGREE,
        ),
    ),
    "high": RunOptions(
        "high",
        ingest=IngestOptions(max_side=2400),
        poses=PosesOptions(max_train_side=2400),
        train=TrainOptions(
            steps=30_000,
            min_visits=MIN_VISITS,
            max_gaussians=1_000_000,
            max_side=1600,
            sh_degree=3,
            photos_per_degree=PHOTOS_PER_DEGREE,
        ),
    ),
}


def preset(name: str) -> RunOptions:
    """Return the options of a preset; ``InputError`` names the ones there are."""
    if name not in PRESETS:
        raise InputError("input.unknown_preset", "Unknown preset", f"there is no preset {name!r}", f"Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def with_overrides(base: RunOptions, overrides: dict[str, Any]) -> RunOptions:
    """Return ``base`` with nested overrides such as ``{"train": {"steps": 500}, "seed": 1}`` applied and checked.

    Steps and colours' degrees that are asked for are those taken, however many photos there are, unless the rule by which photos change
    them is asked for as well.
    """
    train = overrides.get("train") if isinstance(overrides, dict) else None
    if isinstance(train, dict):
        unruled = {rule: 0 for name, rule in RULES.items() if name in train}
        overrides = {**overrides, "train": {**unruled, **train}}
    return typing.cast(RunOptions, _override(base, overrides, ""))


def _override(group: Any, overrides: dict[str, Any], path: str) -> Any:
    if not isinstance(overrides, dict):
        raise invalid(f"{path or 'options'} must be an object")
    known = {spec.name for spec in fields(group)} - ({"preset"} if not path else set())
    changes: dict[str, Any] = {}
    for name, value in overrides.items():
        where = f"{path}.{name}" if path else str(name)
        if name not in known:
            raise InputError(
                "input.unknown_option", "Unknown option", f"there is no option {where!r}", f"Known here: {', '.join(sorted(known))}."
            )
        current = getattr(group, name)
        if is_dataclass(current):
            changes[name] = _override(current, value, where)
        else:
            changes[name] = tuple(value) if isinstance(value, list) else value
    return replace(group, **changes)


def from_dict(values: dict[str, Any]) -> RunOptions:
    """Return the options that ``dataclasses.asdict`` and JSON made of a ``RunOptions``."""
    rest = dict(values)
    return with_overrides(preset(str(rest.pop("preset", "draft"))), rest)
