"""What a video is, from its container's header: whether it is whole enough to hold pictures, and their size. None is decoded."""

import itertools
import struct
from pathlib import Path, PurePath
from typing import BinaryIO

from api.models import Photo
from api.services.inspect import MAX_STEPS, READ_LIMIT_BYTES, NotReadableError, PhotoInfo, PhotoLimits, boxes, check_size, take
from engine.containers import CONTAINERS, SUFFIXES
from engine.errors import InputError
from engine.options import RunOptions

MAX_TRACKS = 32  # cameras write two to six; each may hold as many boxes as are followed at all


def is_called_video(name: str) -> bool:
    """Tell whether a file's name is that of a video."""
    return PurePath(name).suffix.lower() in SUFFIXES


def kind_of(row: Photo) -> str:
    """Return what a file of a capture is: photo, video or companion; of one that could not be read what its name says."""
    if row.state == "companion":
        return "companion"
    is_video = row.format in CONTAINERS if row.format else is_called_video(row.name)
    return "video" if is_video else "photo"


def count_photos(usable: list[Photo], options: RunOptions) -> int:
    """Return how many photos a job over these files has at most: a video counts as the frames that may be taken of it."""
    n_videos = sum(kind_of(row) == "video" for row in usable)
    return len(usable) - n_videos + n_videos * options.ingest.frames


def inspect_video(path: Path, name: str, container: str, limits: PhotoLimits) -> PhotoInfo:
    """Return what the file says it is; ``InputError`` names the file and why it is refused. WebM and MKV do not say their size here."""
    try:
        with path.open("rb") as stream:
            size = measure(stream, container)
    except (NotReadableError, struct.error, IndexError) as error:
        raise InputError(
            "input.unreadable_video",
            "Unreadable video",
            f"{name} begins like a video ({container}) but cannot be read: {error}",
            "Copy it from the camera again, or export it as H.264 in an MP4 file.",
        ) from error
    if size is None:
        return PhotoInfo(container, None, None)
    check_size(name, *size, limits)
    return PhotoInfo(container, *size)


def measure(stream: BinaryIO, container: str) -> tuple[int, int] | None:
    """Return width and height as stored, where the container's header tells them."""
    if container in ("mp4", "mov"):
        return measure_index(find_index(stream))
    return measure_avi(take(stream, 72)) if container == "avi" else None


def find_index(stream: BinaryIO) -> bytes:
    """Return the box moov of an ISO base media file (ISO 14496-12 8.2.1), which cameras write last: a copy cut off lacks it."""
    at = 0
    end = stream.seek(0, 2)
    for _ in range(MAX_STEPS):
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8:
            break
        size, kind = struct.unpack(">I4s", head[:8])
        start = at + 8
        if size == 1 and len(head) == 16:
            (size,), start = struct.unpack(">Q", head[8:]), at + 16
        after = end if size == 0 else at + size
        if after < start:
            break
        if kind == b"moov":
            if after > end:
                raise NotReadableError("the file ends in its index")
            if after - start > READ_LIMIT_BYTES:
                raise NotReadableError(f"its index has {after - start} bytes")
            stream.seek(start)
            return take(stream, after - start)
        at = after
    raise NotReadableError("it has no index, as when recording or copying was cut off")


def measure_index(moov: bytes) -> tuple[int, int] | None:
    """Return the size of the first track of pictures (tkhd, 8.3.2: 16.16 fixed point, its last 8 bytes); None where it is left open."""
    found = itertools.islice((body for kind, body in boxes(moov) if kind == b"trak"), MAX_TRACKS)
    tracks = [dict(boxes(body)) for body in found]
    pictures = [track for track in tracks if dict(boxes(track.get(b"mdia", b""))).get(b"hdlr", b"")[8:12] == b"vide"]
    if not pictures:
        raise NotReadableError("it holds no pictures")
    width, height = struct.unpack(">II", pictures[0].get(b"tkhd", b"")[-8:])
    return (width >> 16, height >> 16) if width >> 16 and height >> 16 else None


def measure_avi(head: bytes) -> tuple[int, int]:
    """Return the size in the main header of an AVI, which comes first (dwWidth and dwHeight of AVIMAINHEADER)."""
    if head[24:28] != b"avih":
        raise NotReadableError("its main header is missing")
    width, height = struct.unpack("<II", head[64:72])
    return width, height
