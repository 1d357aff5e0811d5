"""DeBank's API by HTTP: its endpoints, what a call costs, the session that carries the key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from extract.core.errors import ExtractError, Fatal, UnitsExhausted
from extract.core.source import Page
from extract.fetch.answer_head import failed
from extract.fetch.client import Answer, Client
from extract.fetch.http import http_call

HISTORY = "/v1/user/all_history_list"
CHAIN_HISTORY = "/v1/user/history_list"
CHAINS = "/v1/user/used_chain_list"
TOKENS = "/v1/user/all_token_list"
POSITIONS = "/v1/user/all_complex_protocol_list"
UNITS = "/v1/account/units"

# What a call costs, in units: assumed, since DeBank does not publish it.
UNIT_PRICES = {HISTORY: 20, CHAIN_HISTORY: 6, CHAINS: 2, TOKENS: 10, POSITIONS: 30, UNITS: 0}

MOST_UNITS = 10**18  # BIGINT holds it; 1e999999999 would take the machine to write out


def account_id(account: str) -> str:
    """The address without the capitals of its checksum; ValueError for what is no address."""
    if re.fullmatch(r"0x[0-9a-fA-F]{40}", account):
        return account.lower()
    what = "a name, not an address" if "." in account else "no address"
    raise ValueError(f"{account} is {what}: write that of the wallet, 0x and 40 hex digits")


def connect(*, host: str, password: str, extra: Mapping[str, Any] | None = None, **_: Any):
    """A session (extract.fetch.session) that carries the access key, and knows the host.

    Raises Fatal for an access key that no header can carry, or a host that no key should be sent to.
    """
    from extract.fetch.session import open_session

    password = password.strip()
    if not password.isascii() or not password.isprintable():
        raise Fatal("the access key holds a line end or a letter that no key has: copy it again")
    session: Any = open_session(host, extra)
    session.headers["AccessKey"] = password
    session.host = host.rstrip("/")
    return session


def remaining_units(client: Client, session: Any) -> int:
    """The units left, as the vendor counts them: one call, at no units."""
    return int(get(client, session, UNITS, {}, _no_balance, []).data["balance"])


def test_connection(client: Client, session: Any) -> str:
    """The Test button: the units left, by one call that costs none."""
    left = get(client, session, UNITS, {}, _no_balance, []).data["balance"]
    if left <= 0:
        raise UnitsExhausted("no units are left: buy more at cloud.debank.com")
    return f"has {left:,.0f} units left"


def _no_balance(data: Any) -> str | None:
    balance = data.get("balance") if isinstance(data, dict) else None
    is_number = isinstance(balance, (int, Decimal)) and abs(balance) < MOST_UNITS
    return None if is_number else "no balance"


def get(
    client: Client,
    session: Any,
    endpoint: str,
    params: dict[str, Any],
    expect: Callable[[Any], str | None],
    pages: list[Page],
    snapshot: bool = False,
) -> Answer:
    """One paid call, whose page is added to `pages`. HTTP 403 means the units are used up: no retry helps."""

    def send() -> Answer:
        try:
            answer = http_call(
                session,
                session.host + endpoint,
                params,
                lambda data: _refused(data) or expect(data),
            )
        except ExtractError as error:
            raise _explained(error) from None
        units_left = answer.data["balance"] if endpoint == UNITS else None
        rows = answer.data if isinstance(answer.data, list) else answer.data.get("history_list")
        return replace(answer, rows=None if rows is None else len(rows), units_left=units_left)

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
