"""What the readers of splat files accept from strangers: counts that the file's own size makes believable, and errors that say why not."""

from pathlib import Path

from engine.errors import InputError

MAX_GAUSSIANS = 50_000_000
# A compressed file may hold very little per gaussian when all of them are alike; below this count it may hold anything.
FREE_GAUSSIANS = 1 << 16


def bad_file(kind: str, path: Path, why: str, hint: str = "") -> InputError:
    """Return the error for a ``kind`` file ("ply") that cannot be read; its code is ``input.bad_<kind>``."""
    advice = hint or "The file is damaged, incomplete or of another kind: write or download it again."
    return InputError(f"input.bad_{kind}", f"Not a readable .{kind} file", f"{path.name}: {why}", advice, {"name": path.name})


def check_count(kind: str, path: Path, count: int, size_bytes: int) -> None:
    """Raise ``InputError`` unless ``count`` gaussians are believable in a file of ``size_bytes``: a guard against decompression bombs.

    Real files spend 8 bytes or more on a gaussian; a byte each is asked for here, above a free allowance.
    """
    if count < 1:
        raise bad_file(kind, path, "it holds no gaussians")
    if count > min(MAX_GAUSSIANS, max(FREE_GAUSSIANS, size_bytes)):
        raise bad_file(kind, path, f"it claims {count} gaussians in {size_bytes} bytes")


def read_bytes(kind: str, path: Path) -> bytes:
    """Return a file's bytes, or raise ``InputError`` when it cannot be opened."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise bad_file(kind, path, f"it cannot be opened ({error.strerror})") from error
