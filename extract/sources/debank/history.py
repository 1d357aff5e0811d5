"""The fetch of a wallet: its transactions over all chains backwards in time, and its balances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from extract.core.errors import Fatal, FetchStopped, Retriable
from extract.core.interval import UTC, Interval, iso, union
from extract.core.source import Covered, Fetched, Job, Unread
from extract.fetch.backward_walk import Piece, Walk, reasons
from extract.fetch.client import Client
from extract.fetch.http import listed
from extract.sources.debank.calls import CHAIN_HISTORY, CHAINS, HISTORY, POSITIONS, get
from extract.sources.debank.snapshot import CHAIN_PART, Chains, read_positions, read_tokens

PAGE = 20
DATASETS = ("onchain_transactions", "onchain_transfers")
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799  # of the years 1 to 9999
_Row = tuple[int, str | None, str | None]  # second, chain, id


@dataclass(frozen=True)
class _Seen:
    """What a page has shown: its rows that have a time, newest first, and whether it was full."""

    rows: list[_Row]
    full: bool


def fetch(client: Client, session: Any, job: Job) -> Fetched:
    """All transactions of one wallet in [job.read_from, job.interval.end), and its token balances.

    A second in which a chain has more transactions than a page holds is named as unread, the rest
    is whole. With a snapshot come the positions in protocols, once a UTC day; with a chain that
    `job.known` lacks, the list of chains.

    Raises Fatal when the key is wrong; FetchStopped, with what was read, where no more units may
    be spent.
    """
    got, end = Fetched(), _seconds(job.interval.end) + (job.interval.end.microsecond > 0)
    chains = Chains(client, session, job)
    # Rows at the end itself belong to the next interval; one second more costs nothing
    # and catches rows of a fraction of a second.
    walk = Walk(_seconds(job.read_from), end)
    try:
        if job.snapshot:
            chains.shown |= read_tokens(client, session, got, job)
        pieces = _walk(_Wallet(client, session, job, chains), walk)
        if job.snapshot:
            read_positions(client, session, got, job)
        chains.read_if_new()
    except FetchStopped as stop:
        stop.partial = _partial(got, walk, job, chains)
        raise
    got.pages += chains.pages
    got.pages += [page for piece in pieces for page in piece.pages]
    # An answer whose clock is ahead of the others' proves nothing about the time in between.
    clock = min(page.received_at for page in got.pages)
    until = min(job.interval.end, clock)
    if until <= job.read_from:
        raise Fatal(
            f"the vendor's clock says {iso(clock)}, so {job.interval} has not happened "
            "yet; ask again once it has"
        )
    _cover(got, Interval(job.read_from, until), reasons(pieces), chains)
    return got


def _cover(got: Fetched, span: Interval, reason: str, chains: Chains) -> None:
    """Say that the span is read whole, but for the seconds of chains that are too full."""
    got.covered += [Covered(dataset, span, reason) for dataset in DATASETS]
    for (chain, second), why in sorted(chains.too_full.items()):
        begin, finish = max(span.start, _moment(second)), min(span.end, _moment(second + 1))
        if begin < finish:
            within = Interval(begin, finish)
            got.unread += [Unread(dataset, chain, within, why) for dataset in DATASETS]
            got.part_states[_second_part(chain, second)] = why
    got.part_states |= chains.states


def _partial(got: Fetched, walk: Walk, job: Job, chains: Chains) -> Fetched:
    """What a walk that was stopped has read, and the time it has read whole: each piece from its
    top down to where it was, but for one that lacks rows which the piece above has shown."""
    pieces = sorted(walk.pieces, key=lambda piece: -piece.top)
    got.pages += chains.pages
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
        _cover(got, span, "stopped: read down to here", chains)
    return got


def expected(job: Job, rows, _: datetime) -> dict[str, int]:
    """Calls a job will take: each page but the first begins with the last row of the one before."""
    count = rows("onchain_transactions", Interval(job.read_from, job.interval.end))
    calls = {HISTORY: int(max(count - 1, 0)) // (PAGE - 1) + 1}
    if count and not any(part.startswith(CHAIN_PART) for part in job.known):
        calls[CHAINS] = 1
    if job.snapshot and job.interval.start.date() < job.interval.end.date():
        calls[POSITIONS] = 1  # of a UTC day, the first sync
    return calls


@dataclass(frozen=True)
class _Wallet:
    """Whose history is walked, and what the walk learns of its chains."""

    client: Client
    session: Any
    job: Job
    chains: Chains


def _walk(wallet: _Wallet, walk: Walk) -> list[Piece]:
    """The pages of all transactions in [job.read_from, job.interval.end), newest piece first."""

    def step(piece: Piece) -> None:
        _Walker(wallet, piece).step()

    pieces = walk.run(wallet.client, step)
    for newer, older in zip(pieces, pieces[1:]):
        if not _lacks(older, newer):
            continue
        again = Piece(older.floor, older.top, older.top)
        while not again.reason:
            step(again)
        older.pages += again.pages
        if lacking := _lacks(again, newer):
            raise Retriable(
                f"debank account {wallet.job.account}, {HISTORY}: the page before "
                f"{iso(_moment(newer.floor))} lacks {len(lacking)} of the rows "
                "that the page above it has shown, so rows may be missing. Nothing of this "
                "interval was recorded; run again"
            )
    return pieces


def _lacks(older: Piece, newer: Piece) -> set[_Row]:
    """Rows below a cut, shown by the last page above it, that the first page below it lacks."""
    reach = older.first.rows[-1][0] if older.first.full else -1
    shown = {row for row in newer.last.rows if reach < row[0] < newer.floor}
    return shown - {*older.first.rows}


@dataclass(frozen=True)
class _Walker:
    """Reads one piece of a wallet's history. Times in whole seconds since 1970, UTC."""

    wallet: _Wallet
    piece: Piece

    def page(self, start_time: int, chain: str | None = None, shows: _Row | None = None) -> _Seen:
        """One page, of all chains or of one; `shows` is a row that it cannot lack."""
        params = {"id": self.wallet.job.account, "start_time": start_time, "page_count": PAGE}
        params |= {"chain_id": chain} if chain else {}
        answer = get(
            self.wallet.client,
            self.wallet.session,
            CHAIN_HISTORY if chain else HISTORY,
            params,
            lambda data: _wrong(data, shows),
            self.piece.pages,
        )
        seen = self.piece.last = _seen(answer.data)
        self.wallet.chains.shown |= {row[1] for row in seen.rows if row[1]}
        if self.piece.first is None:
            self.piece.first = seen
        return seen

    def step(self) -> None:
        """Read on: the piece's cursor goes down, or its paging has ended."""
        cursor, shows = self.piece.cursor, None
        if self.piece.pages:  # read from one second after the last row, which must come again
            shows = self.piece.last.rows[-1]
        seen = self.page(cursor, shows=shows)
        while not (reason := self._ended(seen)) and seen.rows[-1][0] + 1 >= cursor:
            # A whole page within one second: read that second chain by chain, then go below it.
            cursor = seen.rows[-1][0]
            self._second_by_chain(cursor, seen.rows)
            seen = self.page(cursor)
            if seen.rows and seen.rows[0][0] >= cursor:  # this host includes start_time itself
                seen = self.page(cursor - 1)
        self.piece.reason = reason
        if not reason:
            self.piece.cursor = seen.rows[-1][0] + 1

    def _ended(self, seen: _Seen) -> str:
        if not seen.full:
            return "short page" if seen.rows else "empty page"
        return "boundary crossed" if seen.rows[-1][0] < self.piece.floor else ""

    def _second_by_chain(self, second: int, known: list[_Row]) -> None:
        """All rows of a second; `known` are those its full page over all chains did show.

        DeBank cannot page within a second: a chain that has a page of them there is too full. It
        was so when it was last read, where `job.known` says so, and is not paid for again.
        """
        too_full = self.wallet.chains.too_full
        for chain in self.wallet.chains.listed({row[1] for row in known if row[1]}):
            if why := self.wallet.job.known.get(_second_part(chain, second)):
                too_full[chain, second] = why
                continue
            shows = next((row for row in known if row[1] == chain), None)
            cursor = second + 1
            seen = self.page(cursor, chain, shows)
            while seen.full and seen.rows[-1][0] >= second:
                if seen.rows[0][0] <= second:
                    too_full[chain, second] = (
                        f"{PAGE} or more transactions in one second on {chain}, where DeBank "
                        "cannot page: some may be missing, all others of the wallet are read"
                    )
                    break
                # A host that includes start_time showed the second after: ask one lower.
                cursor = min(seen.rows[-1][0] + 1, cursor - 1)
                seen = self.page(cursor, chain)


def _second_part(chain: str, second: int) -> str:
    """The part of the account (Fetched.part_states) that a second too full to be read is."""
    return f"second:{chain}:{second}"


def _seen(data: dict) -> _Seen:
    """A row without a readable time has no place in the order: the loader names it."""
    rows = []
    for row in data["history_list"]:
        if isinstance(row, dict) and (second := _time(row.get("time_at"))) is not None:
            rows.append((second, _text(row.get("chain")), _text(row.get("id"))))
    return _Seen(rows, len(data["history_list"]) >= PAGE)


def _time(value: Any) -> int | None:
    try:
        seconds = Decimal(str(value))
        # A number of a billion digits, which 1e999999999 says, would take the machine.
        return int(seconds) if FIRST_SECOND <= seconds <= LAST_SECOND else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _wrong(data: Any, shows: _Row | None) -> str | None:
    """What is wrong with a page of history, or None. An empty answer in the middle of a walk
    would end it silently: the row it was asked from must come again."""
    if wrong := listed("history_list")(data):
        return wrong
    seen = _seen(data)
    if seen.full and not seen.rows:
        return "no row has a readable time_at, so the walk cannot go on below it"
    seconds = [second for second, *_ in seen.rows]
    if seconds != sorted(seconds, reverse=True):
        return (
            "rows are not newest first, so the walk cannot know where to end; nothing of this "
            "interval was recorded"
        )
    if shows and shows not in seen.rows and (not seen.full or seconds[-1] < shows[0]):
        return (
            f"the last row of the page before ({shows[1]} {shows[2]}) is missing, so there "
            "may be more than it shows; nothing of this interval was recorded"
        )
    return None


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
