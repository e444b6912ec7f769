"""The keys of what stages make: equal key, equal result. Standard library only: the service computes them from its rows, without files."""

import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from engine.options import STAGES, RunOptions
from engine.workspace import ENGINE_VERSION, hash_json


def photos_key(files: Iterable[tuple[str, str]]) -> str:
    """Return the key of a capture from (path beside the photos, SHA-256) of each of its files, sorted by the parts of the path."""
    return hash_json([(os.fsencode(name).hex(), sha256) for name, sha256 in files])


def stage_key(stage: str, source: str, options: RunOptions) -> str:
    """Return the key of what a stage makes of a source (the key of the photos or of the stage before); threads do not change it."""
    chosen: dict[str, Any] = {"options": asdict(getattr(options, stage)), "seed": options.seed}
    if stage == STAGES[0]:
        # Poses that came along are read with the photos, unless they are to be found.
        chosen["poses_source"] = options.poses.source
    return hash_json({"version": ENGINE_VERSION, "stage": stage, "source": source, **chosen})


def stage_keys(photos: str, options: RunOptions) -> dict[str, str]:
    """Return the key of each stage of a run over photos of this key."""
    keys, source = {}, photos
    for stage in STAGES:
        keys[stage] = source = stage_key(stage, source, options)
    return keys
