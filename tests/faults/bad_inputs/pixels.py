"""Photos whose header is in order: the first stage decodes them, converts the odd and leaves out the broken, each by name."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

from tests.faults.bad_inputs import encode as e
from tests.faults.bad_inputs.case import ACCEPTED, USED, PhotoCase

CUT, BROKEN = "photo.truncated", "photo.unreadable"
EITHER = (CUT, BROKEN)


class Seeds:
    """Numbers for pictures, each given once: equal pictures would be left out as copies."""

    def __init__(self, first: int) -> None:
        self._next = first

    def take(self) -> int:
        """Return the next."""
        self._next += 1
        return self._next


def cases(seed: int) -> list[PhotoCase]:
    """Return the cases; their pictures depend on the seed."""
    seeds = Seeds(1000 * seed)
    found = {**modes(seeds), **kinds(seeds), **appended(seeds)}
    good = [PhotoCase(name, name, data, ACCEPTED, (USED,)) for name, data in found.items()]
    return good + cut(seeds) + flipped(seeds) + broken(seeds) + empty(seeds)


def modes(seeds: Seeds) -> dict[str, bytes]:
    """Pixels that are not 8-bit RGB, which people nevertheless send: all are converted."""
    new = lambda: e.picture(seeds.take())  # noqa: E731
    deep = lambda: np.asarray(new().convert("L"), np.uint16) * 257  # noqa: E731
    alpha = new().convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 400, dtype=np.uint8), (300, 1))))
    palette = new().convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "cmyk.jpg": e.encoded(new().convert("CMYK"), "JPEG", quality=90),
        "grey.jpg": e.encoded(new().convert("L"), "JPEG", quality=90),
        "cmyk.tif": e.encoded(new().convert("CMYK"), "TIFF"),
        "lab.tif": e.encoded(in_lab(new()), "TIFF"),
        "grey 16 bit.png": e.encoded(Image.fromarray(deep()), "PNG"),
        "grey 16 bit.tif": e.encoded(Image.fromarray(deep()), "TIFF"),
        "rgb 16 bit.png": rgb16(new()),
        "1 bit.png": e.encoded(new().convert("1"), "PNG"),
        "1 bit.tif": e.encoded(new().convert("1"), "TIFF", compression="group4"),
        "palette.png": e.encoded(palette, "PNG"),
        "palette with a transparent colour.png": e.encoded(new().convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=3),
        "palette of 2 colours.png": e.encoded(new().quantize(2), "PNG", bits=1),
        "palette.tif": e.encoded(new().convert("P", palette=Image.Palette.ADAPTIVE), "TIFF"),
        "alpha.png": e.encoded(alpha, "PNG"),
        "grey with alpha.png": e.encoded(new().convert("LA"), "PNG"),
        "alpha.webp": e.encoded(new().convert("RGBA"), "WEBP"),
        "alpha.avif": e.encoded(new().convert("RGBA"), "AVIF"),
    }


def in_lab(image: Image.Image) -> Image.Image:
    """Return a picture in CIE L*a*b*."""
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert converted is not None
    return converted


def rgb16(image: Image.Image) -> bytes:
    """Return a PNG of 16 bits a colour, which Pillow reads and does not write."""
    pixels = (np.asarray(image).astype(">u2") * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return e.png(*image.size, zlib.compress(rows), depth=16)


def kinds(seeds: Seeds) -> dict[str, bytes]:
    """Rare ways of storing, odd metadata and wrong extensions: all can be read, and are."""
    new = lambda: e.picture(seeds.take())  # noqa: E731
    photo = lambda **options: e.jpeg(seeds.take(), **options)  # noqa: E731
    pages = {"save_all": True, "append_images": [e.picture(1), e.picture(2)]}
    return {
        "progressive.jpg": photo(progressive=True),
        # Films in JPEG leave their tables out: readers then take the usual ones.
        "without tables.jpg": e.replaced(photo(), b"\xff\xc4", b"\xff\xfe"),
        "wrong checksum.png": wrong_checksum(e.encoded(new(), "PNG")),
        "restart markers.jpg": photo(restart_marker_blocks=1),
        "4-4-4.jpg": photo(subsampling=0),
        "quality 1.jpg": photo(quality=1),
        "size over claimed height.jpg": e.with_segments(photo(), e.segment(0xFE, b"x" * 60_000)),
        "8 MB of comments.jpg": e.with_segments(photo(), *[e.segment(0xFE, b"x" * 65_533)] * 128),
        "two pictures.jpg": e.encoded(new(), "MPO", save_all=True, append_images=[e.picture(3)]),
        "animated.png": e.encoded(new(), "PNG", **pages),
        "animated.webp": e.encoded(new(), "WEBP", **pages),
        "lossless.webp": e.encoded(new(), "WEBP", lossless=True),
        "pages.tif": e.encoded(new(), "TIFF", **pages),
        "lzw.tif": e.encoded(new(), "TIFF", compression="tiff_lzw"),
        "deflate.tif": e.encoded(new(), "TIFF", compression="tiff_adobe_deflate"),
        "jpeg in it.tif": e.encoded(new(), "TIFF", compression="jpeg"),
        "packbits.tif": e.encoded(new(), "TIFF", compression="packbits"),
        "pages in a circle.tif": circular(e.encoded(new(), "TIFF")),
        "film.avif": e.encoded(new(), "AVIF", **pages),
        "jpeg called png.png": photo(),
        "png called jpg.jpg": e.encoded(new(), "PNG"),
        "webp called tif.tif": e.encoded(new(), "WEBP"),
        "avif called jpg.jpg": e.encoded(new(), "AVIF"),
        "jpeg called exe.exe": photo(),
        "jpeg called html.html": photo(),
        "text in pngs chunk.png": with_chunk(e.encoded(new(), "PNG"), e.chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")),
        "unknown chunk.png": with_chunk(e.encoded(new(), "PNG"), e.chunk(b"abCd", bytes(1000))),
        "thinnest.png": e.encoded(e.picture(seeds.take(), 1280, 64), "PNG"),
        "smallest.png": e.encoded(e.picture(seeds.take(), 320, 240), "PNG"),
        "pixels behind the last row.png": more_rows(new()),
        **{f"{name}.jpg": e.with_segments(photo(), *segments) for name, segments in odd_metadata().items()},
    }


def circular(data: bytes) -> bytes:
    """Return a TIFF whose first directory is followed by itself."""
    (at,) = struct.unpack("<I", data[4:8])
    (n_entries,) = struct.unpack("<H", data[at : at + 2])
    end = at + 2 + 12 * n_entries
    return data[:end] + struct.pack("<I", at) + data[end + 4 :]


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """Return a PNG with a chunk behind its header."""
    return data[:33] + extra + data[33:]


def more_rows(image: Image.Image) -> bytes:
    """Return a PNG that inflates to 64 MB more than its rows: a bomb for readers that inflate it all."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(image))
    return e.png(*image.size, zlib.compress(rows + bytes(64 << 20), 9))


def odd_metadata() -> dict[str, list[bytes]]:
    """EXIF, ICC and XMP that lead in circles, claim too much or say nonsense; viewers ignore them, and so do we."""
    far, rational = 0x7FFFFFF0, e.entry
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    loop = e.entry(0x8769, 4, 1, 8)
    maker = e.entry(0x927C, 7, 0x7FFFFFFF, 8)
    deep = b"".join(e.directory([e.entry(0x8769, 4, 1, 26 + 18 * n)]) for n in range(100))
    return {
        "exif directory that follows itself": [e.exif([e.entry(0x0112, 3, 1, 1)], following=8)],
        "exif that points to itself": [e.exif([loop])],
        "exif, gps and interop that point to themselves": [e.exif([loop, e.entry(0x8825, 4, 1, 8), e.entry(0xA005, 4, 1, 8)])],
        "exif of a hundred directories in each other": [e.exif([e.entry(0x8769, 4, 1, 26)], deep)],
        "exif with 4 billion values": [e.exif([e.entry(0x010F, 2, 0xFFFFFFFF, 8), e.entry(0x0112, 3, 0xFFFFFFFF, 8)])],
        "exif with values far outside": [e.exif([e.entry(0x010F, 2, 100, far), rational(0x829A, 5, 1, far)])],
        "maker note of 2 GB in itself": [e.exif([loop, maker])],
        "exif with orientation 9": [e.exif([e.entry(0x0112, 3, 1, 9)])],
        "exif with orientation 65535": [e.exif([e.entry(0x0112, 3, 1, 0xFFFF)])],
        "exif with an orientation in words": [e.exif([e.entry(0x0112, 2, 4, b"top\0")])],
        "exif with focal length 0 over 0": [
            e.exif(
                [
                    e.entry(0x8769, 4, 1, 26),
                ],
                e.directory([e.entry(0x920A, 5, 1, 44)]) + bytes(8),
            )
        ],
        "exif with gps 1 over 0": [
            e.exif([e.entry(0x8825, 4, 1, 26)], e.directory([e.entry(2, 5, 3, 44)]) + struct.pack("<6I", 1, 0, 1, 0, 1, 0))
        ],
        "exif with unknown types": [e.exif([e.entry(0x0112, 99, 1, 1), e.entry(0x010F, 0, 1, 1)])],
        "exif cut off": [e.segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x09")],
        "exif of nothing": [e.segment(0xE1, b"Exif\0\0")],
        "exif of noise": [e.segment(0xE1, b"Exif\0\0" + np.random.default_rng(1).bytes(60_000))],
        "exif twenty times": [e.exif([e.entry(0x0112, 3, 1, 1)])] * 20,
        "xmp with an entity bomb": [e.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>")],
        "icc of 12 MB": e.icc_segments(profile + bytes(12_000_000)),
        "icc of noise": e.icc_segments(np.random.default_rng(2).bytes(3000)),
        "icc cut off": e.icc_segments(profile[:200]),
        "icc whose parts are missing": e.icc_segments(profile * 200)[:1],
        "icc with 4 billion tags": e.icc_segments(profile[:128] + b"\xff\xff\xff\xff" + profile[132:]),
    }


def appended(seeds: Seeds) -> dict[str, bytes]:
    """Photos that are something else too. Only their pixels are ever kept, so they are photos."""
    from tests.faults.bad_inputs.headers import zipped

    photo = lambda: e.jpeg(seeds.take())  # noqa: E731
    script = b"<script>alert(1)</script><?php system($_GET['c']); ?>"
    return {
        "jpeg and zip.jpg": photo() + zipped({"../../evil.sh": b"#!/bin/sh\n"}),
        "jpeg and html.jpg": photo() + b"<html>" + script,
        "html in its comment.jpg": e.with_segments(photo(), e.segment(0xFE, script)),
        "jpeg and another jpeg.jpg": photo() + e.jpeg(1),
        "jpeg and 4 MB of noise.jpg": photo() + np.random.default_rng(3).bytes(4 << 20),
        "png and zip.png": e.encoded(e.picture(seeds.take()), "PNG") + zipped({"a.html": script}),
        "webp and html.webp": e.encoded(e.picture(seeds.take()), "WEBP") + script,
    }


def cut(seeds: Seeds) -> list[PhotoCase]:
    """Files that end within their pixels, as broken uploads leave them."""
    found = []
    for kind, shares in {
        "JPEG": (0.1, 0.3, 0.5, 0.9),
        "PNG": (0.1, 0.5, 0.9),
        "WEBP": (0.3, 0.9),
        "TIFF": (0.5, 0.99),
        "AVIF": (0.5, 0.9),
    }.items():
        for share in shares:
            data = e.encoded(e.picture(seeds.take()), kind)
            if kind == "TIFF":  # Pillow writes the directory last, others first
                data = directory_first(data)
            name = f"{share:.0%} of a.{kind.lower()}"
            found.append(PhotoCase(name, name, data[: int(len(data) * share)], ACCEPTED, EITHER))
    last = e.jpeg(seeds.take())[:-2]
    return [*found, PhotoCase("only its end marker is missing.jpg", "no end.jpg", last, ACCEPTED, (USED, CUT))]


def directory_first(data: bytes) -> bytes:
    """Return an uncompressed RGB TIFF of Pillow's with its directory before its pixels."""
    image = Image.open(io.BytesIO(data))
    n_entries = 9
    start = 8 + 2 + 12 * n_entries + 4
    bits = start + image.width * image.height * 3
    sizes = [*e.tiff_sizes(*image.size)]
    sizes[2], sizes[4], sizes[5] = e.entry(258, 3, 3, bits), e.entry(262, 3, 1, 2), e.entry(277, 3, 1, 3)
    strips = [e.entry(273, 4, 1, start), e.entry(278, 4, 1, image.height), e.entry(279, 4, 1, bits - start)]
    ordered = sorted([*sizes, *strips], key=lambda each: struct.unpack("<H", each[:2]))
    # The bits of each colour stand before the pixels' end, so that a cut file still has them.
    ordered = [e.entry(258, 3, 1, 8) if struct.unpack("<H", each[:2])[0] == 258 else each for each in ordered]
    return e.tiff(ordered, image.tobytes())


def flipped(seeds: Seeds) -> list[PhotoCase]:
    """Files with wrong bits among their pixels. What still decodes is used, what does not is named; nothing else may happen."""
    found = []
    rng = np.random.default_rng(seeds.take())
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        for n_flips in (1, 20):
            data = bytearray(e.encoded(e.picture(seeds.take()), kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {})))
            for at in rng.integers(len(data) // 3, len(data) * 2 // 3, n_flips):
                data[at] ^= 1 << int(rng.integers(0, 8))
            name = f"{n_flips} bits wrong.{kind.lower()}"
            found.append(PhotoCase(name, name, bytes(data), ACCEPTED, (USED, *EITHER)))
    return found


def broken(seeds: Seeds) -> list[PhotoCase]:
    """Files that no reader can make a photo of."""
    new = lambda: e.picture(seeds.take())  # noqa: E731
    photo = lambda: e.jpeg(seeds.take())  # noqa: E731
    floats = Image.fromarray(np.asarray(new().convert("L"), np.float32) / 255)
    strips = e.encoded(new(), "TIFF")
    refused = {
        "lossless.jpg": e.replaced(photo(), b"\xff\xc0", b"\xff\xc3"),
        "12 bits.jpg": e.replaced(photo(), b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        "200 components.jpg": b"\xff\xd8" + e.frame_header(400, 300, components=200) + photo()[2:],
        "no pixels.png": e.PNG + e.header(400, 300) + e.chunk(b"IEND", b""),
        "pixels of another size.png": e.png(400, 300, zlib.compress(bytes(5000))),
        "unknown colour type.png": e.PNG + e.header(400, 300, 8, 5) + e.chunk(b"IDAT", zlib.compress(bytes(99))) + e.chunk(b"IEND", b""),
        "pixels that are no zlib.png": e.png(400, 300, b"no zlib at all" * 10),
        "text bomb.png": with_chunk(e.encoded(new(), "PNG"), e.chunk(b"zTXt", b"a\0\0" + e.zeros(80))),
        "floats.tif": e.encoded(floats, "TIFF"),
        "strips far outside.tif": e.tiff([*e.tiff_sizes(400, 300), e.entry(273, 4, 1, 0x7FFFFFF0), e.entry(279, 4, 1, 120_000)]),
        "strips in the header.tif": e.tiff([*e.tiff_sizes(400, 300), e.entry(273, 4, 0xFFFFFF, 8), e.entry(279, 4, 0xFFFFFF, 8)]),
        "no strips.tif": e.tiff(e.tiff_sizes(400, 300)),
        "unknown compression.tif": e.replaced(strips, struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 999)),
        "canvas without a picture.webp": e.riff(b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x8f\x01\0\x2b\x01\0"),
        "size of another file.webp": e.riff(e.encoded(new(), "WEBP")[12:], 0xFFFFFFF0),
        "header without pixels.avif": e.heif((400, 300)),
        "header without pixels.heic": e.heif((400, 300), brand=b"heic"),
    }
    found = [PhotoCase(name, name, data, ACCEPTED, EITHER) for name, data in refused.items()]
    arithmetic = e.replaced(photo(), b"\xff\xc0", b"\xff\xc9")
    tall = e.resized_jpeg(photo(), 400, 3000)
    found.append(PhotoCase("a tenth of its rows.jpg", "a tenth.jpg", tall, ACCEPTED, (USED, *EITHER)))
    wide = e.png(30_001, 2000, e.grey_rows(30_001, 2000), colour=0)
    endless = e.endless_jpeg(4000, 3000, 20_000)
    found.append(PhotoCase("20,000 scans.jpg", "endless.jpg", endless, ACCEPTED, ("photo.too_costly",)))
    found.append(PhotoCase("arithmetic.jpg", "arithmetic.jpg", arithmetic, ACCEPTED, (USED, *EITHER)))
    found.append(PhotoCase("wider than is read.png", "wide.png", wide, ACCEPTED, ("photo.too_large",)))
    return found


def wrong_checksum(data: bytes) -> bytes:
    """Return a PNG whose pixels do not fit their checksum."""
    at = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    return data[: at + 4 + size] + b"\0\0\0\0" + data[at + 8 + size :]


def empty(seeds: Seeds) -> list[PhotoCase]:
    """Pictures of nothing, and pictures that are there already."""
    original = e.picture(seeds.take(), 800, 600)
    black, white = Image.new("RGB", (400, 300)), Image.new("RGB", (400, 300), (255, 255, 255))
    bomb = e.png(10_900, 10_900, e.grey_rows(10_900, 10_900, 128), colour=0)
    return [
        PhotoCase("black.png", "black.png", e.encoded(black, "PNG"), ACCEPTED, ("photo.too_dark",)),
        PhotoCase("white.png", "white.png", e.encoded(white, "PNG"), ACCEPTED, ("photo.blank",)),
        PhotoCase("119 megapixels of grey in 120 kB.png", "grey bomb.png", bomb, ACCEPTED, ("photo.blank",)),
        PhotoCase("an original.jpg", "original.jpg", e.encoded(original, "JPEG", quality=95), ACCEPTED, (USED,)),
        PhotoCase(
            "its copy, saved again", "copy.webp", e.encoded(original.resize((400, 300)), "WEBP", quality=80), ACCEPTED, ("photo.duplicate",)
        ),
    ]
