"""Every error a person can meet, and what to do about it.

    SplatError
    ├── InputError      the user can mend the input; never retried
    ├── CaptureError    the photos cannot be reconstructed: which, why; never retried
    ├── CapacityError   too little memory, disk or time; retry, or take a smaller preset
    ├── Cancelled       somebody asked for it
    └── InternalError   our fault

``api.errors`` adds the ones that only HTTP has. Programmers' mistakes are ``assert`` and ``ValueError``, outside this tree.
"""

from typing import Any, ClassVar, Self


class SplatError(Exception):
    """An error with a stable ``code`` for machines and words for people.

    ``code`` is dotted and starts with the class's ``family`` ("input.unreadable_photo"); ``detail`` says what was seen and where,
    ``hint`` says what to do. ``data`` holds JSON values (names, numbers) for clients.
    """

    family: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, title: str, detail: str, hint: str = "", data: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.title = title
        self.detail = detail
        self.hint = hint
        self.data = data or {}

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON values: the form events, job rows and problem+json share."""
        return {
            "family": self.family,
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "hint": self.hint,
            "retryable": self.retryable,
            "data": self.data,
        }


class InputError(SplatError):
    """The input is wrong and the user can mend it."""

    family = "input"
    exit_code = 2


class CaptureError(SplatError):
    """The photos are readable but cannot be reconstructed."""

    family = "capture"
    exit_code = 3


class CapacityError(SplatError):
    """The machine is too small for this job now."""

    family = "capacity"
    retryable = True
    exit_code = 4


class Cancelled(SplatError):  # noqa: N818 - what it is, not an error
    """The job was asked to stop."""

    family = "cancelled"
    exit_code = 5

    @classmethod
    def by_request(cls) -> Self:
        """Return the error of a job that somebody stopped."""
        return cls("cancelled.requested", "Cancelled", "The job was stopped on request.")


class InternalError(SplatError):
    """Something of ours broke."""

    family = "internal"
    retryable = True
    exit_code = 1


def from_dict(values: dict[str, Any]) -> SplatError:
    """Return the error that ``SplatError.to_dict`` described."""
    kinds = {each.family: each for each in (InputError, CaptureError, CapacityError, Cancelled, InternalError)}
    kind = kinds.get(values.get("family", ""), InternalError)
    return kind(values["code"], values["title"], values["detail"], values.get("hint", ""), values.get("data"))
