"""A vendor that limits: `python -m tests.benchmarks.limited KIND RATE LATENCY ROWS` serves one.

KIND is bucket or window. It counts a call when it arrives, answers LATENCY seconds later, and
says at /count how many it counted, how many it refused, and the seconds from its first count to
its last. /v1/user/all_history_list is a wallet of ROWS transactions. Prints its address.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from bisect import bisect_left
from collections import deque
from urllib.parse import parse_qs, urlsplit

START, SPAN = 1_700_000_000, 10_000_000


def allowed(kind: str, rate: int):
    """A function that counts a call at `now`, and says whether it is within the limit."""
    seen: deque[float] = deque()
    level, at = float(rate), None

    def window(now: float) -> bool:
        while seen and seen[0] <= now - 1.0:
            seen.popleft()
        seen.append(now)
        return len(seen) <= rate

    def bucket(now: float) -> bool:
        nonlocal level, at
        level, at = min(rate, level + (now - (at or now)) * rate) - 1.0, now
        return level >= 0

    return {"window": window, "bucket": bucket}[kind]


def item(number: int, second: int) -> str:
    leg = {"amount": 1.25, "to_addr": f"0x{number:040x}", "token_id": f"0x{number % 50:040x}"}
    return json.dumps(
        {
            "cate_id": "send",
            "cex_id": None,
            "chain": "eth",
            "id": f"0x{number:064x}",
            "idx": 0,
            "is_scam": False,
            "other_addr": leg["to_addr"],
            "project_id": None,
            "receives": [],
            "sends": [leg],
            "time_at": float(second),
            "token_approve": None,
            "tx": {
                "eth_gas_fee": 0.00021,
                "from_addr": "0xabc",
                "name": "transfer",
                "params": [],
                "status": 1,
                "to_addr": leg["to_addr"],
                "usd_gas_fee": 0.5,
                "value": 0.0,
            },
        }
    )


async def serve(kind: str, rate: int, latency: float, rows: int) -> None:
    rng, allows = random.Random(rows), allowed(kind, rate)
    seconds = sorted(START + rng.randrange(SPAN) for _ in range(rows))
    items = [item(number, second) for number, second in enumerate(seconds)]
    counts = {"counted": 0, "refused": 0, "first": 0.0, "last": 0.0}

    async def connected(reader, writer) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            url = urlsplit(head.split(b" ", 2)[1].decode())
            now, status, body = time.monotonic(), "200 OK", "{}"
            if url.path == "/count":
                body = json.dumps(counts)
            else:
                counts["counted"] += 1
                counts["first"], counts["last"] = counts["first"] or now, now
                if not allows(now):
                    counts["refused"] += 1
                    status, body = "429 Too Many Requests", '{"errors": ["Too Many Requests"]}'
                elif url.path.endswith("history_list"):
                    end = bisect_left(seconds, int(parse_qs(url.query)["start_time"][0]))
                    page = ",".join(reversed(items[max(0, end - 20) : end]))
                    body = f'{{"history_list": [{page}], "token_dict": {{}}}}'
                await asyncio.sleep(latency)
            writer.write(
                (
                    f"HTTP/1.1 {status}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}"
                ).encode()
            )

    async def quietly(reader, writer) -> None:
        try:
            await connected(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
