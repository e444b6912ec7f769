"""ZIP files for bundles: written stored and with the same bytes every time, read with limits."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

from engine.formats.limits import bad_file, read_bytes

MAX_MEMBERS = 64
EPOCH = (1980, 1, 1, 0, 0, 0)
END = struct.Struct("<4sHHHHIIH")


def write_stored_zip(path: Path, members: dict[str, bytes]) -> None:
    """Write ``members`` (name to bytes) in the order given: not compressed, no times, no owner."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    path.write_bytes(packed.getvalue())


def read_zip(kind: str, path: Path, max_total_bytes: int) -> dict[str, bytes]:
    """Return the members of a ZIP file, checksums checked.

    Raises ``InputError`` ``input.bad_<kind>`` when it is cut, when bytes come before or after it, for names that are doubled or no plain
    file names, for encrypted members, and when the members together are over ``max_total_bytes`` unpacked.
    """
    data = read_bytes(kind, path)
    _check_ends(kind, path, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_members(kind, path, infos, max_total_bytes)
            return {info.filename: _read_member(archive, info) for info in infos}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, struct.error) as error:
        raise bad_file(kind, path, f"its ZIP structure is damaged ({error})") from error


def _check_ends(kind: str, path: Path, data: bytes) -> None:
    """Refuse a ZIP that does not fill the file: where bytes lie before or after it, two readers can see two archives."""
    place = data.rfind(b"PK\x05\x06")
    if not data.startswith(b"PK\x03\x04") or place < 0 or len(data) < place + END.size:
        raise bad_file(kind, path, "it is not a whole ZIP file")
    _sig, _disk, _disk0, _here, _total, size, start, comment = END.unpack_from(data, place)
    if place + END.size + comment != len(data) or start + size != place:
        raise bad_file(kind, path, "bytes were cut from the ZIP file or added to it")


def _check_members(kind: str, path: Path, infos: list[zipfile.ZipInfo], max_total_bytes: int) -> None:
    names = [info.filename for info in infos]
    if len(infos) > MAX_MEMBERS or len(set(names)) != len(names):
        raise bad_file(kind, path, f"it has {len(infos)} members, or two of one name")
    for info in infos:
        if info.filename in ("", ".", "..") or any(each in info.filename for each in ("/", "\\", "\0", ":")) or info.flag_bits & 1:
            raise bad_file(kind, path, f"member {info.filename[:60]!r} is encrypted or no plain file name")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise bad_file(kind, path, f"member {info.filename[:60]!r} is compressed in a way that is not read (only stored and deflate)")
    total = sum(info.file_size for info in infos)
    if total > max_total_bytes:
        raise bad_file(kind, path, f"its members unpack to {total} bytes; at most {max_total_bytes} are read")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as handle:
        data = handle.read(info.file_size)
        if len(data) != info.file_size or handle.read(1):
            raise zipfile.BadZipFile(f"{info.filename[:60]} is not of the size it claims")
    return data
