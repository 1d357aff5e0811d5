"""What the file of an exchange states: its calls, how they page, and what their fields mean.

An expression names a field of a record ("currency", "network.hash"), or is SQL over `row` or
`params` where it has one of these words in it ("lower(row.currency)"); either gives the API's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from extract.core.source import Rate
from extract.ledger.paging import OnePage, Paging

Unit = Literal["s", "ms", "us", "ns", "text"]  # "text": ISO, or as extract.core.records.TIME has it
Shape = Literal["list", "map", "arrays"]


@dataclass(frozen=True, eq=False)
class Call:
    """One endpoint: the name of ccxt's implicit method, and the path it is paced and logged by.

    `rows` is where the records lie in the answer, keys joined by dots ("": the answer is the list);
    `shape`: see extract.core.records.Records; of "arrays", `columns` names the places in order.
    `params` go with every request. `inner`: the field of a listed row that holds the records.
    """

    call: str
    endpoint: str
    rows: str = ""
    shape: Shape = "list"
    columns: tuple[str, ...] = ()
    params: Mapping[str, object] = field(default_factory=dict)
    paging: Paging = OnePage()
    inner: str = ""


@dataclass(frozen=True, eq=False)
class Each(Call):
    """A listing that is asked for first: the listed call is made once for each of its records.

    `param` takes the record's `value`, in the query or in the path; `keep` names further fields
    that are kept with the pages ({name: field}), and read as params->>'$.name'.
    """

    param: str = ""
    value: str = "id"
    keep: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing(Call):
    """A list of records by time.

    `time` is the field of a record's time and its unit. `since` and `until` are the parameters that
    bound the list and their unit; without both, the list is read to its end. `window`: the longest
    time that one request may ask for; `depth`: what is older is not listed. `newest_first` is the
    order of the rows. Whether the bounds belong to what they bound does not matter: a unit more is
    asked for on either side. `variants`: sets of further parameters, each of which makes a list of
    its own; they are read as params->>'$.name'. `known` names the fields of a record that are read for nothing; any
    other that no fact names is reported, since it may be a deduction that nobody has heard of.
    """

    time: tuple[str, Unit]
    since: tuple[str, Unit] | None = None
    until: tuple[str, Unit] | None = None
    window: timedelta | None = None
    depth: timedelta | None = None
    newest_first: bool = True
    each: Each | None = None
    variants: tuple[Mapping[str, str], ...] = ()
    known: str = ""


@dataclass(frozen=True)
class Direction:
    """The field that says which way an unsigned amount goes, and its values for out."""

    name: str
    out: tuple[str, ...]


@dataclass(frozen=True)
class Fee:
    """The fee of a ledger entry.

    `apart`: the amount does not hold it, so the change of the balance is amount - fee (kraken);
    otherwise the amount is the change. `negative`: a fee that was paid is listed below zero.
    `asset`: the asset of the fee, the entry's own where it is empty.
    """

    name: str
    apart: bool = False
    negative: bool = False
    asset: str = ""


@dataclass(frozen=True)
class Leg:
    """One of several entries that a record makes: a trade pays one asset, brings another, costs a fee.

    `name` is added to the record's id. `out` is a SQL condition over `row` under which the amount,
    which has no sign, goes out. `wallet` and `kind`: the ledger's own where they are empty. A
    record without the asset or with an amount of 0 has no such leg.
    """

    name: str
    asset: str
    amount: str
    out: str = "false"
    wallet: str = ""
    kind: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ledger(Listing):
    """A list of all that moved the balances of a wallet.

    `wallet` is an expression, or a name in quotes ("'spot'"). `id` must be one entry's within the
    account. `balance`: what the wallet holds of the asset after the entry; the chain law is kept
    over it. `kinds` maps `kind_by` (the type, where empty) to a kind of raw.exchanges_ledger,
    "by sign" for deposit or withdrawal; any other is `unknown`, and counts all the same. `settled`:
    the statuses of final entries, of every one where it is empty. `legs`:
    where a record is several entries, instead of `asset`, `amount`, `direction` and `fee`.
    """

    wallet: str = "'spot'"
    id: str = "id"
    asset: str = "currency"
    amount: str = "amount"
    direction: Direction | None = None
    fee: Fee | None = None
    balance: str = ""
    type: str = "type"
    kind_by: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)
    status: str = ""
    settled: str | tuple[str, ...] = ()
    network: str = ""
    tx_hash: str = ""
    order: str = ""
    trade: str = ""
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Balances(Call):
    """A list of what is held: `amount` names one field, or several that add up.

    `wallet` and `asset` give the same names as in the ledgers; `there` is a SQL condition over `row`
    of what is a balance.
    """

    wallet: str = "'spot'"
    asset: str = "currency"
    amount: str | tuple[str, ...] = "balance"
    there: str = "true"
    each: Each | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Fills(Listing):
    """A list of fills. They enrich the ledger (price, side, fee) and move no balance.

    `base`, `quote` and `side` ("buy" or "sell") are expressions; `fee_asset` too.
    """

    id: str = "id"
    base: str = ""
    quote: str = ""
    side: str = "side"
    price: str = "price"
    amount: str = "amount"
    cost: str = ""
    fee: str = "fee"
    fee_negative: bool = False
    fee_asset: str = ""
    order: str = ""
    liquidity: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """An exchange: what is called, how often, and what its API can and cannot tell.

    `ccxt` is the class that signs; `options` go into it. `ok`: the field of an answer that says
    whether it is an error although its status is 200, and its value for none; `message`: the field
    with the words. `aliases` are other codes of an asset, {other: its code in the books}. `key_errors` are the exchange's words for a key that is refused, where ccxt does
    not know them, `passing_errors` those for trouble that passes. `one_caller`: the key's nonce must rise, so calls are made one after another.
    `probe` is the call of the Test button, the first of `balances` where it is None; `permission`
    says in words what the key must be allowed. `depth` in words: how far back the ledgers go.
    Without `reconcilable`, `why` says what the API does not list.
    """

    name: str
    title: str
    documentation: str
    host: str
    ccxt: str
    ledgers: tuple[Ledger, ...]
    balances: tuple[Balances, ...]
    rates: Mapping[str, Rate]
    fills: tuple[Fills, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    secret: str = "private key"
    passphrase: str = ""
    ok: tuple[str, str] | None = None
    message: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    key_errors: tuple[str, ...] = ()
    passing_errors: tuple[str, ...] = ()
    one_caller: bool = False
    probe: Call | None = None
    permission: str = "read only"
    depth: str = "the whole life of the account"
    reconcilable: bool = True
    why: str = ""


def composite(*names: str, prefix: str = "", with_balance: bool = False) -> str:
    """The id of records that have none: what they say, and which of equals on the page it is.

    `with_balance`: one of the names is the balance after the record, so that no two are equal, and
    one that is listed twice is one.
    """
    said = ", ".join(f"row.{name}" for name in names)
    first = f"'{prefix}', " if prefix else ""
    if with_balance:
        return f"concat_ws('_', {first}{said})"
    return (
        f"concat_ws('_', {first}{said}, "
        f"row_number() OVER (PARTITION BY page_id, {said} ORDER BY item))"
    )
