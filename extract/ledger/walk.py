"""The fetch of an exchange's account by its facts: balances, then every list of its ledgers and fills.

A list is cut into windows where the exchange allows no longer ones, and they are read newest first
by several threads. Each window is paged to its end, for a named reason; one that holds more rows
than can be reached is cut in two.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from extract.core.errors import Fatal, FetchStopped, Retriable
from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job, Page
from extract.core.text import visible
from extract.fetch.client import WORKERS, Answer, Client
from extract.fetch.http import CcxtClients
from extract.ledger.facts import Call, Each, Exchange, Fills, Ledger, Listing
from extract.ledger.mapping import known_fields
from extract.ledger.moments import STEP, in_unit, moment_of
from extract.ledger.paging import TOO_MANY, PageOf, at

log = logging.getLogger(__name__)
MARGIN = timedelta(hours=1)  # of a list's depth: what is just leaving it is not asked for
READINGS = 6  # of a list that changes while it is read


@dataclass(eq=False)
class Window:
    """A list over [start, end), for one `value` of its `each` with what is kept of it; `reason` says
    why its paging ended."""

    listing: Listing
    start: datetime
    end: datetime
    value: Mapping[str, str] | None = None
    pages: list[Page] = field(default_factory=list)
    reason: str = ""


@dataclass(eq=False)
class Walk:
    """One fetch: `clocks` are the vendor's, of every answer; `windows` of every list, as read."""

    exchange: Exchange
    client: Client
    api: CcxtClients
    job: Job
    got: Fetched = field(default_factory=Fetched)
    windows: list[Window] = field(default_factory=list)
    clocks: list[datetime] = field(default_factory=list)
    values: dict[Each, list[Mapping[str, str]]] = field(default_factory=dict)
    floors: dict[Listing, datetime] = field(default_factory=dict)
    unknown: dict[str, set[str]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


def fetch(exchange: Exchange, client: Client, api: CcxtClients, job: Job) -> Fetched:
    """The ledgers, the fills and (for snapshots) the balances of one account over a job.

    Raises Fatal for a wrong key or an interval to come, Retriable when trouble outlasts the
    retries, FetchStopped with what is whole until then.
    """
    walk = Walk(exchange, client, api, job)
    try:
        if job.snapshot:
            read_balances(walk)
        listings = (*exchange.ledgers, *exchange.fills)
        for each in {listing.each for listing in listings if listing.each}:
            walk.values[each] = _values(walk, each)
        read_windows(walk, listings)
    except FetchStopped as stop:
        cover(walk)
        stop.partial = walk.got
        raise
    cover(walk)
    return walk.got


def _ask(walk: Walk, call: Call, params: Mapping[str, Any]) -> Answer:
    """One request of a call; an answer that is an error in words, or no list, is not taken."""
    exchange = walk.exchange

    def wrong(data: Any) -> str | None:
        if exchange.ok and str(at(data, exchange.ok[0])) != exchange.ok[1]:
            said = at(data, exchange.message) if exchange.message else None
            return f"{exchange.ok[0]} is {at(data, exchange.ok[0])}: {said or 'no words'}"
        kind = dict if call.shape == "map" else list
        rows = at(data, call.rows)
        if call.shape == "arrays" and rows and not any(isinstance(row, list) for row in rows):
            return (
                f"no row is a list: {str(rows)[:80]}"  # as ["error", 20060, "maintenance"] is none
            )
        if isinstance(rows, kind) or (not rows and call.shape == "map" and rows == []):
            return None
        return f"no {'object' if kind is dict else 'list'} at {call.rows or 'the top'!r}"

    answer = walk.client.call(
        call.endpoint,
        lambda: walk.api.call(call.call, dict(params), "", wrong, rows=lambda d: at(d, call.rows)),
    )
    with walk.lock:
        walk.clocks.append(answer.received_at)
    if answer.received_at <= walk.job.read_from:
        raise Fatal(
            f"the vendor's clock says {iso(answer.received_at)}, so {walk.job.interval} has not "
            "happened yet; ask again once it has"
        )
    return answer


def pages_of(
    walk: Walk,
    call: Call,
    params: Mapping[str, Any],
    stop: Callable[[list[Any]], str] = lambda _: "",
) -> Iterator[tuple[Answer, dict[str, Any], str]]:
    """(answer, parameters, why it is the last or "") of each page of a call; `stop(rows)` says why
    no further one is needed, or ""."""
    more, ids_before, first = dict(call.paging.first()), [], None
    while True:
        asked = {**call.params, **params, **more}
        answer = _ask(walk, call, asked)
        rows = at(answer.data, call.rows)
        listed = list(rows.items()) if isinstance(rows, dict) else list(rows or [])
        ids, times = _ids(call, listed), _times(call, listed)
        if ids and ids == ids_before:
            raise Retriable(f"{call.endpoint}: a page came twice, so the end is not known")
        first = first or answer.data
        page = PageOf(asked, answer.data, answer.headers, ids, times, first)
        reason = stop(listed)
        following = None
        if not reason:
            following, reason = call.paging.next(page)
        yield answer, asked, reason if following is None else ""
        if following is None:
            return
        more, ids_before = {**more, **following}, ids


def _record(call: Call, row: Any) -> Mapping[str, Any]:
    """A row as {field: value}, whatever the shape of its list."""
    if call.shape == "map":
        return {**(row[1] if isinstance(row[1], dict) else {}), "_key": row[0]}
    if call.shape == "arrays":
        return dict(zip(call.columns, row)) if isinstance(row, list) else {}
    return row if isinstance(row, dict) else {}


def _ids(call: Call, rows: list[Any]) -> list[str]:
    name = getattr(call, "id", "") or "id"
    return [str(at(_record(call, row), name) or row) for row in rows]


def _times(call: Call, rows: list[Any]) -> list[int]:
    """Times of rows in the unit in which the list's end is asked for; what has none is passed over."""
    if not isinstance(call, Listing):
        return []
    unit = (call.until or call.time)[1]
    found = (_time(call, row) for row in rows)
    return [int(in_unit(t, "s" if unit == "text" else unit, up=True)) for t in found if t]


def _time(listing: Listing, row: Any) -> datetime | None:
    return moment_of(at(_record(listing, row), listing.time[0]), listing.time[1])


def read_balances(walk: Walk) -> None:
    """What the exchange says is held, all as of the first answer."""
    as_of, begun = None, len(walk.clocks)
    for call in walk.exchange.balances:
        for value in _values(walk, call.each) if call.each else [{}]:
            extra = {k: v for k, v in value.items() if call.each and k == call.each.param}
            for answer, asked, _ in pages_of(walk, call, extra):
                as_of = as_of or walk.clocks[begun]
                walk.got.pages.append(
                    Page(call.endpoint, {**asked, **value}, answer.body, answer.received_at, as_of)
                )
    if as_of:
        held = Interval(as_of, as_of + timedelta(seconds=1))
        walk.got.covered.append(Covered("balances", held, "last page of balances"))


def _values(walk: Walk, each: Each) -> list[Mapping[str, str]]:
    """What a list is asked for one by one: {parameter: value} and what is kept of each record. The
    pages are landed too."""
    if each in walk.values:
        return walk.values[each]
    values: dict[str, Mapping[str, str]] = {}
    for answer, asked, _ in pages_of(walk, each, {}):
        walk.got.pages.append(Page(each.endpoint, asked, answer.body, answer.received_at))
        rows = at(answer.data, each.rows)
        for row in rows.items() if isinstance(rows, dict) else rows:
            record = _record(each, row)
            value = at(record, each.value)
            if value not in (None, ""):
                kept = {name: str(at(record, path)) for name, path in each.keep.items()}
                values[str(value)] = {**kept, each.param: str(value)}
    walk.values[each] = list(values.values())
    return walk.values[each]


def read_windows(walk: Walk, listings: tuple[Listing, ...]) -> None:
    """Read every window of every list. The newest of the first list is read before all others: its
    answer has the vendor's clock, from which the depth of a list counts."""
    end, queue = walk.job.interval.end, deque()
    for listing in listings:
        for value in walk.values[listing.each] if listing.each else listing.variants or [None]:
            start = walk.job.read_from
            if listing.window:
                start = max(start, end - _span(listing))
            queue.append(Window(listing, start, end, value))
    walk.windows += queue
    if queue and not walk.clocks:
        _read(walk, queue.popleft())
    clock = min(walk.clocks) if walk.clocks else end
    for listing in listings:
        floor = clock - listing.depth + MARGIN if listing.depth else walk.job.read_from
        walk.floors[listing] = max(floor, walk.job.read_from)
    for window in list(walk.windows):
        older = window.start
        while older > walk.floors[window.listing]:
            newer, older = older, max(older - _span(window.listing), walk.floors[window.listing])
            queue.append(Window(window.listing, older, newer, window.value))
            walk.windows.append(queue[-1])
    queue = deque(sorted(queue, key=lambda w: w.end, reverse=True))

    def worker(_: None, fork: Callable[[Any], bool]) -> None:
        while queue:
            try:
                window = queue.popleft()
            except IndexError:  # another thread was faster
                return
            if queue:
                fork(None)
            _read(walk, window)

    walk.client.run_concurrently(worker, None, 1 if walk.exchange.one_caller else WORKERS)


def _span(listing: Listing) -> timedelta:
    """How long a window may be, so that with a unit more on either side it is allowed."""
    assert listing.window
    unit = (listing.since or listing.time)[1]
    return listing.window - 4 * STEP[unit]  # bounds are rounded to whole units, too


def _read(walk: Walk, window: Window) -> None:
    """Read a window to its end, again where the list changed meanwhile."""
    for reading in range(1, READINGS + 1):
        window.pages.clear()
        try:
            _read_once(walk, window)
            return
        except Retriable as error:
            if reading == READINGS or error.status is not None:
                raise


def _read_once(walk: Walk, window: Window) -> None:
    listing, step = window.listing, STEP[(window.listing.since or window.listing.time)[1]]
    params: dict[str, Any] = {}
    value = window.value or {}
    if listing.each:
        params[listing.each.param] = value[listing.each.param]
    elif listing.variants:
        params.update(value)
    if listing.since:
        params[listing.since[0]] = in_unit(window.start - step, listing.since[1])
    if listing.until:
        params[listing.until[0]] = in_unit(window.end + step, listing.until[1], up=True)

    def crossed(rows: list[Any]) -> str:
        times = [t for t in (_time(listing, row) for row in rows) if t]
        ordered = all(a >= b for a, b in zip(times, times[1:]))
        if listing.since or not listing.newest_first or not times or not ordered:
            return ""
        return "boundary crossed" if times[-1] < window.start else ""

    reason = ""
    for answer, asked, ended in pages_of(walk, listing, params, crossed):
        reason = ended
        report_unknown(walk, listing, at(answer.data, listing.rows))
        again = window.start if window.start < walk.job.read_from else None
        window.pages.append(
            Page(
                listing.endpoint,
                {**asked, **value},
                answer.body,
                answer.received_at,
                read_from=again,
            )
        )
    if reason == TOO_MANY:
        _in_halves(walk, window)
    else:
        window.reason = reason


def report_unknown(walk: Walk, listing: Listing, rows: Any) -> None:
    """Say once a fetch which fields of a list nobody has heard of: they may move a balance."""
    known = known_fields(listing)
    if not known or not rows:
        return
    if listing.inner:
        rows = [one for row in rows for one in (row.get(listing.inner) or [])]
    for row in rows.items() if isinstance(rows, dict) else rows:
        unknown = _record(listing, row).keys() - known
        with walk.lock:
            new = unknown - walk.unknown.setdefault(listing.endpoint, set())
            walk.unknown[listing.endpoint] |= new
        if new:
            log.warning(
                "%s account %s, %s: rows have fields that this version does not know (%s); please "
                "report it: they may be a deduction that the books lack",
                walk.exchange.name,
                walk.job.account,
                listing.endpoint,
                visible(", ".join(sorted(new))),
            )


def _in_halves(walk: Walk, window: Window) -> None:
    """Read a window as two, since it holds more than can be reached."""
    listing, middle = window.listing, window.start + (window.end - window.start) / 2
    unit = STEP[(listing.since or listing.until or listing.time)[1]]
    if not (listing.since and listing.until) or window.end - window.start <= unit:
        raise Fatal(
            f"{listing.endpoint} holds more rows between {iso(window.start)} and {iso(window.end)} "
            "than the exchange lets be read; import that time from its export file"
        )
    halves = [
        Window(listing, middle, window.end, window.value),
        Window(listing, window.start, middle, window.value),
    ]
    for half in halves:
        _read(walk, half)
    window.pages = [page for half in halves for page in half.pages]
    window.reason = " and ".join(sorted({half.reason for half in halves}))


def cover(walk: Walk) -> None:
    """Land the pages, and state what of each dataset is whole: from the oldest window behind which
    all newer ones of its lists were read."""
    job, got = walk.job, walk.got
    got.pages += [page for window in walk.windows for page in window.pages]
    if not walk.clocks:
        return
    end = min(job.interval.end, *walk.clocks)
    for dataset, kind in (("exchanges_ledger", Ledger), ("exchanges_trades", Fills)):
        windows = [window for window in walk.windows if isinstance(window.listing, kind)]
        listings = {window.listing for window in windows}
        if not listings:
            continue
        floor = max(walk.floors.get(listing, job.read_from) for listing in listings)
        whole_from = max([floor, *(w.end for w in windows if not w.reason)])
        if not walk.floors or whole_from >= end:
            continue
        reasons = " or ".join(sorted({window.reason for window in windows if window.reason}))
        got.covered.append(Covered(dataset, Interval(whole_from, end), reasons))
        if whole_from == floor > job.read_from:
            got.covered.append(
                Covered(
                    dataset,
                    Interval(job.read_from, floor),
                    f"older than the exchange lists: {walk.exchange.depth}",
                    parts=(),
                )
            )
