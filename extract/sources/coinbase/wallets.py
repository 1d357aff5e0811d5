"""The ledgers of an account's wallets, newest first, read by several threads.

v2 transactions have no time filter: a walk ends at the first page whose oldest row is before the
time it is asked for. That holds only as long as the rows do come newest first; a wallet whose
rows do not is read to its last page.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

from extract.core.errors import ExtractError, FetchStopped, RateLimited, Retriable
from extract.core.records import time_of
from extract.core.source import Page
from extract.core.text import visible
from extract.fetch.client import Client
from extract.fetch.http import CcxtClients
from extract.sources.coinbase import calls
from extract.sources.coinbase.calls import TRANSACTIONS

log = logging.getLogger(__name__)
FINAL = ("completed", "failed", "canceled", "expired")
# A wallet that fails is asked once more at once, and with patience when all others are read. A
# vendor with many such wallets must not cost a minute for each at every sync: after so many were
# asked in vain with patience, the rest waits for the next fetch; so does one that failed before.
AT_FIRST = 2
IN_VAIN = 3


@dataclass(eq=False)
class WalletWalk:
    """The reading of one wallet from now back to `since`; `read_from` is the job's."""

    wallet: str
    since: datetime
    read_from: datetime
    pages: list[Page] = field(default_factory=list)
    over: bool = False  # read whole, or given up
    error: ExtractError | None = None  # why it could not be read
    oldest: datetime | None = None
    newest: datetime | None = None
    in_order: bool = True
    all_final: bool = True
    _after: str | None = None
    _cursors: set[str] = field(default_factory=set)

    def is_settled(self, end: datetime) -> bool:
        """Whether nothing that it holds will change by itself, or lies at `end` or later."""
        late = self.newest is not None and self.newest >= end
        return self.over and not self.error and self.all_final and not late

    def read(self, client: Client, exchange: CcxtClients, tries: int | None) -> None:
        """Read on from where it was left; an error that is this wallet's own is kept in `error`.

        Raises what is not: a stop, a wrong key, too many calls.
        """
        self.error = None
        try:
            while not self.over:
                self._next_page(client, exchange, tries)
        except ExtractError as error:
            if isinstance(error, (FetchStopped, RateLimited)) or error.status == 401:
                raise
            self.error, self.over = error, True

    def _next_page(self, client: Client, exchange: CcxtClients, tries: int | None) -> None:
        params = {"account_id": self.wallet, "limit": calls.V2_PAGE, "order": "desc"}
        params |= {"starting_after": self._after} if self._after else {}
        answer = client.call(
            TRANSACTIONS,
            lambda: exchange.call(
                "v2PrivateGetAccountsAccountIdTransactions",
                params,
                "data",
                lambda data: calls.wrong_v2(data, self._cursors),
            ),
            tries=tries,
        )
        again = self.since if self.since < self.read_from else None
        self.pages.append(
            Page(TRANSACTIONS, params, answer.body, answer.received_at, read_from=again)
        )
        for row in answer.data["data"]:
            self._take(row if isinstance(row, dict) else {})
        self._after = calls.after(answer.data)
        crossed = self.in_order and self.oldest is not None and self.oldest < self.since
        if self._after and not crossed:
            self._cursors.add(self._after)
        else:
            self.over = True

    def _take(self, row: dict[str, Any]) -> None:
        """What a row says of the order, and of what is still to come."""
        self.all_final = self.all_final and row.get("status") in FINAL
        at = time_of(row.get("created_at"))
        if self.in_order and (at is None or (self.oldest is not None and at > self.oldest)):
            self.in_order = False
            log.warning(
                "wallet %s: entry %s is not in its place (%s; newest come first), so the wallet is "
                "read to its last page",
                visible(self.wallet),
                visible(str(row.get("id"))),
                visible(str(row.get("created_at"))),
            )
        if at is not None:
            self.oldest = min(at, self.oldest or at)
            self.newest = max(at, self.newest or at)


def read_together(
    client: Client, exchange: CcxtClients, walks: list[WalletWalk], sick: set[str]
) -> None:
    """Read the wallets, several at once; `sick` could not be read before, and are asked once.

    Raises what concerns all of them; what concerns one is in its `error`.
    """
    _each(
        client,
        walks,
        lambda walk: walk.read(client, exchange, 1 if walk.wallet in sick else AT_FIRST),
    )
    in_vain, lock = 0, Lock()

    def once_more(walk: WalletWalk) -> None:
        nonlocal in_vain
        if in_vain < IN_VAIN:
            walk.over = False
            walk.read(client, exchange, None)
            with lock:
                in_vain += walk.error is not None

    passing = [walk for walk in walks if isinstance(walk.error, Retriable)]
    _each(client, [walk for walk in passing if walk.wallet not in sick], once_more)


def _each(client: Client, walks: list[WalletWalk], work: Callable[[WalletWalk], None]) -> None:
    """Do `work` on each, by as many threads as the client has for one fetch."""
    left = deque(walks)

    def worker(_: None, fork: Callable[[Any], bool]) -> None:
        while left:
            try:
                walk = left.popleft()
            except IndexError:  # another thread was faster
                return
            if left:
                fork(None)
            work(walk)

    client.run_concurrently(worker, None)
