"""A photo that its decoder is done with: what is known of it, where its files lie, and how both outlive the attempt that made them."""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.photos.record import PhotoRecord
from engine.photos.select import THUMB, Measures


@dataclass(frozen=True)
class Prepared:
    """What a decoding child hands back; ``measures`` is None for a photo that was refused."""

    record: PhotoRecord
    pixel_hash: str = ""
    measures: Measures | None = None


@dataclass(frozen=True)
class Folders:
    """Where upright photos, masks and alpha lie."""

    images: Path
    masks: Path
    alpha: Path

    @classmethod
    def under(cls, root: Path) -> "Folders":
        """Return three folders below ``root``, made if missing."""
        folders = cls(root / "images", root / "masks", root / "alpha")
        for folder in (folders.images, folders.masks, folders.alpha):
            folder.mkdir(exist_ok=True)
        return folders

    def of(self, record: PhotoRecord) -> list[Path]:
        """Return the files that a photo has, in each folder at most one; none when it was refused."""
        return [path for layer in self.layers([record]) for path in layer]

    def layers(self, records: list[PhotoRecord]) -> tuple[list[Path], list[Path], list[Path]]:
        """Return the files of the accepted photos: pictures, masks and alpha."""
        used = [record for record in records if record.accepted]
        return (
            [self.images / record.name for record in used],
            [self.masks / f"{record.name}.png" for record in used if record.has_mask],
            [self.alpha / f"{record.name}.png" for record in used if record.has_alpha],
        )


def to_json(prepared: Prepared) -> dict[str, Any]:
    """Return a prepared photo as JSON values; ``from_json`` gives the same again, bit for bit."""
    measures = prepared.measures
    said: dict[str, Any] = {"record": asdict(prepared.record), "pixel_hash": prepared.pixel_hash, "measures": None}
    if measures is not None:
        thumb = base64.b64encode(measures.thumb.astype("<f4").tobytes()).decode()
        said["measures"] = [measures.sharpness, measures.span, measures.brightest, thumb]
    return said


def from_json(said: dict[str, Any]) -> Prepared:
    """Return the prepared photo that ``to_json`` made the values of."""
    values = dict(said["record"])
    if values["gps"] is not None:
        values["gps"] = tuple(values["gps"])
    measures = None
    if said["measures"] is not None:
        sharpness, span, brightest, thumb = said["measures"]
        pixels = np.frombuffer(base64.b64decode(thumb), "<f4").astype(np.float32).reshape(THUMB, THUMB)
        measures = Measures(sharpness, span, brightest, pixels)
    return Prepared(PhotoRecord(**values), said["pixel_hash"], measures)
