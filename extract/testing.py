"""Laws that every source must keep, as functions for the tests of a source's author.

`check_source` needs nothing but the Source. The others need a stand-in of the vendor: a server
with a history that stands still, reached through the API object that `connect` makes.

    STAND_IN = StandIn(SOURCE, "main", connect(host=url, login="…", password=KEY), secrets=(KEY,))

    def test_laws():
        check_source(SOURCE)
        check_coverage(STAND_IN, "2026-01-01", "2026-02-01")
        check_additive(STAND_IN, "2026-01-01", "2026-02-01", cuts=["2026-01-15T06:00:00Z"])
        check_repeatable(STAND_IN, "2026-01-01", "2026-02-01")

A law that is broken raises AssertionError, saying which and where. DuckDB is needed to run the
mappings; no test framework is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extract.core.datasets import DATASETS
from extract.core.errors import ExtractError, Fatal, RateLimited, Retriable
from extract.core.interval import Interval, iso, union, utc
from extract.core.records import QUOTED_BODY, quote_numbers, units_text
from extract.core.source import Fetched, Job, Source
from extract.fetch.client import Client

if TYPE_CHECKING:
    import duckdb

Moment = str | datetime
Rows = dict[str, set[tuple]]  # by dataset
ERRORS: Mapping[int, type[ExtractError]] = {401: Fatal, 429: RateLimited, 500: Retriable}


@dataclass(frozen=True)
class StandIn:
    """A running stand-in of a vendor: the source, an account it has, and the opened API object.

    `secrets` are the key and whatever else of the Connection must never be written down;
    `wait` is slept between calls (None: real waits), for a stand-in that has no rate limits.
    """

    source: Source
    account: str
    api: Any
    secrets: tuple[str, ...] = ()
    wait: Callable[[float], Any] | None = None

    def fetch(
        self,
        start: Moment,
        end: Moment,
        *,
        calls: list[dict] | None = None,
        tries: int = 3,
        snapshot: bool = False,
        wait: Callable[[float], Any] | None = None,
    ) -> Fetched:
        """Fetch [start, end) without lookback; every HTTP request is appended to `calls`."""
        interval, calls = Interval(utc(start), utc(end)), [] if calls is None else calls
        client = Client(
            self.source.name,
            self.account,
            rates=self.source.rates,
            units=self.source.units,
            record=calls.append,
            secrets=self.secrets,
            tries=tries,
            sleep=wait or self.wait,
        )
        job = Job(
            self.source.name, self.account, self.source.name, interval, interval.start, snapshot
        )
        return self.source.fetch(client, self.api, job)


def check_source(source: Source) -> None:
    """The static contract: names, rates, prices, the form, and mappings that fill their datasets."""
    title = f"source {source.name!r}"
    assert source.name.isidentifier() and source.name == source.name.lower(), (
        f"{title}: the name is not a lower-case identifier, as the name of its file is"
    )
    assert source.documentation.startswith("https://"), (
        f"{title}: documentation is no https address"
    )
    unknown = set(source.mappings) - set(DATASETS)
    assert not unknown, f"{title}: mappings of unknown datasets {sorted(unknown)}"
    assert source.mappings, f"{title}: there are no mappings, so nothing of it would be loaded"
    _check_form(source, title)
    _check_endpoints(source, title)
    _check_records(source, title)
    _check_mappings(source, title)


def _check_form(source: Source, title: str) -> None:
    form = source.form
    assert form.password, f"{title}: the form has no label for the secret (password)"
    assert form.host.startswith("https://"), f"{title}: the form does not show the vendor's host"
    fields = {"host", "password", "login", *form.secrets} - ({"login"} if not form.login else set())
    stray = set(form.hints) - fields
    assert not stray, f"{title}: hints for fields {sorted(stray)} that the form does not have"


def _check_endpoints(source: Source, title: str) -> None:
    for prefix, rate in source.rates.items():
        assert rate.calls > 0 and rate.seconds > 0 and rate.burst > 0, (
            f"{title}: the rate of {prefix} allows no call"
        )
    endpoints = {endpoint for records in source.records.values() for endpoint in records.endpoints}
    endpoints |= set(source.units) | {call.endpoint for call in source.whole}
    unpaced = sorted(e for e in endpoints if not any(e.startswith(p) for p in source.rates))
    assert not unpaced, f"{title}: no rate is the beginning of {unpaced}"
    dear = sorted(endpoint for endpoint, units in source.units.items() if units < 0)
    assert not dear, f"{title}: negative prices of {dear}"
    for call in source.whole:
        assert not call.dataset or call.dataset in source.mappings, (
            f"{title}: a full refresh counts rows of {call.dataset}, which no mapping fills"
        )
        for column in filter(None, (call.per_column, call.lists_column)):
            assert column in {c.name for c in DATASETS[call.dataset].columns}, (
                f"{title}: {call.dataset} has no column {column}, named in the full refresh"
            )


def _check_records(source: Source, title: str) -> None:
    for name, records in source.records.items():
        assert name.isidentifier(), f"{title}: records {name!r} cannot be part of a table's name"
        texts = {"VARCHAR", "MAP(VARCHAR, VARCHAR)"}
        types = sorted(set(_leaves(json.loads(records.fields))) - texts)
        assert not types, (
            f"{title}: records {name!r} have leaves of the types {types}; every leaf is VARCHAR, or "
            "digits are lost"
        )


def _leaves(fields: Any) -> Iterable[str]:
    if isinstance(fields, str):
        yield fields
    else:
        for part in fields.values() if isinstance(fields, dict) else fields:
            yield from _leaves(part)


def _check_mappings(source: Source, title: str) -> None:
    con = _opened(source, Fetched(), "")
    for name, mapping in source.mappings.items():
        given = {row[0]: row[1] for row in con.execute(f"DESCRIBE {mapping}").fetchall()}
        wanted = {column.name: column.type for column in DATASETS[name].columns}
        missing = sorted({*wanted, "page_id", "item"} - set(given))
        assert not missing, f"{title}: the mapping to {name} has no columns {missing}"
        wrong = {c: given[c] for c, kind in wanted.items() if given[c] != kind}
        assert not wrong, (
            f"{title}: the mapping to {name} gives other types than the dataset: {wrong}"
        )
    con.close()


def check_coverage(stand_in: StandIn, start: Moment, end: Moment) -> None:
    """Every dataset with a history is covered over [start, end), up to the vendor's clock, and
    every coverage says why its paging ended."""
    fetched = stand_in.fetch(start, end)
    title = f"source {stand_in.source.name!r}"
    clock = min(page.received_at for page in fetched.pages)
    asked = Interval(utc(start), min(utc(end), clock))
    for covered in fetched.covered:
        assert covered.reason.strip(), f"{title}: coverage of {covered.dataset} gives no reason"
        assert covered.interval.end <= clock, (
            f"{title}: coverage of {covered.dataset} passes the vendor's clock, {iso(clock)}"
        )
    for name in stand_in.source.mappings:
        if DATASETS[name].has_history:
            spans = union(c.interval for c in fetched.covered if c.dataset == name)
            assert spans == [asked], f"{title}: {name} is covered over {spans}, not over {asked}"


def check_additive(stand_in: StandIn, start: Moment, end: Moment, cuts: Iterable[Moment]) -> None:
    """Fetching [a, b) and [b, c) brings the rows of [a, c), wherever it is cut: choose cuts at the
    very time of rows, too."""
    whole = rows(stand_in, start, end)
    edges = [utc(start), *sorted(utc(cut) for cut in cuts), utc(end)]
    parts: Rows = {name: set() for name in whole}
    for begin, finish in zip(edges, edges[1:]):
        for name, found in rows(stand_in, begin, finish).items():
            parts[name] |= found
    _assert_same(stand_in, whole, parts, f"fetched in {len(edges) - 1} parts and in one")


def check_repeatable(stand_in: StandIn, start: Moment, end: Moment) -> None:
    """Fetching twice brings the same rows, and there are some."""
    once, twice = rows(stand_in, start, end), rows(stand_in, start, end)
    _assert_same(stand_in, once, twice, "fetched once and again")
    assert any(once.values()), f"the stand-in of {stand_in.source.name} has no rows to tell by"


def check_future(stand_in: StandIn, start: Moment, end: Moment) -> None:
    """An interval that begins after the vendor's clock is refused: Fatal, and nothing is covered."""
    error = _raised(lambda: stand_in.fetch(start, end))
    assert isinstance(error, Fatal), (
        f"source {stand_in.source.name!r}: asked for [{iso(utc(start))}, {iso(utc(end))}), which has "
        f"not happened yet, it gave {error!r} and no Fatal"
    )


def check_errors(
    stand_in: StandIn, start: Moment, end: Moment, fail: Callable[[int, int | None], None]
) -> None:
    """Each HTTP status ends in the error that says what to do next, and one that passes in none.

    `fail(status, count)` makes the stand-in answer the next `count` requests with `status`, all of
    them where `count` is None, and none where it is 0. Nothing is slept between tries.
    """
    for status, kind in ERRORS.items():
        calls: list[dict] = []
        title = f"source {stand_in.source.name!r}, HTTP {status}"
        fail(status, None)
        error = _raised(lambda: stand_in.fetch(start, end, calls=calls, tries=2, wait=_no_wait))
        fail(status, 0)
        assert type(error) is kind, f"{title}: {error!r} was raised, not {kind.__name__}"
        assert error.status == status, f"{title}: the error says status {error.status}"
        assert stand_in.source.name in str(error) and stand_in.account in str(error), (
            f"{title}: the text does not say whose call failed: {error}"
        )
        tries = 1 if kind is Fatal else 2
        assert len(calls) == tries, f"{title}: asked {len(calls)} times, not {tries}"
        assert all(call["error"] and call["units"] == 0 for call in calls), (
            f"{title}: the call log has no error, or counts units for a refusal: {calls}"
        )
        assert _without(stand_in.secrets, error, calls), f"{title}: a text holds a secret"
        if kind is not Fatal:
            calls.clear()
            fail(status, 1)
            stand_in.fetch(start, end, calls=calls, wait=_no_wait)
            first, *others = calls
            assert first["status"] == status and not any(call["error"] for call in others), (
                f"{title}: one failure was to be survived by one more call: {calls[:3]}"
            )


def check_wrong_key(
    stand_in: StandIn, api: Any, secrets: tuple[str, ...], start: Moment, end: Moment
) -> None:
    """`api` was opened with a wrong key: Fatal with status 401 or 403, and `secrets` are in no text."""
    calls: list[dict] = []
    other = replace(stand_in, api=api, secrets=secrets)
    error = _raised(lambda: other.fetch(start, end, calls=calls))
    title = f"source {stand_in.source.name!r}, wrong key"
    assert isinstance(error, Fatal) and error.status in (401, 403), (
        f"{title}: {error!r}, not a Fatal 401 or 403"
    )
    assert _without(secrets, error, calls), f"{title}: a text holds the key"


def check_secrets(stand_in: StandIn, start: Moment, end: Moment) -> None:
    """Nothing of the Connection's secrets is in a page or in the call log."""
    calls: list[dict] = []
    fetched = stand_in.fetch(start, end, calls=calls, snapshot=True)
    assert stand_in.secrets, "which secrets? StandIn(secrets=…) names none"
    assert _without(stand_in.secrets, *fetched.pages, calls), (
        f"source {stand_in.source.name!r}: a page or the call log holds a secret"
    )


def rows(stand_in: StandIn, start: Moment, end: Moment) -> Rows:
    """The rows of [start, end) that a fetch of it brings, mapped, by dataset with a history."""
    con = _opened(stand_in.source, stand_in.fetch(start, end), stand_in.account)
    mapped: Rows = {}
    for name, mapping in stand_in.source.mappings.items():
        if DATASETS[name].has_history:
            columns = ", ".join(column.name for column in DATASETS[name].columns)
            mapped[name] = set(
                con.execute(
                    f"SELECT {columns} FROM ({mapping}) WHERE ts >= ? AND ts < ?",
                    [utc(moment).replace(tzinfo=None) for moment in (start, end)],
                ).fetchall()
            )
    con.close()
    return mapped


def _opened(source: Source, fetched: Fetched, account: str) -> duckdb.DuckDBPyConnection:
    """A database in memory with the `pages` of a fetch and the records that mappings read."""
    import duckdb

    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.create_function("units_text", units_text, ["VARCHAR", "VARCHAR"], "VARCHAR")
    con.create_function("quote_numbers", quote_numbers, ["VARCHAR"], "VARCHAR")
    con.execute(
        "CREATE TABLE landed (page_id BIGINT, source VARCHAR, account VARCHAR, endpoint VARCHAR, "
        "params VARCHAR, body VARCHAR, received_at TIMESTAMP, as_of TIMESTAMP)"
    )
    for number, page in enumerate(fetched.pages):
        con.execute(
            "INSERT INTO landed VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                number,
                source.name,
                account,
                page.endpoint,
                json.dumps(dict(page.params)),
                page.body,
                utc(page.received_at).replace(tzinfo=None),
                utc(page.as_of).replace(tzinfo=None) if page.as_of else None,
            ],
        )
    con.execute(
        f"CREATE TABLE pages AS SELECT * REPLACE (params::JSON AS params, "
        f"({QUOTED_BODY})::JSON AS body) FROM landed"
    )
    for name, records in source.records.items():
        con.execute(f"CREATE VIEW records_{name} AS {records.select()}")
    return con


def _assert_same(stand_in: StandIn, first: Rows, second: Rows, how: str) -> None:
    for name in first:
        different = first[name] ^ second[name]
        assert not different, (
            f"source {stand_in.source.name!r}: {len(different)} rows of {name} differ {how}, "
            f"for example {next(iter(different))}"
        )


def _raised(act: Callable[[], object]) -> ExtractError:
    try:
        act()
    except ExtractError as error:
        return error
    raise AssertionError("the fetch went through, where an error was due")


def _no_wait(seconds: float) -> None:
    """Sleep not at all."""


def _without(secrets: tuple[str, ...], *texts: object) -> bool:
    """Whether no secret, nor a long line of one, is in what the texts show."""
    shown = " ".join(map(str, texts))
    lines = {line.strip() for secret in secrets for line in secret.splitlines()}
    return not any(line in shown for line in lines if len(line) >= 8 and "-----" not in line)
