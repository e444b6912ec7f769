"""How many gaussians, steps and colour bases a run gets: what was asked for, what fits into memory, what the photos can tell apart."""

import resource
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.options import TrainOptions
from engine.train.views import TrainingPhoto

# Row, two moments and counters are 792 bytes; the kernels' workspace holds about 370; sorting the rows needs all of them twice for a
# moment. Measured at 100 and 400 thousand gaussians: 2,224 and 2,085 in all (tests/engine/train/test_budget.py).
BYTES_PER_GAUSSIAN = 2_400
# Row, two moments and counters are the same 792 bytes, up to three times while rows are put in order or steps are tried on a copy. The
# kernels hold 84 bytes of records, keys and offsets, and 196 of keys, checkpoints and slots for each pair of gaussian and tile, with an
# eighth to spare and a quarter for a fuller frame. Reckoned with three pairs a gaussian, not yet measured on a card.
CARD_BYTES_PER_GAUSSIAN = 3_300
SHARE_OF_MEMORY = 0.6  # the rest is for photos, previews and whatever else the machine does
PIXELS_PER_GAUSSIAN = 20.0  # of all photos together; twice the gaussians gained nothing from there on (two of three small sets)
FEWEST = 1_000
UNLIMITED = 1 << 62
MOST_STEPS = 3.0  # times what was asked for


@dataclass(frozen=True)
class Budget:
    """The options as they will be used, and in words why they differ from what was asked for (empty where they do not).

    ``warning`` is for what another machine could do better.
    """

    options: TrainOptions
    changes: tuple[str, ...] = ()
    warning: str = ""


def fit(options: TrainOptions, train: list[TrainingPhoto], free_bytes: int, each_bytes: int = BYTES_PER_GAUSSIAN) -> Budget:
    """Return the options with the gaussians lowered to what memory and photos allow, and the steps raised to enough visits a photo.

    ``each_bytes`` is what a gaussian takes of the ``free_bytes``. In the classic strategy ``max_gaussians`` is only a ceiling and photos do
    not lower it.
    """
    changes, warning = [], ""
    pixels = sum(photo.view.width * photo.view.height for photo in train)
    by_memory = max(FEWEST, int(SHARE_OF_MEMORY * free_bytes / each_bytes))
    by_photos = max(FEWEST, int(pixels / PIXELS_PER_GAUSSIAN)) if options.strategy == "budget" else options.max_gaussians
    n = min(options.max_gaussians, by_memory, by_photos)
    lowered = f"{n:,} gaussians instead of {options.max_gaussians:,}"
    if n < options.max_gaussians and n == by_memory:
        warning = f"{lowered}: only {free_bytes / 1e9:.1f} GB of memory are free"
    elif n < options.max_gaussians:
        changes.append(f"{lowered}: the photos have {pixels / 1e6:.1f} megapixels in all")
    steps = max(options.steps, min(int(MOST_STEPS * options.steps), options.min_visits * len(train)))
    if steps > options.steps:
        changes.append(
            f"{steps:,} steps instead of {options.steps:,}: there are {len(train)} photos, each is worth {options.min_visits} visits"
        )
    degree = degree_for(options, len(train))
    if degree < options.sh_degree:
        changes.append(f"colours of degree {degree} instead of {options.sh_degree}: {len(train)} photos show too few directions")
    return Budget(replace(options, max_gaussians=n, steps=steps, sh_degree=degree), tuple(changes), warning)


def degree_for(options: TrainOptions, n_photos: int) -> int:
    """Return the highest degree of spherical harmonics that so many photos can tell; the classic strategy takes what was asked for.

    A gaussian that few photos see learns from higher bases how each of them looks, and shows it from nowhere else.
    """
    if not options.photos_per_degree or options.strategy != "budget":
        return options.sh_degree
    return min(options.sh_degree, max(1, n_photos // options.photos_per_degree))


def free_on(where: torch.device) -> int:
    """Return the bytes that are free where a run's tensors are: on the card, or as ``free_memory_bytes`` says."""
    return int(torch.cuda.mem_get_info(where)[0]) if where.type == "cuda" else free_memory_bytes()


def bytes_per_gaussian(where: torch.device) -> int:
    """Return what a gaussian takes there, of state and of the kernels' workspace, at the peak."""
    return CARD_BYTES_PER_GAUSSIAN if where.type == "cuda" else BYTES_PER_GAUSSIAN


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Return how much memory this process may still take: what the machine has free, or what a limit leaves, if less.

    Limits are those of its control group and its own (RLIMIT_AS). Where nothing can be read (not Linux) nothing is known and limited.
    """
    free = [UNLIMITED, *(1024 * kilobytes for kilobytes in _values(root / "proc/meminfo", "MemAvailable:"))]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free += [max(0, limit - 1024 * used) for used in _values(root / "proc/self/status", "VmSize:")]
    group = root / "sys/fs/cgroup"
    for limit in _values(group / "memory.max"):
        # Cached files count as used, but are given back when memory is asked for.
        cached = sum(_values(group / "memory.stat", "inactive_file"))
        free += [max(0, limit - used + cached) for used in _values(group / "memory.current")]
    return min(free)


def _values(path: Path, name: str = "") -> list[int]:
    """Return the number after ``name`` at the start of a line, in a list; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    rests = [line[len(name) :].split() for line in lines if line.startswith(name)]
    return [int(rest[0]) for rest in rests if rest and rest[0].isdigit()]
