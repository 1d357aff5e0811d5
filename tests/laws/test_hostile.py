"""A hostile host wastes no more than a call's time and memory, is named, and leaves a line a call."""

from __future__ import annotations

import io
import json
import random
from datetime import datetime, timedelta

import pytest

import extract.fetch.answer_head
from extract.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    ExtractError,
    Fatal,
    Redirected,
    Retriable,
)
from extract.core.interval import UTC, iso, utc
from extract.core.text import visible
from extract.fetch import session
from extract.fetch.landing import waiting
from ledgerhouse.load.loader import load
from sandbox.faults.faults import HOSTILE
from sandbox.server import serve
from tests.helpers.books import ACCOUNTS, Books, Hurried, assert_truth

pytestmark = pytest.mark.slow

START, NOW = "2024-11-01T00:00:00Z", "2024-12-10T00:00:00Z"
ONE_EACH = {account.source: account for account in reversed(ACCOUNTS)}
TRIES = 2

# What each ends in, what is said of it, and whether it is asked again.
ENDS = {
    "drip": (DeadlineExceeded, r"not whole within 1 s, the deadline of a call; [\d,]+ bytes", True),
    "endless": (BodyTooLarge, r"larger than 1 MB; no more of it was read", False),
    "bomb": (BodyTooLarge, r"larger than 1 MB, unpacked from [\d,]+ bytes; no more", False),
    "redirect": (Redirected, r"HTTP 302: sent on to http://localhost:\d+/.* not followed", False),
    "deep_json": (Retriable, r"HTTP 200 with a body that is not .*not JSON .*recursion", True),
}


@pytest.fixture
def limits(monkeypatch):
    monkeypatch.setattr(session, "LIMITS", session.Limits(deadline_s=1, body_bytes=session.MB))


@pytest.fixture
def books(tmp_path, limits):
    """Books of a sandbox without rate limits; `books.url` is the sandbox."""
    with serve(seed=5, now=NOW, scale=0.05, pause=0.02) as url:
        url.app.lift_limits()
        yield Books(url, tmp_path, tries=TRIES, clock=Hurried())


def test_every_hostile_fault_has_its_end_here():
    assert set(ENDS) == set(HOSTILE)


@pytest.mark.parametrize("source", ONE_EACH)
@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_host_is_left_and_named_and_each_call_is_logged(fault, source, books):
    kind, said, is_asked_again = ENDS[fault]
    account = ONE_EACH[source]
    books.url.app.faults.set(fault, rate=1.0, vendor=source)
    (job, *_) = books.plan(START, NOW, [account])
    with pytest.raises(kind, match=rf"{source} account {account.account}, /v\w+/.*{said}"):
        books.fetch(job)
    assert len(books.calls) == (TRIES if is_asked_again else 1)
    assert all(call["error"] and call["endpoint"].startswith("/v") for call in books.calls)
    assert sum(books.url.app.calls.values()) == len(books.calls), "none was followed"
    assert list(waiting(books.root)) == []


def test_a_host_that_is_hostile_for_a_while_costs_calls_and_nothing_else(books):
    books.tries = 6
    for source in ONE_EACH:
        books.url.app.faults.set("drip:0.3,deep_json:0.3", vendor=source, count=2)
    books.sync(START, NOW)
    injected = books.url.app.faults.injected
    assert {kind for _, kind in injected} == {"drip", "deep_json"}
    assert len([call for call in books.calls if call["error"]]) >= sum(injected.values()) >= 4
    assert_truth(books, books.url.world, NOW)


def test_a_list_that_is_too_large_keeps_nothing_else_from_the_books(books):
    app, account = books.url.app, ONE_EACH["debank"]
    large = json.dumps([{"id": "x" * 100}] * 20_000)
    app.fail("debank", 200, endpoint="all_complex_protocol_list", body=large)
    books.sync(START, NOW, accounts=[account], snapshot=True)
    assert books.column("SELECT part FROM ops.unread_parts") == ["positions"]


def test_a_date_of_next_year_freezes_no_row(books, monkeypatch):
    clock = books.url.clock
    monkeypatch.setattr(
        extract.fetch.answer_head, "now", lambda: datetime.fromtimestamp(clock.now(), UTC)
    )
    for hours in range(0, 72, 6):
        now = iso(utc(NOW) + timedelta(hours=hours))
        clock.set(now)
        books.url.app.faults.set("future_date", rate=0.5 if hours < 60 else 0.0)
        books.sync(START, now)
    assert sum(books.url.app.faults.injected.values()) > 10
    assert_truth(books, books.url.world, now)
    newest = books.column("SELECT max(changed_at) FROM raw.exchanges_ledger")[0]
    assert newest <= utc(now).replace(tzinfo=None)


DEEP = "[" * 300 + "]" * 300
LITERALS = [
    *("null", "[]", "{}", '""', "0", "-1", "true", "[[]]", '[{"a": {}}]', '{"a": [null]}', DEEP),
    *("1e999999999", "-1E+999999999", "1e-999999999", "NaN", "Infinity", "9" * 4000, "9" * 5000),
    *(r'"\u0000"', r'"\ud800"', '"9999-12-31T23:59:59Z"', '"0000-00-00T00:00:00Z"'),
    *(f'"{"9" * 400}"', '"1e999999999"', '"x"', '"NaN"', '"%s%n"', '"../../x"'),
]


def spoiled(body: bytes, rng: random.Random) -> bytes:
    """The body with one of its values, at whatever depth, replaced by one of LITERALS."""
    data = json.loads(body)
    places: list[tuple] = []

    def walk(value) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                walk(inner)

    walk(data)
    literal = rng.choice(LITERALS)
    if not places or rng.random() < 0.05:
        return literal.encode()
    inside, key = rng.choice(places)
    if isinstance(inside, dict) and rng.random() < 0.2:
        del inside[key]
        return json.dumps(data).encode()
    inside[key] = "<here>"
    return json.dumps(data).replace('"<here>"', literal).encode()


@pytest.mark.parametrize("source", ONE_EACH)
@pytest.mark.parametrize("seed", range(2))
def test_whatever_stands_in_an_answer_ends_in_rows_or_in_a_named_error(
    source, seed, books, monkeypatch, caplog
):
    rng, right = random.Random(f"{seed} {source}"), session.GuardedAdapter._whole
    account, spoil_at = ONE_EACH[source], 0.0

    def whole(self, response, reading):
        response = right(self, response, reading)
        if response.status_code == 200 and rng.random() < spoil_at:
            response.raw = io.BytesIO(spoiled(response.raw.read(), rng))
        return response

    monkeypatch.setattr(session.GuardedAdapter, "_whole", whole)
    whole_fetches = failed_calls = 0
    for number in range(50):
        books.calls.clear()
        spoil_at = rng.choice((0.1, 0.5, 1.0))
        (job, *_) = books.plan(START, NOW, [account], snapshot=number % 2 == 0)
        try:
            books.fetch(job)
            whole_fetches += 1
        except ExtractError as error:
            assert f"{source} account {account.account}, /" in str(error) or (
                isinstance(error, (Fatal, Retriable)) and "clock" in str(error)
            ), error
        assert books.calls and all(call["endpoint"] for call in books.calls)
        failed_calls += sum(call["error"] is not None for call in books.calls)
    load(books.con, books.root, books.sources)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("extract", "ledgerhouse"))]
    assert ours and [text for text in ours if visible(text, keep="\n") != text] == []
    assert whole_fetches and failed_calls > 20
