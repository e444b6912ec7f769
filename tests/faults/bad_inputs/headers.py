"""Files whose first bytes show that they are no photos, or none that may be read: each is refused at the door, by name."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

from tests.faults.bad_inputs import encode as e
from tests.faults.bad_inputs.case import PhotoCase

UNREADABLE_VIDEO = "input.unreadable_video"
NO_TYPE, UNREADABLE, PIXELS, SMALL = "input.unsupported_type", "input.unreadable_photo", "input.too_many_pixels", "input.too_small"
HUGE = 50_000


def cases() -> list[PhotoCase]:
    """Return the cases."""
    return [
        PhotoCase("zero bytes", "empty.jpg", b"", "input.empty_file"),
        *no_photos(),
        *no_videos(),
        *truncated(),
        *damaged(),
        *bombs(),
        *shapes(),
    ]


def no_photos() -> list[PhotoCase]:
    """Other things that are called .jpg: texts, archives, programs, pictures of kinds that are not read, and polyglots that begin so."""
    gif = e.encoded(e.picture(1), "GIF")
    kinds: dict[str, bytes] = {
        "text": b"These are notes.\n" * 20,
        "utf-16 text": "These are notes".encode("utf-16"),
        "html": b"<!DOCTYPE html><script>alert(1)</script>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "entity bomb": b"<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]><svg>&b;</svg>",
        "pdf": b"%PDF-1.7\n1 0 obj\n<< /OpenAction 2 0 R >>\n",
        "pdf with a photo inside": b"%PDF-1.4\nstream\n" + e.jpeg(2) + b"\nendstream\n%%EOF",
        "postscript": b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n",
        "shell script": b"#!/bin/sh\nrm -rf $HOME\n",
        "json": b'{"a": 1}',
        "gif": gif,
        "gif with javascript": b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)",
        "animated gif": e.encoded(e.picture(1), "GIF", save_all=True, append_images=[e.picture(2), e.picture(3)]),
        "bmp": e.encoded(e.picture(1), "BMP"),
        "ico": e.encoded(e.picture(1), "ICO"),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "jpeg xl": b"\xff\x0a" + bytes(40),
        "psd": b"8BPS\0\x01" + bytes(40),
        "openexr": b"v/1\x01" + bytes(40),
        "bigtiff": b"II+\0\x08\0\0\0" + bytes(40),
        "music": e.box(b"ftyp", b"M4A \0\0\0\0mp42") + e.box(b"mdat", bytes(100)),
        "list of videos": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "list for ffmpeg": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "windows program": b"MZ" + bytes(100),
        "linux program": b"\x7fELF\x02\x01\x01" + bytes(100),
        "zip": zipped({"a.jpg": e.jpeg(3)}),
        "zip bomb": zipped({"zeros": bytes(40 << 20)}),
        "zip in zip in zip": zipped({"b.zip": zipped({"c.zip": zipped({"d.jpg": e.jpeg(3)})})}),
        "zip that leads out": zipped({"../../etc/passwd.jpg": e.jpeg(3)}),
        "zip with a photo behind": zipped({"a.txt": b"x"}) + e.jpeg(4),
        "gzip bomb": gzip.compress(bytes(40 << 20)),
        "tar with a symlink": tarred(),
        "zeros": bytes(1 << 20),
        "only 0xff": b"\xff" * 4096,
        "jpeg without its first byte": e.jpeg(1)[1:],
        "jpeg after a blank": b" " + e.jpeg(1),
    }
    return [PhotoCase(f"{kind} called .jpg", f"no {kind}.jpg", data, NO_TYPE) for kind, data in kinds.items()]


def no_videos() -> list[PhotoCase]:
    """Files that begin like videos and hold no pictures, as far as their index says."""
    ftyp = e.box(b"ftyp", b"isom\0\0\0\0mp42")
    sound = e.box(b"trak", e.box(b"mdia", e.box(b"hdlr", bytes(8) + b"soun" + bytes(12))))
    kinds = {
        "mp4 without its index": ftyp + e.box(b"mdat", bytes(100)),
        "mp4 whose index is cut off": ftyp + e.box(b"moov", bytes(1000))[:500],
        "mp4 of sound alone": ftyp + e.box(b"moov", sound),
        "mp4 whose index is empty": ftyp + e.box(b"moov", b""),
        "mp4 of boxes without end": ftyp + e.box(b"free", b"") * 50_000,
        "mp4 whose index has no end": ftyp + struct.pack(">I4sQ", 1, b"moov", 1 << 63),
        "quicktime of nothing": e.box(b"wide", b""),
        "avi without its header": b"RIFF\xff\0\0\0AVI LIST" + bytes(60),
        "avi that is cut off": b"RIFF\xff\0\0\0AVI LIST",
    }
    return [PhotoCase(kind, f"no {kind}.mp4", data, UNREADABLE_VIDEO) for kind, data in kinds.items()]


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def tarred() -> bytes:
    """Return a tar archive that holds a link to a file of the system."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("photo.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def truncated() -> list[PhotoCase]:
    """Files that end in their header."""
    whole = {
        "jpeg": (e.jpeg(1), (3, 4, 11, 20, 100)),
        "png": (e.encoded(e.picture(1), "PNG"), (8, 12, 16, 23)),
        "webp": (e.encoded(e.picture(1), "WEBP"), (12, 16, 29)),
        "tiff": (e.encoded(e.picture(1), "TIFF"), (4, 8)),
        "avif": (e.encoded(e.picture(1), "AVIF"), (12, 32, 60)),
    }
    return [
        PhotoCase(f"{kind} of {n} bytes", f"cut-{n}.{kind}", data[:n], UNREADABLE) for kind, (data, sizes) in whole.items() for n in sizes
    ]


def damaged() -> list[PhotoCase]:
    """Headers that lead nowhere, in circles, or on for ever."""
    start = b"\xff\xd8"
    offset = lambda at: b"II*\0" + struct.pack("<I", at) + e.directory(e.tiff_sizes(400, 300))  # noqa: E731
    nested = b""
    for _ in range(2000):
        nested = e.box(b"meta", b"\0\0\0\0" + nested)
    avif = e.box(b"ftyp", b"avif\0\0\0\0mif1")
    kinds = {
        "no frame header.jpg": start + e.segment(0xE0, b"JFIF\0") + b"\xff\xd9",
        "pixels before the frame header.jpg": start + e.segment(0xDA, bytes(10)) + bytes(100),
        "segment of length 0.jpg": start + b"\xff\xe0\0\0" + bytes(50),
        "segment of length 1.jpg": start + b"\xff\xe0\0\x01" + bytes(50),
        "segment behind the end.jpg": start + b"\xff\xe0\xff\xff" + bytes(50),
        "fill bytes without end.jpg": start + b"\xff" * (4 << 20),
        "empty segments without end.jpg": start + b"\xff\xe0\0\x02" * (1 << 20),
        "markers without a body without end.jpg": start + b"\xff\xd0" * (1 << 20),
        "ihdr missing.png": e.PNG + e.chunk(b"IDAT", bytes(40)),
        "unknown chunk.webp": e.riff(b"VP8Z" + struct.pack("<I", 20) + bytes(20)),
        "lossless without signature.webp": e.riff(b"VP8L" + struct.pack("<I", 20) + bytes(20)),
        "lossy without signature.webp": e.riff(b"VP8 " + struct.pack("<I", 20) + bytes(20)),
        "directory in the header.tif": offset(0),
        "directory behind the end.tif": offset(0xFFFFFFFF),
        "directory of 65535 entries.tif": b"II*\0\x08\0\0\0\xff\xff" + e.entry(270, 2, 1, 0) * 100,
        "directory of no entries.tif": e.tiff([]),
        "no size.tif": e.tiff([e.entry(270, 2, 4, b"abc\0")]),
        "no boxes.avif": avif,
        "box of size 2.avif": avif + b"\0\0\0\x02meta" + bytes(40),
        "box of size 2^63.avif": avif + b"\0\0\0\x01meta" + struct.pack(">Q", 1 << 63) + bytes(40),
        "box of size 2^64-1.avif": avif + b"\0\0\0\x01meta" + b"\xff" * 8 + bytes(40),
        "two thousand boxes in each other.avif": avif + nested,
        "half a million boxes.avif": avif + e.box(b"free", b"") * 500_000,
        "half a million extents of nothing.avif": e.heif(*[(0, 0)] * 100_000),
        "no extents.heic": e.heif(brand=b"heic"),
    }
    return [PhotoCase(name, name, data, UNREADABLE) for name, data in kinds.items()]


def bombs() -> list[PhotoCase]:
    """Small files that claim more pixels than anything may have."""
    lossy = b"\x30\x01\0\x9d\x01\x2a" + struct.pack("<HH", 0x3FFF, 0x3FFF) + bytes(20)
    lossless = b"\x2f" + ((0x3FFF << 14) | 0x3FFF).to_bytes(4, "little") + bytes(20)
    canvas = bytes(4) + (HUGE - 1).to_bytes(3, "little") * 2 + bytes(10)
    kinds = {
        "50000x50000.jpg": b"\xff\xd8" + e.frame_header(HUGE, HUGE) + b"\xff\xd9",
        "65535x65535.jpg": e.resized_jpeg(e.jpeg(1), 65_535, 65_535),
        "50000x50000.png": e.png(HUGE, HUGE),
        "packed 50000x50000.png": e.png(HUGE, HUGE, e.zeros(64)),
        "2^31.png": e.png(2**31 - 1, 2**31 - 1),
        "2^32-1.png": e.png(2**32 - 1, 2**32 - 1),
        "lossy 16383x16383.webp": e.riff(b"VP8 " + struct.pack("<I", len(lossy)) + lossy),
        "lossless 16384x16384.webp": e.riff(b"VP8L" + struct.pack("<I", len(lossless)) + lossless),
        "canvas of 50000x50000.webp": e.riff(b"VP8X" + struct.pack("<I", len(canvas)) + canvas),
        "50000x50000.tif": e.tiff(e.tiff_sizes(HUGE, HUGE)),
        "2^32-1.tif": e.tiff(e.tiff_sizes(2**32 - 1, 2**32 - 1)),
        "50000x50000.avif": e.heif((HUGE, HUGE)),
        "a huge extent behind a small one.heic": e.heif((400, 300), (HUGE, HUGE), brand=b"heic"),
        "12000x12000 grey.png": e.png(12_000, 12_000, e.grey_rows(12_000, 100), colour=0),
    }
    return [PhotoCase(name, name, data, PIXELS) for name, data in kinds.items()]


def shapes() -> list[PhotoCase]:
    """Sizes that nothing can be found in."""
    one = zlib.compress(b"\0\0\0\0")
    small = {
        "1x1.png": e.png(1, 1, one),
        "1x1.jpg": e.encoded(e.picture(1).resize((1, 1)), "JPEG"),
        "60000x1.png": e.png(60_000, 1, zlib.compress(bytes(180_001))),
        "1x60000.png": e.png(1, 60_000, zlib.compress(bytes(240_000))),
        "319x300.jpg": e.encoded(e.picture(1, 319, 300), "JPEG"),
        "2000x90.jpg": e.encoded(e.picture(1, 2000, 90), "JPEG"),
    }
    none = {"0x300.png": e.png(0, 300), "400x0.jpg": e.resized_jpeg(e.jpeg(1), 400, 0), "0x0.tif": e.tiff(e.tiff_sizes(0, 0))}
    return [PhotoCase(f"{name}, too small", name, data, SMALL) for name, data in small.items()] + [
        PhotoCase(f"{name}, nothing", name, data, UNREADABLE) for name, data in none.items()
    ]
