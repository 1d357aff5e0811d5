"""DeBank Cloud OpenAPI v1: every transaction of a wallet over all chains, paid per call.

https://docs.cloud.debank.com/en/readme/api-pro-reference/user

`start_time` is an upper bound and pages of 20 come newest first, so a walk goes backwards: from
the end of the interval, each page asked from one second after the last row of the page before
(rows of one second may straddle a page), until a page is short or ends before the tail. The
documentation does not say whether `start_time` itself is included: the walk is right under
both. Limit: 100 calls a second. Prices of calls are not published: set `units` in the
Connection's extra; the truth is the difference of /v1/account/units, read with every balance snapshot.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from extract.client import Client, ExtractError, Fatal, Retriable, UnitsExhausted
from extract.source import UTC, Covered, Fetched, Interval, Job, Page, Source, iso
from extract.wire import http_call, listed

PAGE = 20
HISTORY = "/v1/user/all_history_list"
CHAIN_HISTORY = "/v1/user/history_list"
CHAINS = "/v1/user/used_chain_list"
TOKENS = "/v1/user/all_token_list"
UNITS = "/v1/account/units"

# What a call costs, in units: assumed, since DeBank does not publish it.
UNIT_PRICES = {HISTORY: 20, CHAIN_HISTORY: 6, CHAINS: 2, TOKENS: 10, UNITS: 0}


def connect(*, host: str, password: str, **_: Any):
    """A requests session that carries the access key, and knows the host."""
    import requests

    session = requests.Session()
    session.headers["AccessKey"] = password
    session.host = host.rstrip("/")
    return session


def fetch(client: Client, session: Any, job: Job) -> Fetched:
    """All transactions of one wallet in [job.tail, job.interval.end), and its token balances.

    Raises Fatal when the key is wrong or the units are used up, or when more transactions
    than a page holds share one second on one chain.
    """
    got = Fetched()
    as_of = None
    if job.snapshot:
        as_of = _snapshot(client, session, got, job)
    walk = _Walk(client, session, got, job)
    reason = walk.all_chains()
    clock = as_of or got.pages[0].received_at
    until = min(job.interval.end, clock)
    if until <= job.tail:
        raise Fatal(f"the vendor's clock says {iso(clock)}, so {job.interval} has not happened "
                    "yet; ask again once it has")
    span = Interval(job.tail, until)
    got.covered += [Covered("onchain_transactions", span, reason),
                    Covered("onchain_transfers", span, reason)]
    if job.snapshot:
        _get(client, session, UNITS, {}, lambda d: None if isinstance(d, dict) and "balance" in d
             else "no balance", got)
    return got


def _get(client: Client, session: Any, endpoint: str, params: dict, expect, got: Fetched,
         snapshot: bool = False):
    """One paid call; its page is kept. HTTP 403 means the units are used up: no retry helps."""
    def send():
        try:
            answer = http_call(session, session.host + endpoint, params, expect)
        except ExtractError as error:
            raise _explained(error) from None
        rows = answer.data if isinstance(answer.data, list) else \
            answer.data.get("history_list")
        left = answer.data.get("balance") if endpoint == UNITS else None
        return type(answer)(answer.status, answer.body, answer.data, answer.received_at,
                            len(rows) if rows is not None else None, left)

    answer = client.call(endpoint, send)
    got.pages.append(Page(endpoint, params, answer.body, answer.received_at,
                          answer.received_at if snapshot else None))
    return answer


def _explained(error: ExtractError) -> ExtractError:
    status = getattr(error, "status", None)
    if status == 403:
        found: ExtractError = UnitsExhausted(
            f"{error}. DeBank units are used up: buy more at cloud.debank.com, then run again; "
            "what was loaded before is kept and not paid for twice")
    elif status == 401:
        found = Fatal(f"{error}. DeBank refused the access key: check the password of the "
                      "Airflow Connection")
    else:
        return error
    found.status = status
    return found


def _snapshot(client: Client, session: Any, got: Fetched, job: Job) -> datetime:
    answer = _get(client, session, TOKENS, {"id": job.account, "is_all": "true"},
                  lambda d: None if isinstance(d, list) else "not a list of tokens", got, True)
    as_of = answer.received_at
    got.covered.append(Covered("balances", Interval(as_of, as_of + timedelta(seconds=1)),
                               "the list is not paged"))
    return as_of


class _Walk:
    """The backward walk over one wallet. Times in whole seconds since 1970, UTC."""

    def __init__(self, client: Client, session: Any, got: Fetched, job: Job):
        self.client, self.session, self.got, self.job = client, session, got, job
        self.start = _seconds(job.tail)
        # Rows at the end itself belong to the next interval; one second more costs nothing
        # and catches rows of a fraction of a second.
        self.end = _seconds(job.interval.end) + (job.interval.end.microsecond > 0)

    def page(self, start_time: int, chain: str | None = None) -> list[int]:
        """The seconds of one page's rows, newest first."""
        params = {"id": self.job.account, "start_time": start_time, "page_count": PAGE}
        params |= {"chain_id": chain} if chain else {}
        endpoint = CHAIN_HISTORY if chain else HISTORY
        answer = _get(self.client, self.session, endpoint, params, listed("history_list"),
                      self.got)
        times = [row.get("time_at") for row in answer.data["history_list"]]
        if any(t is None for t in times):
            raise Retriable(f"{endpoint}: a row without time_at")
        times = [int(t) for t in times]
        if times != sorted(times, reverse=True):
            raise Fatal(f"{endpoint}: rows are not newest first, so the walk cannot know where to "
                        "end; nothing of this interval was recorded")
        return times

    def all_chains(self) -> str:
        """Walk to the tail; returns why it ended."""
        cursor = self.end
        while True:
            times = self.page(cursor)
            if reason := self._ended(times):
                return reason
            following = times[-1] + 1
            if following < cursor:
                cursor = following
                continue
            # A whole page within one second: read that second chain by chain, then go below it.
            stuck = times[-1]
            self._second_by_chain(stuck)
            times = self.page(stuck)
            if times and times[0] >= stuck:   # this host includes start_time itself
                times = self.page(stuck - 1)
            if reason := self._ended(times):
                return reason
            cursor = times[-1] + 1

    def _ended(self, times: list[int]) -> str:
        if len(times) < PAGE:
            return "short page" if times else "empty page"
        return "boundary crossed" if times[-1] < self.start else ""

    def _second_by_chain(self, second: int) -> None:
        chains = _get(self.client, self.session, CHAINS, {"id": self.job.account},
                      lambda d: None if isinstance(d, list) else "not a list of chains", self.got)
        for chain in (c["id"] for c in chains.data):
            times = self.page(second + 1, chain)
            while len(times) == PAGE and times[-1] >= second:
                if times[0] <= second:
                    raise Fatal(
                        f"wallet {self.job.account}, chain {chain}: {PAGE} or more transactions "
                        f"in the second {iso(datetime.fromtimestamp(second, UTC))}; DeBank "
                        "cannot page within a second, so they cannot all be read. Nothing of "
                        "this interval was recorded; report the wallet to DeBank")
                times = self.page(times[-1] + 1, chain)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


_MONEY = "TRY_CAST({0} AS DECIMAL(38,18))"
_TIME = "make_timestamp((({0})::DECIMAL(20,6) * 1000000)::BIGINT)"

# One row a transaction of a page; `legs` of it are unnested below.
_ITEMS = f"""
SELECT page_id, item, source, account, row, row->>'$.chain' AS chain, row->>'$.id' AS tx_id,
       {_TIME.format("row->>'$.time_at'")} AS ts,
       coalesce(row->>'$.is_scam', 'false') = 'true' AS is_scam,
       TRY_CAST(row->>'$.tx.status' AS INTEGER) AS status
FROM (SELECT page_id, source, account, rows[item] AS row, item
      FROM (SELECT *, from_json(body->'$.history_list', '["JSON"]') AS rows FROM pages
            WHERE endpoint IN ('{HISTORY}', '{CHAIN_HISTORY}')),
           range(1, len(rows) + 1) AS i(item))
"""

# Gas and "who sent it" are about the account only where it is the sender; an address compares
# without its checksum's capitals.
TRANSACTIONS = f"""
SELECT page_id, item, source, account, chain, tx_id, ts, row->>'$.cate_id' AS category,
       row->>'$.tx.name' AS method, status, is_scam,
       row->>'$.tx.from_addr' AS from_addr, row->>'$.tx.to_addr' AS to_addr,
       row->>'$.other_addr' AS other_addr, row->>'$.project_id' AS project,
       row->>'$.cex_id' AS cex,
       coalesce(lower(row->>'$.tx.from_addr') = lower(account), false) AS pays_gas,
       row->>'$.tx.eth_gas_fee' AS gas_text, {_MONEY.format("row->>'$.tx.eth_gas_fee'")} AS gas,
       row->>'$.token_approve.token_id' AS approve_token,
       row->>'$.token_approve.spender' AS approve_spender,
       row->>'$.token_approve.value' AS approve_text, row::VARCHAR AS payload
FROM ({_ITEMS})
"""

TRANSFERS = f"""
SELECT page_id, item, source, account, chain, tx_id, direction,
       (row_number() OVER (PARTITION BY page_id, item, direction
           ORDER BY leg_row->>'$.token_id', counterparty, amount, amount_text, n))::INTEGER AS leg,
       ts, leg_row->>'$.token_id' AS token, counterparty, amount_text, amount, is_scam,
       coalesce(status, 1) = 1 AS is_settled, leg_row::VARCHAR AS payload
FROM (
    SELECT *, legs[n] AS leg_row, legs[n]->>'$.amount' AS amount_text,
           {_MONEY.format("legs[n]->>'$.amount'")} AS amount,
           coalesce(legs[n]->>'$.to_addr', legs[n]->>'$.from_addr') AS counterparty
    FROM (
        SELECT *, 'out' AS direction, from_json(row->'$.sends', '["JSON"]') AS legs
        FROM ({_ITEMS})
        UNION ALL
        SELECT *, 'in', from_json(row->'$.receives', '["JSON"]') FROM ({_ITEMS})
    ), range(1, len(legs) + 1) AS i(n))
"""

# Keyed by token id alone, a token of the same address on two chains collides in the
# dictionary: each entry names its own chain, and only that is believed.
TOKEN_FACTS = f"""
SELECT page_id, row_number() OVER (PARTITION BY page_id) AS item, source, row->>'$.chain' AS chain,
       row->>'$.id' AS token, coalesce(row->>'$.optimized_symbol', row->>'$.symbol') AS symbol,
       row->>'$.name' AS name, TRY_CAST(row->>'$.decimals' AS INTEGER) AS decimals,
       (row->>'$.is_verified') = 'true' AS is_verified
FROM (
    SELECT page_id, source, unnest(map_values(CAST(coalesce(
               body->'$.token_dict', body->'$.token_uuid_dict') AS MAP(VARCHAR, JSON)))) AS row
    FROM pages WHERE endpoint IN ('{HISTORY}', '{CHAIN_HISTORY}')
    UNION ALL
    SELECT page_id, source, unnest(from_json(body, '["JSON"]')) FROM pages
    WHERE endpoint = '{TOKENS}')
WHERE (row->>'$.chain') IS NOT NULL AND (row->>'$.id') IS NOT NULL
  AND TRY_CAST(row->>'$.decimals' AS INTEGER) IS NOT NULL
"""

# raw_amount is a JSON number that has lost digits where it is long; the hex text is exact.
BALANCES = f"""
SELECT page_id, item, source, account, chain AS wallet, chain || ':' || token AS token, ts,
       amount_text, {_MONEY.format('amount_text')} AS amount, payload
FROM (
    SELECT page_id, item, source, account, row->>'$.chain' AS chain, row->>'$.id' AS token,
           as_of AS ts, row::VARCHAR AS payload,
           coalesce(units_text(row->>'$.raw_amount_hex_str', row->>'$.decimals'),
                    row->>'$.amount') AS amount_text
    FROM (SELECT page_id, source, account, as_of, rows[item] AS row, item
          FROM (SELECT *, from_json(body, '["JSON"]') AS rows FROM pages
                WHERE endpoint = '{TOKENS}'), range(1, len(rows) + 1) AS i(item)))
"""

SOURCE = Source(
    name="debank",
    documentation="https://docs.cloud.debank.com/en/readme/api-pro-reference/user",
    connect=connect,
    fetch=fetch,
    mappings={"onchain_tokens": TOKEN_FACTS, "onchain_transactions": TRANSACTIONS,
              "onchain_transfers": TRANSFERS, "balances": BALANCES},
    rates={"/v1/": (95.0, 1.0)},  # a little below: two tasks may follow each other closely
    units=UNIT_PRICES,
    monthly=True,
)
