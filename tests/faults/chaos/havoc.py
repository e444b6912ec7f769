"""Faults in random order at random moments: kill -9, SIGSTOP past the lease, messages lost and repeated. What was killed comes back."""

import heapq
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import Celery
from sqlalchemy import select

from api.db import Database
from api.models import Job
from api.queue import publisher, send
from tests.faults.chaos.plant import DISPATCHERS, WORKERS, Plant, signal_group

# How often each fault comes, relative to the others. Workers are dear to start, so they die alone more seldom than their stages.
WEIGHTS = {
    "kill_worker": 3.0,
    "kill_pool": 2.0,
    "kill_engine": 3.0,
    "kill_dispatcher": 1.5,
    "kill_broker": 1.0,
    "kill_broker_and_data": 1.0,
    "wipe_broker": 1.5,
    "kill_api": 1.0,
    "stop_worker": 1.5,
    "stop_worker_and_engine": 0.5,
    "repeat_messages": 3.0,
}
BACK_S = (0.0, 2.0)


@dataclass
class Havoc:
    """A thread that breaks things until told to stop, and then puts everything back."""

    plant: Plant
    db: Database
    seed: int
    gap_s: float
    done: Counter[str] = field(default_factory=Counter)
    errors: list[BaseException] = field(default_factory=list)
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)
    _away: set[str] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._dice = random.Random(f"havoc {self.seed}")
        self._celery: Celery = publisher(self.plant.installation.settings)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="havoc", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and bring back what is away."""
        self._stopping.set()
        assert self._thread is not None
        self._thread.join()
        while self._later:
            heapq.heappop(self._later)[2]()
        self._celery.close()

    def _run(self) -> None:
        # Each fault comes once, in random order, before any comes again: small runs see all of them.
        first = self._dice.sample(list(WEIGHTS), len(WEIGHTS))
        following = time.monotonic() + self.gap_s
        while not self._stopping.wait(0.02):
            try:
                while self._later and self._later[0][0] <= time.monotonic():
                    heapq.heappop(self._later)[2]()
                if time.monotonic() < following:
                    continue
                kind = first.pop() if first else self._dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                following = time.monotonic() + min(4 * self.gap_s, self._dice.expovariate(1 / self.gap_s))
                if getattr(self, f"_{kind}")():
                    self.done[kind] += 1
                elif not self.done[kind]:
                    first.insert(0, kind)  # nothing was there to break: try again
            except Exception as error:  # noqa: BLE001 (told at the end, whatever it is)
                self.errors.append(error)
                return

    def _put_off(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._count), action))

    def _choose(self, names: tuple[str, ...]) -> str | None:
        there = [name for name in names if name not in self._away and self.plant.pid(name)]
        return self._dice.choice(there) if there else None

    def _kill_process(self, names: tuple[str, ...]) -> bool:
        name = self._choose(names)
        if name is None:
            return False
        self._away.add(name)
        self.plant.installation.kill(name, group=self._dice.random() < 0.5)
        self._put_off(self._dice.uniform(*BACK_S), partial(self._come_back, name))
        return True

    def _come_back(self, name: str) -> None:
        self.plant.start(name)
        self._away.discard(name)

    def _kill_worker(self) -> bool:
        return self._kill_process(WORKERS)

    def _kill_dispatcher(self) -> bool:
        return self._kill_process(DISPATCHERS)

    def _kill_api(self) -> bool:
        return self._kill_process(("api",))

    def _kill_pool(self) -> bool:
        return self._kill_one([pid for name in WORKERS for pid in self.plant.pool(name)])

    def _kill_engine(self) -> bool:
        return self._kill_one([pid for name in WORKERS for pid in self.plant.engines(name)])

    def _kill_one(self, pids: list[int]) -> bool:
        if not pids:
            return False
        try:
            os.kill(self._dice.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _kill_broker(self, *, wipes: bool = False) -> bool:
        if "broker" in self._away:
            return False
        self._away.add("broker")
        self.plant.broker.kill()
        if wipes:
            self.plant.wipe_broker()
        self._put_off(self._dice.uniform(*BACK_S), self._broker_comes_back)
        return True

    def _kill_broker_and_data(self) -> bool:
        return self._kill_broker(wipes=True)

    def _broker_comes_back(self) -> None:
        self.plant.broker.start()
        self._away.discard("broker")

    def _wipe_broker(self) -> bool:
        if "broker" in self._away:
            return False
        self.plant.broker.wipe()
        return True

    def _stop_worker(self, *, with_engine: bool = False) -> bool:
        """Stop a worker in the middle of its work for longer than its lease: when it wakes it is a zombie."""
        busy = tuple(name for name in WORKERS if self.plant.engines(name))
        name = self._choose(busy)
        if name is None:
            return False
        leaders = self.plant.family(name) if with_engine else self.plant.family(name)[:1]
        self._away.add(name)
        for leader in leaders:
            signal_group(leader, signal.SIGSTOP)
        self._put_off(self.plant.installation.settings.lease_s + self._dice.uniform(0.5, 2.5), partial(self._wake, name, leaders))
        return True

    def _stop_worker_and_engine(self) -> bool:
        return self._stop_worker(with_engine=True)

    def _wake(self, name: str, leaders: list[int]) -> None:
        for leader in leaders:
            signal_group(leader, signal.SIGCONT)
        self._away.discard(name)

    def _repeat_messages(self) -> bool:
        """Deliver what was delivered once more, several times: for jobs that wait, run and are over."""
        if "broker" in self._away:
            return False
        with self.db.reading() as session:
            known = session.execute(select(Job.id, Job.queue).order_by(Job.id.desc()).limit(30)).all()
        if not known:
            return False
        for job_id, queue in self._dice.sample(known, min(3, len(known))):
            for _ in range(self._dice.randint(2, 5)):
                send(self._celery, job_id, queue)
        return True
