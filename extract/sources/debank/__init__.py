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

A second in which one chain has more transactions than a page cannot be paged at all: it is named
as unread, and the walk goes on below it. The token in which a chain's gas is paid is stated by the
list of the wallet's chains, which is asked for where a chain is new.
"""

from __future__ import annotations

from extract.core.records import Records
from extract.core.source import Form, FullRefreshCall, Rate, Source
from extract.sources.debank import mapping
from extract.sources.debank.calls import (
    CHAIN_HISTORY,
    CHAINS,
    HISTORY,
    POSITIONS,
    TOKENS,
    UNIT_PRICES,
    UNITS,
    account_id,
    connect,
    remaining_units,
    test_connection,
)
from extract.sources.debank.history import PAGE, expected, fetch

__all__ = [
    "CHAINS",
    "CHAIN_HISTORY",
    "HISTORY",
    "PAGE",
    "POSITIONS",
    "SOURCE",
    "TOKENS",
    "UNITS",
    "UNIT_PRICES",
    "account_id",
    "connect",
    "expected",
    "fetch",
    "remaining_units",
    "test_connection",
]

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
    account_id=account_id,
    records={
        "history": Records((HISTORY, CHAIN_HISTORY), "history_list", mapping.HISTORY_FIELDS),
        "tokens": Records((TOKENS,), None, mapping.TOKEN_FIELDS),
        "chains": Records((CHAINS,), None, mapping.CHAIN_FIELDS),
        "protocols": Records((POSITIONS,), None, mapping.PROTOCOL_FIELDS),
    },
    mappings={
        "onchain_chains": mapping.CHAINS,
        "onchain_tokens": mapping.TOKENS,
        "onchain_transactions": mapping.TRANSACTIONS,
        "onchain_transfers": mapping.TRANSFERS,
        "balances": mapping.BALANCES,
        "positions": mapping.POSITIONS,
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
