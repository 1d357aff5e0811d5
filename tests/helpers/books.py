"""A person's books, kept in-process: plan, fetch and load as a run does, against a sandbox."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import duckdb

from extract.core.errors import FetchStopped
from extract.core.interval import Interval, utc
from extract.core.source import Job
from extract.fetch import landing
from extract.fetch.client import Budget, Client
from extract.fetch.rate_limits import Pacing
from extract.sources import all_sources, get
from ledgerhouse.config import Account
from ledgerhouse.load.loader import load
from ledgerhouse.plan import coverage
from ledgerhouse.warehouse import schema
from sandbox import accounts
from sandbox.vendors import all_vendors, in_demo

ROOT = Path(__file__).parents[2]
# The sandbox's, whatever the user's own accounts.toml lists.
VENDORS = all_vendors()
ACCOUNTS = [Account(**entry) for entry in accounts.entries(in_demo())]
KEPT = sorted({account.source for account in ACCOUNTS})  # the vendors of these
ACCOUNTS_TOML = accounts.accounts_toml(in_demo())
EVENTS = ("exchanges_ledger", "exchanges_trades", "onchain_transactions", "onchain_transfers")


def of(source: str) -> list[Account]:
    """The sandbox's accounts of a source, in the order in which they are listed."""
    return [Account(**entry) for entry in accounts.entries([VENDORS[source]])]


def credentials(source: str, url: str = "") -> dict:
    """host, login, password and extra that open the sandbox's vendor, below `url`."""
    fields = VENDORS[source].connection(f"{url}/{source}")
    return {"login": "", "extra": {}, **fields}


class Opened(dict):
    """Source → its API, opened when it is first asked for."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def __missing__(self, source: str):
        self[source] = api = get(source).connect(**credentials(source, self.url))
        return api


class Hurried:
    """A clock whose sleeps cost no time: they are counted, and it goes on by them."""

    def __init__(self):
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __call__(self) -> float:
        return time.monotonic() + sum(self.slept)


class Books:
    """A warehouse in memory and a landing, fed from the sandbox served at `url`.

    `tries` is how often a call is asked; `clock`, a Hurried, makes waiting cost nothing (the
    sandbox then meets calls faster than its limits allow: lift them).
    """

    def __init__(
        self, url, root: Path, path: str = ":memory:", tries: int = 3, clock: Hurried | None = None
    ):
        self.tries, self.run_id = tries, "test"
        self.waits = {"sleep": clock.sleep, "timer": clock} if clock else {}
        self.con = duckdb.connect(path)
        # One thread: tests run beside each other, and their tables are small.
        self.con.execute("SET TimeZone = 'UTC'; SET threads = 1")
        schema.create_all(self.con)
        self.sources, self.root, self.url = all_sources(), root, url
        self.calls: list[dict] = []
        self.budgets: dict[str, Budget] = {}
        self.pacing = {name: Pacing(source.rates) for name, source in self.sources.items()}
        self.apis = Opened(url)

    def plan(self, start, end, accounts: list[Account] = ACCOUNTS, **kwargs) -> list[Job]:
        return coverage.jobs(
            self.con, self.sources, accounts, Interval(start, end), **({"snapshot": False} | kwargs)
        )

    def fetch(self, job: Job, tries: int | None = None) -> Path:
        source = self.sources[job.source]
        client = Client(
            job.source,
            job.account,
            rates=self.pacing[job.source],
            units=source.units,
            record=self.calls.append,
            tries=tries or self.tries,
            **self.waits,
            budget=self.budgets.get(job.source),
            secrets=(credentials(job.source)["password"],),
        )
        try:
            fetched = source.fetch(client, self.apis[job.source], job)
        except FetchStopped as stop:  # as FetchOperator does
            if stop.partial and stop.partial.pages:
                landing.write(self.root, job, stop.partial, {"run_id": self.run_id})
            raise
        return landing.write(self.root, job, fetched, {"run_id": self.run_id})

    def sync(self, start, end, **kwargs):
        """One run over [start, end): returns what the load did."""
        for job in self.plan(start, end, **kwargs):
            self.fetch(job)
        return load(self.con, self.root, self.sources)

    def content(self, *tables: str) -> dict[str, list[tuple]]:
        """Rows of raw tables without what depends on when they were read."""
        return {
            t: sorted(
                self.con.execute(
                    f"SELECT * EXCLUDE (first_seen_at, changed_at, batch_id) FROM raw.{t}"
                ).fetchall(),
                key=repr,
            )
            for t in tables or EVENTS
        }

    def column(self, sql: str) -> list:
        return [row[0] for row in self.con.execute(sql).fetchall()]


def moment(text: str):
    return utc(text).replace(tzinfo=None)


def assert_truth(
    books: Books, world, now, start="2000-01-01", vendors=frozenset(a.source for a in ACCOUNTS)
) -> None:
    """The raw tables hold exactly the rows of these vendors visible at `now` with time >= start."""

    def wanted(rows, before):
        return [
            r for r in rows if start <= r["time"] and r["time"] < before and r["vendor"] in vendors
        ]

    now = str(now)
    con = books.con
    ledger = con.execute(
        "SELECT entry_id, ts, wallet, type, status, is_settled, asset, "
        "amount_text, amount, order_id, trade_id, tx_hash "
        "FROM raw.exchanges_ledger WHERE vanished_at IS NULL"
    ).fetchall()
    assert sorted(ledger, key=repr) == sorted(
        (
            (
                r["entry_id"],
                moment(r["time"]),
                r["wallet"],
                r["type"],
                r["status"],
                r["is_settled"],
                r["token"],
                r["wire_amount"],
                None if r["amount"] is None else Decimal(r["amount"]).quantize(Decimal("1e-18")),
                r["order_id"],
                r["trade_id"],
                r["tx_hash"],
            )
            for r in wanted(world.ledger(now), now)
        ),
        key=repr,
    )

    fills = con.execute(
        "SELECT trade_id, ts, symbol, side, order_id, price, fee, "
        "coalesce(amount_text, cost_text) FROM raw.exchanges_trades WHERE vanished_at IS NULL"
    ).fetchall()
    assert sorted(fills, key=repr) == sorted(
        (
            (
                r["trade_id"],
                moment(r["time"]),
                r["symbol"],
                r["side"],
                r["order_id"],
                Decimal(r["price"]).quantize(Decimal("1e-18")),
                Decimal(r["fee"]).quantize(Decimal("1e-18")),
                r["wire_amount"],
            )
            for r in wanted(world.fills(now), now)
        ),
        key=repr,
    )

    rows = con.execute(
        "SELECT account, chain, tx_id, ts, category, status, is_scam, pays_gas, "
        "CASE WHEN gas_text IS NOT NULL THEN gas END FROM "
        "raw.onchain_transactions WHERE vanished_at IS NULL"
    ).fetchall()
    assert sorted(rows, key=repr) == sorted(
        (
            (
                r["wallet"],
                r["chain"],
                r["tx_id"],
                moment(r["time"]),
                r["category"],
                r["status"],
                r["is_scam"],
                r["pays_gas"],
                Decimal(r["gas"]).quantize(Decimal("1e-18")) if r["shows_gas"] else None,
            )
            for r in wanted(world.transactions(now), now)
        ),
        key=repr,
    )

    legs = con.execute(
        "SELECT account, chain, tx_id, direction, ts, token, counterparty, "
        "amount_text, is_scam, is_settled FROM raw.onchain_transfers WHERE vanished_at IS NULL"
    ).fetchall()
    assert sorted(legs, key=repr) == sorted(
        (
            (
                r["wallet"],
                r["chain"],
                r["tx_id"],
                r["direction"],
                moment(r["time"]),
                r["token"],
                r["counterparty"],
                r["wire_amount"],
                r["is_scam"],
                r["is_settled"],
            )
            for r in wanted(world.transfers(now), now)
        ),
        key=repr,
    )
    for table, key in (
        ("exchanges_ledger", "entry_id"),
        ("exchanges_trades", "symbol, trade_id"),
        ("onchain_transactions", "account, chain, tx_id"),
        ("onchain_transfers", "account, chain, tx_id, direction, leg"),
    ):
        assert (
            con.execute(
                f"SELECT {key} FROM raw.{table} GROUP BY ALL HAVING count(*) > 1"
            ).fetchall()
            == []
        ), f"{table}: every id once"
