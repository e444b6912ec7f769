"""An estimate as people read it. Standard library only: the command line shows it without loading torch."""

from typing import Any

TITLES = {"ingest": "Read photos", "poses": "Find cameras", "train": "Train gaussians", "compress": "Write files"}


def sentences(figures: dict[str, Any]) -> str:
    """Return the figures of ``engine.estimate.estimate`` as lines of text."""
    heading = (
        f"{figures['photos']} photos, {figures['megapixels']:.0f} megapixels, preset {figures['preset']}, {figures['threads']} threads: "
        f"{figures['steps']:,} steps, {figures['gaussians']:,} gaussians"
    )
    lines = [heading, *(line(TITLES[name], stage) for name, stage in figures["stages"].items()), line("In all", figures)]
    needs = f"Memory up to {figures['peak_memory_bytes'] / 1e9:.1f} GB, disk up to {figures['disk_bytes'] / 1e9:.1f} GB."
    notes = []
    if figures["basis"] != "poses":
        notes.append("How long finding cameras takes depends on the scene: its range is wide.")
    if figures["load"] > figures["threads"]:
        notes.append(f"The machine is busy (load {figures['load']:.0f}): training was tried beside that, and is faster when it ends.")
    return "\n".join([*lines, needs, *notes]) + "\n"


def line(title: str, stage: dict[str, Any]) -> str:
    """Return one stage as a line."""
    return f"  {title:<16} about {said(stage['seconds'])} ({said(stage['low'])} to {said(stage['high'])})"


def said(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
