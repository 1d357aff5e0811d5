"""The laws shipped in extract.testing: our sources keep them, and a source that breaks one fails."""

import random
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from extract import testing
from extract.core.interval import Interval, iso, utc
from extract.core.records import Records
from extract.core.source import Covered, Fetched, Form, FullRefreshCall
from extract.sources import all_sources
from extract.testing import StandIn
from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from tests.helpers.books import credentials, of

SOURCES = all_sources()
START, NOW, LATER = "2024-11-01T00:00:00Z", "2025-01-15T00:00:00Z", "2025-01-16T00:00:00Z"


@contextmanager
def running(name, seed=5, now=NOW, **changes):
    """(url, StandIn) of a sandbox without rate limits, for the first account of a source."""
    with serve(seed=seed, now=now, scale=0.25) as url:
        url.app.lift_limits()
        source = replace(SOURCES[name], **changes)
        opened = credentials(name, url)
        account, secrets = of(name)[0].account, (opened["login"], opened["password"])
        api = source.connect(**opened)
        yield url, StandIn(source, account, api, tuple(filter(None, secrets)), testing._no_wait)


@pytest.fixture(scope="module", params=sorted(SOURCES))
def stand_in(request):
    with running(request.param) as (url, standing):
        yield url, standing


def cuts(url, number=4) -> list[str]:
    """Moments that hurt: the very seconds of transactions, those of several first; and any."""
    rng = random.Random("cuts")
    times = [row["time"] for row in url.world.transactions(NOW)]
    ties = sorted({t for t in times if times.count(t) > 1})
    span = int((utc(NOW) - utc(START)).total_seconds())
    anywhere = [iso(utc(START) + timedelta(seconds=rng.randrange(1, span))) for _ in range(number)]
    return [t for t in rng.sample(ties, number) if START < t < NOW] + anywhere


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_keeps_its_contract(name):
    testing.check_source(SOURCES[name])


def test_pages_end_for_a_stated_reason_and_no_later_than_the_vendors_clock(stand_in):
    testing.check_coverage(stand_in[1], START, NOW)
    testing.check_coverage(stand_in[1], START, LATER)


def test_fetches_add_up_wherever_they_are_cut(stand_in):
    url, standing = stand_in
    testing.check_additive(standing, START, NOW, cuts(url))


def test_fetching_twice_is_fetching_once(stand_in):
    testing.check_repeatable(stand_in[1], START, NOW)


def test_what_has_not_happened_is_refused(stand_in):
    testing.check_future(stand_in[1], LATER, "2025-01-17T00:00:00Z")


def test_every_status_ends_in_its_error(stand_in):
    url, standing = stand_in

    def fail(status, count):
        body = {"vendor": standing.source.name, "status": status if count != 0 else None}
        body |= {"count": count} if count else {}
        requests.post(f"{url}/_control/fail", json=body, timeout=10).raise_for_status()

    testing.check_errors(standing, "2025-01-10", "2025-01-12", fail)


def test_no_secret_is_in_a_page_or_a_text(stand_in):
    url, standing = stand_in
    testing.check_secrets(standing, "2025-01-10", "2025-01-12")
    name, wrong = standing.source.name, "organizations/x/apiKeys/wrong-key-123"
    opened = credentials(name, url)
    api = standing.source.connect(**opened | {"login" if opened["login"] else "password": wrong})
    testing.check_wrong_key(standing, api, (wrong,), "2025-01-10", "2025-01-12")


# ---- a source that breaks a law

COINBASE, DEBANK = SOURCES["coinbase"], SOURCES["debank"]


@pytest.mark.parametrize(
    "source, says",
    [
        (replace(COINBASE, name="Coin Base"), "not a lower-case identifier"),
        (replace(COINBASE, documentation="docs"), "no https address"),
        (replace(COINBASE, mappings={}), "no mappings"),
        (replace(COINBASE, mappings={"trades": "SELECT 1"}), r"unknown datasets \['trades'\]"),
        (replace(COINBASE, form=Form()), "does not show the vendor's host"),
        (
            replace(DEBANK, form=replace(DEBANK.form, hints={"login": "x"})),
            r"hints for fields \['login'\]",
        ),
        (replace(COINBASE, rates={"/v2/": COINBASE.rates["/v2/"]}), "no rate is the beginning of"),
        (replace(DEBANK, units={"/v1/x": -1}), "negative prices"),
        (
            replace(DEBANK, whole=(FullRefreshCall("/v1/x", "exchanges_ledger"),)),
            "which no mapping fills",
        ),
        (
            replace(COINBASE, whole=(FullRefreshCall("/v2/x", "balances", per_column="purse"),)),
            "no column purse",
        ),
        (
            replace(
                COINBASE,
                records=dict(COINBASE.records)
                | {"x": Records(("/v2/x",), None, '{"a": "DOUBLE"}')},
            ),
            "every leaf is VARCHAR",
        ),
        (
            replace(
                COINBASE,
                mappings=dict(COINBASE.mappings)
                | {"balances": COINBASE.mappings["balances"].replace("row.id AS wallet,", "")},
            ),
            r"no columns \['wallet'\]",
        ),
        (
            replace(
                COINBASE,
                mappings=dict(COINBASE.mappings)
                | {
                    "balances": COINBASE.mappings["balances"].replace(
                        "row.balance.amount AS amount_text", "0.5::DOUBLE AS amount_text"
                    )
                },
            ),
            "gives other types than the dataset: {'amount_text': 'DOUBLE'}",
        ),
    ],
)
def test_a_broken_contract_is_named(source, says):
    with pytest.raises(AssertionError, match=says):
        testing.check_source(source)


def broken(change):
    """DeBank's fetch with `change(fetched, job)` done to what it brings."""

    def fetch(client, api, job):
        fetched = DEBANK.fetch(client, api, job)
        return change(fetched, job) or fetched

    return fetch


def loses_its_last_page(fetched, job):
    return Fetched(fetched.pages[:-1] or fetched.pages, fetched.covered)


def gives_no_reason(fetched, job):
    return Fetched(fetched.pages, [replace(c, reason="") for c in fetched.covered])


def covers_too_little(fetched, job):
    return Fetched(fetched.pages, fetched.covered[:1])


def covers_what_is_to_come(fetched, job):
    longer = Interval(job.interval.start, utc(LATER))
    return Fetched(fetched.pages, [Covered(c.dataset, longer, "x") for c in fetched.covered])


@pytest.mark.parametrize(
    "change, law, says",
    [
        (loses_its_last_page, "additive", "differ fetched in 3 parts and in one"),
        (gives_no_reason, "coverage", "gives no reason"),
        (covers_too_little, "coverage", "onchain_transfers is covered over"),
        (covers_what_is_to_come, "coverage", "passes the vendor's clock"),
    ],
)
def test_a_fetch_that_breaks_a_law_is_found_out(change, law, says):
    with running("debank", fetch=broken(change)) as (_, standing):
        arguments = (["2024-12-01T00:00:00Z", "2025-01-01T00:00:00Z"],) if law == "additive" else ()
        with pytest.raises(AssertionError, match=says):
            getattr(testing, f"check_{law}")(standing, START, NOW, *arguments)


def test_a_fetch_that_brings_other_rows_each_time_or_none_is_found_out():
    brought = []

    def flickering(fetched, job):
        brought.append(fetched)
        return Fetched(fetched.pages[: len(brought)], fetched.covered)

    with running("debank", fetch=broken(flickering)) as (_, standing):
        with pytest.raises(AssertionError, match="differ fetched once and again"):
            testing.check_repeatable(standing, START, NOW)
    with running("debank", fetch=broken(lambda fetched, job: Fetched())) as (_, standing):
        with pytest.raises(AssertionError, match="has no rows to tell by"):
            testing.check_repeatable(standing, START, NOW)


def test_an_error_that_shows_the_key_is_found_out():
    def telling(client, api, job):
        raise testing.Fatal("HTTP 401: no such key: wrong-key-123", status=401)

    with running("debank", fetch=telling) as (_, standing):
        with pytest.raises(AssertionError, match="a text holds the key"):
            testing.check_wrong_key(standing, standing.api, ("wrong-key-123",), START, NOW)
    with running("debank") as (_, standing):
        with pytest.raises(AssertionError, match="went through"):
            testing.check_wrong_key(standing, standing.api, ("wrong-key-123",), START, NOW)


def test_a_fetch_that_hides_its_trouble_or_shows_its_key_is_found_out():
    def silent(client, api, job):
        try:
            return DEBANK.fetch(client, api, job)
        except testing.ExtractError:
            return Fetched()

    def leaking_fetch(client, api, job):
        fetched = DEBANK.fetch(client, api, job)
        pages = [replace(p, params=dict(p.params) | {"k": DEBANK_KEY}) for p in fetched.pages]
        return Fetched(pages, fetched.covered)

    with running("debank", fetch=silent) as (url, standing):

        def fail(status, count):
            body = {"vendor": "debank", "status": status if count != 0 else None}
            requests.post(f"{url}/_control/fail", json=body, timeout=10)

        with pytest.raises(AssertionError, match="went through, where an error was due"):
            testing.check_errors(standing, START, NOW, fail)
        fail(0, 0)
        with pytest.raises(AssertionError, match="went through"):
            testing.check_future(standing, LATER, "2025-01-17T00:00:00Z")
        with pytest.raises(AssertionError, match="holds a secret"):
            leaking = replace(standing, source=replace(standing.source, fetch=leaking_fetch))
            testing.check_secrets(leaking, START, NOW)
