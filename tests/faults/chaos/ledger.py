"""What clients were promised: every answer that said yes is written down, to be held against the installation at the end."""

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Promises by id. Written by many threads, under ``lock``."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    jobs: dict[str, str] = field(default_factory=dict)  # id of a job that was answered 202: what it is
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # Idempotency-Key: the jobs that came of it
    photos: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # capture: sha256 by the id of an accepted photo
    cancelled: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)  # answers of 500 and above that are no 503

    def accept(self, job_id: str, what: str, key: str | None = None) -> None:
        """Note that a job was accepted."""
        with self.lock:
            self.jobs.setdefault(job_id, what)
            if key is not None:
                self.keys[key].add(job_id)

    def accept_photos(self, capture_id: str, photos: list[dict]) -> None:
        """Note which photos of an answered upload were accepted."""
        with self.lock:
            self.photos[capture_id].update({photo["id"]: photo["sha256"] for photo in photos if photo["state"] == "accepted"})

    def answered(self, what: str, status: int, body: str) -> None:
        """Note an answer."""
        with self.lock:
            self.answers[f"{status // 100}xx" if status < 500 else str(status)] += 1
            if status >= 500 and status != 503:
                self.broken.append(f"{what}: {status} {body[:300]}")

    def ended(self, job_id: str, word: str) -> None:
        """Note that a cancel or a delete was answered with yes."""
        with self.lock:
            (self.cancelled if word == "cancel" else self.deleted).add(job_id)
