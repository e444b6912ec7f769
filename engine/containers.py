"""Which kind of video a file is, by its first bytes. Standard library only: the service asks before anything is decoded."""

from pathlib import Path

HEAD_BYTES = 64
# How files are called that may hold a video: for those who choose files by name. What is inside decides.
SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi"})
CONTAINERS = frozenset({"mp4", "mov", "webm", "mkv", "avi"})
# How major brands of moving pictures begin (mp4ra.org): photos (heic, avif, crx) and sound (M4A) are ISO base media files as well.
_MP4_BRANDS = tuple(b"iso mp4 mp7 avc hvc1 hev1 av01 M4V 3gp 3g2 MSN XAV das cmf f4v mmp".split())
# QuickTime before there were brands begins with one of these boxes.
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide")
_EBML = b"\x1a\x45\xdf\xa3"
# Width and height of most videos, pixels: for those whose headers say nothing, or are not read.
USUAL_SIZE = (1920, 1080)


def container_of(path: Path) -> str | None:
    """Return the container that a file's first bytes show, one of ``CONTAINERS``; None for anything else. Raises ``OSError``."""
    with path.open("rb") as stream:
        return video_container(stream.read(HEAD_BYTES))


def video_container(head: bytes) -> str | None:
    """Return the container that the first ``HEAD_BYTES`` of a file show, one of ``CONTAINERS``; None for anything else."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "mov" if brand == b"qt  " else "mp4" if brand.startswith(_MP4_BRANDS) else None
    if head[4:8] in _QUICKTIME_BOXES:
        return "mov"
    if head.startswith(_EBML):
        return "webm" if b"webm" in head else "mkv" if b"matroska" in head else None
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None
