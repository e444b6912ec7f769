"""Clients that upload, start, repeat, cancel, delete and retry jobs as a seed says, and come again while nobody answers."""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.chaos.ledger import Ledger
from tests.photos import encoded, form

PATIENCE_S = 120.0
N_THREADS = 4
N_PHOTOS = 3
TERMINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Order:
    """One job that a client wants, drawn before anything runs."""

    number: int
    at_s: float
    capture: int  # which of the shared captures; a new one by a form when negative
    preset: str
    key: str | None
    repeats: int  # how often the request is sent
    is_at_once: bool  # the repeats at the same time
    cancel_after_s: float | None
    delete_after_s: float | None
    retry_from: str | None


def draw(seed: int, n_jobs: int, every_s: float, n_captures: int, preset: str | None = None) -> list[Order]:
    """Return the orders of a seed."""
    dice, orders = random.Random(f"orders {seed}"), []
    for number in range(n_jobs):
        luck = dice.random
        key = f"chaos-{seed}-{number}" if luck() < 0.7 else None
        order = Order(
            number=number,
            at_s=number * every_s,
            capture=-1 if luck() < 0.15 else dice.randrange(n_captures),
            preset=preset or dice.choice(["draft", "draft", "standard", "high"]),
            key=key,
            repeats=dice.randint(2, 3) if key and luck() < 0.4 else 1,
            is_at_once=luck() < 0.5,
            cancel_after_s=dice.uniform(0, 15) if luck() < 0.12 else None,
            delete_after_s=dice.uniform(0, 25) if luck() < 0.08 else None,
            retry_from=dice.choice(["", "poses", "train", "compress"]) if luck() < 0.12 else None,
        )
        orders.append(order)
    return orders


@dataclass
class Crowd:
    """Threads that do what is due; an action may put off others."""

    url: str
    ledger: Ledger
    seed: int
    make_photos: Callable[[int], list[tuple[str, bytes]]]
    options: dict[str, Any] = field(default_factory=dict)
    captures: list[str] = field(default_factory=list)
    _due: list[tuple[float, int, Callable[[httpx.Client], None]]] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _n_busy: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)

    def later(self, seconds: float, action: Callable[[httpx.Client], None]) -> None:
        """Do something so many seconds from now."""
        with self._lock:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._count), action))

    def start(self) -> list[threading.Thread]:
        """Start the threads, which run until ``stop``."""
        threads = [threading.Thread(target=self._run, name=f"client-{n}", daemon=True) for n in range(N_THREADS)]
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        """End the threads after what they do now."""
        self._stopping.set()

    def is_idle(self) -> bool:
        """Tell whether everything has been done."""
        with self._lock:
            return not self._due and not self._n_busy

    def _run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20, trust_env=False) as client:
            while not self._stopping.is_set():
                with self._lock:
                    action = heapq.heappop(self._due)[2] if self._due and self._due[0][0] <= time.monotonic() else None
                    self._n_busy += action is not None
                if action is None:
                    time.sleep(0.02)
                    continue
                try:
                    action(client)
                except Exception as error:  # noqa: BLE001 (told at the end, whatever it is)
                    self.errors.append(error)
                finally:
                    with self._lock:
                        self._n_busy -= 1

    def ask(self, client: httpx.Client, method: str, path: str, *, is_safe: bool = True, **more: Any) -> httpx.Response | None:
        """Return the answer, coming again while nobody answers; None when one may not come again: it may have been done."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = client.request(method, path, **more)
            except httpx.ConnectError:
                answer = None
            except httpx.TransportError:
                if not is_safe:
                    return None
                answer = None
            if answer is not None:
                self.ledger.answered(f"{method} {path}", answer.status_code, answer.text)
                if answer.status_code not in (429, 500, 502, 503, 507):
                    return answer
            assert time.monotonic() < deadline, f"no answer to {method} {path} in {PATIENCE_S:g} s: {answer and answer.text}"
            time.sleep(0.25)

    def make_captures(self, n_captures: int) -> None:
        """Upload the captures that the orders share."""
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            for number in range(n_captures):
                self.captures.append(self.new_capture(client, number))

    def new_capture(self, client: httpx.Client, number: int) -> str:
        """Upload the photos of a capture, which is again the same photos when the answer got lost."""
        made = self.ask(client, "POST", "/v1/captures", json={"name": f"capture {number}"})
        assert made is not None
        capture_id = made.raise_for_status().json()["id"]
        answer = self.ask(client, "POST", f"/v1/captures/{capture_id}/photos", files=form(*self.make_photos(number)))
        assert answer is not None
        self.ledger.accept_photos(capture_id, answer.raise_for_status().json()["photos"])
        return capture_id

    def place(self, order: Order) -> None:
        """Put an order's first step in the list of things to do."""
        self.later(order.at_s, lambda client: self._submit(client, order))

    def _submit(self, client: httpx.Client, order: Order) -> None:
        send = self._sender(order)
        if order.is_at_once and order.repeats > 1:
            with ThreadPoolExecutor(order.repeats) as pool:
                answers = list(pool.map(lambda _: self._apart(send), range(order.repeats)))
        else:
            answers = [send(client) for _ in range(order.repeats)]
        known = {answer.json()["id"] for answer in answers if answer is not None and answer.status_code == 202}
        for answer in answers:
            # A repeat may find that its job was deleted meanwhile.
            assert answer is None or answer.status_code in (202, 410), f"order {order.number}: {answer.status_code} {answer.text}"
        for job_id in known:
            self.ledger.accept(job_id, f"order {order.number}", order.key)
            self._follow(job_id, order)

    def _apart(self, send: Callable[[httpx.Client], httpx.Response | None]) -> httpx.Response | None:
        with httpx.Client(base_url=self.url, timeout=20, trust_env=False) as client:
            return send(client)

    def _sender(self, order: Order) -> Callable[[httpx.Client], httpx.Response | None]:
        headers = {"Idempotency-Key": order.key} if order.key else {}
        if order.capture >= 0:
            body = {"capture_id": self.captures[order.capture], "preset": order.preset, "options": self.options}
            return lambda client: self.ask(client, "POST", "/v1/jobs", is_safe=order.key is not None, json=body, headers=headers)
        files = form(*self.make_photos(1000 + order.number))
        return lambda client: self.ask(
            client, "POST", "/v1/jobs", is_safe=order.key is not None, files=files, data={"preset": order.preset}, headers=headers
        )

    def _follow(self, job_id: str, order: Order) -> None:
        if order.cancel_after_s is not None:
            self.later(order.cancel_after_s, lambda client: self._cancel(client, job_id))
        if order.delete_after_s is not None:
            self.later(order.delete_after_s, lambda client: self._delete(client, job_id))
        if order.retry_from is not None:
            self.later(3.0, lambda client: self._retry(client, job_id, order))

    def _cancel(self, client: httpx.Client, job_id: str) -> None:
        answer = self.ask(client, "POST", f"/v1/jobs/{job_id}/cancel")
        assert answer is not None
        assert answer.status_code in (200, 202, 409, 410), answer.text
        if answer.status_code in (200, 202):
            self.ledger.ended(job_id, "cancel")

    def _delete(self, client: httpx.Client, job_id: str) -> None:
        answer = self.ask(client, "DELETE", f"/v1/jobs/{job_id}")
        assert answer is not None
        assert answer.status_code in (204, 410), answer.text
        self.ledger.ended(job_id, "delete")

    def _retry(self, client: httpx.Client, job_id: str, order: Order) -> None:
        state = self.ask(client, "GET", f"/v1/jobs/{job_id}")
        assert state is not None
        if state.status_code == 410:
            return
        if state.json()["state"] not in TERMINAL:
            self.later(2.0, lambda client: self._retry(client, job_id, order))
            return
        body = {"from_stage": order.retry_from} if order.retry_from else {}
        answer = self.ask(client, "POST", f"/v1/jobs/{job_id}/retry", is_safe=False, json=body)
        if answer is not None and answer.status_code != 410:
            self.ledger.accept(answer.raise_for_status().json()["id"], f"retry of {job_id} from {order.retry_from or 'where it ended'}")


def small_photos(seed: int) -> Callable[[int], list[tuple[str, bytes]]]:
    """Return a maker of small captures, other photos for each number."""
    return lambda number: [(f"IMG_{n}.jpg", encoded(seed * 10_000_000 + number * 100 + n, width=330, height=250)) for n in range(N_PHOTOS)]
