"""The first stage on good, odd and hostile files."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from engine.errors import Cancelled, InputError
from engine.events import Event, Progress, Warned
from engine.options import IngestOptions, RunOptions
from engine.photos import ingest
from engine.workspace import Workspace
from tests.engine.photos.draw import jpeg_bytes, texture, write_photos


class Run:
    """One run of the stage and what came of it."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.workspace = Workspace.at(tmp_path / "work", tmp_path / "photos")
        self.events: list[Event] = []
        self.stats = ingest.run(self.workspace, RunOptions(ingest=IngestOptions(**options), threads=2), self.events.append)
        self.records = {record["source_name"]: record for record in json.loads(self.workspace.images_index.read_text())}

    def image(self, source_name: str) -> Image.Image:
        with Image.open(self.workspace.images / self.records[source_name]["name"]) as photo:
            photo.load()
            return photo

    def warnings(self) -> dict[str, str]:
        return {event.data["photo"]: event.code for event in self.events if isinstance(event, Warned)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 3)
    return tmp_path / "photos"


def difference(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


def test_good_photos_are_all_taken_and_described(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    run = Run(tmp_path)
    assert run.stats["n_photos"] == 3
    assert sorted(path.name for path in run.workspace.images.iterdir()) == ["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg"]
    record = run.records["IMG_1.jpg"]
    assert (record["accepted"], record["width"], record["height"], record["camera_group"]) == (True, 400, 300, 1)
    assert record["focal_px"] is None
    assert record["gps"] is None
    fractions = [event.fraction for event in run.events if isinstance(event, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert not [event for event in run.events if isinstance(event, Warned)]
    assert not list(tmp_path.glob("work/.*.part"))


def test_photos_come_in_natural_order_from_one_level_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("IMG_10.jpg", "IMG_2.jpg", "b/IMG_1.jpg", "b/deeper/IMG_3.jpg", ".hidden.jpg", "__MACOSX/IMG_1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg_bytes(texture(hash(name) % 1000)))
    run = Run(tmp_path, min_photos=2)
    assert list(run.records) == ["IMG_2.jpg", "IMG_10.jpg", "b/IMG_1.jpg"] or list(run.records) == [
        "b/IMG_1.jpg",
        "IMG_2.jpg",
        "IMG_10.jpg",
    ]
    assert run.records["b/IMG_1.jpg"]["name"] == "b-IMG_1.jpg"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_once(orientation: int, photos: Path, tmp_path: Path) -> None:
    upright = texture(50, 400, 304)
    # The stored pixels are what the camera saw: the inverse of the turn that the tag asks for.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    (photos / "turned.jpg").write_bytes(jpeg_bytes(stored, exif=exif))
    run = Run(tmp_path)
    image = run.image("turned.jpg")
    assert image.size == (400, 304)
    assert difference(image, upright) < 2.0
    assert image.getexif() == {}
    assert (run.records["turned.jpg"]["source_width"], run.records["turned.jpg"]["source_height"]) == (400, 304)


def test_truncated_photo_is_named_and_the_others_live(photos: Path, tmp_path: Path) -> None:
    whole = jpeg_bytes(texture(9))
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    run = Run(tmp_path)
    assert run.warnings() == {"cut.jpg": "photo.truncated"}
    assert run.stats["n_photos"] == 3
    assert not (run.workspace.images / "cut.jpg").exists()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_no_truncation_of_any_format_gets_through_or_hurts(kind: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    texture(3, 340, 64).save(data, kind)
    whole = data.getvalue()
    write_photos(tmp_path / "photos", 2)
    # A JPEG without its last marker, and formats that pad their end, still hold all pixels: stay a little away from the end.
    for size in range(0, len(whole) - 64, max(1, len(whole) // 40)):
        (tmp_path / "photos" / f"cut_{size}.bin").write_bytes(whole[:size])
    run = Run(tmp_path, min_photos=2)
    assert run.stats["n_photos"] == 2
    assert all(run.records[name]["reason"] in ("photo.truncated", "photo.unreadable") for name in run.records if name.startswith("cut"))


def wide_png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than the file holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("name", "data", "code", "words"),
    [
        ("text.jpg", b"This is not a photo.\n", "photo.unreadable", "not a photo"),
        ("empty.jpg", b"", "photo.unreadable", "empty"),
        ("wide.png", wide_png(60_000, 60_000), "photo.too_large", "60000×60000 px (3600 megapixels)"),
        ("strip.png", wide_png(60_000, 400), "photo.too_large", "no side may be longer"),
        ("thin.png", wide_png(20_000, 40), "photo.too_small", "too thin"),
        ("small.jpg", jpeg_bytes(texture(1, 160, 120)), "photo.too_small", "160×120 px; the longer side must be at least 320"),
        ("movie.gif", b"GIF89a" + bytes(100), "photo.unreadable", "not a photo"),
        ("bomb.png", wide_png(400, 300), "photo.truncated", "cut off"),
        ("blank.jpg", jpeg_bytes(Image.new("RGB", (400, 300), (200, 200, 200))), "photo.blank", "blank"),
        ("cap.jpg", jpeg_bytes(texture(4).point(lambda level: level // 30)), "photo.too_dark", "almost black"),
    ],
)
def test_bad_file_is_named_with_its_reason(name: str, data: bytes, code: str, words: str, photos: Path, tmp_path: Path) -> None:
    (photos / name).write_bytes(data)
    run = Run(tmp_path)
    assert run.warnings() == {name: code}
    assert run.records[name]["detail"].startswith(name)
    assert words in run.records[name]["detail"]
    assert run.stats["rejected"] == {code: 1}


def test_copies_are_dropped_and_the_largest_kept(photos: Path, tmp_path: Path) -> None:
    (photos / "a-copy.jpg").write_bytes((photos / "IMG_1.jpg").read_bytes())
    (photos / "resaved.jpg").write_bytes(jpeg_bytes(texture(2), quality=60))
    (photos / "bigger.jpg").write_bytes(jpeg_bytes(texture(0, 800, 600)))
    run = Run(tmp_path)
    assert {name for name, record in run.records.items() if record["accepted"]} == {"a-copy.jpg", "IMG_2.jpg", "bigger.jpg"}
    assert "has the same pixels as a-copy.jpg" in run.records["IMG_1.jpg"]["detail"]
    assert "is a re-saved copy of IMG_2.jpg" in run.records["resaved.jpg"]["detail"]


def test_a_slightly_moved_camera_is_not_a_copy(tmp_path: Path) -> None:
    scene = texture(8, 480, 360)
    (tmp_path / "photos").mkdir()
    for step in range(4):
        (tmp_path / "photos" / f"{step}.jpg").write_bytes(jpeg_bytes(scene.crop((4 * step, 0, 400 + 4 * step, 300))))
    assert Run(tmp_path).stats["n_photos"] == 4


def test_forty_copies_of_one_photo_end_in_words(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(40):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg_bytes(texture(0)))
    with pytest.raises(InputError) as caught:
        Run(tmp_path)
    assert caught.value.code == "input.too_few_photos"
    assert "1 of 40 files can be used, at least 3" in caught.value.detail
    assert "and 29 more" in caught.value.detail
    assert caught.value.hint
    assert not (tmp_path / "work" / "images").exists()


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_photos_are_refused(count: int, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", count)
    with pytest.raises(InputError, match=f"{count} of {count} files"):
        Run(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Run(tmp_path)
    assert caught.value.code == "input.no_photos"


@pytest.mark.parametrize("mode", ["CMYK", "L", "LA", "P", "I;16", "1", "YCbCr"])
def test_odd_pixel_formats_become_rgb(mode: str, photos: Path, tmp_path: Path) -> None:
    source = texture(20)
    if mode == "I;16":
        odd = Image.fromarray(np.asarray(source.convert("L"), np.uint16) * 257)
    else:
        odd = source.quantize(256) if mode == "P" else source.convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    odd.save(photos / "odd.bin", kind)
    image = Run(tmp_path).image("odd.bin")
    assert image.mode == "RGB"
    expected = {"1": odd, "L": odd, "LA": odd, "I;16": source.convert("L")}.get(mode, source).convert("RGB")
    assert difference(image, expected) < 12.0


def test_sixteen_bit_colour_keeps_its_brightness(photos: Path, tmp_path: Path) -> None:
    rows = np.asarray(texture(21)).astype(">u2") * 257
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 400, 300, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    (photos / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert difference(Run(tmp_path).image("deep.png"), texture(21)) < 2.0


def test_transparency_turns_black_and_is_noted(photos: Path, tmp_path: Path) -> None:
    cut_out = texture(30).convert("RGBA")
    alpha = Image.new("L", cut_out.size, 0)
    alpha.paste(255, (100, 100, 300, 200))
    cut_out.putalpha(alpha)
    cut_out.save(photos / "cut-out.png")
    palette = texture(31).convert("P")
    palette.info["transparency"] = palette.getpixel((200, 150))
    palette.save(photos / "palette.png")
    opaque = texture(32).convert("RGBA")
    opaque.save(photos / "opaque.png")
    run = Run(tmp_path)
    assert [run.records[f"{name}.png"]["has_alpha"] for name in ("cut-out", "palette", "opaque")] == [True, True, False]
    assert [run.records[f"{name}.png"]["name"] for name in ("cut-out", "opaque")] == ["cut-out.png", "opaque.jpg"]
    image = run.image("cut-out.png")
    assert image.getpixel((10, 10)) == (0, 0, 0)
    assert image.getpixel((200, 150)) == texture(30).getpixel((200, 150))


def test_large_photos_are_resized_and_their_focal_length_with_them(photos: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 36
    (photos / "large.jpg").write_bytes(jpeg_bytes(texture(40, 3000, 2000), exif=exif))
    run = Run(tmp_path, max_side=600)
    record = run.records["large.jpg"]
    assert (record["width"], record["height"], record["source_width"]) == (600, 400, 3000)
    # 36 mm on a 36 mm wide film: the focal length is the width.
    assert record["focal_px"] == pytest.approx(600.0, abs=0.5)
    assert difference(run.image("large.jpg"), texture(40, 600, 400)) < 2.0


def test_wide_gamut_pixels_are_converted(photos: Path, tmp_path: Path) -> None:
    # A profile far from sRGB: red and blue colorants swapped, and another name.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = (
        srgb.replace(b"rXYZ", b"????")
        .replace(b"bXYZ", b"rXYZ")
        .replace(b"????", b"bXYZ")
        .replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be"))
    )
    (photos / "odd.jpg").write_bytes(jpeg_bytes(texture(60), icc_profile=swapped))
    (photos / "broken.jpg").write_bytes(jpeg_bytes(texture(61), icc_profile=b"no profile at all"))
    run = Run(tmp_path)
    red, green, blue = texture(60).split()
    assert difference(run.image("odd.jpg"), Image.merge("RGB", (blue, green, red))) < 3.0
    assert difference(run.image("broken.jpg"), texture(61)) < 2.0
    assert "icc_profile" not in run.image("odd.jpg").info


def test_hostile_names_become_plain_distinct_ones(photos: Path, tmp_path: Path) -> None:
    names = [
        "Ünïcödé фото 写真.jpg",
        "a..b.jpg",
        "a b;rm -rf.jpg",
        "new\nline.jpg",
        "-rf.jpg",
        "x" * 200 + ".jpg",
        "写真.jpg",
        "фото.jpg",
        "IMG_0.JPG",
    ]
    for seed, name in enumerate(names):
        (photos / name).write_bytes(jpeg_bytes(texture(100 + seed)))
    (photos / b"bytes\xff.jpg".decode("utf-8", "surrogateescape")).write_bytes(jpeg_bytes(texture(200)))
    run = Run(tmp_path)
    written = [record["name"] for record in run.records.values()]
    assert len(written) == len(names) + 3 + 1
    assert len({name.casefold() for name in written}) == len(written)
    assert all(name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum() for name in written)
    assert all(name[0].isalnum() and len(name) < 100 for name in written)
    assert {path.name for path in run.workspace.images.iterdir()} == set(written)
    assert "new\ufffdline.jpg" in run.records


def test_nothing_written_holds_gps_or_serials(photos: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "SERIAL-123"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "S", 2: (10.0, 30.0, 0.0), 3: "W", 4: (20.0, 0.0, 36.0), 5: b"\x01", 6: 5.0})
    (photos / "located.jpg").write_bytes(jpeg_bytes(texture(70), exif=exif, comment=b"my home"))
    run = Run(tmp_path)
    record = run.records["located.jpg"]
    assert record["gps"] == pytest.approx([-10.5, -20.01, -5.0])
    assert record["make"] == "Maker"
    raw = (run.workspace.images / "located.jpg").read_bytes()
    assert b"SERIAL" not in raw
    assert b"Exif" not in raw
    assert b"my home" not in raw
    assert "SERIAL" not in run.workspace.images_index.read_text()


def test_cameras_are_grouped_by_size_model_and_focal_length(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed, (width, model, focal) in enumerate([(400, "A", 28), (400, "A", 28), (440, "A", 28), (400, "B", 28), (400, "A", 50)]):
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = model
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = focal
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(jpeg_bytes(texture(seed, width), exif=exif))
    assert [record["camera_group"] for record in Run(tmp_path).records.values()] == [1, 1, 2, 3, 4]


def test_a_blurred_photo_is_kept_but_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 6)
    for number in range(6):
        sharp = Image.fromarray(np.random.default_rng(number).integers(0, 256, (300, 400, 3)).astype(np.uint8))
        (tmp_path / "photos" / f"IMG_{number}.jpg").write_bytes(jpeg_bytes(sharp))
    (tmp_path / "photos" / "soft.jpg").write_bytes(jpeg_bytes(texture(7)))
    run = Run(tmp_path)
    assert run.warnings() == {"soft.jpg": "photo.blurred"}
    assert run.stats["n_photos"] == 7


def test_stop_request_drops_the_photos_not_begun(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 30)
    workspace = Workspace.at(tmp_path / "work", tmp_path / "photos")
    seen: list[int] = []

    def stop(_event: Event) -> None:
        seen.append(len(list(workspace.root.glob(".images.*.part/*"))))
        raise Cancelled.by_request()

    with pytest.raises(Cancelled):
        ingest.run(workspace, RunOptions(threads=1), stop)
    assert seen[0] < 29
    assert not workspace.images.exists()
    assert not list(workspace.root.glob(".*.part"))


def test_running_again_gives_the_same_bytes_and_removes_what_is_gone(photos: Path, tmp_path: Path) -> None:
    write_photos(photos, 1, start=3)
    first = Run(tmp_path)
    before = {path.name: path.read_bytes() for path in first.workspace.images.iterdir()}
    (first.workspace.root / ".images.1.part").mkdir()
    (photos / "IMG_3.jpg").unlink()
    second = Run(tmp_path)
    after = {path.name: path.read_bytes() for path in second.workspace.images.iterdir()}
    assert after == {name: data for name, data in before.items() if name != "IMG_3.jpg"}
    assert not list(second.workspace.root.glob(".*.part"))
