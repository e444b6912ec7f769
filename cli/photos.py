"""Which files a command line of folders and files means: photos and videos, and what comes with them."""

from pathlib import Path

from engine.containers import SUFFIXES
from engine.errors import InputError
from engine.workspace import COMPANIONS, MASKS, Workspace

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif"})


def collect(paths: list[Path]) -> list[Path]:
    """Return the photos and videos named: files as given, folders with everything below that is named like one, sorted. Masks are none.

    Raises ``InputError`` for a path that is not there and when nothing is found. What is inside a file is for the server to judge.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if _is_photo(each.relative_to(path)) and each.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise InputError("input.no_such_file", "No such file or folder", f"{path} does not exist")
    if not found:
        listed = ", ".join(map(str, paths))
        known = " ".join(sorted(PHOTO_SUFFIXES)), " ".join(sorted(SUFFIXES))
        hint = f"Photos are files named {known[0]}, videos {known[1]}."
        raise InputError("input.no_photos", "No photos", f"no photo or video in {listed}", hint)
    return list(dict.fromkeys(each.resolve() for each in found))


def _is_photo(path: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in PHOTO_SUFFIXES | SUFFIXES and not is_hidden and MASKS not in path.parts[:-1]


def companions(paths: list[Path]) -> dict[Path, str]:
    """Return what comes with the photos of the folders named, masks/ and poses in them or beside them, and what each is called."""
    found: dict[Path, str] = {}
    for folder in (path.resolve() for path in paths if path.is_dir()):
        place = Workspace(folder, folder)
        for name in COMPANIONS:
            came = place.companion(name)
            files = [] if came is None else [came] if came.is_file() else sorted(each for each in came.rglob("*") if each.is_file())
            for file in files:
                if came is not None and not file.name.startswith("."):
                    found[file] = (Path(name) / file.relative_to(came)).as_posix() if file != came else name
    return found
