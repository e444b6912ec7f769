"""Which files a command line of folders and files means."""

from pathlib import Path

from engine.errors import InputError

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif"})


def collect(paths: list[Path]) -> list[Path]:
    """Return the photos named: files as given, folders with everything below that is named like a photo, sorted.

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
        known = " ".join(sorted(PHOTO_SUFFIXES))
        raise InputError("input.no_photos", "No photos", f"no photo in {listed}", f"Photos are files named {known}.")
    return list(dict.fromkeys(each.resolve() for each in found))


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not any(part.startswith(".") for part in path.parts)
