"""The fetch of an account: its wallets, the ledger of each, its fills and what they traded.

A wallet is a part of its account. One that has not changed since it was read whole (Job.known) is
not read again; the others are read together. One that cannot be read is named (Unread) and keeps
no other from the books.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from extract.core.errors import ExtractError, Fatal, FetchStopped, Retriable
from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job, Page, Unread
from extract.core.text import visible
from extract.fetch.client import Client
from extract.fetch.http import CcxtClients
from extract.sources.coinbase import calls
from extract.sources.coinbase.calls import ACCOUNTS, FILLS, PRODUCTS, TRANSACTIONS
from extract.sources.coinbase.wallets import WalletWalk, read_together

log = logging.getLogger(__name__)
Wallets = dict[str, str | None]  # id → what tells that it has not changed, None: nothing does


def fetch(client: Client, exchange: CcxtClients, job: Job) -> Fetched:
    """The ledger, the fills and (for snapshots) the balances of one account over a job.

    Raises Fatal for a wrong key, Retriable when trouble outlasts the retries, and the error of
    the first wallet where none can be read.
    """
    got, ledger = Fetched(), _Ledger()
    try:
        return _fetch(client, exchange, job, got, ledger)
    except FetchStopped as stop:
        if not ledger.read:  # of the time none is whole before the last wallet is read
            got.pages += ledger.pages()
        elif (clock := min(page.received_at for page in got.pages)) > job.read_from:
            _cover_ledger(got, job, clock, ledger)
        stop.partial = got
        raise


@dataclass
class _Ledger:
    """The wallets of an account, those of them that are walked, and whether all of these are over."""

    wallets: Wallets = field(default_factory=dict)
    walks: list[WalletWalk] = field(default_factory=list)
    read: bool = False

    def pages(self) -> list[Page]:
        """The pages of all walks, as far as they are."""
        return [page for walk in self.walks for page in walk.pages]


def _fetch(
    client: Client, exchange: CcxtClients, job: Job, got: Fetched, ledger: _Ledger
) -> Fetched:
    """The work of fetch(), into `got` and `ledger`."""
    as_of = _wallets(client, exchange, got, job, ledger.wallets)
    if as_of <= job.read_from:
        raise Fatal(
            f"the vendor's clock says {iso(as_of)}, so {job.interval} has not happened "
            "yet; ask again once it has"
        )
    if job.snapshot:
        got.covered.append(
            Covered(
                "balances", Interval(as_of, as_of + timedelta(seconds=1)), "last page of wallets"
            )
        )
    ledger.walks += [
        WalletWalk(wallet, min(job.read_from, job.unread.get(wallet, job.read_from)), job.read_from)
        for wallet, state in ledger.wallets.items()
        if wallet in job.unread or state is None or job.known.get(wallet) != state
    ]
    read_together(client, exchange, ledger.walks, set(job.unread))
    errors = [walk.error for walk in ledger.walks if walk.error]
    if errors and len(errors) == len(ledger.wallets):
        raise errors[0]  # not the trouble of one wallet
    got.pages += ledger.pages()
    ledger.read = True
    _products(client, exchange, got, _fills(client, exchange, got, job))
    # An answer whose clock is ahead of the others' proves nothing about the time in between.
    clock = min(page.received_at for page in got.pages)
    if clock <= job.read_from:
        raise Retriable(
            f"the vendor's clock jumps: it said {iso(as_of)}, then {iso(clock)}, "
            f"before {job.interval}; ask again later"
        )
    span = _cover_ledger(got, job, clock, ledger)
    got.covered.append(Covered("exchanges_trades", span, "empty cursor"))
    return got


def _cover_ledger(got: Fetched, job: Job, clock: datetime, ledger: _Ledger) -> Interval:
    """State what of the ledger is whole now, what could not be read, and what tells of a change."""
    wallets, walks = ledger.wallets, ledger.walks
    span = Interval(job.read_from, min(job.interval.end, clock))
    read = [walk for walk in walks if not walk.error]
    every = 0 < len(read) == len(wallets)  # an empty list is no proof that rows are gone
    got.covered.append(
        Covered(
            "exchanges_ledger",
            span,
            f"boundary crossed or last page in each of {len(read)} wallets"
            + ("" if every else ", the others unchanged or named as unread"),
            None if every else tuple(walk.wallet for walk in read),
        )
    )
    for walk in walks:
        since = Interval(walk.since, span.end)
        if walk.error:
            got.unread.append(Unread("exchanges_ledger", walk.wallet, since, str(walk.error)))
        elif walk.since < job.read_from:  # the time that it lacked until now
            got.covered.append(
                Covered(
                    "exchanges_ledger",
                    Interval(walk.since, job.read_from),
                    "read again from where it could not be read",
                    (walk.wallet,),
                )
            )
    walked = {walk.wallet: walk for walk in walks}
    got.part_states |= {
        wallet: state
        for wallet, state in wallets.items()
        if state and (wallet not in walked or walked[wallet].is_settled(job.interval.end))
    }
    return span


def _wallets(
    client: Client, exchange: CcxtClients, got: Fetched, job: Job, wallets: Wallets
) -> datetime:
    """Every v2 account, zero balances too (a spent wallet has a history), into `wallets`; returns
    the instant they speak of."""
    as_of, after, cursors = None, None, set()
    odd: list[str] = []
    while True:
        params = {"limit": calls.V2_PAGE} | ({"starting_after": after} if after else {})
        answer = client.call(
            ACCOUNTS,
            lambda: exchange.call(
                "v2PrivateGetAccounts",
                params,
                "data",
                lambda data: calls.wrong_v2(data, cursors),
            ),
        )
        as_of = as_of or answer.received_at
        got.pages.append(
            Page(ACCOUNTS, params, answer.body, answer.received_at, as_of if job.snapshot else None)
        )
        for row in answer.data["data"]:
            wallet, state = _state(row)
            if wallet:
                wallets[wallet] = state
            if not state:
                odd.append(wallet or f"without an id: {str(row)[:80]}")
        after = calls.after(answer.data)
        if not after:
            break
        cursors.add(after)
    if odd:
        log.warning(
            "coinbase account %s: %d wallets are listed without balance or updated_at, so that each "
            "fetch reads them: %s",
            job.account,
            len(odd),
            visible(", ".join(odd[:10])) + (", …" if len(odd) > 10 else ""),
        )
    return as_of


def _state(row: Any) -> tuple[str | None, str | None]:
    """(id, what tells that the wallet has not changed) of a row of ACCOUNTS."""
    if not isinstance(row, dict) or not row.get("id"):
        return None, None
    balance = row.get("balance")
    if not isinstance(balance, dict):
        balance = {}
    shown = [balance.get("amount"), balance.get("currency"), row.get("updated_at")]
    return str(row["id"]), " ".join(map(str, shown)) if all(shown) else None


def _fills(client: Client, exchange: CcxtClients, got: Fetched, job: Job) -> list[str]:
    """The fills, into `got`; returns the ids of the products that they traded."""
    cursor, cursors, products = None, set(), set()

    def wrong(data: dict) -> str | None:
        if not isinstance(data.get("cursor"), str):
            return "no cursor, so the end of the paging cannot be known"
        return calls.leads_on(data["cursor"], data["fills"], cursors)

    while True:
        params = {
            "limit": calls.FILLS_PAGE,
            "start_sequence_timestamp": iso(job.read_from),  # inclusive
            "end_sequence_timestamp": iso(job.interval.end),  # exclusive
        } | ({"cursor": cursor} if cursor else {})
        answer = client.call(
            FILLS,
            lambda: exchange.call(
                "v3PrivateGetBrokerageOrdersHistoricalFills", params, "fills", wrong
            ),
        )
        got.pages.append(Page(FILLS, params, answer.body, answer.received_at))
        found = (f.get("product_id") for f in answer.data["fills"] if isinstance(f, dict))
        products |= {product for product in found if product and isinstance(product, str)}
        cursor = answer.data["cursor"]
        if not cursor:
            return sorted(products)
        cursors.add(cursor)


def _products(client: Client, exchange: CcxtClients, got: Fetched, products: list[str]) -> None:
    """What the vendor's list says of the products; without it, their names say what they can."""
    for first in range(0, len(products), calls.PRODUCTS_A_CALL):
        params = {
            "product_ids": products[first : first + calls.PRODUCTS_A_CALL],
            "expiring_contract_status": "STATUS_ALL",  # what has expired was traded, too
        }
        try:
            answer = client.call(
                PRODUCTS,
                lambda: exchange.call("v3PrivateGetBrokerageProducts", params, "products"),
            )
        except FetchStopped:
            raise
        except ExtractError as error:
            log.warning("products are read from their names, since their list is not: %s", error)
            return
        got.pages.append(Page(PRODUCTS, params, answer.body, answer.received_at))


def expected(job: Job, rows, now: datetime) -> dict[str, int]:
    """Calls a job will take. The ledger cannot seek: each wallet that is read is walked from now to
    read_from. Which wallets are known is not said, so the busiest are taken for the others; a
    known one is read if it has changed, as likely as it has rows in the new time."""
    until = max(now, job.interval.end)
    wallets = rows("exchanges_ledger", Interval(job.read_from, until), "wallet")
    fresh = rows("exchanges_ledger", Interval(job.interval.start, until), "wallet")
    busiest = sorted(zip(fresh, wallets), reverse=True)
    unknown = max(0, len(wallets) - len(job.known))
    walked = sum(int(count) // calls.V2_PAGE + 1 for _, count in busiest[:unknown]) + sum(
        min(1.0, new) * (int(count) // calls.V2_PAGE + 1) for new, count in busiest[unknown:]
    )
    fills = rows("exchanges_trades", Interval(job.read_from, job.interval.end))
    return {
        ACCOUNTS: ceil(max(1, len(wallets)) / calls.V2_PAGE),
        TRANSACTIONS: round(walked),
        FILLS: int(fills) // calls.FILLS_PAGE + 1,
        PRODUCTS: 1 if fills >= 1 else 0,
    }
