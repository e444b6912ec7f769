"""Which files of a folder are taken as photos, in what order, and what they are called."""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.workspace import COMPANIONS

# Beside what systems leave behind: masks and poses come with photos and are none. instant-ngp and Nerfstudio keep one file a split.
_NOT_PHOTOS = ("__MACOSX", "Thumbs.db", "desktop.ini", "transforms_test.json", "transforms_val.json", *COMPANIONS)
_NAMED_AT_MOST = 10
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Source:
    """A file as given: ``shown`` is its path inside the folder, fit to print and for JSON; ``stem`` names what is made from it."""

    path: Path
    shown: str
    stem: str


def list_sources(folder: Path) -> list[Source]:
    """Return the files in ``folder`` and its direct subfolders in natural order (IMG_2 before IMG_10), hidden ones left out.

    Raises ``InputError`` input.no_photos when there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            "input.no_photos", "No photos", "the folder of photos does not exist", "Give a folder with 20 to 200 photos of one scene."
        )
    found = [path for path in folder.iterdir() if _is_shown(path)]
    nested = [path for each in found if each.is_dir() and not each.is_symlink() for path in each.iterdir() if _is_shown(path)]
    files = sorted((path for path in found + nested if path.is_file()), key=lambda path: _natural(str(path.relative_to(folder))))
    shown = [_printable(path.relative_to(folder)) for path in files]
    return [Source(*each) for each in zip(files, shown, safe_stems(shown), strict=True)]


def safe_stems(names: list[str]) -> list[str]:
    """Return for each name a distinct file name without extension: ASCII letters, digits, "-", "_" and "." only, any system can hold it."""
    taken: set[str] = set()
    stems = []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        # The extension goes: all photos get the one of their new format.
        base = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"\.[^./]*$", "", plain)).strip(".-_")[:_LONGEST_NAME] or "photo"
        stem, number = base, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def named(names: list[str]) -> str:
    """Return the first of many names as text."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and path.name not in _NOT_PHOTOS


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key: digits as numbers; the name itself decides between 1.jpg and 01.jpg."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part[:18]), "") if index % 2 else (-1, part) for index, part in enumerate(parts)], name


def _printable(path: Path) -> str:
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
