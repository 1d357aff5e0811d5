"""The fetch of a wallet: its transactions over all chains backwards in time, and its balances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from extract.core.errors import Fatal, FetchStopped, Retriable
from extract.core.interval import UTC, Interval, iso, union
from extract.core.source import Covered, Fetched, Job
from extract.fetch.backward_walk import Piece, Walk, reasons
from extract.fetch.client import Client
from extract.fetch.http import listed
from extract.sources.debank.calls import CHAIN_HISTORY, CHAINS, HISTORY, TOKENS, get

PAGE = 20
_Row = tuple[int, str, str]  # second, chain, id


def fetch(client: Client, session: Any, job: Job) -> Fetched:
    """All transactions of one wallet in [job.read_from, job.interval.end), and its token balances.

    Raises Fatal when the key is wrong, or when more transactions than a page holds share one
    second on one chain; FetchStopped, with what was read, where no more units may be spent.
    """
    got, end = Fetched(), _seconds(job.interval.end) + (job.interval.end.microsecond > 0)
    # Rows at the end itself belong to the next interval; one second more costs nothing
    # and catches rows of a fraction of a second.
    walk = Walk(_seconds(job.read_from), end)
    try:
        if job.snapshot:
            _snapshot(client, session, got, job)
        pieces = _walk(client, session, job, walk)
    except FetchStopped as stop:
        stop.partial = _partial(got, walk, job)
        raise
    got.pages += [page for piece in pieces for page in piece.pages]
    # An answer whose clock is ahead of the others' proves nothing about the time in between.
    clock = min(page.received_at for page in got.pages)
    until = min(job.interval.end, clock)
    if until <= job.read_from:
        raise Fatal(
            f"the vendor's clock says {iso(clock)}, so {job.interval} has not happened "
            "yet; ask again once it has"
        )
    _cover(got, Interval(job.read_from, until), reasons(pieces))
    return got


def _cover(got: Fetched, span: Interval, reason: str) -> None:
    got.covered += [
        Covered(dataset, span, reason) for dataset in ("onchain_transactions", "onchain_transfers")
    ]


def _partial(got: Fetched, walk: Walk, job: Job) -> Fetched:
    """What a walk that was stopped has read, and the time it has read whole: each piece from its
    top down to where it was, but for one that lacks rows which the piece above has shown."""
    pieces = sorted(walk.pieces, key=lambda piece: -piece.top)
    got.pages += [page for piece in pieces for page in piece.pages]
    if not got.pages:
        return got
    until = min(job.interval.end, min(page.received_at for page in got.pages))
    spans = []
    for newer, piece in zip([None, *pieces], pieces):
        begin = max(job.read_from, _moment(piece.floor if piece.reason else piece.cursor))
        finish = min(until, _moment(piece.top))
        if begin < finish and not (newer and newer.last and _lacks(piece, newer)):
            spans.append(Interval(begin, finish))
    for span in union(spans):
        _cover(got, span, "stopped: read down to here")
    return got


def expected(job: Job, rows, _: datetime) -> dict[str, int]:
    """Calls a job will take: each page but the first begins with the last row of the one before."""
    count = rows("onchain_transactions", Interval(job.read_from, job.interval.end))
    return {HISTORY: int(max(count - 1, 0)) // (PAGE - 1) + 1}


def _snapshot(client: Client, session: Any, got: Fetched, job: Job) -> None:
    answer = get(
        client,
        session,
        TOKENS,
        {"id": job.account, "is_all": "true"},
        lambda d: None if isinstance(d, list) else "not a list of tokens",
        got.pages,
        True,
    )
    as_of = answer.received_at
    got.covered.append(
        Covered("balances", Interval(as_of, as_of + timedelta(seconds=1)), "the list is not paged")
    )


def _walk(client: Client, session: Any, job: Job, walk: Walk) -> list[Piece]:
    """The pages of all transactions in [job.read_from, job.interval.end), newest piece first."""

    def step(piece: Piece) -> None:
        _Walker(client, session, job.account, piece).step()

    pieces = walk.run(client, step)
    for newer, older in zip(pieces, pieces[1:]):
        if not _lacks(older, newer):
            continue
        again = Piece(older.floor, older.top, older.top)
        while not again.reason:
            step(again)
        older.pages += again.pages
        if lacking := _lacks(again, newer):
            raise Retriable(
                f"debank account {job.account}, {HISTORY}: the page before "
                f"{iso(datetime.fromtimestamp(newer.floor, UTC))} lacks {len(lacking)} of the rows "
                "that the page above it has shown, so rows may be missing. Nothing of this "
                "interval was recorded; run again"
            )
    return pieces


def _lacks(older: Piece, newer: Piece) -> set[_Row]:
    """Rows below a cut, shown by the last page above it, that the first page below it lacks."""
    reach = older.first[-1][0] if len(older.first) >= PAGE else -1
    return {row for row in newer.last if reach < row[0] < newer.floor} - {*older.first}


@dataclass(frozen=True)
class _Walker:
    """Reads one piece of a wallet's history. Times in whole seconds since 1970, UTC."""

    client: Client
    session: Any
    wallet: str
    piece: Piece

    def page(
        self, start_time: int, chain: str | None = None, shows: _Row | None = None
    ) -> list[int]:
        """The seconds of one page's rows, newest first; `shows` is a row it cannot lack."""
        params = {"id": self.wallet, "start_time": start_time, "page_count": PAGE}
        params |= {"chain_id": chain} if chain else {}
        answer = get(
            self.client,
            self.session,
            CHAIN_HISTORY if chain else HISTORY,
            params,
            lambda data: _wrong(data, shows),
            self.piece.pages,
        )
        self.piece.last = _rows(answer.data)
        if self.piece.first is None:
            self.piece.first = self.piece.last
        return [second for second, *_ in self.piece.last]

    def step(self) -> None:
        """Read on: the piece's cursor goes down, or its paging has ended."""
        cursor, shows = self.piece.cursor, None
        if self.piece.pages:  # read from one second after the last row, which must come again
            shows = self.piece.last[-1]
        times = self.page(cursor, shows=shows)
        while not (reason := self._ended(times)) and times[-1] + 1 >= cursor:
            # A whole page within one second: read that second chain by chain, then go below it.
            cursor = times[-1]
            self._second_by_chain(cursor, self.piece.last)
            times = self.page(cursor)
            if times and times[0] >= cursor:  # this host includes start_time itself
                times = self.page(cursor - 1)
        self.piece.reason = reason
        if not reason:
            self.piece.cursor = times[-1] + 1

    def _ended(self, times: list[int]) -> str:
        if len(times) < PAGE:
            return "short page" if times else "empty page"
        return "boundary crossed" if times[-1] < self.piece.floor else ""

    def _second_by_chain(self, second: int, known: list[_Row]) -> None:
        """All rows of a second; `known` are those its full page over all chains did show."""
        chains = get(
            self.client,
            self.session,
            CHAINS,
            {"id": self.wallet},
            lambda d: None if isinstance(d, list) else "not a list of chains",
            self.piece.pages,
        )
        for chain in (c["id"] for c in chains.data):
            shows = next((row for row in known if row[1] == chain), None)
            cursor = second + 1
            times = self.page(cursor, chain, shows)
            while len(times) >= PAGE and times[-1] >= second:
                if times[0] <= second:
                    raise Fatal(
                        f"wallet {self.wallet}, chain {chain}: {PAGE} or more transactions "
                        f"in the second {iso(datetime.fromtimestamp(second, UTC))}; DeBank "
                        "cannot page within a second, so they cannot all be read. Nothing of "
                        "this interval was recorded; report the wallet to DeBank"
                    )
                # A host that includes start_time showed the second after: ask one lower.
                cursor = min(times[-1] + 1, cursor - 1)
                times = self.page(cursor, chain)


def _rows(data: dict) -> list[_Row]:
    return [(int(row["time_at"]), row["chain"], row["id"]) for row in data["history_list"]]


def _wrong(data: Any, shows: _Row | None) -> str | None:
    """What is wrong with a page of history, or None. An empty answer in the middle of a walk
    would end it silently: the row it was asked from must come again."""
    if wrong := listed("history_list")(data):
        return wrong
    try:
        rows = _rows(data)
    except (KeyError, TypeError, ValueError):
        return "a row without time_at, chain or id"
    seconds = [second for second, *_ in rows]
    if seconds != sorted(seconds, reverse=True):
        return (
            "rows are not newest first, so the walk cannot know where to end; nothing of this "
            "interval was recorded"
        )
    if shows and shows not in rows and (len(rows) < PAGE or seconds[-1] < shows[0]):
        return (
            f"the last row of the page before ({shows[1]} {shows[2]}) is missing, so there "
            "may be more than it shows; nothing of this interval was recorded"
        )
    return None


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
