"""What a photo's EXIF says about its camera, read so that no damaged tag can stop a photo."""

import math
import struct
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

# What Pillow raises on damaged EXIF blocks: it parses them lazily, tag by tag.
DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, ArithmeticError, struct.error)

DIAGONAL_35MM = math.hypot(36.0, 24.0)
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
# Focal length over the longer side: from 150° of view to a 1:40 telephoto. Outside, the tag is wrong.
_FOCAL_RANGE = (0.13, 40.0)
_MAX_TEXT = 64


@dataclass(frozen=True)
class Exif:
    """Camera facts of one photo; None or "" where it does not say. ``gps`` is (latitude °, longitude °, altitude m)."""

    orientation: int = 1
    make: str = ""
    model: str = ""
    taken_at: str = ""
    focal_mm: float | None = None
    focal_35mm: float | None = None
    sensor_mm: float | None = None
    gps: tuple[float, float, float] | None = None


def read_exif(photo: Image.Image) -> Exif:
    """Return what the photo's EXIF says; tags that cannot be read count as absent."""
    try:
        tags = photo.getexif()
        main = dict(tags)
        detail = dict(tags.get_ifd(ExifTags.IFD.Exif))
        gps = dict(tags.get_ifd(ExifTags.IFD.GPSInfo))
    except DAMAGED:
        return Exif()
    orientation = int(_number(main.get(ExifTags.Base.Orientation)) or 1)
    return Exif(
        orientation=orientation if 1 <= orientation <= 8 else 1,
        make=_text(main.get(ExifTags.Base.Make)),
        model=_text(main.get(ExifTags.Base.Model)),
        taken_at=_text(detail.get(ExifTags.Base.DateTimeOriginal) or main.get(ExifTags.Base.DateTime)),
        focal_mm=_positive(detail.get(ExifTags.Base.FocalLength)),
        focal_35mm=_positive(detail.get(ExifTags.Base.FocalLengthIn35mmFilm)),
        sensor_mm=_sensor_mm(detail),
        gps=_position(gps),
    )


def focal_prior_px(exif: Exif, width: int, height: int) -> float | None:
    """Return the focal length in pixels of a photo of ``width`` × ``height`` px, or None when EXIF cannot tell.

    The 35 mm equivalent is taken over the diagonal, as phone makers define it (CIPA DCG-001); else focal length over sensor size.
    """
    if exif.focal_35mm:
        focal = exif.focal_35mm / DIAGONAL_35MM * math.hypot(width, height)
    elif exif.focal_mm and exif.sensor_mm:
        focal = exif.focal_mm / exif.sensor_mm * max(width, height)
    else:
        return None
    low, high = _FOCAL_RANGE
    return focal if low < focal / max(width, height) < high else None


def _sensor_mm(detail: dict[int, Any]) -> float | None:
    """Length of the sensor's longer side: pixels over pixels per millimetre, both of the file as it left the camera."""
    sizes = []
    for pixels, density in (
        (ExifTags.Base.ExifImageWidth, ExifTags.Base.FocalPlaneXResolution),
        (ExifTags.Base.ExifImageHeight, ExifTags.Base.FocalPlaneYResolution),
    ):
        count, per_unit = _positive(detail.get(pixels)), _positive(detail.get(density))
        unit = _MM_PER_UNIT.get(int(_number(detail.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2), 25.4)
        if count and per_unit:
            sizes.append(count / per_unit * unit)
    return max(sizes) if sizes and 1.0 < max(sizes) < 100.0 else None


def _position(gps: dict[int, Any]) -> tuple[float, float, float] | None:
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude))
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180 or (latitude == 0 and longitude == 0):
        return None
    latitude = -latitude if _text(gps.get(ExifTags.GPS.GPSLatitudeRef)).upper().startswith("S") else latitude
    longitude = -longitude if _text(gps.get(ExifTags.GPS.GPSLongitudeRef)).upper().startswith("W") else longitude
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude)) or 0.0
    below = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    return latitude, longitude, -altitude if below else altitude


def _degrees(value: Any) -> float | None:
    if not isinstance(value, tuple | list) or len(value) != 3:
        return None
    parts = [_number(part) for part in value]
    degrees = sum((part or 0.0) / 60**power for power, part in enumerate(parts))
    return None if parts[0] is None else degrees


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except DAMAGED:
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return "".join(c for c in value if c.isprintable()).strip()[:_MAX_TEXT] if isinstance(value, str) else ""
