"""Bytes of a request onto the end of an upload's file: one writer at a time, who lets go for a newer one; saved however it ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api import tus
from api.deps import State
from api.errors import ChecksumMismatch, Conflict, Locked, TooLarge
from api.models import Upload
from api.multipart import announced_bytes
from api.services import intake, parts, spool, uploads
from api.services.uploads import Held

SAVE_EVERY_S = 2.0
LOOK_EVERY_S = 0.2
LOCK_EVERY_S = 0.02


def take(app: State, upload_id: str) -> Upload:
    """Take an upload over from whoever writes it; one that has ended is returned as it is."""
    with app.db.writing() as session:
        return uploads.take(session, upload_id)


@contextlib.asynccontextmanager
async def held(app: State, row: Upload) -> AsyncIterator[Held]:
    """Hold a taken upload alone until the block ends; ``Locked`` when the request before does not let go in time, or a newer one came."""
    path = uploads.path_of(app.settings, row.id)
    deadline = time.monotonic() + app.settings.upload_wait_s
    while (found := await run_in_threadpool(spool.try_open, path)) is None:
        if time.monotonic() > deadline:
            raise Locked(
                "conflict.upload_busy", "Upload busy", f"another request works on the upload {row.id}", "Ask again in a few seconds."
            )
        await asyncio.sleep(LOCK_EVERY_S)
    try:
        yield await run_in_threadpool(begin, app, row.id, row.fence, found)
    finally:
        # Not awaited: a request that is cancelled in the middle of its going must let go all the same.
        found.close()


def begin(app: State, upload_id: str, fence: int, found: spool.Spool) -> Held:
    """Return the upload with file and row in agreement, now that nobody else writes; ``Locked`` when a newer request wants it."""
    with app.db.reading() as session:
        row = uploads.get(session, upload_id)
    mine = Held(row, fence, found, row.offset)
    if row.state != intake.OPEN or row.fence != fence:
        if row.state != intake.OPEN:
            found.remove()  # opening made it anew
        uploads.check_there(row)
        raise uploads.taken_over(upload_id)
    uploads.settle(app.db, app.settings, mine)
    return mine


@dataclass(frozen=True)
class Piece:
    """The bytes of one request: where they begin, and what they must hash to."""

    begins: int
    checksum: tus.Checksum | None = None


async def receive(request: Request, app: State, upload_id: str, piece: Piece) -> Upload:
    """Take an upload over, write a request's bytes to its end, and make it a photo when they were the last; return its row.

    Raises ``Conflict`` when they do not begin where the upload is, ``TooLarge`` when they would go on behind its end.
    """
    row = await run_in_threadpool(take, app, upload_id)
    if row.state != intake.OPEN:
        uploads.check_offset(row, row.offset, piece.begins)
        return row
    check_way(row, in_parts=False)
    async with held(app, row) as mine:
        uploads.check_offset(row, mine.offset, piece.begins)
        if mine.offset + announced_bytes(request) > row.length:
            raise too_long(row.length)
        await append(request, app, mine, piece.checksum)
        return await run_in_threadpool(finish_if_whole, app, mine)


async def complete(app: State, upload_id: str, etags: dict[int, str]) -> Upload:
    """Make an upload whose parts lie in the object store a photo; return its row. Asked again, what was done is told again."""
    row = await run_in_threadpool(take, app, upload_id)
    check_way(row, in_parts=True)
    if row.state != intake.OPEN:
        return row
    async with held(app, row) as mine:
        try:
            return await run_in_threadpool(gather, app, mine, etags)
        finally:
            mine.spool.remove()  # the parts are where they were


def gather(app: State, mine: Held, etags: dict[int, str]) -> Upload:
    """Bring the parts of an upload together on this machine's disk, and make them a photo."""
    found = parts.parts_of(app.storage, mine.row)
    parts.check_whole(found, etags)
    intake.check_disk(app.settings, mine.row.length)
    parts.gather(app.storage, found, mine.spool)
    if not uploads.save(app.db, app.settings, mine):
        raise uploads.taken_over(mine.row.id)
    row = finish_if_whole(app, mine)
    parts.discard(app.storage, row)
    return row


def finish_if_whole(app: State, mine: Held) -> Upload:
    """Make an upload a photo, or refuse it, when all its bytes are there; return its row."""
    if mine.offset < mine.row.length:
        return mine.row
    return uploads.finish(uploads.Ground(app.settings, app.db, app.storage), mine)


def check_way(row: Upload, *, in_parts: bool) -> None:
    """Raise ``Conflict`` when an upload begun in parts is asked for as one of tus, or the other way round."""
    if (row.parts is not None) != in_parts:
        begun = "in one piece, by tus" if in_parts else "in parts, for the object store"
        raise Conflict("conflict.upload_way", "Begun otherwise", f"the upload {row.id} was begun {begun}", "Go on that way, or begin anew.")


async def append(request: Request, app: State, mine: Held, checksum: tus.Checksum | None) -> None:
    """Write a request's body behind what is there; however it ends, what came is saved, unless a checksum speaks against it.

    Raises ``Locked`` once a newer request has taken the upload over, ``NoSpace`` when the disk is full.
    """
    writer = Writer(app, mine, checksum)
    await run_in_threadpool(writer.begin)
    try:
        async for piece in tus.pieces(request, app.settings.upload_idle_s):
            await run_in_threadpool(writer.write, piece)
    except BaseException:
        # A cancelled request too: the threads go on, and the file is still held.
        await asyncio.shield(run_in_threadpool(writer.leave))
        raise
    await run_in_threadpool(writer.end)


class Writer:
    """Writes the pieces of one request. Blocking; runs in threads, one after the other."""

    def __init__(self, app: State, mine: Held, checksum: tus.Checksum | None) -> None:
        self.app = app
        self.mine = mine
        self.checksum = checksum
        self.start = mine.offset
        self.size = mine.offset
        self.saved_at = self.looked_at = time.monotonic()

    def begin(self) -> None:
        """Prepare the file."""
        if self.checksum is not None:
            self.mine.spool.mark_unproven()

    def write(self, piece: bytes) -> None:
        """Write a piece; save now and then; give way when asked to."""
        if piece:
            self._put(piece)
        moment = time.monotonic()
        if moment - self.looked_at >= LOOK_EVERY_S:
            self.looked_at = moment
            with self.app.db.reading() as session:
                if not uploads.is_mine(session, self.mine):
                    raise uploads.taken_over(self.mine.row.id)
        if self.checksum is None and self.size > self.mine.offset and moment - self.saved_at >= SAVE_EVERY_S:
            self._save()

    def _put(self, piece: bytes) -> None:
        if self.size + len(piece) > self.mine.row.length:
            raise too_long(self.mine.row.length)
        intake.check_disk(self.app.settings, 0)
        if self.checksum is not None:
            self.checksum.found.update(piece)
        self.mine.spool.append(piece)
        self.size += len(piece)

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if not uploads.save(self.app.db, self.app.settings, self.mine):
            raise uploads.taken_over(self.mine.row.id)

    def leave(self) -> None:
        """Keep what came when a request breaks off; nothing of it when its checksum was not proven."""
        if self.checksum is not None:
            self._drop()
        elif self.mine.spool.size_bytes != self.mine.offset:
            uploads.save(self.app.db, self.app.settings, self.mine)

    def end(self) -> None:
        """Save what came, once its checksum is proven."""
        if self.checksum is not None:
            try:
                self.checksum.check()
            except ChecksumMismatch:
                self._drop()
                raise
        if self.mine.spool.size_bytes != self.mine.offset:
            self._save()
        self.mine.spool.unmark()

    def _drop(self) -> None:
        self.mine.spool.cut(self.start)
        self.mine.spool.unmark()


def too_long(length: int) -> TooLarge:
    """Return the error of a body that goes on behind the end of its upload."""
    return TooLarge("input.upload_too_long", "More than announced", f"the upload has {length} bytes, and more came", "Begin a new one.")
