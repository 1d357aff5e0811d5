"""A made-up exchange whose ledger states running balances, landed and loaded as a fetch of it is."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import duckdb

from extract.core.interval import Interval, iso, utc
from extract.core.records import Records
from extract.core.source import Covered, Fetched, Job, Page, Rate, Source, Unread
from extract.core.sql import decimal, time
from extract.fetch import landing
from ledgerhouse.load.loader import Loaded, load
from ledgerhouse.warehouse import schema

FIELDS = """{"id": "VARCHAR", "time": "VARCHAR", "wallet": "VARCHAR", "asset": "VARCHAR",
    "type": "VARCHAR", "status": "VARCHAR", "amount": "VARCHAR", "fee": "VARCHAR",
    "balance": "VARCHAR"}"""
HELD_FIELDS = '{"wallet": "VARCHAR", "asset": "VARCHAR", "amount": "VARCHAR"}'
LEDGER = f"""
SELECT page_id, item, source, account, row.id AS entry_id, {time("row.time")} AS ts,
    row.wallet AS wallet, row.type AS type, 'deposit' AS kind, row.status AS status,
    row.status = 'ok' AS is_settled, row.asset AS asset, row.amount AS amount_text,
    {decimal("row.amount")} AS amount, row.fee AS fee_text, {decimal("row.fee")} AS fee,
    row.asset AS fee_asset, NULL AS network, NULL AS tx_hash, NULL AS order_id, NULL AS trade_id,
    payload, row.balance AS balance_text, {decimal("row.balance")} AS balance
FROM records_entries"""
HELD = f"""
SELECT page_id, item, source, account, row.wallet AS wallet, row.asset AS token, as_of AS ts,
    row.asset AS symbol, row.amount AS amount_text, {decimal("row.amount")} AS amount, payload
FROM records_held"""


def _balances() -> str:
    """The mapping of reported balances, with NULL in the columns that this bank does not state."""
    from extract.core.datasets import DATASETS

    stated = {"source", "account", "wallet", "token", "ts", "amount_text", "amount", "payload"}
    more = ", ".join(
        f"NULL::{c.type} AS {c.name}"
        for c in DATASETS["balances"].columns
        if c.name not in {*stated, "symbol"}
    )
    return f"SELECT *, {more} FROM ({HELD})" if more else HELD


SOURCE = Source(
    name="ledgerbank",
    documentation="https://example.com",
    mappings={"exchanges_ledger": LEDGER, "balances": _balances()},
    records={
        "entries": Records(("/ledger",), "entries", FIELDS),
        "held": Records(("/held",), "held", HELD_FIELDS),
    },
    fetch=None,  # type: ignore[arg-type]
    connect=None,  # type: ignore[arg-type]
    rates={"/": Rate(10)},
)
SOURCES = {"ledgerbank": SOURCE}
START = datetime(2026, 1, 1)
END = datetime(2026, 2, 1)
MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Row:
    """An entry; `amount` is the change of the balance, of which `fee` is a part."""

    ident: str
    ts: datetime
    wallet: str
    asset: str
    amount: Decimal
    fee: Decimal
    balance: Decimal | None
    status: str = "ok"

    @property
    def chain(self) -> tuple[str, str]:
        return self.wallet, self.asset

    def record(self, changes: str = "amount") -> dict:
        """As the bank lists it; `changes` is what its `amount` is with respect to the fee."""
        stated = {
            "amount": self.amount,
            "gross": self.amount + self.fee,
            "net": self.amount - self.fee,
        }
        return {
            "id": self.ident,
            "time": iso(utc(self.ts)),
            "wallet": self.wallet,
            "asset": self.asset,
            "type": "move",
            "status": self.status,
            "amount": format(stated[changes], "f"),
            "fee": format(self.fee, "f"),
            "balance": None if self.balance is None else format(self.balance, "f"),
        }  # fmt: skip


def ledger(rng: random.Random, count: int = 120, wallets=("w1", "w2"), assets=("BTC", "EUR")):
    """Rows in the order in which they happened: 35 % share their instant with the one before, and
    ids say nothing about order."""
    ts, held, rows = START + timedelta(hours=1), {}, []
    for _ in range(count):
        if rng.random() > 0.35:
            ts += MS * rng.randint(1, 60 * 86_400_000 // count)
        key = rng.choice(wallets), rng.choice(assets)
        before = held.setdefault(key, Decimal(rng.randint(10**12, 10**13)))
        amount = Decimal(rng.randint(1, 10**12)) / 10 ** rng.choice([2, 6, 8])
        amount *= rng.choice([1, -1])
        fee = Decimal(rng.randint(1, 10**6)) / 10**6 if rng.random() < 0.4 else Decimal(0)
        held[key] = before + amount
        rows.append(Row(f"{rng.getrandbits(64):016x}", ts, *key, amount, fee, held[key]))
    return rows


class Bank:
    """A warehouse in memory (or at `path`) and a landing."""

    def __init__(self, root, path: str = ":memory:"):
        self.root, self.con, self.read = root, duckdb.connect(path), 0
        self.con.execute("SET TimeZone = 'UTC'; SET threads = 1")
        schema.create_all(self.con)

    def land(
        self,
        rows: Iterable[Row],
        account: str = "main",
        start: datetime = START,
        end: datetime = END,
        *,
        covered: Sequence[tuple[datetime, datetime]] | None = None,
        held: dict[tuple[str, str], Decimal] | None = None,
        unread: Sequence[Unread] = (),
        changes: str = "amount",
        size: int = 50,
        read_from: datetime | None = None,
    ) -> None:
        """One fetch of [start, end), read whole unless `covered` says otherwise."""
        self.read += 1
        at = utc(datetime(2026, 3, 1)) + timedelta(minutes=self.read)
        records = [row.record(changes) for row in rows if (read_from or start) <= row.ts < end]
        pages = [
            Page("/ledger", {}, json.dumps({"entries": records[n : n + size]}), at)
            for n in range(0, max(1, len(records)), size)
        ]
        spans = [(read_from or start, end)] if covered is None else covered
        statements = [
            Covered("exchanges_ledger", Interval(utc(a), utc(b)), "test") for a, b in spans
        ]
        if held is not None:
            listed = [
                {"wallet": w, "asset": a, "amount": format(amount, "f")}
                for (w, a), amount in held.items()
            ]
            now = utc(end)
            pages.append(Page("/held", {}, json.dumps({"held": listed}), at, now))
            statements.append(
                Covered("balances", Interval(now, now + timedelta(seconds=1)), "test")
            )
        job = Job(
            "ledgerbank", account, "b", Interval(utc(start), utc(end)), utc(read_from or start)
        )
        landing.write(
            self.root, job, Fetched(pages, statements, list(unread)), {"run_id": f"r{self.read}"}
        )

    def load(self) -> Loaded:
        return load(self.con, self.root, SOURCES)

    def sync(self, rows: Iterable[Row], *args, **more) -> Loaded:
        self.land(rows, *args, **more)
        return self.load()

    def breaks(self, *columns: str) -> list[tuple]:
        """Of ops.chain_breaks, in order."""
        named = ", ".join(columns or ("account", "wallet", "token", "ts"))
        return self.con.execute(f"SELECT {named} FROM ops.chain_breaks ORDER BY ALL").fetchall()

    def states(self, *columns: str) -> list[tuple]:
        """Of ops.running_balances, in order."""
        return self.con.execute(
            f"SELECT {', '.join(columns)} FROM ops.running_balances ORDER BY ALL"
        ).fetchall()


def without_balance(rows: Iterable[Row]) -> list[Row]:
    return [replace(row, balance=None) for row in rows]
