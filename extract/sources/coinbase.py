"""Coinbase: Advanced Trade v3 for fills, v2 for the ledger (every wallet's transactions).

https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions
https://docs.cdp.coinbase.com/advanced-trade/reference/retailbrokerageapi_getfills

The ledger is the authority: v2 amounts include fees, and their sum is the balance. Fills only
enrich it. v2 transactions have no time filter: they come newest first, and the walk ends at
the first page whose oldest row is before the job's read_from. Limits: 10,000 v2 calls an hour,
30 v3 calls a second.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from extract.core.errors import Fatal, FetchStopped, Retriable
from extract.core.interval import Interval, iso, utc
from extract.core.records import Records
from extract.core.source import (
    Covered,
    Fetched,
    Form,
    FullRefreshCall,
    Job,
    Page,
    Rate,
    Source,
)
from extract.fetch.client import TIMEOUT_S, Client
from extract.fetch.http import ccxt_call
from extract.sources._sql import decimal

V2_PAGE = 100
FILLS_PAGE = 100

ACCOUNTS = "/v2/accounts"
TRANSACTIONS = "/v2/accounts/{id}/transactions"
FILLS = "/api/v3/brokerage/orders/historical/fills"


def connect(*, host: str, login: str, password: str, **_: Any):
    """A ccxt client for the host; its own pacing is off, since Client paces.

    Raises Fatal for a private key that cannot be read.
    """
    import ccxt

    exchange: Any = ccxt.coinbase(
        {
            "apiKey": login.strip(),
            "secret": _pem(password),
            "enableRateLimit": False,
            "timeout": round(TIMEOUT_S * 1000),
        }
    )
    exchange.urls["api"]["rest"] = host.rstrip("/")
    exchange.number = str  # amounts stay text, exactly as in the response
    return exchange


def _pem(text: str) -> str:
    """The private key with its line ends, which a one-line form field or a JSON file has lost."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    wrong = (
        "the private key cannot be used: it must be the whole text of an ECDSA (ES256) key, "
        "from -----BEGIN EC PRIVATE KEY----- to -----END EC PRIVATE KEY-----"
    )
    pem_text = re.fullmatch(
        r"-----BEGIN ([A-Z ]+)-----(.+?)-----END \1-----",
        text.replace("\\n", "\n").strip(),
        re.DOTALL,
    )
    if not pem_text:
        raise Fatal(wrong)
    kind, body = pem_text[1], "".join(pem_text[2].split())
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    pem = "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise Fatal(f"{wrong}; a character is missing or changed") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise Fatal(f"{wrong}; this is a key of another kind")
    return pem


def test_connection(client: Client, exchange: Any) -> str:
    """The Test button: the wallets on the first page, by one free call, the first of every fetch."""
    answer = client.call(
        ACCOUNTS,
        lambda: ccxt_call(
            exchange,
            exchange.v2PrivateGetAccounts,
            {"limit": V2_PAGE},
            "data",
            lambda data: _paging(data, set()),
        ),
    )
    rows = answer.data["data"]
    assets = list(dict.fromkeys(str(row["balance"]["currency"]) for row in rows))
    more = " or more" if answer.data["pagination"]["next_starting_after"] else ""
    return (
        f"sees {len(rows)}{more} wallets ({', '.join(assets[:5])}"
        f"{', …' if len(assets) > 5 else ''})"
    )


def fetch(client: Client, exchange: Any, job: Job) -> Fetched:
    """The ledger, the fills and (for snapshots) the balances of one account over a job.

    Raises Fatal for a wrong key, Retriable when trouble outlasts the retries.
    """
    got, read = Fetched(), []
    try:
        return _fetch(client, exchange, job, got, read)
    except FetchStopped as stop:
        # Wallets are read one after the other: of the time none is whole before the last one is.
        clock = min((page.received_at for page in got.pages), default=job.read_from)
        if read and clock > job.read_from:
            _cover_ledger(got, job, clock, read)
        stop.partial = got
        raise


def _fetch(client: Client, exchange: Any, job: Job, got: Fetched, read: list[str]) -> Fetched:
    """The work of fetch(), into `got`; `read` is filled once all of these wallets are read."""
    wallets, as_of = _wallets(client, exchange, got, job)
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
    for wallet in wallets:
        _transactions(client, exchange, got, job, wallet)
    read += wallets
    _fills(client, exchange, got, job)
    # An answer whose clock is ahead of the others' proves nothing about the time in between.
    clock = min(page.received_at for page in got.pages)
    if clock <= job.read_from:
        raise Retriable(
            f"the vendor's clock jumps: it said {iso(as_of)}, then {iso(clock)}, "
            f"before {job.interval}; ask again later"
        )
    span = _cover_ledger(got, job, clock, wallets)
    got.covered.append(Covered("exchanges_trades", span, "empty cursor"))
    return got


def _cover_ledger(got: Fetched, job: Job, clock: datetime, wallets: list[str]) -> Interval:
    span = Interval(job.read_from, min(job.interval.end, clock))
    got.covered.append(
        Covered(
            "exchanges_ledger",
            span,
            f"boundary crossed or last page in each of {len(wallets)} wallets",
        )
    )
    return span


def expected(job: Job, rows, now: datetime) -> dict[str, int]:
    """Calls a job will take. The ledger cannot seek: each wallet is walked from now to read_from."""
    wallets = rows(
        "exchanges_ledger", Interval(job.read_from, max(now, job.interval.end)), "wallet"
    )
    fills = rows("exchanges_trades", Interval(job.read_from, job.interval.end))
    return {
        ACCOUNTS: len(wallets) // V2_PAGE + 1,
        TRANSACTIONS: sum(int(count) // V2_PAGE + 1 for count in wallets),
        FILLS: int(fills) // FILLS_PAGE + 1,
    }


def _wallets(client: Client, exchange: Any, got: Fetched, job: Job):
    """Every v2 account's id, zero balances too (a spent wallet has a history), and the instant."""
    ids, as_of, after, cursors = [], None, None, set()
    while True:
        params = {"limit": V2_PAGE} | ({"starting_after": after} if after else {})
        answer = client.call(
            ACCOUNTS,
            lambda: ccxt_call(
                exchange,
                exchange.v2PrivateGetAccounts,
                params,
                "data",
                lambda data: _paging(data, cursors),
            ),
        )
        as_of = as_of or answer.received_at
        got.pages.append(
            Page(ACCOUNTS, params, answer.body, answer.received_at, as_of if job.snapshot else None)
        )
        ids += [row["id"] for row in answer.data["data"]]
        after = answer.data["pagination"]["next_starting_after"]
        if not after:
            return list(dict.fromkeys(ids)), as_of
        cursors.add(after)


def _paging(data: dict, cursors: set[str]) -> str | None:
    """What is wrong with the v2 cursor of a page, or None; `cursors` are those followed so far."""
    pagination = data.get("pagination")
    if not isinstance(pagination, dict) or "next_starting_after" not in pagination:
        return "no pagination.next_starting_after, so the end of the paging cannot be known"
    return _leads_on(pagination["next_starting_after"], data["data"], cursors)


def _leads_on(cursor: str | None, rows: list, cursors: set[str]) -> str | None:
    if cursor and cursor in cursors:
        return f"the cursor {cursor} was followed before: the paging goes in a circle"
    if cursor and not rows:
        return f"an empty page with a cursor ({cursor}) to more"
    return None


def _transactions(client: Client, exchange: Any, got: Fetched, job: Job, wallet: str) -> None:
    after, oldest, cursors = None, None, set()

    def wrong(data: dict) -> str | None:
        times = [utc(row["created_at"]) for row in data["data"]]
        if times != sorted(times, reverse=True) or (oldest and times and times[0] > oldest):
            return (
                f"transactions of wallet {wallet} are not newest first, so the walk cannot "
                "know where to end; nothing of this interval was recorded"
            )
        return _paging(data, cursors)

    while True:
        params = {"account_id": wallet, "limit": V2_PAGE, "order": "desc"}
        params |= {"starting_after": after} if after else {}
        answer = client.call(
            TRANSACTIONS,
            lambda: ccxt_call(
                exchange, exchange.v2PrivateGetAccountsAccountIdTransactions, params, "data", wrong
            ),
        )
        got.pages.append(Page(TRANSACTIONS, params, answer.body, answer.received_at))
        if rows := answer.data["data"]:
            oldest = utc(rows[-1]["created_at"])
        after = answer.data["pagination"]["next_starting_after"]
        if not after or (oldest and oldest < job.read_from):
            return
        cursors.add(after)


def _fills(client: Client, exchange: Any, got: Fetched, job: Job) -> None:
    cursor, cursors = None, set()

    def wrong(data: dict) -> str | None:
        if not isinstance(data.get("cursor"), str):
            return "no cursor, so the end of the paging cannot be known"
        return _leads_on(data["cursor"], data["fills"], cursors)

    while True:
        params = {
            "limit": FILLS_PAGE,
            "start_sequence_timestamp": iso(job.read_from),  # inclusive
            "end_sequence_timestamp": iso(job.interval.end),  # exclusive
        } | ({"cursor": cursor} if cursor else {})
        answer = client.call(
            FILLS,
            lambda: ccxt_call(
                exchange,
                exchange.v3PrivateGetBrokerageOrdersHistoricalFills,
                params,
                "fills",
                wrong,
            ),
        )
        got.pages.append(Page(FILLS, params, answer.body, answer.received_at))
        cursor = answer.data["cursor"]
        if not cursor:
            return
        cursors.add(cursor)


# v2 types: https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions#transaction-types
_KIND = """CASE
    WHEN type IN ('advanced_trade_fill', 'buy', 'sell', 'derivatives_settlement') THEN 'trade'
    WHEN type IN ('trade', 'wrap_asset', 'unwrap_asset') THEN 'conversion'
    WHEN type IN ('fiat_deposit', 'exchange_deposit') THEN 'deposit'
    WHEN type IN ('fiat_withdrawal', 'exchange_withdrawal') THEN 'withdrawal'
    WHEN type IN ('send', 'receive', 'request', 'tx') THEN
        CASE WHEN starts_with(amount_text, '-') THEN 'withdrawal' ELSE 'deposit' END
    WHEN type IN ('staking_reward', 'inflation_reward', 'interest', 'earn_payout',
        'incentives_rewards_payout', 'learning_reward', 'cardbuyback', 'subscription_rebate')
        THEN 'reward'
    WHEN type IN ('staking_transfer', 'unstaking_transfer', 'retail_eth2_deprecation',
        'pro_deposit', 'pro_withdrawal', 'vault_withdrawal', 'transfer',
        'intx_deposit', 'intx_withdrawal') THEN 'transfer'
    WHEN type IN ('subscription', 'subscription_fee', 'cardspend', 'fee') THEN 'fee'
    ELSE 'unknown' END"""

# Each record is read into its fields once (a path at a time is four times slower), and kept as
# text beside them.
_ENTRY = """{"id": "VARCHAR", "type": "VARCHAR", "status": "VARCHAR", "created_at": "VARCHAR",
    "amount": {"amount": "VARCHAR", "currency": "VARCHAR"},
    "network": {"hash": "VARCHAR", "network_name": "VARCHAR",
                "transaction_fee": {"amount": "VARCHAR", "currency": "VARCHAR"}},
    "advanced_trade_fill": {"commission": "VARCHAR", "product_id": "VARCHAR",
                            "order_id": "VARCHAR"},
    "trade": {"id": "VARCHAR", "fee": {"amount": "VARCHAR", "currency": "VARCHAR"}}}"""
_FILL = """{"trade_id": "VARCHAR", "trade_time": "VARCHAR", "order_id": "VARCHAR",
    "product_id": "VARCHAR", "side": "VARCHAR", "price": "VARCHAR", "size": "VARCHAR",
    "size_in_quote": "VARCHAR", "commission": "VARCHAR", "liquidity_indicator": "VARCHAR"}"""
_WALLET = '{"id": "VARCHAR", "balance": {"amount": "VARCHAR", "currency": "VARCHAR"}}'

LEDGER = f"""
SELECT page_id, item, source, account, entry_id, ts, wallet, type, {_KIND} AS kind, status,
       status = 'completed' AS is_settled, asset,
       amount_text, {decimal("amount_text")} AS amount,
       fee_text, {decimal("fee_text")} AS fee, fee_asset, network, tx_hash, order_id,
       trade_id, payload
FROM (
    SELECT page_id, item, source, account, row.id AS entry_id,
           row.created_at::TIMESTAMP AS ts,
           params->>'$.account_id' AS wallet, row.type AS type,
           row.status AS status, row.amount.currency AS asset, row.amount.amount AS amount_text,
           coalesce(row.network.transaction_fee.amount, row.advanced_trade_fill.commission,
               row.trade.fee.amount) AS fee_text,
           coalesce(row.network.transaction_fee.currency,
               CASE WHEN row.advanced_trade_fill.commission IS NOT NULL THEN
                   split_part(row.advanced_trade_fill.product_id, '-', 2) END,
               row.trade.fee.currency) AS fee_asset,
           row.network.network_name AS network, row.network.hash AS tx_hash,
           row.advanced_trade_fill.order_id AS order_id, row.trade.id AS trade_id, payload
    FROM records_ledger)
"""

# Perpetuals are ADA-PERP-INTX in the response and ADA/USDC:USDC in unified symbols (as ccxt reads).
TRADES = f"""
SELECT page_id, item, source, account,
       base || '/' || quote || CASE WHEN swap THEN ':' || quote ELSE '' END AS symbol,
       row.trade_id AS trade_id, row.trade_time::TIMESTAMP AS ts,
       row.order_id AS order_id, base, quote, lower(row.side) AS side,
       row.price AS price_text, {decimal("row.price")} AS price,
       CASE WHEN NOT in_quote THEN row.size END AS amount_text,
       CASE WHEN NOT in_quote THEN {decimal("row.size")} END AS amount,
       CASE WHEN in_quote THEN row.size END AS cost_text,
       CASE WHEN in_quote THEN {decimal("row.size")} END AS cost,
       row.commission AS fee_text, {decimal("row.commission")} AS fee,
       quote AS fee_asset, lower(row.liquidity_indicator) AS liquidity, payload
FROM (
    SELECT *, product LIKE '%-PERP-%' AS swap, split_part(product, '-', 1) AS base,
           CASE WHEN product LIKE '%-PERP-%' THEN 'USDC' ELSE split_part(product, '-', 2) END
               AS quote,
           coalesce(row.size_in_quote, 'false') = 'true' AS in_quote
    FROM (SELECT *, row.product_id AS product FROM records_fills))
"""

BALANCES = f"""
SELECT page_id, item, source, account, row.id AS wallet, row.balance.currency AS token,
       as_of AS ts, row.balance.amount AS amount_text,
       {decimal("row.balance.amount")} AS amount, payload,
       NULL::VARCHAR AS price_text, NULL::DECIMAL(38,18) AS price, NULL::BOOLEAN AS is_verified
FROM records_wallets WHERE as_of IS NOT NULL
"""

SOURCE = Source(
    name="coinbase",
    documentation="https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions",
    form=Form(
        title="Coinbase",
        host="https://api.coinbase.com",
        login="API key name",
        password="private key",
        hints={
            "login": "organizations/…/apiKeys/…",
            "password": "-----BEGIN EC PRIVATE KEY----- … (ECDSA; view permission only)",
        },
    ),
    connect=connect,
    test_connection=test_connection,
    fetch=fetch,
    records={
        "ledger": Records((TRANSACTIONS,), "data", _ENTRY),
        "fills": Records((FILLS,), "fills", _FILL),
        "wallets": Records((ACCOUNTS,), "data", _WALLET),
    },
    mappings={"exchanges_ledger": LEDGER, "exchanges_trades": TRADES, "balances": BALANCES},
    rates={"/v2/": Rate(10_000, 3600, burst=100), "/api/v3/": Rate(30, strict=True)},
    expected=expected,
    whole=(
        FullRefreshCall(ACCOUNTS, "balances", V2_PAGE, lists_column="wallet"),
        FullRefreshCall(TRANSACTIONS, "exchanges_ledger", V2_PAGE, per_column="wallet"),
        FullRefreshCall(FILLS, "exchanges_trades", FILLS_PAGE, probes_past_end=True),
    ),
)
