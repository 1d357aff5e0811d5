"""Fetching within a vendor's limits: against a limiter, a long wallet in pieces, calls and CPU."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import requests

from extract.core.interval import Interval, utc
from extract.core.source import Job, Rate
from extract.fetch.backward_walk import Walk
from extract.fetch.client import Client
from extract.fetch.http import http_call
from extract.sources import debank
from extract.sources.debank import history
from tests.benchmarks.limited import SPAN, START
from tests.benchmarks.measure import ROOT, cpu_seconds, row, tell

LATENCY_S = 0.08
LONG_ROWS = 4000
BOUNDS = {"bucket": 0.95, "window": 0.92}
NAMES = {"bucket": "token bucket", "window": "strict sliding window"}


@contextmanager
def vendor(kind: str, rate: int, rows: int = 0) -> Iterator[str]:
    """The address of a limiting vendor in a process of its own."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.limited",
            kind,
            str(rate),
            str(LATENCY_S),
            str(rows),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def limiter(kind: str, rate: int, seconds: int) -> dict:
    """Calls for about `seconds` by 16 threads; the share is by the vendor's own count and clock."""
    with vendor(kind, rate) as url:
        session = debank.connect(host=url, password="key")
        client = Client("bench", kind, units={}, rates={"/": Rate(rate, strict=kind == "window")})
        left = iter(range(rate * seconds + 1))  # whole rounds of a window's slots, and one

        def work(_, fork) -> None:
            while fork(None):
                pass
            for _ in left:
                client.call("/x", lambda: http_call(session, url + "/x", {}, lambda data: None))

        client.run_concurrently(work, None, workers=16)
        count = requests.get(url + "/count", timeout=5).json()
    share = (count["counted"] - 1) / (count["last"] - count["first"]) / rate
    return row(
        f"fetch against a limiter, {NAMES[kind]}, {rate}/s, 80 ms: share of the possible and 429s",
        f"{share:.1%}, {count['refused']} 429s",
        f"≥ {BOUNDS[kind]:.0%}, no 429",
        "97 %, no 429",
        share >= BOUNDS[kind] and not count["refused"],
        f"{count['counted']} calls in {count['last'] - count['first']:.1f} s by the vendor's clock",
    )


def fetch(url: str, start: int, workers: int) -> tuple[Client, float, float, str]:
    """One wallet since `start`: the client, seconds, CPU seconds, why the paging ended."""
    job = Job(
        "debank",
        "0xabc",
        "debank",
        Interval(
            utc("1970-01-01").fromtimestamp(start, utc("1970-01-01").tzinfo),
            utc("1970-01-01").fromtimestamp(START + SPAN, utc("1970-01-01").tzinfo),
        ),
        utc("1970-01-01"),
    )
    job = Job(job.source, job.account, job.connection, job.interval, job.interval.start)
    client = Client("debank", "0xabc", rates=debank.SOURCE.rates, units={})
    got, began, whole = [], time.perf_counter(), history.Walk
    history.Walk = partial(Walk, workers=workers)
    try:
        cpu = cpu_seconds(
            lambda: got.append(debank.fetch(client, debank.connect(host=url, password="key"), job))
        )
    finally:
        history.Walk = whole
    return client, time.perf_counter() - began, cpu, got[0].covered[0].reason


def wallet() -> list[dict]:
    with vendor("window", 100, LONG_ROWS) as url:
        many, fast, cpu, reason = fetch(url, START, 8)
        tell(f"8 workers: {many.calls} calls, {fast:.1f} s, {reason}")
        one, slow, _, _ = fetch(url, START, 1)
        tell(f"1 worker: {one.calls} calls, {slow:.1f} s")
        syncs = [
            (fetch(url, START + SPAN - hours * 3600, 8)[0].calls) for hours in (6, 12, 24, 30, 48)
        ]
        refused = requests.get(url + "/count", timeout=5).json()["refused"]
        new = [
            sum(second >= START + SPAN - hours * 3600 for second in _seconds())
            for hours in (6, 12, 24, 30, 48)
        ]
    least = math.ceil((LONG_ROWS + 1) / 20)
    small = sum(syncs) / sum(math.ceil((n + 1) / 20) for n in new)
    return [
        row(
            "one long DeBank wallet cut in time against one walker",
            f"{slow / fast:.1f}×",
            "≥ 4×",
            "6×",
            slow / fast >= 4 and not refused,
            f"{LONG_ROWS} rows at 80 ms a call: {one.calls} calls in {slow:.1f} s against "
            f"{many.calls} in {fast:.1f} s ({reason}); {refused} 429s",
        ),
        row(
            "calls against the minimum ceil((new + 1) / 20): long wallet; syncs",
            f"{many.calls / least:.3f}×; {small:.3f}×",
            "≤ 1.1×",
            "1.02×",
            max(many.calls / least, small) <= 1.1,
            f"long: {many.calls} for {least}, of which one walker needs {one.calls} (each page "
            "repeats the row it was asked from); syncs of 6 to 48 hours",
        ),
        row(
            "client cost: CPU a page",
            f"{1000 * cpu / many.calls:.2f} ms",
            "≤ 1 ms",
            "",
            cpu / many.calls <= 0.001,
            "CPU of the whole process over the fetch of the long "
            "wallet with 8 workers, HTTP and JSON included",
        ),
    ]


def _seconds() -> list[int]:
    import random

    rng = random.Random(LONG_ROWS)
    return [START + rng.randrange(SPAN) for _ in range(LONG_ROWS)]


def rows() -> list[dict]:
    return [
        limiter("bucket", 10, 5),
        limiter("window", 10, 5),
        limiter("bucket", 100, 4),
        limiter("window", 100, 4),
        *wallet(),
    ]


if __name__ == "__main__":
    for each in rows():
        print(
            f"{each['what']}: {each['ours']} (bound {each['bound']}, aim {each['aim']}): "
            f"{'holds' if each['holds'] else 'DOES NOT HOLD'}; {each['how']}"
        )
