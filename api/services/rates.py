"""How often one may ask: counted at the broker, so that all processes count together, or in memory where it is away."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from api.errors import TooManyRequests
from api.queue import broker_url_for_redis
from api.settings import Settings

MINUTE_S = 60
# A broker that hangs costs one request so much time, then for a while none is asked of it.
BROKER_TIMEOUT_S = 0.1
BROKER_REST_S = 10.0
PREFIX = "splatworks-rates"
REQUESTS, REFUSALS = "requests", "refusals"
CODES = {REQUESTS: "quota.requests_per_minute", REFUSALS: "quota.refusals_per_minute"}

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Rate:
    """What is left of a minute's requests; ``reset_s`` until all are there again."""

    policy: str
    limit: int
    remaining: int
    reset_s: float
    is_over: bool

    def headers(self) -> dict[str, str]:
        """Return it as the RateLimit fields of the IETF's draft."""
        return {
            "RateLimit-Policy": f'"{self.policy}";q={self.limit};w={MINUTE_S}',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={self.reset_s:.0f}',
        }

    def check(self) -> None:
        """Raise ``TooManyRequests`` when this request was one too many."""
        if self.is_over:
            detail = f"more than {self.limit} requests came within a minute"
            data = {"limit": self.limit, "retry_after_s": self.reset_s}
            raise TooManyRequests(CODES[self.policy], "Too many requests", detail, "Wait as Retry-After says.", data)


class Rates:
    """Counts requests by policy and asker, over the last minute."""

    def __init__(self, settings: Settings) -> None:
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = SlidingWindowCounterRateLimiter(_broker_storage(settings)) if settings.broker_url else None
        self._lock = threading.Lock()
        self._rest_until = 0.0

    def hit(self, policy: str, asker: str, per_minute: int) -> Rate:
        """Count one request and return what is left; never waits long for the broker, and never fails for the lack of it."""
        item = RateLimitItemPerMinute(per_minute)

        def count(limiter: RateLimiter) -> Rate:
            allowed = limiter.hit(item, policy, asker)
            reset_at, remaining = limiter.get_window_stats(item, policy, asker)
            return Rate(policy, per_minute, remaining, min(MINUTE_S, max(1.0, reset_at - time.time())), is_over=not allowed)

        return self._somewhere(count)

    def _somewhere(self, count: Callable[[RateLimiter], Answer]) -> Answer:
        if self._shared is not None and time.monotonic() >= self._rest_until:
            try:
                return count(self._shared)
            except (RedisError, OSError) as error:
                with self._lock:
                    self._rest_until = time.monotonic() + BROKER_REST_S
                log.warning("the broker does not answer (%s); requests are counted in memory for %g s", error, BROKER_REST_S)
        return count(self._here)


def _broker_storage(settings: Settings) -> RedisStorage:
    # The client's own retries would wait for seconds.
    return RedisStorage(
        broker_url_for_redis(settings),
        key_prefix=PREFIX,
        socket_timeout=BROKER_TIMEOUT_S,
        socket_connect_timeout=BROKER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
    )
