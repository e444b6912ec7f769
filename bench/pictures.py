"""Pictures to look at: held-out photos (above) and our renders of the same views (below), small enough for the repository."""

import argparse
import sys
from pathlib import Path

from PIL import Image

COLUMNS = 3
COLUMN_PX = 400
GAP_PX = 6
QUALITY = 82


def write_comparison(renders: Path, target: Path, with_photos: bool = True, columns: int = COLUMNS) -> Path:
    """Write one picture of up to ``columns`` held-out views from what training left in ``renders``; return ``target``.

    ``with_photos`` false leaves the photos out, for sets whose licence does not let us pass them on. Raises ``ValueError`` without views.
    """
    found = sorted(renders.glob("*.render.png"))
    if not found:
        raise ValueError(f"{renders} holds no render of a held-out view")
    chosen = [found[index * len(found) // min(columns, len(found))] for index in range(min(columns, len(found)))]
    rows = [[render.with_name(render.name.replace(".render.png", ".photo.png")) for render in chosen]] if with_photos else []
    sheet = _sheet([*rows, chosen])
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=QUALITY, method=6)
    return target


def _sheet(rows: list[list[Path]]) -> Image.Image:
    """Return the pictures in rows and columns; one column has one width, one row one height."""
    scaled = [[_scaled(path) for path in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in scaled]
    width = sum(picture.width for picture in scaled[0]) + GAP_PX * (len(scaled[0]) - 1)
    sheet = Image.new("RGB", (width, sum(heights) + GAP_PX * (len(heights) - 1)), "white")
    top = 0
    for row, height in zip(scaled, heights, strict=True):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + GAP_PX
        top += height + GAP_PX
    return sheet


def _scaled(path: Path) -> Image.Image:
    """Return the picture at the height that a landscape photo of COLUMN_PX width has; pictures are never enlarged."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    height = min(picture.height, COLUMN_PX * 3 // 4)
    return picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)


def main() -> int:
    """Write a picture of one workspace."""
    parser = argparse.ArgumentParser(prog="python -m bench.pictures", description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("target", type=Path, help="a .webp, .jpg or .png file")
    parser.add_argument("--no-photos", action="store_true", help="only our renders")
    given = parser.parse_args()
    print(write_comparison(given.workspace / "train" / "renders", given.target, not given.no_photos))
    return 0


if __name__ == "__main__":
    sys.exit(main())
