# ruff: noqa: N818 (the names are those of the design: what is wrong, without "Error" behind each)
"""Errors that only HTTP has, beside those of ``engine.errors``.

SplatError
├── InputError, CaptureError → 422     CapacityError → 503     Cancelled → 409     InternalError → 500
└── RequestError                       what the request asks for cannot be given
    ├── Malformed         400          the body is not what its type says
    ├── Unauthorized      401          no key, or one that does not hold
    ├── Forbidden         403          the key does not allow this
    ├── NotFound          404
    ├── Conflict          409          the thing is in another state
    ├── Gone              410          it was deleted
    ├── PreconditionFailed 412         a version of the protocol that is not spoken here
    ├── TooLarge          413
    ├── UnsupportedBody   415
    ├── RangeNotSatisfiable 416
    ├── Locked            423          another request works on it
    ├── TooManyRequests   429          asked too often, or for more than the key's share
    ├── ChecksumMismatch  460          the bytes are not those that the checksum says (tus)
    └── NoSpace           507          the disk is full
CapacityError
    └── StorageAway       503          the storage of the files does not answer
"""

from typing import Any, ClassVar

from engine.errors import CapacityError, SplatError


class RequestError(SplatError):
    """Root of the errors of this module; ``status`` is the HTTP status."""

    family = "request"
    status: ClassVar[int] = 400


class Malformed(RequestError):
    """The body is not what its content type says."""

    status = 400


class Unauthorized(RequestError):
    """No key came, or one that is unknown, expired or revoked."""

    status = 401


class Forbidden(RequestError):
    """The key does not allow this."""

    status = 403


class NotFound(RequestError):
    """There is no such thing."""

    status = 404

    @classmethod
    def named(cls, kind: str, name: str) -> "NotFound":
        """Return the error of a thing that does not exist; ``kind`` such as ``job``."""
        return cls(f"not_found.{kind}", f"No such {kind}", f"there is no {kind} {name[:200]!r}", "Check the id.")


class Conflict(RequestError):
    """The thing is in a state that does not allow this."""

    status = 409


class Gone(RequestError):
    """The thing was there and has been deleted."""

    status = 410

    @classmethod
    def named(cls, kind: str, name: str) -> "Gone":
        """Return the error of a thing that was deleted."""
        return cls(f"gone.{kind}", f"Deleted {kind}", f"the {kind} {name!r} was deleted", "It cannot be brought back; make a new one.")


class PreconditionFailed(RequestError):
    """A version of a protocol that is not spoken here."""

    status = 412


class TooLarge(RequestError):
    """More bytes than allowed."""

    status = 413


class UnsupportedBody(RequestError):
    """A content type that this route does not read."""

    status = 415


class RangeNotSatisfiable(RequestError):
    """The byte range asked for lies outside the file."""

    status = 416

    def __init__(self, size_bytes: int) -> None:
        data: dict[str, Any] = {"size_bytes": size_bytes}
        detail = f"the file has {size_bytes} bytes"
        super().__init__("request.range", "Range not satisfiable", detail, "Ask for bytes that it has, or for all of it.", data)


class Locked(RequestError):
    """Another request works on the thing and did not give way in time."""

    status = 423


class TooManyRequests(RequestError):
    """Asked too often, or for more than the key's share; ``data["retry_after_s"]`` says when to come again."""

    status = 429
    retryable = True


class ChecksumMismatch(RequestError):
    """The bytes that came are not those that the checksum says (tus 1.0); nothing of them is kept."""

    status = 460
    retryable = True


class NoSpace(CapacityError):
    """The disk is full."""

    status: ClassVar[int] = 507


class DoesNotFit(CapacityError):
    """What is asked for is more than this machine can do; to ask again does not help, to ask for less does."""

    status: ClassVar[int] = 422
    retryable = False


class StorageAway(CapacityError):
    """The storage of the files does not answer: a request may come again, a job waits and is not counted as broken."""
