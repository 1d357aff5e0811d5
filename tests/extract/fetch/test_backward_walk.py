"""Laws of the walk cut in time: the rows of one walker, no call too many, whatever the wallet."""

import json
import math
import random
import re
from bisect import bisect_left
from functools import partial
from heapq import heappop, heappush
from threading import Lock
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.errors import Retriable, UnitsExhausted
from extract.core.interval import Interval, utc
from extract.core.source import Job, Rate
from extract.fetch.backward_walk import Walk
from extract.fetch.client import Client
from extract.sources import debank
from extract.sources.debank import history as debank_history

NOW = "Thu, 01 Jan 2026 00:00:00 GMT"
START = int(utc("2024-01-01").timestamp())
CHAINS = ("arb", "base", "eth")


class Vendor:
    """DeBank's histories of one wallet without a network: rows are (second, chain, id)."""

    host = ""

    def __init__(self, rows, inclusive, fails_at=None, lies=(), spoils=None):
        self.rows, self.inclusive, self.fails_at = sorted(rows, reverse=True), inclusive, fails_at
        self.lies = set(lies)  # numbers of calls that are answered with no rows at all
        numbers = {row: number for number, row in enumerate(sorted(rows))}
        self.spoiled = {row: spoils(n) for row, n in numbers.items()} if spoils else {}
        self.calls, self.asked, self._lock = [], [], Lock()

    def get(self, url, params):
        with self._lock:
            self.calls.append(url)
            self.asked.append((url, params.get("chain_id")))
            number = len(self.calls)
        if url == debank.CHAINS:
            return self._answer([{"id": chain} for chain in CHAINS])
        if self.fails_at and number >= self.fails_at:
            return self._answer({"errors": ["Insufficient units"]}, 403)
        if number in self.lies:
            return self._answer({"history_list": []})
        bound = params["start_time"] + self.inclusive
        found = [
            {"time_at": float(second), "chain": chain, "id": name}
            | self.spoiled.get((second, chain, name), {})
            for second, chain, name in self.rows
            if second < bound and params.get("chain_id") in (None, chain)
        ]
        return self._answer({"history_list": found[: params["page_count"]]})

    def chains(self, url):
        """The chains that were asked for by name."""
        return {chain for asked, chain in self.asked if asked == url}

    def _answer(self, data, status=200):
        return SimpleNamespace(
            status_code=status, headers={"Date": NOW}, content=json.dumps(data).encode()
        )


def wallet(rng, number, span, bursts):
    """Rows over `span` seconds: `bursts` of the time holds most of them; some share a second."""
    rows = []
    while len(rows) < number:
        at = rng.random()
        at = (
            at if rng.random() < 0.2 or not bursts else (at * 0.02 + rng.randrange(bursts) / bursts)
        )
        second = START + int(at % 1 * span)
        for _ in range(rng.choice([1] * 9 + [3])):
            rows.append((second, rng.choice(CHAINS), f"0x{len(rows):x}"))
    return rows


KNOWN = {f"chain:{chain}": chain for chain in CHAINS}


def fetch(vendor, start, end, workers, tries=1, known=KNOWN):
    job = Job("debank", "0xabc", "debank", Interval(start, end), start, known=known)
    client = Client(
        "debank", "0xabc", rates={"/": Rate(10_000, strict=True)}, units={}, tries=tries
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(debank_history, "Walk", partial(Walk, workers=workers))
        return debank.fetch(client, vendor, job)


def rows(fetched, start, end):
    """What a load keeps of a fetch: each row of the interval once."""
    found = {
        (int(row["time_at"]), row["chain"], row["id"])
        for page in fetched.pages
        if page.endpoint != debank.CHAINS
        for row in json.loads(page.body)["history_list"]
    }
    return {row for row in found if start.timestamp() <= row[0] < end.timestamp()}


def moment(second):
    return utc("1970-01-01") + second * (utc("1970-01-01T00:00:01Z") - utc("1970-01-01"))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(),
    number=st.sampled_from([0, 5, 19, 20, 60, 300, 1500, 3000]),
    bursts=st.sampled_from([0, 0, 1, 2, 7]),
    inclusive=st.booleans(),
    span=st.sampled_from([2000, 5_000_000]),
    cut=st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
)
def test_pieces_bring_the_rows_of_one_walker_for_hardly_more_calls(
    seed, number, bursts, inclusive, span, cut
):
    rng = random.Random(seed)
    history = wallet(rng, number, span, 0 if span < number * 10 else bursts)
    start, end = (moment(START + int(part * span) + n) for n, part in enumerate(cut))
    if history and rng.random() < 0.5:  # end at a row's very second
        end = max(moment(rng.choice(history)[0]), moment(int(start.timestamp()) + 1))
    one, many = Vendor(history, inclusive), Vendor(history, inclusive)
    serial, cut_up = fetch(one, start, end, workers=1), fetch(many, start, end, workers=8)
    truth = {row for row in history if start.timestamp() <= row[0] < end.timestamp()}
    assert rows(serial, start, end) == rows(cut_up, start, end) == truth
    cuts = re.search(r"each of (\d+) pieces", cut_up.covered[0].reason)
    assert len(many.calls) <= len(one.calls) + (int(cuts[1]) if cuts else 0)
    if len(one.calls) < 4:
        assert len(many.calls) == len(one.calls) <= math.ceil((len(truth) + 1) / 20) + 1


@pytest.mark.parametrize("inclusive", [True, False])
def test_where_every_second_has_rows_no_cut_loses_one(inclusive):
    for each in (2, 3, 7):  # pages end within a second, and so within the one beside a cut
        history = [(START + n // each, CHAINS[n % 3], f"0x{n:x}") for n in range(4000)]
        start, end = moment(START), moment(history[-1][0] + 1)
        fetched = fetch(Vendor(history, inclusive), start, end, 8)
        assert "pieces" in fetched.covered[0].reason
        assert rows(fetched, start, end) == set(history)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), inclusive=st.booleans(), workers=st.sampled_from([1, 8]))
def test_seconds_fuller_than_a_page_lose_nothing(seed, inclusive, workers):
    rng = random.Random(seed)
    history = wallet(rng, 400, 50_000, 0)
    for full in (20_000, 20_001, 20_002, rng.randrange(50_000)):  # neighbours, too
        share = rng.randrange(8, 17)  # of one chain: 20 of one in a second cannot be read
        history += [
            (START + full, CHAINS[0 if n < share else 1 + n % 2], f"0x{full:x}{n}")
            for n in range(27)
        ]
    start, end = moment(START), moment(START + rng.choice([20_002, 20_003, 50_000]))
    vendor = Vendor(history, inclusive)
    fetched = fetch(vendor, start, end, workers)
    assert rows(fetched, start, end) == {r for r in history if r[0] < end.timestamp()}
    assert len(vendor.calls) < 150, "and it ends"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), inclusive=st.booleans(), workers=st.sampled_from([1, 8]))
def test_a_second_too_full_to_page_is_named_and_stops_nothing_else(seed, inclusive, workers):
    rng = random.Random(seed)
    history = wallet(rng, rng.choice([0, 30, 400]), 50_000, 0)
    full = rng.sample(range(20_000, 20_003), 2)
    history += [
        (START + at, "arb", f"0x{at:x}{n}") for at in full for n in range(rng.randrange(21, 60))
    ]
    history += [(START + full[0], "eth", f"0xe{n}") for n in range(5)]
    start, end = moment(START), moment(START + rng.choice([20_003, 50_000]))
    vendor = Vendor(history, inclusive)
    fetched = fetch(vendor, start, end, workers)
    unread = {(part.part, part.interval, part.dataset) for part in fetched.unread}
    assert unread == {
        ("arb", Interval(moment(START + at), moment(START + at + 1)), f"onchain_{dataset}")
        for at in full
        for dataset in ("transactions", "transfers")
    }
    truth = {row for row in history if row[0] < end.timestamp()}
    hidden = truth - rows(fetched, start, end)
    assert {row[:2] for row in hidden} <= {(START + at, "arb") for at in full}
    assert {span.interval for span in fetched.covered} == {Interval(start, end)}
    again = Vendor(history, inclusive)
    known = fetch(again, start, end, workers, known=fetched.part_states)
    assert {(part.part, part.interval, part.dataset) for part in known.unread} == unread
    assert not [url for url in again.calls if url == debank.CHAIN_HISTORY][len(full) * 3 :]
    assert again.chains(debank.CHAIN_HISTORY) <= {"base", "eth"}, "not paid for again"


@pytest.mark.parametrize("inclusive", [True, False])
def test_rows_that_lack_something_do_not_end_a_walk(inclusive):
    history = [(START + n * 10, CHAINS[n % 3], f"0x{n:x}") for n in range(200)]
    start, end = moment(START), moment(START + 2000)
    for field in ("time_at", "chain", "id"):
        for bad in (None, "", [], "soon", "NaN", "1e999999999"):
            vendor = Vendor(
                history, inclusive, spoils=lambda n, f=field, b=bad: {f: b} if n % 7 == 3 else {}
            )
            fetched = fetch(vendor, start, end, 1)
            names = {
                row["id"]
                for page in fetched.pages
                if page.endpoint == debank.HISTORY
                for row in json.loads(page.body)["history_list"]
                if row["id"]
            }
            spoiled = {row[2] for n, row in enumerate(sorted(history)) if n % 7 == 3}
            lost = {row[2] for row in history} - names
            assert lost <= (spoiled if field == "id" else set()), (field, bad)


@pytest.mark.parametrize("fails_at", [1, 2, 5, 40, 90])
def test_used_up_units_in_one_piece_end_the_whole_fetch(fails_at):
    vendor = Vendor(wallet(random.Random(1), 3000, 5_000_000, 0), True, fails_at)
    with pytest.raises(UnitsExhausted, match="units are used up"):
        fetch(vendor, moment(START), moment(START + 5_000_000), 8)
    assert len(vendor.calls) <= fails_at + 7, "a worker each, at most"


def rounds(seconds, end, workers):
    """Latencies and calls of a walk, when each call takes one latency, a little more or less."""
    rng, walk, now, queue = random.Random(0), Walk(START, end, workers), 0.0, []

    def begin(piece):
        if len(queue) >= workers:
            return False
        heappush(queue, (now + rng.uniform(0.9, 1.1), piece.top, piece))
        return True

    begin(walk.pieces[0])
    while queue:
        now, _, piece = queue[0]
        newest = bisect_left(seconds, piece.cursor)
        page = seconds[max(0, newest - 20) : newest]
        piece.pages.append(page)
        if len(page) < 20 or page[0] < piece.floor:
            piece.reason = "ended"
        else:
            piece.cursor = page[0] + 1
            piece.steps.append(piece.cursor)
            walk._cut(piece, begin)
        heappop(queue)
        if not piece.reason:
            begin(piece)
    return now, sum(len(piece.pages) for piece in walk.pieces)


@pytest.mark.parametrize(
    "number, bursts, times",
    [(60, 0, 1), (2500, 0, 3.5), (6000, 0, 6), (6000, 1, 3.5), (6000, 7, 4), (20_000, 2, 6)],
)
def test_the_longer_a_wallet_the_more_its_pieces_are_faster(number, bursts, times):
    end = START + 50_000_000
    seconds = sorted({row[0] for row in wallet(random.Random(5), number, 50_000_000, bursts)})
    (slow, one), (fast, many) = rounds(seconds, end, 1), rounds(seconds, end, 8)
    assert slow / fast >= times
    assert many <= 1.045 * one + 1, "a cut spares more than it costs"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_piece_that_is_reported_empty_is_asked_again(seed):
    """A false "no rows" on the first page below a cut would lose all that the piece has."""
    rng = random.Random(f"lies/{seed}")
    start, end = utc("2024-01-01"), utc("2025-01-01")
    every = wallet(rng, 800, 366 * 86_400, 0)
    first = rng.randrange(6, 30)  # not the walk's very first pages: nothing tells those
    for lies in ((first,), range(first, 10_000)):
        vendor = Vendor(every, bool(seed % 2), lies=lies)
        try:
            fetched = fetch(vendor, start, end, workers=8, tries=3)
        except Retriable as error:
            assert "missing" in str(error) and len(lies) > 1
        else:
            assert rows(fetched, start, end) == {r for r in every if r[0] < end.timestamp()}
