"""The clients of ``bench.load``, in a process of their own: many that ask for a job again and again, some that listen to its events.

Plain sockets and a few lines of HTTP/1.1, because a whole HTTP library would take more of the two cores than the service does.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Plan:
    """Whom to ask, and how much."""

    host: str
    port: int
    job: str
    clients: int
    listeners: int
    seconds: float
    every_s: float


@dataclass
class Seen:
    """What the clients saw; latencies in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    reconnects: int = 0
    events: int = 0


async def run(plan: Plan) -> Seen:
    """Let all of them work until the time is over."""
    seen, until = Seen(), time.monotonic() + plan.seconds
    asking = [poll(plan, seen, until) for _ in range(plan.clients)]
    listening = [listen(plan, seen, until) for _ in range(plan.listeners)]
    await asyncio.gather(*asking, *listening)
    return seen


async def poll(plan: Plan, seen: Seen, until: float) -> None:
    """Ask for the job every few seconds over one connection, as a browser does: with the entity tag of the last answer."""
    await asyncio.sleep(random.random() * max(plan.every_s, 0.1))  # noqa: S311 (they do not all start at once)
    try:
        reader, writer = await asyncio.open_connection(plan.host, plan.port)
    except OSError as error:
        seen.errors.append(f"connect: {error}")
        return
    etag = ""
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            status, headers = await asyncio.wait_for(ask(plan, reader, writer, etag), ASK_TIMEOUT_S)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            seen.errors.append(f"{type(error).__name__}: {error}")
            break
        seen.latencies_s.append(time.monotonic() - began)
        seen.statuses[str(status)] = seen.statuses.get(str(status), 0) + 1
        if status not in (200, 304):
            seen.errors.append(f"status {status}")
        etag = headers.get("etag", etag)
        await asyncio.sleep(max(0.0, plan.every_s - (time.monotonic() - began)))
    writer.close()


async def ask(plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, etag: str) -> tuple[int, dict[str, str]]:
    """Send one request and read its whole answer."""
    condition = f"If-None-Match: {etag}\r\n" if etag else ""
    writer.write(f"GET /v1/jobs/{plan.job} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n{condition}\r\n".encode())
    await writer.drain()
    status, headers = await head(reader)
    await reader.readexactly(int(headers.get("content-length", 0)))
    return status, headers


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read status and headers."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers


async def listen(plan: Plan, seen: Seen, until: float) -> None:
    """Follow the job's events; a stream that ends early is taken up again where it ended."""
    last = ""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection(plan.host, plan.port)
            resume = f"Last-Event-ID: {last}\r\n" if last else ""
            host = f"Host: {plan.host}:{plan.port}\r\nAccept: text/event-stream\r\n"
            writer.write(f"GET /v1/jobs/{plan.job}/events HTTP/1.1\r\n{host}{resume}\r\n".encode())
            status, _headers = await asyncio.wait_for(head(reader), ASK_TIMEOUT_S)
            if status != 200:
                seen.errors.append(f"events: status {status}")
                return
            last = await follow(reader, seen, until, last)
            writer.close()
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            seen.errors.append(f"events: {type(error).__name__}: {error}")
            return
        if time.monotonic() < until:
            seen.reconnects += 1
            await asyncio.sleep(1.0)


async def follow(reader: asyncio.StreamReader, seen: Seen, until: float, last: str) -> str:
    """Read events until the time is over or the stream ends; return the id of the last."""
    kind = ""
    while (left_s := until - time.monotonic()) > 0:
        try:
            line = (await asyncio.wait_for(reader.readline(), left_s)).decode()
        except TimeoutError:
            break
        if not line:
            break
        if line.startswith("id:"):
            number = line.removeprefix("id:").strip()
            if last and kind != "snapshot" and number.isdecimal() and int(number) > int(last) + 1:
                seen.errors.append(f"events: {number} came after {last}")
            last = number
            seen.events += 1
        elif line.startswith("event:"):
            kind = line.removeprefix("event:").strip()
        elif line.startswith("data:") and kind != "snapshot":
            at = datetime.fromisoformat(json.loads(line.removeprefix("data:"))["at"])
            seen.delays_s.append((datetime.now(UTC) - at).total_seconds())
    return last


def main() -> None:
    """Read the plan from standard input, write what was seen to standard output."""
    argparse.ArgumentParser(prog="python -m bench.load_client", description=__doc__).parse_args()
    seen = asyncio.run(run(Plan(**json.load(sys.stdin))))
    json.dump(vars(seen), sys.stdout)


if __name__ == "__main__":
    main()
