"""Many requests at the same moment."""

import asyncio

import httpx

AT_ONCE = 120


def test_more_requests_at_once_than_threads_and_connections_are_all_answered(client):
    async def ask_all() -> list[int]:
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=client.base_url, limits=limits, timeout=100, trust_env=False) as many:
            answers = await asyncio.gather(*(many.get("/v1/jobs") for _ in range(AT_ONCE)))
            return [answer.status_code for answer in answers]

    statuses = asyncio.run(ask_all())
    assert {status: statuses.count(status) for status in statuses} == {200: AT_ONCE}
