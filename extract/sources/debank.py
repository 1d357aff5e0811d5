"""DeBank Cloud OpenAPI v1: every transaction of a wallet over all chains, paid per call.

https://docs.cloud.debank.com/en/readme/api-pro-reference/user

`start_time` is an upper bound and pages of 20 come newest first, so a walk goes backwards: from
the end of the interval, each page asked from one second after the last row of the page before
(rows of one second may straddle a page), until a page is short or ends before read_from. The
documentation does not say whether `start_time` itself is included: the walk is right under
both. A long walk is cut in time and its pieces are read together (`extract/fetch/backward_walk.py`). Limit: 100
calls a second, taken as strict. Prices of calls are not published: set `units` in the
Connection's extra; the truth is the difference of /v1/account/units, read before and after the
fetches of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from extract.core.errors import ExtractError, Fatal, FetchStopped, Retriable, UnitsExhausted
from extract.core.interval import UTC, Interval, iso, union
from extract.core.source import (
    Covered,
    Fetched,
    Form,
    FullRefreshCall,
    Job,
    Page,
    Rate,
    Records,
    Source,
)
from extract.fetch.backward_walk import Piece, Walk, reasons
from extract.fetch.client import WORKERS, Client, failed
from extract.fetch.http import http_call, listed
from extract.sources._sql import decimal

PAGE = 20
_Row = tuple[int, str, str]  # second, chain, id
HISTORY = "/v1/user/all_history_list"
CHAIN_HISTORY = "/v1/user/history_list"
CHAINS = "/v1/user/used_chain_list"
TOKENS = "/v1/user/all_token_list"
UNITS = "/v1/account/units"

# What a call costs, in units: assumed, since DeBank does not publish it.
UNIT_PRICES = {HISTORY: 20, CHAIN_HISTORY: 6, CHAINS: 2, TOKENS: 10, UNITS: 0}


def connect(*, host: str, password: str, **_: Any):
    """A requests session that carries the access key, and knows the host.

    Its calls share nothing but the headers and a pool of connections, one a worker: it may be
    used by several threads. Raises Fatal for an access key that no header can carry.
    """
    import requests

    password = password.strip()
    if not password.isascii() or not password.isprintable():
        raise Fatal("the access key holds a line end or a letter that no key has: copy it again")
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=WORKERS))
    session.headers["AccessKey"] = password
    session.host = host.rstrip("/")
    # The environment's proxy and certificates are looked up once, not at every call (0.3 ms).
    settings = session.merge_environment_settings(session.host, {}, None, None, None)
    session.proxies, session.verify = settings["proxies"], settings["verify"]
    session.trust_env = False
    return session


def remaining_units(client: Client, session: Any) -> int:
    """The units left, as the vendor counts them: one call, at no units."""
    return int(_get(client, session, UNITS, {}, _no_balance, []).data["balance"])


def test_connection(client: Client, session: Any) -> str:
    """The units left: one call, at no units."""
    left = _get(client, session, UNITS, {}, _no_balance, []).data["balance"]
    if left <= 0:
        raise UnitsExhausted("no units are left: buy more at cloud.debank.com")
    return f"has {left:,.0f} units left"


def _no_balance(data: Any) -> str | None:
    found = data.get("balance") if isinstance(data, dict) else None
    return None if isinstance(found, (int, Decimal)) else "no balance"


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
        stop.partial = _kept(got, walk, job)
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


def _kept(got: Fetched, walk: Walk, job: Job) -> Fetched:
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


def _get(
    client: Client,
    session: Any,
    endpoint: str,
    params: dict,
    expect,
    pages: list[Page],
    snapshot: bool = False,
):
    """One paid call; its page is kept. HTTP 403 means the units are used up: no retry helps."""

    def send():
        try:
            answer = http_call(
                session,
                session.host + endpoint,
                params,
                lambda data: _refused(data) or expect(data),
            )
        except ExtractError as error:
            raise _explained(error) from None
        rows = answer.data if isinstance(answer.data, list) else answer.data.get("history_list")
        left = answer.data.get("balance") if endpoint == UNITS else None
        return type(answer)(
            answer.status,
            answer.body,
            answer.data,
            answer.received_at,
            len(rows) if rows is not None else None,
            left,
        )

    answer = client.call(endpoint, send)
    pages.append(
        Page(
            endpoint,
            params,
            answer.body,
            answer.received_at,
            answer.received_at if snapshot else None,
        )
    )
    return answer


# What the vendor's error object means where it comes with HTTP 200; anything else may pass.
_MEANINGS = (("unauthorized", 401), ("units", 403), ("too many", 429))


def _refused(data: Any) -> None:
    """Raises what an error object stands for, by its words: it is never "no rows"."""
    if isinstance(data, dict) and data.get("errors"):
        said = str(data["errors"])
        status = next((s for words, s in _MEANINGS if words in said.lower()), 500)
        raise failed(status, f"said with HTTP 200: {said}", {})


def _explained(error: ExtractError) -> ExtractError:
    """The same error; HTTP 403 as UnitsExhausted, saying what to do."""
    if error.status != 403:
        return error
    return UnitsExhausted(
        f"{error}. DeBank units are used up: buy more at cloud.debank.com, then run again; "
        "what was loaded before is kept and not paid for twice",
        status=403,
    )


def _snapshot(client: Client, session: Any, got: Fetched, job: Job) -> None:
    answer = _get(
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
        answer = _get(
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
        chains = _get(
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


_TIME = "make_timestamp((({0})::DECIMAL(18,6)::DECIMAL(38,6) * 1000000)::BIGINT)"

_LEG = """{"amount": "VARCHAR", "token_id": "VARCHAR", "to_addr": "VARCHAR",
    "from_addr": "VARCHAR"}"""
_ITEM = f"""{{"chain": "VARCHAR", "id": "VARCHAR", "time_at": "VARCHAR", "is_scam": "VARCHAR",
    "cate_id": "VARCHAR", "other_addr": "VARCHAR", "project_id": "VARCHAR", "cex_id": "VARCHAR",
    "tx": {{"status": "VARCHAR", "name": "VARCHAR", "from_addr": "VARCHAR",
           "to_addr": "VARCHAR", "eth_gas_fee": "VARCHAR"}},
    "token_approve": {{"token_id": "VARCHAR", "spender": "VARCHAR", "value": "VARCHAR"}},
    "sends": [{_LEG}], "receives": [{_LEG}]}}"""

# One row a transaction of a page; its legs are unnested below.
_ITEMS = f"""
SELECT page_id, item, source, account, row, row.chain AS chain, row.id AS tx_id,
       {_TIME.format("row.time_at")} AS ts, coalesce(row.is_scam, 'false') = 'true' AS is_scam,
       TRY_CAST(row.tx.status AS INTEGER) AS status, payload
FROM records_history
"""

# Gas and "who sent it" are about the account only where it is the sender; an address compares
# without its checksum's capitals.
TRANSACTIONS = f"""
SELECT page_id, item, source, account, chain, tx_id, ts, row.cate_id AS category,
       row.tx.name AS method, status, is_scam,
       row.tx.from_addr AS from_addr, row.tx.to_addr AS to_addr,
       row.other_addr AS other_addr, row.project_id AS project, row.cex_id AS cex,
       coalesce(lower(row.tx.from_addr) = lower(account), false) AS pays_gas,
       row.tx.eth_gas_fee AS gas_text, {decimal("row.tx.eth_gas_fee")} AS gas,
       row.token_approve.token_id AS approve_token,
       row.token_approve.spender AS approve_spender,
       row.token_approve.value AS approve_text, payload
FROM ({_ITEMS})
"""

TRANSFERS = f"""
SELECT page_id, item, source, account, chain, tx_id, direction,
       (row_number() OVER (PARTITION BY page_id, item, direction
           ORDER BY token, counterparty, amount, amount_text, n))::INTEGER AS leg,
       ts, token, counterparty, amount_text, amount, is_scam,
       coalesce(status, 1) = 1 AS is_settled, payload
FROM (
    SELECT * EXCLUDE (legs, texts, leg), leg.token_id AS token, leg.amount AS amount_text,
           {decimal("leg.amount")} AS amount, coalesce(leg.to_addr, leg.from_addr) AS counterparty
    FROM (
        SELECT *, generate_subscripts(legs, 1) AS n, unnest(legs) AS leg,
               unnest(from_json(texts, '["JSON"]'))::VARCHAR AS payload
        FROM (
            SELECT * EXCLUDE (row, payload), 'out' AS direction, row.sends AS legs,
                   payload->'$.sends' AS texts FROM ({_ITEMS}) WHERE len(row.sends) > 0
            UNION ALL
            SELECT * EXCLUDE (row, payload), 'in', row.receives, payload->'$.receives'
            FROM ({_ITEMS}) WHERE len(row.receives) > 0)))
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
    SELECT page_id, source, payload::JSON FROM records_tokens)
WHERE (row->>'$.chain') IS NOT NULL AND (row->>'$.id') IS NOT NULL
  AND TRY_CAST(row->>'$.decimals' AS INTEGER) IS NOT NULL
"""

# raw_amount is a JSON number that has lost digits where it is long; the hex text is exact.
_BALANCE = """{"chain": "VARCHAR", "id": "VARCHAR", "raw_amount_hex_str": "VARCHAR",
    "decimals": "VARCHAR", "amount": "VARCHAR"}"""
BALANCES = f"""
SELECT page_id, item, source, account, chain AS wallet, chain || ':' || token AS token, ts,
       amount_text, {decimal("amount_text")} AS amount, payload
FROM (
    SELECT page_id, item, source, account, row.chain AS chain, row.id AS token, as_of AS ts,
           payload,
           coalesce(units_text(row.raw_amount_hex_str, row.decimals), row.amount) AS amount_text
    FROM records_tokens)
"""

SOURCE = Source(
    name="debank",
    documentation="https://docs.cloud.debank.com/en/readme/api-pro-reference/user",
    form=Form(
        title="DeBank",
        host="https://pro-openapi.debank.com",
        password="access key",
        hints={"password": "from cloud.debank.com"},
    ),
    connect=connect,
    test_connection=test_connection,
    remaining_units=remaining_units,
    fetch=fetch,
    records={
        "history": Records((HISTORY, CHAIN_HISTORY), "history_list", _ITEM),
        "tokens": Records((TOKENS,), None, _BALANCE),
    },
    mappings={
        "onchain_tokens": TOKEN_FACTS,
        "onchain_transactions": TRANSACTIONS,
        "onchain_transfers": TRANSFERS,
        "balances": BALANCES,
    },
    rates={"/v1/": Rate(100, strict=True)},
    units=UNIT_PRICES,
    monthly=True,
    expected=expected,
    whole=(
        FullRefreshCall(HISTORY, "onchain_transactions", PAGE, probes_past_end=True),
        FullRefreshCall(TOKENS),
    ),
)
