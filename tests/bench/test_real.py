import numpy as np
import pytest
from PIL import Image

from bench.pictures import write_comparison
from bench.real import Result, photos_of, read_overrides, run_set, table
from engine.options import preset

REPORT = {"registered": 15, "photos": 16, "psnr_db": 24.5, "ssim": 0.81, "gaussians": 90_000, "files": {"scene.sog": 1_234_567}}


@pytest.fixture
def renders(tmp_path):
    folder = tmp_path / "renders"
    folder.mkdir()
    for index in range(5):
        for kind, grey in (("photo", 200), ("render", 60)):
            Image.fromarray(np.full((300, 400 if index else 200, 3), grey, np.uint8)).save(folder / f"{index}.jpg.{kind}.png")
    return folder


def test_photos_are_found_with_and_without_a_subfolder(tmp_path):
    assert photos_of(tmp_path) == tmp_path
    (tmp_path / "images").mkdir()
    assert photos_of(tmp_path) == tmp_path / "images"


def test_overrides_nest_and_keep_their_types():
    assert read_overrides(["train.steps=500", "seed=1", "train.max_side=320"]) == {"train": {"steps": 500, "max_side": 320}, "seed": 1}


def test_the_table_lists_figures_and_errors():
    good = Result("banana", 16, REPORT, seconds={"poses": 50.4}, peak_memory_bytes={"poses": 420_000_000})
    bad = Result("room", 8, error={"code": "capture.too_few_registered", "detail": "3 of 8"})
    lines = table([good, bad]).splitlines()
    assert "| banana | 15/16 | 24.50 | 0.810 | 90,000 | 0 | 50 | 0 | 0 | 420 | 0.00 | 0.00 | 1.23 |" in lines
    assert "capture.too_few_registered" in lines[-1]
    assert len({line.count("|") for line in lines}) == 1


def test_a_set_that_cannot_be_used_is_a_result_and_not_a_crash(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.jpg").write_text("not a photo")
    result, _ = run_set(tmp_path / "set", tmp_path / "work", preset("draft"))
    assert result.error["code"].startswith("input.")
    assert result.n_files == 1


def test_a_comparison_has_photos_above_renders(renders, tmp_path):
    with Image.open(write_comparison(renders, tmp_path / "sheet.png")) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert pixels.shape[0] == 2 * 300 + 6
    assert (pixels[100, 5], pixels[500, 5]) == (200, 60)


def test_a_comparison_without_photos_shows_renders_only(renders, tmp_path):
    with Image.open(write_comparison(renders, tmp_path / "sheet.png", with_photos=False)) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert pixels.shape[0] == 300
    assert 200 not in pixels


def test_a_comparison_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no render"):
        write_comparison(tmp_path, tmp_path / "sheet.png")
