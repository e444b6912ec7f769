"""What a case of the corpus is: the input, and what a user would expect to be told."""

from collections.abc import Callable
from dataclasses import dataclass, field

ACCEPTED = "accepted"
USED = "used"


@dataclass(frozen=True)
class PhotoCase:
    """A file sent as a photo.

    ``door`` is what the upload says: accepted, or the code it is refused with. ``ingest`` are the outcomes that are right for one that came
    in: used, or the code it is left out with; empty where only the door matters. ``stored`` is the name it must get, if that matters.
    """

    name: str
    file_name: str
    data: bytes
    door: str
    ingest: tuple[str, ...] = ()
    stored: str = ""


@dataclass(frozen=True)
class CaptureCase:
    """Files that come together, and how a job over them ends.

    ``refused`` maps files to the code the door gives them, ``left_out`` photos to the code the first stage leaves them out with; ``error``
    is the code the job fails with, empty where its first stage is done.
    """

    name: str
    files: tuple[tuple[str, bytes], ...]
    error: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What a request may speak of: a capture with photos, an empty one, a deleted one, and a job that waits."""

    host: str
    capture: str
    empty: str
    deleted: str
    job: str


@dataclass(frozen=True)
class RequestCase:
    """Bytes sent to the api as they are, and the status and code of the answer; the code is empty where the answer has no body of ours."""

    name: str
    raw: Callable[[Target], bytes]
    status: int
    code: str = ""
