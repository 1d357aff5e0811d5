"""Every fault the sandbox can commit, and what becomes of it: nothing is lost, nothing is double."""

import json
import random
import re
from contextlib import contextmanager
from datetime import timedelta

import pytest
import zstandard

import extract.sources.coinbase.calls
from extract.core.errors import Fatal, Retriable, UnitsExhausted
from extract.core.interval import iso, utc
from extract.fetch import session
from extract.fetch.client import WORKERS
from extract.fetch.landing import header, waiting
from ledgerhouse.load.loader import load
from sandbox.faults.faults import LASTING, LONGEST_RUN, TRANSIENT
from sandbox.server import serve
from sandbox.world.chain_records import NEVER
from tests.helpers.books import KEPT, Books, Hurried, assert_truth, of

pytestmark = pytest.mark.slow

START, NOW = "2024-11-01T00:00:00Z", "2024-12-20T00:00:00Z"
ONE_EACH = [of(source)[0] for source in ("coinbase", "debank")]  # those of SAID, in its order

# What the call log says of each, by source; None: the source has no such fault.
SAID = {
    "rate_limited": (r"rate_limit_exceeded", r"HTTP 429.*Too Many Requests"),
    "rate_limited_silent": (r"rate_limit_exceeded", r"HTTP 429.*Too Many Requests"),
    "server_errors": (r"internal_server_error", r"HTTP 500.*Internal Server Error"),
    "timeouts": (r"no answer: ReadTimeout",) * 2,
    "cut": (r"no answer: ProtocolError",) * 2,
    "error_body": (r"rate_limit_exceeded|internal_server_error", r"said with HTTP 200"),
    "broken_json": (r"HTTP 200 with a body that is not what was asked for", r"not JSON"),
    "empty_with_cursor": (
        r"an empty page with a cursor",
        r"last row of the page before .* is missing",
    ),
    "repeated_cursor": (r"was followed before: the paging goes in a circle", None),
    "reordered_rows": (None, r"not newest first"),  # a Coinbase wallet is read to its end then
    "duplicated_rows": (None, None),
}


def fault(url, profile: str, **more) -> None:
    url.app.faults.set(profile, **more)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """More pages of fewer rows, so that cursors matter."""
    monkeypatch.setattr(extract.sources.coinbase.calls, "V2_PAGE", 12)
    monkeypatch.setattr(extract.sources.coinbase.calls, "FILLS_PAGE", 12)


@pytest.fixture
def impatient(monkeypatch):
    """Clients wait half a second for an answer, the sandbox holds it back for longer."""
    monkeypatch.setattr(session, "LIMITS", session.Limits(silence_s=0.5))


@contextmanager
def world(root, seed=5, now=NOW, scale=0.2, tries=6, **options):
    """(url, books) of a sandbox without rate limits: nobody here waits for real."""
    with serve(seed=seed, now=now, scale=scale, **options) as url:
        url.app.lift_limits()
        books = Books(url, root, tries=tries, clock=Hurried())
        yield url, books


def test_every_passing_fault_has_its_message_here():
    assert set(SAID) == set(TRANSIENT)


def waits_for(profile, request) -> None:
    if profile == "timeouts":  # only then: a busy machine must not look like a fault
        request.getfixturevalue("impatient")


@pytest.mark.parametrize("profile", TRANSIENT)
def test_a_passing_fault_costs_calls_and_nothing_else(profile, tmp_path, request):
    waits_for(profile, request)
    with world(tmp_path) as (url, books):
        for source in ("coinbase", "debank"):  # a timeout costs real time, so they are few
            fault(url, profile, rate=0.4, vendor=source, count=2 if profile == "timeouts" else None)
        books.sync(START, NOW)
        assert_truth(books, url.world, NOW)
        assert books.plan(START, NOW) == [], "all of it is covered"
        for source, said in zip(("coinbase", "debank"), SAID[profile]):
            injected = url.app.faults.injected[source, profile]
            errors = [c["error"] for c in books.calls if c["source"] == source and c["error"]]
            harmless = profile in ("duplicated_rows", "reordered_rows")
            assert bool(injected) == (said is not None or harmless)
            if profile == "timeouts":
                assert len(errors) >= injected
            else:
                assert len(errors) == (injected if said else 0), "one call more for each, logged"
            for error in errors:
                assert re.search(said, error), error


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What one account of each source holds where nothing went wrong."""
    found = {}
    for account in ONE_EACH:
        with world(tmp_path_factory.mktemp(account.source)) as (_, books):
            books.sync(START, "2024-12-01", accounts=[account])
            found[account.source] = books.content()
    return found


@pytest.mark.parametrize(
    "source, profile, said",
    [
        (source, profile, said)
        for profile in TRANSIENT
        for source, said in zip(("coinbase", "debank"), SAID[profile])
        # A cursor that goes in a circle is met in a wallet, which is named as unread.
        if said and (source, profile) != ("coinbase", "repeated_cursor")
    ],
)
def test_a_fault_that_stays_is_reported_and_the_next_run_makes_up_for_it(
    source, profile, said, tmp_path, request, undisturbed
):
    waits_for(profile, request)
    (account,) = [a for a in ONE_EACH if a.source == source]
    with world(tmp_path, tries=2) as (url, books):
        fault(url, profile, rate=1.0, vendor=source)
        (job, *_) = books.plan(START, "2024-12-01", [account])
        with pytest.raises(
            Retriable, match=rf"{source} account {account.account}, /.*after 2 tries"
        ) as error:
            books.fetch(job)
        assert re.search(said, str(error.value))
        assert len([c for c in books.calls if c["error"]]) == 2
        assert list(waiting(tmp_path)) == [], "half a fetch is not landed"
        fault(url, "none")
        books.tries = 6
        books.sync(START, "2024-12-01", accounts=[account])
        assert books.content() == undisturbed[source]


def test_no_call_meets_a_passing_fault_more_often_than_six_tries_survive():
    assert LONGEST_RUN < 6


@pytest.mark.parametrize("profile", LASTING)
def test_a_key_or_units_that_end_in_mid_run_stop_it_at_once(profile, tmp_path):
    units = "units" in profile
    with world(tmp_path) as (url, books):
        middle = "2024-11-20T00:00:00Z"
        books.sync(START, middle)
        fault(url, profile, after=2)
        failures, kept, jobs = 0, 0, books.plan(START, NOW)
        for job in jobs:
            calls = len(books.calls)
            try:
                books.fetch(job)
            except Fatal as error:
                failures += 1
                assert isinstance(error, UnitsExhausted) == units
                kept += units and bool(error.partial.pages)  # paid for, so landed
                assert re.search(
                    "buy more" if units else "authentication_error|Unauthorized", str(error)
                )
                failed = [c for c in books.calls[calls:] if c["error"]]
                begun = books.calls.index(failed[0])  # others may be under way by then
                assert len(failed) <= len(books.calls) - begun <= WORKERS
                took = timedelta(milliseconds=failed[0]["duration_ms"] + 250)  # until all know
                known = utc(failed[0]["called_at"]) + took
                later = [c for c in books.calls[begun:] if utc(c["called_at"]) > known]
                assert later == [], "asked, then stopped"
        assert failures >= 4 and len(list(waiting(tmp_path))) == len(jobs) - failures + kept
        load(books.con, books.root, books.sources)
        fault(url, "none")
        paid, left = url.app.apis["debank"].units_spent, books.plan(START, NOW)
        assert len(left) == failures, "what failed is open, and nothing else"
        books.sync(START, NOW)
        assert_truth(books, url.world, NOW)
        resumed = url.app.apis["debank"].units_spent - paid
        fresh = Books(url, tmp_path / "fresh", clock=Hurried())
        for job in left:
            fresh.fetch(job)
        assert resumed == url.app.apis["debank"].units_spent - paid - resumed > 0, (
            "paid for what was open"
        )


def test_retry_after_is_honoured_in_seconds_and_as_a_date(tmp_path):
    with world(tmp_path) as (url, books):
        fault(url, "rate_limited", rate=0.5)
        clock = books.waits["timer"]
        for job in books.plan(START, NOW, ONE_EACH):
            books.fetch(job)
        injected = sum(url.app.faults.injected.values())
        assert injected and len([s for s in clock.slept if s in range(1, 8)]) >= injected


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_arrive_or_change_between_two_pages_are_neither_lost_nor_double(seed, tmp_path):
    begun = "2024-11-06T12:00:00Z"
    with world(tmp_path, seed=seed, now=begun, scale=0.6) as (url, books):
        fault(url, "changing_rows", rate=0.5)
        moved = 0
        for job in books.plan(START, "2024-12-01"):
            dates = dates_of(file := books.fetch(job))
            assert all(utc(c["end"]) <= min(dates) for c in header(file)["covered"])
            moved += max(dates) > min(dates)
        load(books.con, books.root, books.sources)
        assert moved, "the clock went on within a fetch"
        ended = iso(utc("1970-01-01") + timedelta(seconds=url.clock.now()))
        then, later = ({r["tx_id"] for r in url.world.transactions(at)} for at in (begun, ended))
        assert later - then, "rows did arrive meanwhile"
        had = set(books.column("SELECT tx_id FROM raw.onchain_transactions"))
        assert then <= had <= later
        ledger = {r["entry_id"] for r in url.world.ledger(begun, KEPT)}
        assert ledger <= set(books.column("SELECT entry_id FROM raw.exchanges_ledger"))
        assert max(books.column("SELECT end_ts FROM ops.coverage")) <= utc(ended).replace(
            tzinfo=None
        )
        fault(url, "none")
        now = iso(utc(ended) + timedelta(hours=6))
        url.clock.set(now)
        books.sync(START, now)
        assert_truth(books, url.world, now)


@pytest.mark.parametrize("seed", range(1))
def test_a_clock_that_is_off_claims_no_time_and_loses_no_row(seed, tmp_path):
    with world(tmp_path, seed=seed, now=START, scale=0.3) as (url, books):
        fault(url, "clock_skew", rate=0.6)
        now, claimed = utc("2024-11-02"), 0
        while now < utc("2024-11-04"):
            now += timedelta(hours=8)
            url.clock.set(iso(now))
            for job in books.plan(START, now + timedelta(hours=1), snapshot=True):
                file = books.fetch(job)
                dates = dates_of(file)
                for covered in header(file)["covered"]:
                    assert covered["dataset"] in ("balances", "positions") or utc(
                        covered["end"]
                    ) <= min(dates)
                claimed += max(dates) > now
            load(books.con, books.root, books.sources)
        assert claimed, "some answers did come from the future"
        fault(url, "none")
        url.clock.set(iso(now + timedelta(hours=6)))
        books.sync(START, now + timedelta(hours=6))
        assert_truth(books, url.world, iso(now + timedelta(hours=6)))


def dates_of(file) -> list:
    """The vendor's clock on every landed page that speaks of the history."""
    text = zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes()).decode()
    pages = [json.loads(line) for line in text.splitlines()[1:]]
    return [utc(page["received_at"]) for page in pages if "account/units" not in page["endpoint"]]


SEEDS = random.Random("chaos").sample(range(10**9), 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_under_chaos_what_a_run_misses_the_next_one_brings(seed, tmp_path, impatient):
    rng = random.Random(seed)
    with world(tmp_path, seed=seed, now=START, scale=0.2, hold=5.0) as (url, books):
        fault(url, "chaos:0.25,clock_skew:0.2,changing_rows:0.1")
        now, failures = utc("2024-11-03"), 0
        for _ in range(3):
            now += timedelta(hours=rng.randrange(6, 60))
            url.clock.set(iso(now))
            for job in books.plan(START, now):
                try:
                    books.fetch(job, tries=2)
                except Retriable:
                    failures += 1
            load(books.con, books.root, books.sources)
        now += timedelta(hours=72)
        url.clock.set(iso(now))
        fault(url, "chaos:0.25")
        books.sync(START, now)
        assert_truth(books, url.world, iso(now))
        assert failures, "some fetches did fail"
        text = str(books.calls)
        assert "sandbox-debank" not in text and "PRIVATE" not in text


@pytest.mark.parametrize(
    "vendor, table, key, seed",
    [
        ("coinbase", "exchanges_ledger", "entry_id", 7),
        ("debank", "onchain_transactions", "tx_id", 4),
    ],
)
def test_a_row_that_vanishes_is_marked_and_kept_and_may_come_back(
    vendor, table, key, seed, tmp_path
):
    with world(tmp_path, seed=seed, now=NOW, scale=1.5) as (url, books):
        books.sync(START, NOW)
        later = iso(utc(NOW) + timedelta(hours=6))
        url.clock.set(later)
        gone = url.world.vanish(
            iso(utc(NOW) + timedelta(seconds=1)),
            vendor,
            random.Random(1),
            since="2024-12-19T06:00:00Z",
        )
        assert gone, "the world has a recent row that may vanish"
        books.con.execute("DELETE FROM ops.touched_days")
        assert books.sync(START, later).vanished >= 1
        assert_truth(books, url.world, later)
        marked = f"SELECT {key} FROM raw.{table} WHERE vanished_at = '{later[:-1]}'"
        assert books.column(marked) == [gone[key]], "marked, not deleted, in the tail's reading"
        assert gone["time"][:10] in books.column("SELECT day::VARCHAR FROM ops.touched_days")
        assert books.column(
            f"SELECT row->>'$.{key}' FROM ops.changes WHERE change = 'vanished' "
            f"AND dataset = '{table}'"
        ) == [gone[key]]
        assert books.column(
            f"SELECT {key} FROM raw.{table}_as_of(TIMESTAMP '{NOW[:-1]}') "
            f"WHERE {key} = '{gone[key]}'"
        ) == [gone[key]]
        for row in (
            url.world.histories["coinbase"].entries.values()
            if vendor == "coinbase"
            else url.world.histories["debank"].wallets.values()
        ):
            for record in row:
                record.gone_at = NEVER  # the vendor has found it again
        again = iso(utc(later) + timedelta(hours=6))
        url.clock.set(again)
        books.sync(START, again)
        assert books.column(f"SELECT {key} FROM raw.{table} WHERE vanished_at IS NOT NULL") == []
        assert_truth(books, url.world, again)
