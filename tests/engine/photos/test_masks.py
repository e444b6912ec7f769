"""Masks and alpha on their way through ingest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from engine.errors import InputError
from engine.events import Warned
from tests.engine.photos.draw import jpeg_bytes, texture, write_photos
from tests.engine.photos.test_ingest import Run


def half_black(width: int = 400, height: int = 300) -> Image.Image:
    """White, with the left quarter black."""
    levels = np.full((height, width), 255, np.uint8)
    levels[:, : width // 4] = 0
    return Image.fromarray(levels)


def save(mask: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)


def mask_of(run: Run, name: str) -> np.ndarray:
    with Image.open(run.workspace.masks / f"{run.records[name]['name']}.png") as mask:
        return np.asarray(mask)


def messages(run: Run, code: str) -> list[str]:
    return [event.detail for event in run.events if isinstance(event, Warned) and event.code == code]


@pytest.mark.parametrize("name", ["photos/masks/IMG_0.jpg.png", "photos/masks/IMG_0.png", "masks/IMG_0.jpg.png", "masks/img_0.PNG"])
def test_a_mask_is_found_within_and_beside_the_photos_by_both_names(name: str, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    save(half_black(), tmp_path / name)
    run = Run(tmp_path)
    assert run.stats["n_files"] == 3
    assert run.stats["n_with_mask"] == 1
    assert (mask_of(run, "IMG_0.jpg") == np.asarray(half_black())).all()
    assert "IMG_1.jpg, IMG_2.jpg" in messages(run, "photo.no_mask")[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_and_shrink_with_their_photo(orientation: int, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2, start=1)
    upright = texture(0, 800, 608)
    mask = half_black(800, 608)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = [each.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else each for each in (upright, mask)]
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg_bytes(stored[0], exif=exif))
    save(stored[1], tmp_path / "masks" / "a.jpg.png")
    run = Run(tmp_path, max_side=400)
    assert (mask_of(run, "a.jpg") == np.asarray(half_black(400, 304))).all()


def test_a_mask_made_on_the_upright_photo_is_not_turned_again(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2, start=1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = texture(0, 400, 304).transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg_bytes(stored, exif=exif))
    save(half_black(400, 304), tmp_path / "masks" / "a.jpg.png")
    assert (mask_of(Run(tmp_path), "a.jpg") == np.asarray(half_black(400, 304))).all()


@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_ones_and_small_masks_mean_the_same(white: int, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    small = half_black(200, 150).point([0] * 255 + [white])
    save(small, tmp_path / "masks" / "IMG_0.jpg.png")
    run = Run(tmp_path)
    assert (mask_of(run, "IMG_0.jpg") == np.asarray(half_black())).all()


def test_bad_masks_leave_their_photo_out_by_name(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 6)
    save(Image.new("L", (300, 300), 255), tmp_path / "masks" / "IMG_0.jpg.png")
    save(Image.new("L", (400, 300), 0), tmp_path / "masks" / "IMG_1.jpg.png")
    (tmp_path / "masks" / "IMG_2.jpg.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(half_black(), tmp_path / "masks" / "nobody.png")
    run = Run(tmp_path)
    expected = {"IMG_0.jpg": "photo.mask_size", "IMG_1.jpg": "photo.mask_empty", "IMG_2.jpg": "photo.mask_unreadable"}
    assert {name: record["reason"] for name, record in run.records.items() if not record["accepted"]} == expected
    assert "nobody.png" in messages(run, "capture.mask_without_photo")[0]
    assert not list(run.workspace.masks.iterdir())
    assert "IMG_0.jpg is 400×300 px and its mask 300×300" in run.records["IMG_0.jpg"]["detail"]


def test_masks_of_which_none_fits_stop_the_job(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    save(half_black(), tmp_path / "masks" / "other.png")
    with pytest.raises(InputError) as caught:
        Run(tmp_path)
    assert caught.value.code == "input.masks_unmatched"


def test_what_transparent_pixels_hide_never_reaches_the_rim(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2, start=1)
    # A grey disc, hidden pixels glaring red; shrunk to a third, so that every rim pixel mixes both.
    rows, columns = np.mgrid[:900, :1200]
    inside = (rows - 450) ** 2 + (columns - 600) ** 2 < 400**2
    pixels = np.where(inside[..., None], (np.asarray(texture(0, 1200, 900)).mean(axis=2, keepdims=True)).astype(np.uint8), (255, 0, 0))
    rgba = np.concatenate([pixels, 255 * inside[..., None]], axis=2).astype(np.uint8)
    Image.fromarray(rgba).save(tmp_path / "photos" / "a.png")
    run = Run(tmp_path, max_side=400)
    colour = np.asarray(run.image("a.png"), int)
    with Image.open(run.workspace.alpha / "a.png.png") as opened:
        alpha = np.asarray(opened, int)
    assert run.records["a.png"]["has_alpha"]
    assert alpha.shape == (300, 400)
    assert 0 < ((alpha > 0) & (alpha < 255)).sum() < 4000
    # Grey stays grey, and multiplied by alpha it is never brighter than that (but for the overshoot of the resampling).
    assert np.abs(colour[..., 0] - colour[..., 1]).max() <= 1
    assert (colour.max(axis=2) <= alpha + 24).all()
