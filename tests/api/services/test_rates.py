"""How often one may ask: counted together at the broker, alone where it is away, and never waited for."""

import socket
import time

import pytest

from api.errors import TooManyRequests
from api.services.rates import BROKER_TIMEOUT_S, REFUSALS, REQUESTS, Rates
from api.settings import Settings
from tests.services import free_port


def settings_for(stack) -> Settings:
    stack.n_installations += 1
    return Settings(broker_url=stack.broker.database_url(stack.n_installations))


def test_all_processes_count_together_at_the_broker(stack):
    settings = settings_for(stack)
    here, there = Rates(settings), Rates(settings)
    rates = [each.hit(REQUESTS, "a", 4) for each in (here, there, here, there, here)]
    assert [rate.is_over for rate in rates] == [False, False, False, False, True]
    assert [rate.remaining for rate in rates] == [3, 2, 1, 0, 0]
    assert 1 <= rates[-1].reset_s <= 60
    with pytest.raises(TooManyRequests) as refused:
        rates[-1].check()
    assert refused.value.data["retry_after_s"] == rates[-1].reset_s
    assert not here.hit(REQUESTS, "b", 4).is_over
    assert not here.hit(REFUSALS, "a", 4).is_over


def test_the_counts_at_the_broker_go_away_by_themselves(stack):
    settings = settings_for(stack)
    Rates(settings).hit(REQUESTS, "a", 4)
    with stack.broker.client() as client:
        client.execute_command("SELECT", settings.broker_url.rpartition("=" if "=" in settings.broker_url else "/")[2])
        names = [name for name in client.keys("*") if b"splatworks-rates" in name]
        assert names
        assert all(0 < client.ttl(name) <= 180 for name in names)


def test_without_a_broker_each_process_counts_alone():
    rates = Rates(Settings(broker_url=""))
    assert [rates.hit(REQUESTS, "a", 2).is_over for _ in range(3)] == [False, False, True]


def test_a_broker_that_refuses_connections_is_not_asked_twice_and_the_limit_still_holds():
    rates = Rates(Settings(broker_url=f"redis://127.0.0.1:{free_port()}/0"))
    assert [rates.hit(REQUESTS, "a", 2).is_over for _ in range(3)] == [False, False, True]


def test_a_broker_that_hangs_holds_up_one_request_only_and_the_limit_still_holds():
    with socket.socket() as silent:  # takes connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        rates = Rates(Settings(broker_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        started = time.monotonic()
        assert not rates.hit(REQUESTS, "a", 21).is_over
        first_s = time.monotonic() - started
        assert [rates.hit(REQUESTS, "a", 21).is_over for _ in range(21)] == [False] * 20 + [True]
        silent.settimeout(0.1)
        accepted = 0
        while True:
            try:
                silent.accept()[0].close()
            except TimeoutError:
                break
            accepted += 1
        assert accepted == 1
        assert first_s < BROKER_TIMEOUT_S + 5  # not the client's own three tries over many seconds


def test_a_broker_that_comes_back_counts_again(stack, monkeypatch):
    settings = settings_for(stack)
    monkeypatch.setattr("api.services.rates.BROKER_REST_S", 0.05)
    rates = Rates(settings)
    assert rates.hit(REQUESTS, "a", 9).remaining == 8
    stack.broker.kill()
    try:
        assert rates.hit(REQUESTS, "a", 9).remaining == 8  # in memory now
    finally:
        stack.broker.start()
    time.sleep(0.1)
    Rates(settings).hit(REQUESTS, "a", 9)
    before = rates.hit(REQUESTS, "a", 9).remaining
    assert Rates(settings).hit(REQUESTS, "a", 9).remaining == before - 1
